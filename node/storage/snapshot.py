"""A snapshot: the tables' current rows in place of a stretch of the log, read part by part.

Rows come in the order of (table, row id), tombstones included, so a snapshot goes on anywhere from
its position. What changes meanwhile comes again from the log after the sequence at which the
snapshot was begun; a receiver takes only greater versions, so nothing is lost or undone. Letters
are in no table and come from the log, last of all: a receipt among them speaks of rows that its
addressee's parent must hold by then. A row that does not open is left out and set
aside: it would stop all that comes behind it, and the comparison of the two ends finds it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Select, and_, bindparam, func, or_, select

from hierarchy_config.model import CopyForm, NodeId
from node.storage.context import StoreContext
from node.storage.logged import read_letters
from node.storage.pieces import encoded_pieces
from node.storage.snapshot_place import END, LETTERS, START, Kind, Place
from node.storage.specs import RESIDENT_INDEX, RESIDENTS, TABLES
from node.storage.stored import change_or_aside
from node.storage.tables import REPLICATED
from replication.core.codec import CODEC_JSON
from replication.core.config import PeerRole
from replication.core.model import (
    SCHEMA_VERSION,
    Form,
    Lane,
    LogEntry,
    RowChange,
)

__all__ = ["Entitled", "SnapshotPart", "SnapshotReader"]

_ROW_BYTES: Final = 240
"""About what a row takes in an entry beside its own text."""
_NUMBER_BYTES: Final = 32
_ROWS_A_QUERY: Final = 500
_QUERIES_A_PART: Final = 8


@dataclass(frozen=True, slots=True)
class Entitled:
    """Which rows of this node's tables a peer is to have, and how: routing's rules for rows.

    `owned_only`, `owned_too`: for a recovering peer. What it wrote itself comes as it was written,
    not as policy would send it.
    """

    role: PeerRole
    peer: NodeId
    inside: frozenset[str]
    """The subtree whose homes are looked at: this node's towards the parent, else the child's."""
    above: frozenset[str]
    """Everything above whoever reads: the parent and its path, or this node's path for a child."""
    full_tables: frozenset[str]
    """Towards the parent: tables of which policy copies full rows."""

    @classmethod
    def of(cls, store: StoreContext, peer: NodeId, role: PeerRole) -> Entitled:
        """What a neighbour is to have."""
        hierarchy, here = store.hierarchy, store.node_id
        if role is PeerRole.CHILD:
            above = frozenset(hierarchy.path_to_root(here))
            return cls(role, peer, hierarchy.subtree(peer), above, frozenset())
        full = {
            name
            for name in TABLES
            if CopyForm.FULL in hierarchy.copy_forms(here, _policy_table(name))
        }
        above = frozenset(hierarchy.path_to_root(peer))
        return cls(role, peer, hierarchy.subtree(here), above, frozenset(full))

    def by_routing(self, author: str, home: str, form: str) -> bool:
        """Whether the log would bring it: see replication/core/routing.py and admission.py.

        Up goes what was written in this subtree, and what came to a home in it by letter: not what
        a node above wrote, which came down to it.
        """
        if home not in self.inside:
            return False
        if self.role is PeerRole.PARENT:
            return author in self.inside or author not in self.above
        return form == Form.FULL.value and author not in self.inside

    def is_owned(self, table: str, author: str, home: str, form: str) -> bool:
        """Whether the peer lost it with its store and this node holds it for him."""
        if form != Form.FULL.value:
            return False
        if self.role is PeerRole.CHILD:
            # What came to a home there by letter too: the home has logged it as its own.
            return author == self.peer or (home in self.inside and author not in self.above)
        held = author == self.peer or (author in self.above and table in self.full_tables)
        return held and home in self.inside


@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """Entries of one part: by routing (to be transformed), and as they are; and where to go on."""

    routed: Sequence[LogEntry]
    owned: Sequence[LogEntry]
    next: Place


