"""Rows of homes that come to another branch: logged again for the new one, deleted in the old one.

Each call is one bounded transaction and says where the next one begins, so that the caller can go
on after a death. Twice does nothing more: what is logged again arrives under its version, and what
is deleted is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Table, delete, func, select

from hierarchy_config.model import NodeId
from node.security.caller import local_operator
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.pieces import encoded_pieces
from node.storage.purging import note_purged
from node.storage.rows import RowMaker, chunks, held_rows
from node.storage.shapes import is_row_id
from node.storage.specs import RESIDENTS, TABLES
from node.storage.stored import change_or_aside
from node.storage.succession import Succession, Taken
from node.storage.tables import CHANGELOG, REPLICATED
from node.storage.upsert import guarded_upsert
from replication.changelog import NewEntry
from replication.core.codec import CODEC_JSON
from replication.core.model import Audience, Form, Operation, RowChange, Version

__all__ = ["START", "HomeCounts", "MovingRows", "Position", "read_position"]

_TABLES: Final = tuple(TABLES)
_HOMES_A_QUERY: Final = 400


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where the next call begins: the table's place in the schema, the last row id done."""

    table: int
    row_id: str


START: Final = Position(0, "")


def read_position(said: Any) -> Position | None:
    """The position that a peer or a table says as [table, row id]; None: it is none."""
    if not isinstance(said, list) or [type(each) for each in said] != [int, str]:
        return None
    table, row_id = said
    is_place = 0 <= table < len(_TABLES) and (row_id == "" or is_row_id(row_id))
    return Position(table, row_id) if is_place else None


@dataclass(frozen=True, slots=True)
class HomeCounts:
    """What is held in full of some homes: residents, and rows of all tables."""

    residents: int
    rows: int


