"""`matrix`: seconds for the authorization matrix, beside a run of the test runner without it.

The tests of tests/unit/security/test_permissions.py in a process of their own: every method, kind
of caller, role, relation and level against the file that was reviewed by hand, more than 20,000
cells. Needs a checkout with its tests.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.places import ended
from benchmarks.result import Result, Scale, alternate, ratio_of

__all__ = ["run"]

_GOAL_S: Final = 60.0
_ROOT: Final = Path(__file__).resolve().parents[1]
_TESTS: Final = "tests/unit/security/test_permissions.py"


def run(scale: Scale) -> Result:
    """The whole file, and the same without running a test of it."""
    matrix, collecting = alternate(scale.pick(5, 2), _pytest, lambda: _pytest("--collect-only"))
    seconds, beside, ratio = ratio_of(matrix, collecting)
    return Result(
        name="matrix",
        figure=seconds,
        unit="s",
        beside="collecting its tests",
        beside_figure=beside,
        ratio=ratio,
        goal=f"<= {_GOAL_S:.0f} s",
        met=max(matrix) <= _GOAL_S,
        detail={"longest_s": max(matrix)},
    )


def _pytest(*words: str) -> float:
    """Seconds of a run, from the process's start to its end."""
    began = time.perf_counter()
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", _TESTS, *words)
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise ended(_TESTS, done.returncode)
    return time.perf_counter() - began
