"""Row changes and database rows: the one translation that writes and applies share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, select

from node.storage.context import KeyedIndex
from node.storage.sealing import CellSealer
from node.storage.specs import IDENTIFIERS, IDENTITY_NUMBER, TABLES
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
    """What is held of a row, as far as fencing needs it."""

    table: str
    row_id: str
    resident_id: str
    version: Version
    author_node: str
    home_node: str
    home_epoch: int
    form: str
    deleted: bool


def held_rows(
    connection: Connection, table: str, row_ids: Iterable[str], *, for_update: bool
) -> dict[str, HeldRow]:
    """The rows held under these ids, locked until the commit if `for_update`."""
    t = REPLICATED[table]
    query = select(
        t.c.row_id,
        t.c.resident_id,
        t.c.version_epoch,
        t.c.version_number,
        t.c.author_node,
        t.c.home_node,
        t.c.home_epoch,
        t.c.form,
        t.c.deleted,
    )
    if for_update:
        query = query.with_for_update()
    found: dict[str, HeldRow] = {}
    # In the order of the key, so that two transactions lock alike and do not deadlock.
    for some in chunks(sorted(set(row_ids))):
        for row in connection.execute(query.where(t.c.row_id.in_(some)).order_by(t.c.row_id)):
            version = Version(row.version_epoch, row.version_number)
            found[row.row_id] = HeldRow(
                table, row.row_id, row.resident_id, version, *row[4:8], bool(row.deleted)
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
