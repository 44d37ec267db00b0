"""What a peer is sent of this node's log: filtered by routing, transformed by policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, select

from hierarchy_config.model import NodeId
from node.storage.context import StoreContext
from node.storage.rows import chunks
from node.storage.specs import IDENTIFIERS, IDENTITY_NUMBER
from node.storage.tables import REPLICATED
from node.storage.transforms import transform
from replication.core.config import PeerRole
from replication.core.model import Lane, LogEntry
from replication.core.routing import goes_down, goes_up

__all__ = ["OutgoingReader"]

_SLICES_A_CALL: Final = 8


class OutgoingReader:
    """Reads the log for peers."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store

    def read(
        self,
        peer: NodeId,
        peer_role: PeerRole,
        lane: Lane,
        after: int,
        *,
        bytes_max: int,
        up_to: int | None,
    ) -> tuple[tuple[LogEntry, ...], int]:
        """See Storage.outgoing."""
        log = self._store.changelog
        if up_to is not None:
            # A link at the end of the log needs no database for what was committed just now.
            kept = log.tail.read(after=after, lane=lane, bytes_max=bytes_max, up_to=up_to)
            if kept is not None:
                rising = self._for_peer(None, peer, peer_role, kept.entries)
                return tuple(rising), kept.scanned_to

        def work(connection: Connection) -> tuple[tuple[LogEntry, ...], int]:
            scanned = after
            for _ in range(_SLICES_A_CALL):
                part = log.read(
                    connection, after=scanned, lane=lane, bytes_max=bytes_max, up_to=up_to
                )
                scanned = part.scanned_to
                entries = self._for_peer(connection, peer, peer_role, part.entries)
                if entries or scanned >= part.head:
                    return tuple(entries), scanned
            return (), scanned

        return self._store.transactions.read(work)

    def _for_peer(
        self,
        connection: Connection | None,
        peer: NodeId,
        peer_role: PeerRole,
        entries: Sequence[LogEntry],
    ) -> list[LogEntry]:
        hierarchy, here = self._store.hierarchy, self._store.node_id
        if peer_role is PeerRole.CHILD:
            below = hierarchy.subtree(peer)
            return [e for e in entries if goes_down(e.origin_node, e.home_node, e.form, below)]
        mine = hierarchy.subtree(here)
        rising = [e for e in entries if goes_up(e.origin_node, e.home_node, e.form, mine)]
        if not rising:
            return []
        return transform(
            rising,
            lambda table: hierarchy.copy_forms(here, table),
            pseudonyms=self._store.pseudonyms,
            regional_index=self._store.regional_index,
            identity_numbers=lambda ids: self._identity_numbers(connection, ids),
        )

    def _identity_numbers(
        self, connection: Connection | None, resident_ids: Sequence[str]
    ) -> Mapping[str, str]:
        """The newest identity number of each resident who has one, clear."""
        if connection is None:
            return self._store.transactions.read(
                lambda opened: self._identity_numbers(opened, resident_ids)
            )
        t = REPLICATED[IDENTIFIERS.name]
        query = (
            select(t.c.row_id, t.c.resident_id, t.c.value)
            .where(t.c.system == IDENTITY_NUMBER, t.c.deleted.is_(False), t.c.form == "full")
            .order_by(t.c.recorded_at, t.c.row_id)
        )
        numbers: dict[str, str] = {}
        for some in chunks(resident_ids):
            for row in connection.execute(query.where(t.c.resident_id.in_(some))):
                value = self._store.cells.open_cell(
                    IDENTIFIERS.name, "value", row.row_id, row.value
                )
                if isinstance(value, str):
                    numbers[row.resident_id] = value
        return numbers