class MovingRows:
    """Works on the rows of some homes."""

    def __init__(self, store: StoreContext, maker: RowMaker) -> None:
        self._store = store
        self._maker = maker

    def counts(self, homes: Collection[NodeId]) -> HomeCounts:
        """What is held here of these homes."""

        def work(connection: Connection) -> HomeCounts:
            residents = rows = 0
            for name in _TABLES:
                t = REPLICATED[name]
                for some in chunks(sorted(homes), _HOMES_A_QUERY):
                    held = (t.c.home_node.in_(some), t.c.form == Form.FULL.value)
                    number = connection.execute(
                        select(func.count()).select_from(t).where(*held, t.c.deleted.is_(False))
                    ).scalar_one()
                    rows += number
                    residents += number if name == RESIDENTS.name else 0
            return HomeCounts(residents, rows)

        return self._store.transactions.read(work)

    def log_again(
        self,
        homes: Collection[NodeId],
        authors: Collection[NodeId],
        after: Position,
        limit: int,
    ) -> Position | None:
        """Log the full rows of some homes by some authors again, as entries of this node.

        Returns where to go on, None at the end.
        """

        def work(connection: Connection) -> Position | None:
            t, rows = _slice(
                connection, after, limit, lambda t: (t.c.form == Form.FULL.value,), homes, authors
            )
            entries = self._entries(self._changes(t, rows))
            self._store.changelog.append(connection, entries)
            return _next(after, rows, limit)

        return self._store.transactions.write(work)

    def purge(self, homes: Collection[NodeId], after: Position, limit: int) -> Position | None:
        """Delete rows of some homes that this node did not write.

        Readers inside the node are told by entries of the log that no peer is sent. Returns where
        to go on, None at the end.
        """
        here = self._store.node_id

        def work(connection: Connection) -> Position | None:
            t, rows = _slice(
                connection, after, limit, lambda t: (t.c.author_node != here,), homes, None
            )
            for some in chunks([row["row_id"] for row in rows]):
                connection.execute(delete(t).where(t.c.row_id.in_(some)))
            if rows:
                operator = local_operator(here, self._store.hierarchy, "homes left this subtree")
                deed = Deed(Action.PURGE, t.name, Outcome.DONE, len(rows))
                self._store.auditor.write(connection, operator, deed)
                note_purged(connection)
            gone = [_tombstone(t, row) for row in rows]
            self._store.changelog.append(connection, self._entries(gone, Audience.HERE))
            return _next(after, rows, limit)

        return self._store.transactions.write(work)

    def purge_log(self, homes: Collection[NodeId], limit: int) -> int:
        """Delete entries of these homes that came from elsewhere, and what waits in the quarantine.

        Returns how many went; call again until 0. Letters on their way stay: they are sealed.
        """
        here, log, waiting = self._store.node_id, CHANGELOG.change_log, CHANGELOG.quarantine
        marks = CHANGELOG.home_marks

        def work(connection: Connection) -> int:
            gone = 0
            for some in chunks(sorted(homes), _HOMES_A_QUERY):
                of_log = select(log.c.entry_id).where(
                    log.c.home_node.in_(some),
                    log.c.origin_node != here,
                    log.c.codec == CODEC_JSON,
                    log.c.sequence.is_not(None),
                    log.c.audience == Audience.EVERYBODY.value,
                )
                of_waiting = select(waiting.c.item_id).where(
                    waiting.c.home_node.in_(some), waiting.c.author_node != here
                )
                for t, key, query in (
                    (log, log.c.entry_id, of_log),
                    (waiting, waiting.c.item_id, of_waiting),
                ):
                    ids = connection.execute(query.limit(limit)).scalars().all()
                    for part in chunks(ids):
                        connection.execute(delete(t).where(key.in_(part)))
                    gone += len(ids)
                connection.execute(delete(marks).where(marks.c.home_node.in_(some)))
            return gone

        return self._store.transactions.write(work)

    def of_home(
        self, home: NodeId, after: Position, limit: int
    ) -> tuple[list[RowChange], Position | None]:
        """The next full rows of one home, clear, and where to go on; None at the end."""

        def work(connection: Connection) -> tuple[list[RowChange], Position | None]:
            t, rows = _slice(
                connection,
                after,
                limit,
                lambda t: (t.c.form == Form.FULL.value,),
                [home],
                None,
                lock=False,
            )
            return self._changes(t, rows), _next(after, rows, limit)

        return self._store.transactions.read(work)

    def take_over(self, changes: Sequence[RowChange], closed: NodeId) -> Taken:
        """Store rows of a closed home, as the nodes above gave them, as this node's. Durable.

        Who they are and what the closed node wrote gets this node as its author, under the next
        author epoch; what others wrote stays theirs. All get this node as their home. What an
        honest node would not have given is left out.
        """
        here = self._store.node_id
        succession = Succession(closed, here, self._store.hierarchy)

        def work(connection: Connection) -> Taken:
            taken = succession.judge(
                changes,
                lambda table, ids: held_rows(connection, table, ids),
                lambda table, ids: self._clear(connection, table, ids),
            )
            by_table: dict[str, list[RowChange]] = defaultdict(list)
            for change in taken.rows:
                by_table[change.table].append(change)
            for table, group in sorted(by_table.items()):
                rows = [self._maker.row(each) for each in sorted(group, key=_row_id)]
                guarded_upsert(connection, REPLICATED[table], rows)
            if taken.rows:
                operator = local_operator(here, self._store.hierarchy, f"{closed} was closed")
                deed = Deed(Action.PUT, taken.rows[0].table, Outcome.DONE, len(taken.rows))
                self._store.auditor.write(connection, operator, deed)
            self._store.changelog.append(connection, self._entries(taken.rows))
            return taken

        return self._store.transactions.write(work)

    def _clear(self, connection: Connection, table: str, ids: set[str]) -> dict[str, RowChange]:
        """Rows held under these ids, by id."""
        t = REPLICATED[table]
        found: dict[str, RowChange] = {}
        for some in chunks(sorted(ids)):
            rows = connection.execute(select(t).where(t.c.row_id.in_(some))).mappings()
            found |= {each.row_id: each for each in self._changes(t, list(rows))}
        return found

    def _changes(self, t: Table, rows: Sequence[RowMapping]) -> list[RowChange]:
        """Clear. One that does not open is set aside: it must not hold back the home's others."""
        found = (change_or_aside(self._store, t.name, row) for row in rows)
        return [change for change in found if change is not None]

    def _entries(
        self, changes: Sequence[RowChange], audience: Audience = Audience.EVERYBODY
    ) -> list[NewEntry]:
        by_kind: dict[tuple[str, Form], list[RowChange]] = defaultdict(list)
        for change in changes:
            by_kind[change.home_node, change.form].append(change)
        now_ms = self._store.clock.now_ms()
        return [
            NewEntry(
                origin_node=self._store.node_id,
                origin_epoch=0,
                origin_sequence=None,
                lane=TABLES[rows[0].table].lane,
                home_node=home,
                form=form,
                codec=CODEC_JSON,
                schema_version=max(row.schema_version for row in rows),
                committed_at_ms=now_ms,
                row_count=len(rows),
                rows=encoded,
                audience=audience,
            )
            for (home, form), of_kind in sorted(by_kind.items())
            for rows, encoded in encoded_pieces(of_kind)
        ]


def _slice(
    connection: Connection,
    after: Position,
    limit: int,
    condition: Any,
    homes: Collection[NodeId],
    authors: Collection[NodeId] | None,
    *,
    lock: bool = True,
) -> tuple[Table, list[RowMapping]]:
    """The next rows of one table in the order of their ids, locked until the commit."""
    t = REPLICATED[_TABLES[after.table]]
    query = select(t).where(
        t.c.row_id > after.row_id, t.c.home_node.in_(sorted(homes)), *condition(t)
    )
    if authors is not None:
        query = query.where(t.c.author_node.in_(sorted(authors)))
    query = query.order_by(t.c.row_id).limit(limit)
    rows = connection.execute(query.with_for_update() if lock else query)
    return t, list(rows.mappings())


def _next(after: Position, rows: Sequence[RowMapping], limit: int) -> Position | None:
    if len(rows) == limit:
        return Position(after.table, str(rows[-1]["row_id"]))
    if after.table + 1 < len(_TABLES):
        return Position(after.table + 1, "")
    return None


def _row_id(change: RowChange) -> str:
    return change.row_id


def _tombstone(t: Table, row: RowMapping) -> RowChange:
    return RowChange(
        table=t.name,
        row_id=row["row_id"],
        resident_id=row["resident_id"],
        version=Version(row["version_epoch"], row["version_number"]),
        operation=Operation.DELETE,
        author_node=row["author_node"],
        home_node=row["home_node"],
        home_epoch=row["home_epoch"],
        schema_version=row["schema_version"],
        recorded_at=row["recorded_at"],
        form=Form(row["form"]),
        values={},
    )
