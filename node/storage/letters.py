"""Letters in a batch: handed to their addressee's handler, passed on, or set aside with a cause.

A letter on its way lies in the log alone, under its origin, so that a stream which begins anew does
not make two of it; it is never a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from hierarchy_config.model import NodeId
from node.storage.causes import Misfit
from node.storage.context import StoreContext
from node.transit.post import Examined
from replication.changelog import NewEntry, OriginKey
from replication.core.config import PeerRole
from replication.core.mailbox import LetterCause, Way, judge_letter
from replication.core.model import LogEntry

__all__ = ["LetterDesk", "ReadLetter"]

_ENTRY_BYTES_MAX: Final = 3 << 20


@dataclass(frozen=True, slots=True)
class ReadLetter:
    """A letter as it was read, or the cause for which it was not even looked at."""

    examined: Examined | None
    cause: str = ""


class LetterDesk:
    """What becomes of letters that peers hand over."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store

    def read(self, entry: LogEntry) -> ReadLetter:
        """Look at a letter before the transaction: costly, and it needs no database."""
        if len(entry.rows) > _ENTRY_BYTES_MAX:
            return ReadLetter(None, Misfit.ENTRY_TOO_LARGE)
        return ReadLetter(self._store.post.examine(entry))

    def take(
        self,
        connection: Connection,
        peer: NodeId,
        role: PeerRole,
        entry: LogEntry,
        read: ReadLetter,
        passed: set[OriginKey],
    ) -> tuple[str, list[NewEntry]]:
        """Judge and handle one letter in the transaction of its batch.

        `passed`: the letters of the same batch that go on; this one is added.

        Returns:
            The cause for which it waits in the quarantine ("": none), and what it leaves for the
            log: the letter itself for the next node, or what its handler and its receipt are.
        """
        examined = read.examined
        cause = read.cause or (examined.cause if examined and examined.letter is None else "")
        if cause or examined is None:
            return cause, []
        way = self._way(peer, role, entry)
        if isinstance(way, LetterCause):
            return way.value, []
        post = self._store.post
        with post.gathering(connection) as logged:
            if way is Way.HERE:
                return post.take(connection, examined), logged
            if self._is_known(connection, entry, passed):
                return "", []
            post.passes(connection, examined)
            return "", [*logged, _onward(entry)]

    def _way(self, peer: NodeId, role: PeerRole, entry: LogEntry) -> Way | LetterCause:
        tree, here = self._store.hierarchy, self._store.node_id
        return judge_letter(
            entry.origin_node,
            entry.home_node,
            here=here,
            peer_role=role,
            here_subtree=tree.subtree(here),
            peer_subtree=tree.subtree(peer) if role is PeerRole.CHILD else frozenset(),
            region=tree.nodes,
        )

    def _is_known(self, connection: Connection, entry: LogEntry, passed: set[OriginKey]) -> bool:
        """Whether it is in the log: a stream that begins anew brings it once more."""
        if not entry.origin_sequence:
            return False
        origin = OriginKey(entry.origin_node, entry.origin_epoch, entry.origin_sequence, entry.form)
        if origin in passed or self._store.changelog.known(connection, [origin]):
            return True
        passed.add(origin)
        return False


def _onward(entry: LogEntry) -> NewEntry:
    return NewEntry(
        origin_node=entry.origin_node,
        origin_epoch=entry.origin_epoch,
        origin_sequence=entry.origin_sequence,
        lane=entry.lane,
        home_node=entry.home_node,
        form=entry.form,
        codec=entry.codec,
        schema_version=entry.schema_version,
        committed_at_ms=entry.committed_at_ms,
        row_count=entry.row_count,
        rows=entry.rows,
    )
