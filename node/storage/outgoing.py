"""What a peer is sent: this node's log, filtered by routing, transformed by policy.

A long backlog of identity and bulk is collapsed to the newest version of each row. Where the log no
longer reaches back to a peer, where the peer is recovering, or where replaying would cost clearly
more, a snapshot of the tables stands in for the stretch (snapshot.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select

from hierarchy_config.model import NodeId
from node.aside import ITEM_FAULTS
from node.storage.context import StoreContext
from node.storage.logged import read_log
from node.storage.rows import chunks
from node.storage.snapshot import Entitled, SnapshotReader
from node.storage.snapshot_place import Kind, Place
from node.storage.specs import IDENTIFIERS, IDENTITY_NUMBER
from node.storage.tables import CHANGELOG, REPLICATED
from node.storage.transforms import transform
from replication.changelog import LogPrunedError, LogSlice
from replication.changelog.backlog import backlog_rows
from replication.core.coalesce import COALESCED_LANES, coalesce
from replication.core.config import PeerRole
from replication.core.effects import SEED, LogPart
from replication.core.model import Audience, Form, Lane, LogEntry
from replication.core.routing import goes_down, goes_up

__all__ = ["SNAPSHOT_ENTRIES_MIN", "OutgoingReader", "PeerAbility"]

SNAPSHOT_ENTRIES_MIN: Final = 5_000
"""A backlog shorter than this is never worth a snapshot, log entries."""
_ROWS_TIMES: Final = 2
"""A snapshot is taken where the backlog has more rows than this many times those of the tables:
each row is read at most once then, and what changes meanwhile comes in addition."""
_BACKLOG_ENTRIES_MAX: Final = 200_000
"""Entries of a backlog that are looked at to estimate it; beyond, it is taken for this long."""
_PROTOCOL_OF_LETTERS: Final = 2
_MUCH_BEHIND: Final = 500
"""Entries behind the head from which on versions are collapsed."""
_SLICES_A_CALL: Final = 8


@dataclass(frozen=True, slots=True)
class PeerAbility:
    """What a peer can take, from its Hello, and whether it is recovering."""

    protocol: int = 2
    recovering: bool = False

    @property
    def is_new(self) -> bool:
        """Whether it takes letters and snapshots."""
        return self.protocol >= _PROTOCOL_OF_LETTERS


@dataclass(frozen=True, slots=True)
class _Asked:
    """One ReadLog."""

    peer: NodeId
    role: PeerRole
    lane: Lane
    after: int
    bytes_max: int
    up_to: int | None
    ability: PeerAbility


class OutgoingReader:
    """Reads the log, or the tables, for peers."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store
        self._snapshots = SnapshotReader(store)
        self._replayed: dict[tuple[NodeId, Lane], int] = {}
        """Up to where replaying was found cheap enough, so that it is not weighed at every read."""

    def read(
        self,
        peer: NodeId,
        peer_role: PeerRole,
        lane: Lane,
        after: int,
        *,
        bytes_max: int,
        up_to: int | None,
        letters: bool = True,
    ) -> tuple[tuple[LogEntry, ...], int]:
        """See Storage.outgoing."""
        ability = PeerAbility(protocol=2 if letters else 1)
        asked = _Asked(peer, peer_role, lane, after, bytes_max, up_to, ability)
        part = self._from_tail(asked) or self._store.transactions.read(
            lambda connection: self._from_log(connection, asked, collapse=False)
        )
        return tuple(part.entries), part.scanned_to

    def part(
        self,
        peer: NodeId,
        peer_role: PeerRole,
        lane: Lane,
        after: int,
        *,
        position: str,
        bytes_max: int,
        up_to: int | None,
        ability: PeerAbility,
    ) -> LogPart:
        """See Storage.outgoing_part."""
        asked = _Asked(peer, peer_role, lane, after, bytes_max, up_to, ability)
        # The very first read looks at more than the log: see _is_new_parent.
        if after and not position and (kept := self._from_tail(asked)) is not None:
            return kept
        return self._store.transactions.read(
            lambda connection: self._part(connection, asked, position)
        )

    def _part(self, connection: Connection, asked: _Asked, position: str) -> LogPart:
        if position == SEED:
            if self._waits_for_others(connection, asked.peer):
                # What is missing here would be missing there. On a tree that is no circle.
                return LogPart((), asked.after)
            return self._snapshot(connection, asked, self._begin_recovery(connection, asked))
        if position:
            place = Place.parse(position) or self._begin(connection, asked, Kind.ENTITLED)
            return self._snapshot(connection, asked, place)
        try:
            is_new = self._is_new_parent(connection, asked)
            if is_new or self._snapshot_is_cheaper(connection, asked):
                place = self._begin(connection, asked, Kind.ENTITLED)
                return self._snapshot(connection, asked, place)
            return self._from_log(connection, asked, collapse=True)
        except LogPrunedError:
            if not asked.ability.is_new:
                raise
            place = self._begin(connection, asked, Kind.ENTITLED)
            return self._snapshot(connection, asked, place)

    def _waits_for_others(self, connection: Connection, peer: NodeId) -> bool:
        recovery = self._store.recovery
        if not recovery.active:
            return False
        waiting = recovery.standing(connection).waiting
        return any(lanes for other, lanes in waiting.items() if other != peer)

    # -- the log --------------------------------------------------------------------------------

    def _from_tail(self, asked: _Asked) -> LogPart | None:
        """A link at the end of the log needs no database for what was committed just now."""
        if asked.up_to is None:
            return None
        kept = self._store.changelog.tail.read(
            after=asked.after, lane=asked.lane, bytes_max=asked.bytes_max, up_to=asked.up_to
        )
        if kept is None:
            return None
        return LogPart(tuple(self._for_peer(None, asked, kept.entries)), kept.scanned_to)

    def _from_log(self, connection: Connection, asked: _Asked, *, collapse: bool) -> LogPart:
        """Slices of the log until there is something for the peer; of a long backlog more."""
        found: list[LogEntry] = []
        scanned, dropped = asked.after, False
        for _ in range(_SLICES_A_CALL):
            part = self._slice(connection, asked, scanned)
            scanned = part.scanned_to
            found += self._for_peer(connection, asked, part.entries)
            ended = scanned >= part.head
            if not found and not ended:
                continue
            much = part.head - scanned >= _MUCH_BEHIND and asked.lane in COALESCED_LANES
            if ended or not collapse or not (much or dropped):
                break
            found, fewer = coalesce(found)
            dropped = dropped or fewer
            if sum(len(entry.rows) for entry in found) >= asked.bytes_max // 2:
                break
        if dropped:
            found, _ = coalesce(found)
        return LogPart(tuple(found), scanned, "", dropped)

    def _slice(self, connection: Connection, asked: _Asked, after: int) -> LogSlice:
        return read_log(
            self._store,
            connection,
            after=after,
            lane=asked.lane,
            bytes_max=asked.bytes_max,
            up_to=asked.up_to,
        )

    def _for_peer(
        self, connection: Connection | None, asked: _Asked, entries: Sequence[LogEntry]
    ) -> list[LogEntry]:
        """What of the log goes this way, as policy sends it."""
        hierarchy, here = self._store.hierarchy, self._store.node_id
        # What a peer gave back is not sent to it again, unless it has lost it itself meanwhile.
        everything = asked.ability.recovering
        # A letter that the next hop has confirmed is erased; a peer of protocol 1 gets none.
        sent = [
            e for e in entries if e.form is not Form.SEALED or (e.rows and asked.ability.is_new)
        ]
        if asked.role is PeerRole.CHILD:
            below = hierarchy.subtree(asked.peer)
            return [
                e
                for e in sent
                if (everything or e.audience.has_children)
                and goes_down(e.origin_node, e.home_node, e.form, below)
            ]
        mine = hierarchy.subtree(here)
        rising = [
            e
            for e in sent
            if (everything or e.audience.has_parent)
            and goes_up(e.origin_node, e.home_node, e.form, mine)
        ]
        return self._transformed(connection, rising)

    def _transformed(
        self, connection: Connection | None, rising: Sequence[LogEntry]
    ) -> list[LogEntry]:
        if not rising:
            return []
        hierarchy, here = self._store.hierarchy, self._store.node_id
        return transform(
            rising,
            lambda table: hierarchy.copy_forms(here, table),
            pseudonyms=self._store.pseudonyms,
            regional_index=self._store.regional_index,
            identity_numbers=lambda ids: self._identity_numbers(connection, ids),
        )

    # -- the tables -----------------------------------------------------------------------------

    def _begin(self, connection: Connection, asked: _Asked, kind: Kind) -> Place:
        head = self._store.changelog.head(connection)
        if asked.up_to is not None:
            head = min(head, asked.up_to)
        return Place.begin(kind, max(head, asked.after))

    def _begin_recovery(self, connection: Connection, asked: _Asked) -> Place:
        """Where the log still tells the peer all, only what it owned is read from tables.

        It does not where it was pruned, nor where this node got something back itself: that is
        kept from going where it came from, and the peer may have lost it since.
        """
        log = CHANGELOG.change_log.c
        came_back = select(log.sequence).where(
            log.sequence > asked.after, log.audience != Audience.EVERYBODY.value
        )
        whole = (
            asked.after == 0
            or asked.after < self._store.changelog.pruned_to(connection)
            or connection.execute(came_back.limit(1)).first() is not None
        )
        return self._begin(connection, asked, Kind.RECOVERY if whole else Kind.OWNED)

    def _snapshot(self, connection: Connection, asked: _Asked, place: Place) -> LogPart:
        if place.is_end:
            covered = asked.after if place.kind is Kind.OWNED else place.head
            return LogPart((), max(asked.after, covered), "", coalesced=True)
        entitled = Entitled.of(self._store, asked.peer, asked.role)
        part = self._snapshots.part(
            connection, entitled, asked.lane, asked.after, place, asked.bytes_max
        )
        letters = [e for e in part.routed if e.form is Form.SEALED]
        rows = [e for e in part.routed if e.form is not Form.SEALED]
        if asked.role is PeerRole.PARENT:
            rows = self._transformed(connection, rows)
        entries = (*self._for_peer(connection, asked, letters), *rows, *part.owned)
        return LogPart(entries, asked.after, str(part.next), coalesced=True)

    def _is_new_parent(self, connection: Connection, asked: _Asked) -> bool:
        """Whether the log would tell a parent of people who have moved away before it was one.

        It was not on the way of their grants, and would keep them. The tables have them no more.
        """
        if asked.role is not PeerRole.PARENT or asked.after or not asked.ability.is_new:
            return False
        return self._store.homes.is_any(connection) and self._store.changelog.head(connection) > 0

    def _snapshot_is_cheaper(self, connection: Connection, asked: _Asked) -> bool:
        """Whether the backlog has clearly more rows than the tables have for the peer.

        The backlog counts with everything in its lane, for what is not for the peer is read all the
        same. Weighed once for a peer that catches up.
        """
        log, key = self._store.changelog, (asked.peer, asked.lane)
        if not asked.ability.is_new or asked.lane not in COALESCED_LANES:
            return False
        if asked.after < self._replayed.get(key, 0):
            return False
        head = log.head(connection)
        if head - asked.after < SNAPSHOT_ENTRIES_MIN:
            return False
        backlog = backlog_rows(connection, CHANGELOG, asked.lane, asked.after, _BACKLOG_ENTRIES_MAX)
        entitled = Entitled.of(self._store, asked.peer, asked.role)
        rows = self._snapshots.rows_entitled(connection, entitled, asked.lane)
        if backlog > _ROWS_TIMES * rows + SNAPSHOT_ENTRIES_MIN:
            return True
        self._replayed[key] = head
        return False

    def _identity_numbers(
        self, connection: Connection | None, resident_ids: Sequence[str]
    ) -> Mapping[str, str]:
        """The newest identity number of each resident who has one, clear.

        One that does not open is set aside: his index entry goes without it, and the comparison
        says so until it is mended.
        """
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
                try:
                    value = self._store.cells.open_cell(t.name, "value", row.row_id, row.value)
                except ITEM_FAULTS as error:
                    self._store.aside.add(t.name, row.row_id, error)
                    continue
                if isinstance(value, str):
                    numbers[row.resident_id] = value
        return numbers