class SnapshotReader:
    """Reads the tables for peers."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store

    def part(
        self,
        connection: Connection,
        entitled: Entitled,
        lane: Lane,
        after: int,
        place: Place,
        bytes_max: int,
    ) -> SnapshotPart:
        """About `bytes_max` bytes of rows from `place` on; maybe none, although more may follow.

        `after`: where the stretch of the log begins for which the snapshot stands in.
        """
        if place.table == START:
            place = _next_table(place, lane)
        if place.table == LETTERS:
            return self._letters(connection, lane, after, place, bytes_max)
        return self._some_rows(connection, entitled, lane, place, bytes_max)

    def _some_rows(
        self,
        connection: Connection,
        entitled: Entitled,
        lane: Lane,
        place: Place,
        bytes_max: int,
    ) -> SnapshotPart:
        routed: list[RowChange] = []
        owned: list[RowChange] = []
        left = bytes_max
        for _ in range(_QUERIES_A_PART):
            if place.table not in TABLES or left <= 0:
                break
            limit = max(16, min(_ROWS_A_QUERY, left // _ROW_BYTES + 1))
            rows = self._rows(connection, entitled, place, limit)
            for row in rows:
                before, place = place, replace(place, row_id=str(row["row_id"]))
                held = (row["author_node"], row["home_node"], row["form"])
                is_owned = entitled.is_owned(place.table, *held)
                if place.kind is not Kind.OWNED and entitled.by_routing(*held):
                    chosen = routed
                elif place.kind.is_recovery and is_owned:
                    chosen = owned
                else:
                    continue
                change = change_or_aside(self._store, place.table, row)
                if change is None:
                    continue
                size = _ROW_BYTES + _text_bytes(change)
                if size > left and (routed or owned):
                    return self._part(routed, owned, lane, entitled, before)
                chosen.append(change)
                left -= size
                if left <= 0:
                    break
            else:
                if len(rows) < limit:
                    place = _next_table(place, lane)
        return self._part(routed, owned, lane, entitled, place)

    def _part(
        self,
        routed: Sequence[RowChange],
        owned: Sequence[RowChange],
        lane: Lane,
        entitled: Entitled,
        place: Place,
    ) -> SnapshotPart:
        return SnapshotPart(
            self._entries(routed, lane, entitled, place.kind),
            self._entries(owned, lane, entitled, place.kind),
            place,
        )

    def rows_entitled(self, connection: Connection, entitled: Entitled, lane: Lane) -> int:
        """Rows of a lane's tables that a snapshot would read, roughly; counts on indexes."""
        homes = sorted(entitled.inside)
        return sum(
            connection.execute(
                select(func.count()).select_from(t).where(t.c.home_node.in_(homes))
            ).scalar_one()
            for t in (REPLICATED[name] for name in _tables_of(lane))
        )

    def _letters(
        self, connection: Connection, lane: Lane, after: int, place: Place, bytes_max: int
    ) -> SnapshotPart:
        begin = max(after, int(place.row_id or "0", 10))
        letters = read_letters(
            self._store, connection, lane, after=begin, up_to=place.head, bytes_max=bytes_max
        )
        if letters:
            return SnapshotPart(letters, (), replace(place, row_id=str(letters[-1].sequence)))
        return SnapshotPart((), (), replace(place, table=END, row_id=""))

    def _rows(
        self, connection: Connection, entitled: Entitled, place: Place, limit: int
    ) -> list[RowMapping]:
        wanted = {
            "after": place.row_id,
            "homes": sorted(entitled.inside),
            "peer": entitled.peer,
            "most": limit,
        }
        query = _QUERIES[place.table]
        return list(connection.execute(query, wanted).mappings())

    def _entries(
        self, rows: Iterable[RowChange], lane: Lane, entitled: Entitled, kind: Kind
    ) -> list[LogEntry]:
        groups: dict[tuple[str, str, Form], list[RowChange]] = defaultdict(list)
        for row in rows:
            groups[_origin(row, entitled, kind), row.home_node, row.form].append(row)
        now_ms = self._store.clock.now_ms()
        return [
            LogEntry(
                sequence=0,
                origin_node=origin,
                origin_epoch=0,
                origin_sequence=0,
                lane=lane,
                home_node=home,
                form=form,
                codec=CODEC_JSON,
                schema_version=SCHEMA_VERSION,
                committed_at_ms=now_ms,
                row_count=len(some),
                rows=encoded,
            )
            for (origin, home, form), group in groups.items()
            for some, encoded in encoded_pieces(group)
        ]


def _rows_query(name: str) -> Select[Any]:
    t = REPLICATED[name]
    inside = t.c.home_node.in_(bindparam("homes", expanding=True))
    # What a recovering child wrote of somebody who lives elsewhere lies here under his home.
    return (
        select(t)
        .where(
            and_(
                t.c.row_id > bindparam("after"),
                or_(inside, t.c.author_node == bindparam("peer")),
            )
        )
        .order_by(t.c.row_id)
        .limit(bindparam("most"))
        # In the order of the key, or every part would sort all that is left.
        .with_hint(t, "FORCE INDEX (PRIMARY)", "mysql")
        .with_hint(t, "FORCE INDEX (PRIMARY)", "mariadb")
    )


_QUERIES: Final = {name: _rows_query(name) for name in TABLES}


def _tables_of(lane: Lane) -> list[str]:
    return [spec.name for spec in TABLES.values() if spec.lane is lane]


def _next_table(place: Place, lane: Lane) -> Place:
    """The place before the table behind this one's; behind the last, before the letters."""
    tables = _tables_of(lane)
    at = tables.index(place.table) + 1 if place.table in tables else 0
    last = END if place.kind is Kind.OWNED else LETTERS
    return replace(place, table=tables[at] if at < len(tables) else last, row_id="")


def _origin(row: RowChange, entitled: Entitled, kind: Kind) -> str:
    """The author; for what came by letter the home, which logged it as its own.

    A child that is whole has logged that already: its own name comes to it from nobody.
    """
    by_letter = (
        row.home_node in entitled.inside
        and row.author_node not in entitled.inside
        and row.author_node not in entitled.above
    )
    named = entitled.role is PeerRole.PARENT or kind.is_recovery
    return row.home_node if by_letter and named else row.author_node


def _policy_table(name: str) -> str:
    return RESIDENTS.name if name == RESIDENT_INDEX.name else name


def _text_bytes(change: RowChange) -> int:
    """About what its columns take in an entry; a newer peer's row may have thousands of them."""
    return sum(
        len(name) + (3 * len(value) if isinstance(value, str) else _NUMBER_BYTES)
        for name, value in change.values.items()
    )
