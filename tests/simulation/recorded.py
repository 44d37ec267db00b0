"""Schedules that once failed, kept for ever: CI replays each of them, and all must pass.

A change of the simulator shifts what a seed means; so each of these faults also stands in bugs.py,
put back on purpose, or in a test of its own. docs/robustness-record.md tells what each was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tests.simulation.variants import REAL, Variant

__all__ = ["RECORDED"]

_RESTORES: Final = replace(REAL, faults=("restore",), fault_count_max=30, large_every=0)

RECORDED: Final[tuple[tuple[int, Variant], ...]] = (
    *(
        (seed, REAL)
        for seed in (
            0,
            7,
            8,
            12,
            17,
            21,
            24,
            27,
            29,
            35,
            42,
            47,
            103,
            115,
            133,
            223,
            721,
            4382,
            4924,
            20026,
        )
    ),
    *((seed, _RESTORES) for seed in (4, 5, 11, 14, 16, 19, 22, 29, 37, 47, 48, 71, 73, 78)),
)
"""Seed, and how the schedule was drawn."""
