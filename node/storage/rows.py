"""Row changes and database rows: the one translation that writes and applies share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Select, Table, bindparam, literal, select

from node.storage.context import KeyedIndex
from node.storage.sealing import CellSealer
from node.storage.specs import AUTHOR_ORGANIZATION, IDENTIFIERS, IDENTITY_NUMBER, TABLES
from node.storage.tables import REPLICATED
from replication.core.model import Operation, RowChange, Version

__all__ = ["KEYS_A_QUERY", "HeldRow", "RowMaker", "chunks", "held_rows"]

KEYS_A_QUERY: Final = 500
"""Row ids in one IN list."""

T = TypeVar("T")


def chunks(items: Sequence[T], size: int = KEYS_A_QUERY) -> Iterator[Sequence[T]]:
    """Slices of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


@dataclass(frozen=True, slots=True)
class HeldRow:
    """What is held of a row, as far as fencing needs it. `organization`: it was written for."""

    table: str
    row_id: str
    resident_id: str
    version: Version
    author_node: str
    home_node: str
    home_epoch: int
    form: str
    deleted: bool
    organization: str = ""


def _held_query(table: Table) -> Select[Any]:
    return (
        select(
            table.c.row_id,
            table.c.resident_id,
            table.c.version_epoch,
            table.c.version_number,
            table.c.author_node,
            table.c.home_node,
            table.c.home_epoch,
            table.c.form,
            table.c.deleted,
            table.c.get(AUTHOR_ORGANIZATION, literal("")).label("organization"),
        )
        .where(table.c.row_id.in_(bindparam("ids", expanding=True)))
        .order_by(table.c.row_id)
        .with_for_update()
    )


# Built once: composing a statement costs more than running it on SQLite.
_HELD: Final = {name: _held_query(table) for name, table in REPLICATED.items()}


def held_rows(connection: Connection, table: str, row_ids: Iterable[str]) -> dict[str, HeldRow]:
    """The rows held under these ids, locked until the commit."""
    found: dict[str, HeldRow] = {}
    # In the order of the key, so that two transactions lock alike and do not deadlock.
    for some in chunks(sorted(set(row_ids))):
        for row in connection.execute(_HELD[table], {"ids": some}):
            found[row.row_id] = HeldRow(
                table,
                row.row_id,
                row.resident_id,
                Version(row.version_epoch, row.version_number),
                row.author_node,
                row.home_node,
                row.home_epoch,
                row.form,
                bool(row.deleted),
                row.organization or "",
            )
    return found


class RowMaker:
    """Makes database rows of row changes: sealed cells, keyed indexes under this node's key."""

    def __init__(self, cells: CellSealer, blind_index: KeyedIndex) -> None:
        self._cells = cells
        self._blind_index = blind_index

    def row(self, change: RowChange, *, claims: bool = False) -> dict[str, Any]:
        """The database row; `claims`: an identity number registered here, unique from now on."""
        return {
            "row_id": change.row_id,
            "resident_id": change.resident_id,
            "version_epoch": change.version.author_epoch,
            "version_number": change.version.number,
            "author_node": change.author_node,
            "home_node": change.home_node,
            "home_epoch": change.home_epoch,
            "schema_version": change.schema_version,
            "recorded_at": change.recorded_at,
            "form": change.form.value,
            "deleted": change.operation is Operation.DELETE,
            **self._cells.seal(TABLES[change.table], change.row_id, change.values),
            **self._keyed(change, claims),
        }

    def _keyed(self, change: RowChange, claims: bool) -> Mapping[str, Any]:
        if change.table != IDENTIFIERS.name:
            return {}
        system, value = change.values.get("system"), change.values.get("value")
        if not isinstance(system, str) or not isinstance(value, str):
            return {"value_index": None, "value_claim": None}
        index = self._blind_index.index(system, value)
        claimed = claims and system == IDENTITY_NUMBER and change.operation is Operation.PUT
        return {"value_index": index, "value_claim": index if claimed else None}
