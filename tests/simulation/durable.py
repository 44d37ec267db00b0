"""What a simulated node has on disk. Only whole transactions change it; a backup is a copy."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from replication.core.mailbox import Parcel
from replication.core.model import Cursor, Form, Lane, LogEntry, RowChange, Version
from replication.core.residence import Grant

__all__ = ["OWN", "Durable", "EntryKey", "OutLetter", "RowKey", "entry_key", "holds", "lane_of"]

OWN: Final = -1
"""Origin sequence of an entry of this node's own that is not numbered yet."""

RowKey = tuple[str, str]
EntryKey = tuple[str, int, int, Lane, str, Form]


def entry_key(entry: LogEntry) -> EntryKey:
    """What the real log's unique index is on."""
    return (
        entry.origin_node,
        entry.origin_epoch,
        entry.origin_sequence,
        entry.lane,
        entry.home_node,
        entry.form,
    )


@dataclass(frozen=True, slots=True)
class OutLetter:
    """A letter in its author's outbox, until the addressee's own receipt has come."""

    letter_id: str
    to: str
    kind: str
    lane: Lane
    body: str
    parcel: Parcel


@dataclass(slots=True)
class Durable:
    """A node's database."""

    store_epoch: int = 1
    incarnation: str = "first"
    recovering: bool = False
    rows: dict[RowKey, RowChange] = field(default_factory=dict)
    log: dict[int, LogEntry] = field(default_factory=dict)
    head: int = 0
    pruned_to: int = 0
    unnumbered: list[LogEntry] = field(default_factory=list)
    lane_heads: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    inbound: dict[tuple[str, Lane], Cursor] = field(default_factory=dict)
    outbound: dict[tuple[str, Lane], Cursor] = field(default_factory=dict)
    peers: dict[str, tuple[int, str]] = field(default_factory=dict)
    protocols: dict[str, int] = field(default_factory=dict)
    served: set[tuple[str, Lane]] = field(default_factory=set)
    """Neighbours' lanes whose recovery snapshot has come to its end in this life."""
    marks: dict[str, int] = field(default_factory=dict)
    effects: set[tuple[str, str, int, int, int]] = field(default_factory=set)
    logged: set[EntryKey] = field(default_factory=set)
    rows_put: int = 0
    rows_logged: int = 0
    own_writes: int = 0
    letter_count: int = 0
    outbox: dict[str, OutLetter] = field(default_factory=dict)
    letters_seen: dict[str, str] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    taken_from: dict[str, tuple[int, Version]] = field(default_factory=dict)
    """By resident: the home epoch under which he was taken over, and from which version."""
    proposals: list[RowChange] = field(default_factory=list)
    sealed: set[int] = field(default_factory=set)
    """Numbers of the letters in the log whose payload is still there."""

    def copy(self) -> Durable:
        """A backup."""
        return replace(self, **{f.name: _copied(getattr(self, f.name)) for f in fields(self)})


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | set | list) else value


def holds(disk: Durable, row: RowChange) -> bool:
    """Whether this version of the row, or a newer one, is in the tables."""
    held = disk.rows.get((row.table, row.row_id))
    if held is None or held.version < row.version:
        return False
    return held.version > row.version or held.values == row.values


def lane_of(row: RowChange) -> Lane:
    """The lane of a row's table."""
    return Lane.IDENTITY if row.table == "residents" else Lane[row.table.upper()]
