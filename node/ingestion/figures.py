"""What a run measures of its columns: counts that add up window by window, and no values.

Completeness: cells that are not empty. Validity: cells that broke no rule of an error. Uniqueness:
distinct values, by a KMV sketch (Bar-Yossef et al. 2002) of keyed hashes with k = 256, so within
about 6 %. Consistency: units in which two values contradict each other. Timeliness: days from the
day of care to the day of the run.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from node.ingestion.model import Trouble

__all__ = ["CONTRADICTIONS", "ColumnFigures", "Figures"]

_SKETCH: Final = 256
_SPACE: Final = float(1 << 64)
_RULES_MAX: Final = 64
_DAYS: Final = (1, 7, 30, 90, 365)
"""Bounds of the classes of delay, in days; the last class is open."""

CONTRADICTIONS: Final = frozenset(
    {
        "IDENTITY_BIRTH_DATE_DIFFERS",
        "IDENTITY_SEX_DIFFERS",
        "DATES_REVERSED",
        "DATE_BEFORE_BIRTH",
        "DATE_AFTER_DEATH",
        "KEY_CONFLICT",
        "PERSON_AMBIGUOUS",
        "PERSON_DIFFERS",
        "SEX_UNUSUAL",
    }
)
"""Rules by which two values contradict each other."""


@dataclass(slots=True)
class ColumnFigures:
    """Of one column: cells, empty ones, those that broke an error's rule, a sketch of the rest."""

    cells: int = 0
    empty: int = 0
    invalid: int = 0
    sketch: list[int] = field(default_factory=list)
    """The smallest hashes that were seen, as negatives: a heap whose first is the largest."""

    def add(self, cells: Sequence[str], key: bytes) -> None:
        """Count a window's cells of this column."""
        self.cells += len(cells)
        distinct = set(cells)
        if "" in distinct:
            self.empty += cells.count("")
            distinct.discard("")
        held, full = set(self.sketch), len(self.sketch) >= _SKETCH
        for value in distinct:
            mark = -int.from_bytes(
                hashlib.blake2b(value.encode(errors="replace"), digest_size=8, key=key).digest(),
                "big",
            )
            if mark in held or (full and mark <= self.sketch[0]):
                continue
            held.add(mark)
            if full:
                held.discard(heapq.heappushpop(self.sketch, mark))
            else:
                heapq.heappush(self.sketch, mark)
                full = len(self.sketch) >= _SKETCH

    @property
    def distinct(self) -> int:
        """How many different values, about; exact below 256."""
        if len(self.sketch) < _SKETCH:
            return len(self.sketch)
        return round((_SKETCH - 1) / (-self.sketch[0] / _SPACE))


@dataclass
class Figures:
    """Of one run; `to_json` and `from_json` carry them from window to window."""

    columns: dict[str, ColumnFigures] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)
    inconsistent: int = 0
    delays: list[int] = field(default_factory=lambda: [0] * (len(_DAYS) + 1))
    delay_sum: int = 0
    tables: dict[str, int] = field(default_factory=dict)

    def add_cells(self, name: str, cells: Sequence[str], key: bytes) -> None:
        """Count a window's cells of one column."""
        self.columns.setdefault(name, ColumnFigures()).add(cells, key)

    def add_troubles(self, troubles: Sequence[Trouble], errors: frozenset[str]) -> None:
        """Count what one unit broke."""
        rules = dict.fromkeys(each.rule for each in troubles)
        for rule in rules:
            if rule in self.rules or len(self.rules) < _RULES_MAX:
                self.rules[rule] = self.rules.get(rule, 0) + 1
        for name in {each.field for each in troubles if each.rule in errors}:
            if name in self.columns:
                self.columns[name].invalid += 1
        self.inconsistent += not CONTRADICTIONS.isdisjoint(rules)

    def add_days(self, days: Mapping[str, int], today: date) -> None:
        """Count days of care (ISO → how many records) by how long ago they are."""
        for day, count in days.items():
            age = max(0, (today - date.fromisoformat(day)).days)
            self.delay_sum += age * count
            place = next((i for i, bound in enumerate(_DAYS) if age <= bound), len(_DAYS))
            self.delays[place] += count

    def to_json(self) -> dict[str, Any]:
        """As JSON would have it."""
        return {
            "columns": {
                name: [each.cells, each.empty, each.invalid, sorted(each.sketch)]
                for name, each in self.columns.items()
            },
            "rules": self.rules,
            "inconsistent": self.inconsistent,
            "delays": self.delays,
            "delay_sum": self.delay_sum,
            "tables": self.tables,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Figures:
        """The inverse; of an empty document, figures of nothing."""
        made = cls(
            rules=dict(document.get("rules", {})),
            inconsistent=int(document.get("inconsistent", 0)),
            delay_sum=int(document.get("delay_sum", 0)),
            tables=dict(document.get("tables", {})),
        )
        made.delays = list(document.get("delays", made.delays))
        for name, (cells, empty, invalid, sketch) in document.get("columns", {}).items():
            made.columns[name] = ColumnFigures(cells, empty, invalid, list(sketch))
        return made
