"""Executors: ways to run one node's part of a question, with the same results.

`direct` runs in the node's own process, `ray` (federation/ray_runner) in Ray's workers. Both take a
stage and return what was counted and what was not. They promise that a site which fails is a line
of the result, that nothing is counted twice and that cancelled work stops. Neither dials another
node: children are asked through what the node supplies.
"""

from __future__ import annotations

from federation.executors.direct import DirectExecutor
from federation.executors.stage import Ask, Executor, SiteAsker, Stage, StageResult

__all__ = ["Ask", "DirectExecutor", "Executor", "SiteAsker", "Stage", "StageResult"]
