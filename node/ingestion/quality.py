"""The quality of what a run read: its figures as shares, by column. No values, only counts."""

from __future__ import annotations

import json
from typing import Any, Final

from node.clock import format_ms
from node.ingestion.figures import Figures
from node.ingestion.rules import RULES
from node.ingestion.runs import Run

__all__ = ["quality_of", "quality_text"]

_DELAY_CLASSES: Final = ("1 day", "1 week", "30 days", "90 days", "1 year", "more")


def quality_of(run: Run) -> dict[str, Any]:
    """The document of `fenhe intake report --json`, of one run.

    Shares are of 1; None where there is nothing to share. `timeliness` counts records by how long
    before the run their day of care was.
    """
    counts, figures = run.counts, run.figures
    return {
        "run_id": run.run_id,
        "source": run.source,
        "mapping": run.mapping_name,
        "state": run.state.value,
        "at": format_ms(run.finished_at or run.started_at or run.created_at),
        "read": counts.read,
        "accepted": counts.accepted,
        "quarantined": counts.quarantined,
        "unchanged": counts.unchanged,
        "warnings": counts.warnings,
        "completeness": _completeness(figures),
        "validity": _share(counts.accepted, counts.read),
        "uniqueness": _share(counts.accepted - counts.unchanged, counts.accepted),
        "consistency": _share(counts.read - figures.inconsistent, counts.read),
        "timeliness": _timeliness(figures),
        "columns": [_column(name, each) for name, each in figures.columns.items()],
        "rules": [
            {"rule": rule, "units": count, "severity": RULES[rule].severity.value}
            for rule, count in sorted(figures.rules.items(), key=lambda each: -each[1])
            if rule in RULES
        ],
        "tables": figures.tables,
    }


def quality_text(run: Run) -> str:
    """The same as JSON."""
    return json.dumps(quality_of(run), ensure_ascii=False)


def _column(name: str, each: Any) -> dict[str, Any]:
    filled = each.cells - each.empty
    return {
        "column": name,
        "cells": each.cells,
        "completeness": _share(filled, each.cells),
        "validity": _share(max(0, filled - each.invalid), filled),
        "distinct": each.distinct,
        "uniqueness": _share(min(each.distinct, filled), filled),
    }


def _completeness(figures: Figures) -> float | None:
    cells = sum(each.cells for each in figures.columns.values())
    empty = sum(each.empty for each in figures.columns.values())
    return _share(cells - empty, cells)


def _timeliness(figures: Figures) -> dict[str, Any]:
    total = sum(figures.delays)
    return {
        "records": total,
        "mean_days": round(figures.delay_sum / total, 1) if total else None,
        "classes": dict(zip(_DELAY_CLASSES, figures.delays, strict=True)),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
