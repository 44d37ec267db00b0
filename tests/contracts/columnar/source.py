"""A change log by hand: current rows and what touched them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from federation.columnar import COLUMN_NAMES, ColumnarChanges

VILLAGE, OTHER_VILLAGE = "141002001201", "141002001202"


def row_id(number: int) -> str:
    """A row id whose order is that of the numbers."""
    return f"00000000-0000-7000-8000-{number:012d}"


def observation(number: int, **columns: object) -> tuple[object, ...]:
    """An observation with plausible columns, some of them given."""
    values: dict[str, object] = {
        "row_id": row_id(number),
        "resident_id": row_id(1_000_000 + number % 7),
        "home": VILLAGE,
        "author": VILLAGE,
        "sex": "female",
        "birth_year": 1950,
        "encounter_id": None,
        "code": "8480-6",
        "value": float(number),
        "unit": "mm[Hg]",
        "observed_on": date(2026, 1, 1 + number % 28),
    }
    values.update(columns)
    return tuple(values[name] for name in COLUMN_NAMES["observations"])


def resident(number: int, **columns: object) -> tuple[object, ...]:
    """A resident with plausible columns, some of them given."""
    values: dict[str, object] = {
        "row_id": row_id(1_000_000 + number),
        "resident_id": row_id(1_000_000 + number),
        "home": VILLAGE,
        "author": VILLAGE,
        "sex": "male",
        "birth_year": 1940,
        "deceased_on": None,
    }
    values.update(columns)
    return tuple(values[name] for name in COLUMN_NAMES["residents"])


def consent(number: int, resident_number: int, **columns: object) -> tuple[object, ...]:
    """A consent that forbids statistics to everyone, some of its columns given."""
    values: dict[str, object] = {
        "row_id": row_id(2_000_000 + number),
        "resident_id": row_id(1_000_000 + resident_number),
        "home": VILLAGE,
        "author": VILLAGE,
        "purpose": "statistics",
        "recipient": "everyone",
        "from_on": "2026-01-01",
        "until_on": None,
    }
    values.update(columns)
    return tuple(values[name] for name in COLUMN_NAMES["consents"])


@dataclass
class LogByHand:
    """Implements ReplicaSource: entry n holds the rows put by the n-th call."""

    entries: list[tuple[str, list[tuple[object, ...]], list[str]]] = field(default_factory=list)
    asked_after: list[int] = field(default_factory=list)

    def put(self, dataset: str, *rows: tuple[object, ...]) -> None:
        self.entries.append((dataset, list(rows), []))

    def delete(self, dataset: str, *row_ids: str) -> None:
        self.entries.append((dataset, [], list(row_ids)))

    def columnar_changes(self, after: int, limit: int) -> ColumnarChanges:
        self.asked_after.append(after)
        up_to = min(len(self.entries), after + limit)
        rows: dict[str, list[tuple[object, ...]]] = {}
        deleted: dict[str, list[str]] = {}
        for dataset, put, gone in self.entries[after:up_to]:
            rows.setdefault(dataset, []).extend(put)
            deleted.setdefault(dataset, []).extend(gone)
        return ColumnarChanges(up_to, rows, deleted)
