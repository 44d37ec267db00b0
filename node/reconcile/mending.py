"""Writes rows that were found to differ: never to a lower version, audited, and logged for readers.

A row of the same version is replaced only here: what the storage writes otherwise is guarded by the
version. The log entry makes the columnar replica and the caches look again; it travels on only if
the row is news here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, bindparam, select, update

from node.reconcile.model import Cause, Direction, Pair, Slice, Taken, key_named
from node.reconcile.slices import SliceReader
from node.security.caller import local_operator
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.pieces import encoded_pieces
from node.storage.rows import HeldRow, RowMaker, held_rows
from node.storage.shapes import fits_schema, is_row_id, refuse_unspeakable
from node.storage.specs import RESIDENT_INDEX, RESIDENTS, TABLES
from node.storage.tables import REPLICATED
from node.storage.transactions import ChangedMeanwhileError
from node.storage.upsert import guarded_upsert
from replication.changelog import NewEntry
from replication.core.codec import CODEC_JSON
from replication.core.model import Audience, Lane, RowChange

__all__ = ["Mender"]

_OWN_ROWS: Final = frozenset({RESIDENTS.name, RESIDENT_INDEX.name})
_KEPT: Final = frozenset({"row_id", "value_claim"})
_PURPOSE: Final = "mended from"

_Home = tuple[str, int]
"""A resident's home and its epoch."""


