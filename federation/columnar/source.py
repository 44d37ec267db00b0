"""What the columnar replica is fed from: the node's change log, seen as current rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["ColumnarChanges", "ReplicaSource"]


@dataclass(frozen=True, slots=True)
class ColumnarChanges:
    """Rows touched by the log in (after, up_to], as they are now.

    `rows` holds tuples in the order of `schema.COLUMN_NAMES[dataset]`, values None, str, int,
    float, bool or date (also as ISO text). `deleted` holds row ids. A row may come again in a later
    call: the newest wins. A row that is in both is deleted.
    """

    up_to: int
    rows: Mapping[str, Sequence[tuple[object, ...]]] = field(default_factory=dict)
    deleted: Mapping[str, Sequence[str]] = field(default_factory=dict)


class ReplicaSource(Protocol):
    """Supplied by the node's storage."""

    def columnar_changes(self, after: int, limit: int) -> ColumnarChanges:
        """What changed after sequence `after`, about `limit` rows, never half a log entry.

        `up_to` equals `after` when nothing has. When a resident's home, sex or birth year changes,
        all rows of the resident are given again.
        """
        ...
