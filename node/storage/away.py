"""Records written away from the resident's home: letters of kind "rows".

The author keeps the row under his own name, with the home that it is for, and posts it to that home
in the same transaction. The home admits it if it knows the resident and the sender is the row's
author, and logs it as an entry of its own, so that it climbs from there as policy says. A resident
who has moved on is answered with where he is, and the author addresses the letter anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select

from hierarchy_config.model import NodeId
from node.storage.causes import Misfit
from node.storage.context import StoreContext
from node.storage.pieces import encoded_pieces
from node.storage.rows import HeldRow, RowMaker, chunks, held_rows
from node.storage.shapes import fits_schema, refuse_unspeakable
from node.storage.specs import RECORD_TABLES, RESIDENTS, TABLES
from node.storage.tables import REPLICATED
from node.storage.upsert import guarded_upsert
from node.storage.writes import log_entries
from node.transit import Letter, SentLetter, Subject
from replication.core.admission import Held
from replication.core.codec import CODEC_JSON, decode_changes
from replication.core.model import Form, Lane, RowChange
from replication.errors import RemoteProtocolError

__all__ = ["MOVED", "ROWS", "AwayRows"]

ROWS: Final = "rows"
MOVED: Final = "RESIDENT_MOVED"
"""With ":" and the node where he is now, as a home answers."""
_RECOVERING: Final = "RECOVERING"
_SENDINGS_MAX: Final = 16
"""Of a letter that is addressed anew: homes that name each other are not followed for ever."""
_RECORDS: Final = frozenset(spec.name for spec in RECORD_TABLES)
_R = REPLICATED[RESIDENTS.name]
_HOMES: Final = (
    select(_R.c.row_id, _R.c.home_node, _R.c.home_epoch)
    .where(
        _R.c.row_id.in_(bindparam("ids", expanding=True)),
        _R.c.form == Form.FULL.value,
        _R.c.deleted.is_(False),
    )
    .with_for_update(read=True)
)


class AwayRows:
    """Both ends of the letters.

    `forward` says where a resident is who is not known here (None: nobody knows); set by whoever
    keeps residents' moves.
    """

    forward: Callable[[Connection, str], NodeId | None]

    def __init__(self, store: StoreContext, maker: RowMaker) -> None:
        self._store = store
        self._maker = maker
        self.forward = lambda _connection, _resident_id: None
        store.post.on_letter(ROWS, self._take)
        store.post.on_receipt(ROWS, self._receipted)

    def send(self, connection: Connection, changes: Sequence[RowChange]) -> None:
        """Post the rows to their homes: a letter for each home, resident and lane."""
        groups: dict[tuple[str, str, Lane], list[RowChange]] = defaultdict(list)
        for change in changes:
            lane = TABLES[change.table].lane
            groups[change.home_node, change.resident_id, lane].append(change)
        for (home_node, _, lane), group in groups.items():
            for rows, encoded in encoded_pieces(group):
                self._store.post.send(
                    connection,
                    to=NodeId(home_node),
                    kind=ROWS,
                    body=encoded,
                    lane=lane,
                    subject=[
                        Subject(row.table, row.row_id, row.resident_id, row.version) for row in rows
                    ],
                )

    def _take(self, connection: Connection, letter: Letter) -> str:
        """Admit the rows of a letter, all of them or none."""
        try:
            rows = decode_changes(CODEC_JSON, letter.body)
            for change in rows:
                refuse_unspeakable(change)
        except RemoteProtocolError:
            return Misfit.LETTER_MALFORMED
        misfit = next((m for m in (_misfit(row, letter) for row in rows) if m), None)
        if misfit is not None:
            return misfit
        homes = self._homes(connection, {row.resident_id for row in rows})
        for resident_id in sorted({row.resident_id for row in rows}):
            cause = self._not_at_home(connection, resident_id, homes)
            if cause:
                return cause
        held = self._held(connection, rows)
        admitted: dict[tuple[str, str], RowChange] = {}
        for row in rows:
            kept = held.get((row.table, row.row_id))
            if kept is not None and not self._may_write(row, kept):
                return Misfit.AUTHOR_CHANGED
            here = replace(row, home_node=self._store.node_id, home_epoch=homes[row.resident_id][1])
            if kept is None or Held(here.version, here.home_epoch) > Held(
                kept.version, kept.home_epoch
            ):
                admitted[row.table, row.row_id] = here
        self._store_rows(connection, list(admitted.values()))
        return ""

    def _not_at_home(
        self, connection: Connection, resident_id: str, homes: Mapping[str, tuple[str, int]]
    ) -> str:
        home_node, _ = homes.get(resident_id, ("", 0))
        if home_node == self._store.node_id:
            return ""
        moved_to = home_node or self.forward(connection, resident_id)
        if moved_to:
            return f"{MOVED}:{moved_to}"
        # What this node has lost and is about to get back is not unknown.
        return _RECOVERING if self._store.recovery.active else Misfit.RESIDENT_UNKNOWN

    def _homes(self, connection: Connection, ids: set[str]) -> dict[str, tuple[str, int]]:
        """By rows held, and by grants of moves, which are newer than the rows until these come."""
        homes = {
            row.row_id: (row.home_node, row.home_epoch)
            for some in chunks(sorted(ids))
            for row in connection.execute(_HOMES, {"ids": some})
        }
        for resident_id, grant in self._store.homes.newest(connection, ids).items():
            if grant.home_epoch > homes.get(resident_id, ("", 0))[1]:
                homes[resident_id] = (grant.home_node, grant.home_epoch)
        return homes

    def _held(
        self, connection: Connection, rows: Sequence[RowChange]
    ) -> dict[tuple[str, str], HeldRow]:
        ids: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            ids[row.table].add(row.row_id)
        return {
            (table, row_id): held
            for table in sorted(ids)
            for row_id, held in held_rows(connection, table, ids[table]).items()
        }

    def _may_write(self, row: RowChange, held: HeldRow) -> bool:
        """A row keeps its resident, and its author unless a successor took over."""
        if held.resident_id != row.resident_id:
            return False
        author = self._store.hierarchy.nodes.get(NodeId(row.author_node))
        succeeded = author is not None and author.succeeds == held.author_node
        later = row.version.author_epoch > held.version.author_epoch
        return row.author_node == held.author_node or (succeeded and later)

    def _store_rows(self, connection: Connection, rows: Sequence[RowChange]) -> None:
        by_table: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in sorted(rows, key=lambda each: each.row_id):
            by_table[row.table].append(self._maker.row(row))
        for table, made in by_table.items():
            guarded_upsert(connection, REPLICATED[table], made)
        now_ms = self._store.clock.now_ms()
        self._store.post.log(connection, log_entries(self._store, rows, now_ms))

    def _receipted(self, connection: Connection, sent: SentLetter, code: str) -> None:
        """A resident who has moved: the letter goes after him."""
        word, _, node = code.partition(":")
        known = node in self._store.hierarchy.nodes and node != sent.to
        if word == MOVED and known and sent.parcel.attempts < _SENDINGS_MAX:
            self._store.post.redirect(connection, sent.letter_id, NodeId(node))


def _misfit(row: RowChange, letter: Letter) -> str | None:
    if row.table not in _RECORDS:
        return Misfit.TABLE_UNKNOWN
    if row.form is not Form.FULL or not fits_schema(row):
        return Misfit.ROW_MALFORMED
    return None if row.author_node == letter.sender else Misfit.AUTHOR_NOT_SENDER