class Mender:
    """Mends rows of one link at this end."""

    def __init__(
        self, store: StoreContext, maker: RowMaker, reader: SliceReader, pair: Pair
    ) -> None:
        self._store = store
        self._maker = maker
        self._reader = reader
        self._pair = pair
        self._peer = pair.parent if store.node_id == pair.child else pair.child

    def mend(
        self, part: Slice, rows: Sequence[RowChange], *, from_log: bool = False
    ) -> list[Taken]:
        """Write the rows that may be written; one verdict each. Durable on return.

        Args:
            part: The slice they were asked for.
            rows: As the other end, or this node's own log, says they are.
            from_log: They are this node's own, as its log has them, and stay here.

        Raises:
            RemoteProtocolError: A row holds what no encoder makes.
        """
        for change in rows:
            refuse_unspeakable(change)

        def work(connection: Connection) -> list[Taken]:
            return self._mend(connection, part, rows, from_log)

        return self._store.transactions.write(work)

    def _mend(
        self, connection: Connection, part: Slice, rows: Sequence[RowChange], from_log: bool
    ) -> list[Taken]:
        sound = [change for change in rows if self._is_sound(part, change)]
        held = held_rows(connection, part.table, [change.row_id for change in sound])
        concerned = [change.resident_id for change in sound]
        concerned += [row.resident_id for row in held.values()]
        homes = self._homes(connection, [each for each in concerned if is_row_id(each)])
        answers: list[Taken] = []
        news: list[RowChange] = []
        again: list[RowChange] = []
        for change in rows:
            cause = self._refusal(part, change, held.get(change.row_id), homes, from_log=from_log)
            if cause is None:
                old = held.get(change.row_id)
                (again if old is not None and _is_same(change, old) else news).append(change)
            answers.append(Taken(key_named(change), cause))
        self._write(connection, part.table, news, again)
        self._note(connection, part, news, again, from_log)
        return answers

    def _is_sound(self, part: Slice, change: RowChange) -> bool:
        return change.table == part.table and change.table in TABLES and fits_schema(change)

    def _refusal(
        self,
        part: Slice,
        change: RowChange,
        held: HeldRow | None,
        homes: dict[str, _Home],
        *,
        from_log: bool,
    ) -> Cause | None:
        """Why a row may not be written; what replication would not admit is not mended either."""
        if not self._is_sound(part, change) or change.home_node != part.home:
            return Cause.REFUSED
        if not from_log and not self._reader.belongs(part, change):
            return Cause.REFUSED
        lane = TABLES[change.table].lane
        if lane is Lane.IDENTITY and change.author_node != change.home_node:
            return Cause.REFUSED
        home = homes.get(change.resident_id)
        if change.table not in _OWN_ROWS and home is not None and home[0] != change.home_node:
            return Cause.HOME_MISMATCH
        if held is not None and not from_log and not self._may_touch(part, held, homes):
            return Cause.REFUSED
        if held is not None and _is_same(change, held):
            return None
        if home is not None and change.home_epoch < home[1]:
            return Cause.REFUSED
        if held is None:
            return None
        if (change.version, change.home_epoch) < (held.version, held.home_epoch):
            return Cause.OWNER_BEHIND
        return None if change.author_node == held.author_node else Cause.REFUSED

    def _may_touch(self, part: Slice, held: HeldRow, homes: dict[str, _Home]) -> bool:
        """Whether the row that is held is one of this link at all.

        A hostile end may name any row id. That of a sibling's row, or of a row that the other side
        wrote, must not be a way to replace it.
        """
        hierarchy, pair = self._store.hierarchy, self._pair
        below = hierarchy.subtree(pair.child)
        if self._store.node_id == pair.parent:
            home = homes.get(held.resident_id, ("", 0))[0]
            is_childs = held.home_node in below or home in below
            return is_childs and held.author_node not in hierarchy.path_to_root(pair.parent)
        return part.direction is Direction.UP or held.author_node not in below

    def _homes(self, connection: Connection, resident_ids: Sequence[str]) -> dict[str, _Home]:
        t = REPLICATED[RESIDENTS.name]
        query: Select[Any] = select(t.c.row_id, t.c.home_node, t.c.home_epoch).where(
            t.c.row_id.in_(sorted(set(resident_ids)))
        )
        homes = {row.row_id: (row.home_node, row.home_epoch) for row in connection.execute(query)}
        # Who has moved away does not come back because a copy of him is missing here.
        for resident_id, grant in self._store.homes.newest(connection, set(resident_ids)).items():
            if grant.home_epoch > homes.get(resident_id, ("", 0))[1]:
                homes[resident_id] = (grant.home_node, grant.home_epoch)
        return homes

    def _write(
        self,
        connection: Connection,
        table: str,
        news: Sequence[RowChange],
        again: Sequence[RowChange],
    ) -> None:
        t = REPLICATED[table]
        if news:
            rows = [self._row(change) for change in sorted(news, key=_row_id)]
            guarded_upsert(connection, t, rows)
        for change in again:
            row = self._maker.row(change)
            where = and_(
                t.c.row_id == bindparam("held_id"),
                t.c.version_epoch == row["version_epoch"],
                t.c.version_number == row["version_number"],
            )
            values = {name: value for name, value in row.items() if name not in _KEPT}
            done = connection.execute(
                update(t).where(where).values(values), {"held_id": change.row_id}
            )
            if done.rowcount > 1:
                raise ChangedMeanwhileError

    def _row(self, change: RowChange) -> dict[str, Any]:
        """A row that is new here again claims its identity number where it was registered."""
        return self._maker.row(change, claims=change.author_node == self._store.node_id)

    def _note(
        self,
        connection: Connection,
        part: Slice,
        news: Sequence[RowChange],
        again: Sequence[RowChange],
        from_log: bool,
    ) -> None:
        changed = [*news, *again]
        if not changed:
            return
        source = "its log" if from_log else self._peer
        caller = local_operator(self._store.node_id, self._store.hierarchy, f"{_PURPOSE} {source}")
        self._store.auditor.write(
            connection,
            caller,
            *(
                Deed(
                    Action.REPAIR,
                    part.table,
                    Outcome.DONE,
                    1,
                    object_id=change.row_id,
                    resident_id=change.resident_id,
                )
                for change in changed
            ),
        )
        travels = Audience.HERE if from_log else Audience.EVERYBODY
        self._store.changelog.append(
            connection,
            [*self._entries(news, travels), *self._entries(again, Audience.HERE)],
        )

    def _entries(self, rows: Sequence[RowChange], audience: Audience) -> list[NewEntry]:
        by_kind: dict[tuple[str, str], list[RowChange]] = defaultdict(list)
        for change in rows:
            by_kind[change.home_node, change.form].append(change)
        now_ms = self._store.clock.now_ms()
        return [
            NewEntry(
                # As if the neighbour had sent it: so it goes on to where his rows go.
                origin_node=self._peer,
                origin_epoch=0,
                origin_sequence=0,
                lane=TABLES[some[0].table].lane,
                home_node=some[0].home_node,
                form=some[0].form,
                codec=CODEC_JSON,
                schema_version=max(row.schema_version for row in some),
                committed_at_ms=now_ms,
                row_count=len(some),
                rows=encoded,
                audience=audience,
            )
            for _, group in sorted(by_kind.items())
            for some, encoded in encoded_pieces(group)
        ]


def _is_same(change: RowChange, held: HeldRow) -> bool:
    """Whether it is the version that is held: then only its content can be wrong."""
    return change.version == held.version and change.home_epoch >= held.home_epoch


def _row_id(change: RowChange) -> str:
    return change.row_id
