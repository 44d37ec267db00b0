"""Sends a row to a neighbour once more, because he asked: the current version, as a fresh entry.

A neighbour is sent nothing that the log would not have sent him: the same routing decides. What is
not his and what is not here are one answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from hierarchy_config.model import CopyForm, NodeId
from node.storage.context import StoreContext
from node.storage.errors import NothingToResendError
from node.storage.shapes import is_row_id
from node.storage.specs import RESIDENT_INDEX, RESIDENTS, TABLES
from node.storage.tables import CHANGELOG, REPLICATED
from replication.changelog import NewEntry
from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.config import PeerRole
from replication.core.model import Form, LogEntry, Operation, RowChange, Version
from replication.core.routing import goes_down, goes_up

__all__ = ["Resender", "Wanted"]

_ENTRY_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a neighbour asks for: a row, or with table "" all rows of a transaction's entry.

    Row ids are those he was sent: pseudonyms, if the row was de-identified for him.
    """

    table: str
    row_id: str
    home_node: str
    form: Form
    origin_node: str = ""
    origin_epoch: int = 0
    origin_sequence: int = 0


class Resender:
    """Puts rows into the log again."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store

    def resend(self, peer: NodeId, role: PeerRole, wanted: Wanted) -> int:
        """Log the current version of what a neighbour asks for; how many rows. Durable on return.

        Args:
            peer: Who asks.
            role: What he is to this node.
            wanted: What he was sent before.

        Raises:
            NothingToResendError: It is not here, or not for him.
        """

        def work(connection: Connection) -> int:
            rows = [
                row
                for row in self._current(connection, wanted)
                if (role is PeerRole.PARENT or row.form is Form.FULL)
                and self._is_for(peer, role, self._origin(role, row), row)
            ]
            if not rows:
                raise NothingToResendError("nothing of that name is here for the node that asks")
            self._store.changelog.append(connection, [self._entry(role, row) for row in rows])
            return len(rows)

        return self._store.transactions.write(work)

    def _current(self, connection: Connection, wanted: Wanted) -> Iterator[RowChange]:
        """The rows of what is wanted as they are here now."""
        if not wanted.table:
            for table, row_id in self._of_entry(connection, wanted):
                yield from self._held(connection, table, row_id)
            return
        table = RESIDENTS.name if wanted.table == RESIDENT_INDEX.name else wanted.table
        if table not in TABLES or not is_row_id(wanted.row_id):
            return
        held: str | None = wanted.row_id
        if wanted.form is Form.DEIDENTIFIED:
            held = self._behind(connection, table, wanted)
        if held is not None:
            yield from self._held(connection, table, held)

    def _held(self, connection: Connection, table: str, row_id: str) -> Iterator[RowChange]:
        t = REPLICATED[table]
        for row in connection.execute(select(t).where(t.c.row_id == row_id)).mappings():
            yield self._change(table, row)

    def _behind(self, connection: Connection, table: str, wanted: Wanted) -> str | None:
        """The id behind a pseudonym: of that home's rows the one that has it."""
        pseudonyms, t = self._store.pseudonyms, REPLICATED[table]
        if pseudonyms is None:
            return None
        ids = select(t.c.row_id).where(t.c.home_node == wanted.home_node)
        for row_id in connection.execute(ids).scalars():
            if pseudonyms.pseudonym(table, row_id) == wanted.row_id:
                return str(row_id)
        return None

    def _of_entry(self, connection: Connection, wanted: Wanted) -> set[tuple[str, str]]:
        """Tables and ids of the rows of an entry that is still in the log."""
        t = CHANGELOG.change_log
        found = connection.execute(
            select(t.c.sequence).where(
                t.c.origin_node == wanted.origin_node,
                t.c.origin_epoch == wanted.origin_epoch,
                t.c.origin_sequence == wanted.origin_sequence,
                t.c.form == wanted.form.value,
            )
        ).scalar()
        if not found or not wanted.origin_sequence:
            return set()
        part = self._store.changelog.read(
            connection, after=found - 1, lane=None, bytes_max=_ENTRY_BYTES_MAX, up_to=found
        )
        return {(row.table, row.row_id) for entry in part.entries for row in _rows(entry)}

    def _origin(self, role: PeerRole, row: RowChange) -> str:
        """Under whose name it goes out: its author's, who sends it no way that it did not go.

        Upwards, a record that came to its home here by letter is this node's.
        """
        here = self._store.hierarchy.subtree(self._store.node_id)
        if role is PeerRole.PARENT and row.author_node not in here:
            return self._store.node_id
        return row.author_node

    def _is_for(self, peer: NodeId, role: PeerRole, origin: str, row: RowChange) -> bool:
        tree, here = self._store.hierarchy, self._store.node_id
        if role is PeerRole.CHILD:
            return goes_down(origin, row.home_node, row.form, tree.subtree(peer))
        forms = tree.copy_forms(here, row.table)
        # Two reduced forms of one row that arrive alone together would join what must stay apart.
        joins = CopyForm.FULL not in forms and len(forms) > 1
        goes = goes_up(origin, row.home_node, row.form, tree.subtree(here))
        return goes and bool(forms) and not joins

    def _entry(self, role: PeerRole, row: RowChange) -> NewEntry:
        return NewEntry(
            origin_node=self._origin(role, row),
            origin_epoch=self._store.changelog.store_epoch,
            origin_sequence=0,
            lane=TABLES[row.table].lane,
            home_node=row.home_node,
            form=row.form,
            codec=CODEC_JSON,
            schema_version=row.schema_version,
            committed_at_ms=self._store.clock.now_ms(),
            row_count=1,
            rows=encode_changes([row]),
        )

    def _change(self, table: str, row: RowMapping) -> RowChange:
        spec, cells = TABLES[table], self._store.cells
        held = RowChange(
            table=table,
            row_id=row["row_id"],
            resident_id=row["resident_id"],
            version=Version(row["version_epoch"], row["version_number"]),
            operation=Operation.DELETE if row["deleted"] else Operation.PUT,
            author_node=row["author_node"],
            home_node=row["home_node"],
            home_epoch=row["home_epoch"],
            schema_version=row["schema_version"],
            recorded_at=row["recorded_at"],
            form=Form(row["form"]),
            values={},
        )
        if row["deleted"]:
            return held
        values: dict[str, Any] = {**cells.open(spec, row), **cells.open_unknown(spec, row)}
        return replace(held, values=values)


def _rows(entry: LogEntry) -> list[RowChange]:
    return [row for row in decode_changes(entry.codec, entry.rows) if is_row_id(row.row_id)]
