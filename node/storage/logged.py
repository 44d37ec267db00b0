"""The change log as its readers see it: an entry that does not open is one that was pruned.

Whoever reads the log reads the tables where it does not reach (a peer by a snapshot, the columnar
replica and the cache by beginning anew), so nothing is lost with the entry and nobody waits for it.
A letter is in no table: its author sends it again.
"""

from __future__ import annotations

from sqlalchemy import Connection

from node.logs import get_logger
from node.security.errors import SecurityError
from node.storage.context import StoreContext
from node.storage.tables import CHANGELOG
from replication.changelog import LetterEntries, LogPrunedError, LogSlice
from replication.core.model import Lane, LogEntry

__all__ = ["read_letters", "read_log"]

_ENTRIES_MAX = 2000


def read_log(
    store: StoreContext,
    connection: Connection,
    *,
    after: int,
    lane: Lane | None,
    bytes_max: int,
    entries_max: int = _ENTRIES_MAX,
    up_to: int | None = None,
) -> LogSlice:
    """ChangeLog.read.

    Raises:
        LogPrunedError: The log no longer reaches back to `after`, or an entry does not open.
    """
    try:
        return store.changelog.read(
            connection,
            after=after,
            lane=lane,
            bytes_max=bytes_max,
            entries_max=entries_max,
            up_to=up_to,
        )
    except SecurityError as error:
        said = {"after": after, "lane": None if lane is None else lane.name.lower()}
        get_logger("storage").warning("an entry of the log does not open", code=error.code, **said)
        raise LogPrunedError(f"an entry of the log behind {after} does not open") from error


def read_letters(
    store: StoreContext,
    connection: Connection,
    lane: Lane,
    *,
    after: int,
    up_to: int,
    bytes_max: int,
) -> tuple[LogEntry, ...]:
    """ChangeLog.letters, without those that do not open."""
    log = store.changelog
    try:
        return log.letters(connection, lane, after=after, up_to=up_to, bytes_max=bytes_max)
    except SecurityError:
        pass
    found: list[LogEntry] = []
    left = bytes_max
    for letter in LetterEntries(CHANGELOG).waiting(connection, after, up_to):
        if letter.lane is not lane or left <= 0:
            continue
        at = letter.sequence
        try:
            found += log.letters(connection, lane, after=at - 1, up_to=at, bytes_max=1)
        except SecurityError as error:
            get_logger("storage").warning(
                "a letter in the log does not open", sequence=at, code=error.code
            )
            continue
        left -= len(found[-1].rows) if found else 0
    return tuple(found)
