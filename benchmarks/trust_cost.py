"""`trust_cost`: point reads and bulk apply with all of trust, beside the same with neutral parts.

Reads: `ResidentService.Get` at a village's node over mutual TLS, warm, 16 under way, by a doctor
who has signed in and whose hospital cares for the residents. Beside: a second node process with the
same settings whose guard takes every caller for one and the same, which checks no consent, relation
or grant, audits nothing, seals nothing and limits nobody. Apply: batches of a village at its
township, beside the same into a second store without sealing and keyed index.

The headline is the read on SQLite, a village's default. The goal is met if neither database misses
it: a cost is what a read, or a row, takes longer than without.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks.result import Result, Scale
from benchmarks.trust_apply import ApplyFigures, measure_apply
from benchmarks.trust_read import ReadFigures, measure_reads

__all__ = ["run"]

_READ_GOAL: Final = 0.25
_APPLY_GOAL: Final = 0.20
_DATABASES: Final = ("sqlite", "mysql")


def run(scale: Scale) -> Result:
    """Measure reads, then apply, each on SQLite and on MariaDB."""
    reads = {database: measure_reads(scale, database) for database in _DATABASES}
    applies = {database: measure_apply(scale, database) for database in _DATABASES}
    read_cost = max(1 / each["session"].ratio - 1 for each in reads.values())
    apply_cost = max(1 / each.ratio - 1 for each in applies.values())
    detail: dict[str, Any] = {"read_cost": read_cost, "apply_cost": apply_cost}
    for database in _DATABASES:
        for name, read in reads[database].items():
            detail |= _about_read(f"{database}_read_{name}", read)
        detail |= _about_apply(f"{database}_apply", applies[database])
    headline = reads["sqlite"]["session"]
    ours, beside = headline.reads_s
    return Result(
        name="trust_cost",
        figure=ours,
        unit="reads/s",
        beside="the same read without",
        beside_figure=beside,
        ratio=headline.ratio,
        goal=f"read <= +{_READ_GOAL:.0%}, apply <= +{_APPLY_GOAL:.0%}",
        met=read_cost <= _READ_GOAL and apply_cost <= _APPLY_GOAL,
        detail=detail,
    )


def _about_read(name: str, read: ReadFigures) -> dict[str, float]:
    return {
        f"{name}_s": read.reads_s[0],
        f"{name}_without_s": read.reads_s[1],
        f"{name}_cost": 1 / read.ratio - 1,
        f"{name}_cpu_ms": read.cpu_ms[0],
        f"{name}_without_cpu_ms": read.cpu_ms[1],
        f"{name}_cpu_cost": read.cpu_cost,
    }


def _about_apply(name: str, apply: ApplyFigures) -> dict[str, float]:
    return {
        f"{name}_rows_s": apply.rows_s[0],
        f"{name}_without_rows_s": apply.rows_s[1],
        f"{name}_cost": 1 / apply.ratio - 1,
        f"{name}_cpu_ms_1000_rows": apply.cpu_ms[0],
        f"{name}_without_cpu_ms_1000_rows": apply.cpu_ms[1],
        f"{name}_cpu_cost": apply.cpu_cost,
        **{
            f"{name}_{lane}_cpu_cost": ours / beside - 1
            for lane, (ours, beside) in apply.lanes.items()
        },
    }
