"""An entry that came, with its rows, and what became of each while it was judged and applied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from node.storage.causes import Misfit
from node.storage.letters import ReadLetter
from node.storage.shapes import refuse_unspeakable
from replication.changelog import NewEntry
from replication.core.codec import decode_changes
from replication.core.model import LogEntry, RowChange
from replication.errors import RemoteProtocolError

__all__ = ["EntryWork", "read_entry"]

_ENTRY_BYTES_MAX: Final = 3 << 20
"""A little below what one batch holds: what is taken in here must fit into a batch from here."""


@dataclass(slots=True)
class EntryWork:
    """An entry, its rows, and what became of them.

    `unreadable`: the cause for which the whole entry waits in the quarantine; it has no rows then.
    `letter`: the entry is one, and has none either; `logged` is what it leaves for the log.
    `is_known`: the log may hold another entry under its number, which is then withheld.
    """

    entry: LogEntry
    rows: list[RowChange]
    unreadable: str = ""
    letter: ReadLetter | None = None
    is_known: bool = False
    logged: list[NewEntry] = field(default_factory=list)
    admitted: list[RowChange] = field(default_factory=list)
    stale: int = 0
    rejected: list[tuple[RowChange, str]] = field(default_factory=list)


def read_entry(entry: LogEntry) -> EntryWork:
    """The entry with its rows, or with the cause for which nobody here can read them.

    A lane must not stand still for ever behind what this release cannot read: the entry waits, the
    lane goes on, and the home is not covered.
    """
    if len(entry.rows) > _ENTRY_BYTES_MAX:
        return EntryWork(entry, [], Misfit.ENTRY_TOO_LARGE)
    try:
        rows = decode_changes(entry.codec, entry.rows)
        for change in rows:
            refuse_unspeakable(change)
    except RemoteProtocolError:
        return EntryWork(entry, [], Misfit.ENTRY_UNREADABLE)
    return EntryWork(entry, rows)
