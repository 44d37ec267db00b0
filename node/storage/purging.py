"""Rows that are deleted for good: without a tombstone and without an entry of the log.

A row normally changes only with a log entry in the same transaction, and readers of the log, such
as an incremental backup, rest on that. Whoever deletes rows of replicated tables otherwise says so.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from node.storage.tables import CHANGELOG
from replication.changelog import StoreState

__all__ = ["ROWS_PURGED", "note_purged"]

ROWS_PURGED: Final = "rows_purged"
"""Counts the transactions that purged rows, in store_state."""


def note_purged(connection: Connection) -> None:
    """Count a purge, in the transaction that does it: the next backup copies the tables whole."""
    state = StoreState(CHANGELOG)
    before = int(state.load(connection).get(ROWS_PURGED, "0"))
    state.save(connection, ROWS_PURGED, str(before + 1))
