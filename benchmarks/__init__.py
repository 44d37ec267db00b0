"""Benchmarks: each figure beside what it is compared with, measured in the same run.

Owns the harness and one module a benchmark. A figure alone says little on a machine that others
share, so the two sides alternate and the ratio of their medians is what a goal is about. Nothing
here is installed, and nothing in the rooms depends on it.
"""

from __future__ import annotations

from benchmarks.result import Benchmark, Result, Scale

__all__ = ["Benchmark", "Result", "Scale"]
