"""A stored row as the change that made it; a row that does not open is set aside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select

from node.aside import ITEM_FAULTS
from node.storage.context import StoreContext
from node.storage.sealing import CellSealer
from node.storage.specs import TABLES
from node.storage.tables import REPLICATED
from replication.core.model import Form, Operation, RowChange, Version

__all__ = ["change_or_aside", "look_again", "stored_change"]

_ROWS_A_LOOK: Final = 100


def stored_change(cells: CellSealer, table: str, row: RowMapping) -> RowChange:
    """A stored row as the change that made it; columns without a value are left out.

    Raises one of ITEM_FAULTS if a cell does not open, or a column holds what it cannot.
    """
    spec = TABLES[table]
    values: Mapping[str, Any] = {}
    if not row["deleted"]:
        opened = {**cells.open(spec, row), **cells.open_unknown(spec, row)}
        values = {name: value for name, value in opened.items() if value is not None}
    return RowChange(
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
        values=values,
    )


def change_or_aside(store: StoreContext, table: str, row: RowMapping) -> RowChange | None:
    """As `stored_change`, for a reader of many rows: None for one that it has to leave out.

    The row is counted and raises an alarm. Whoever was to be sent it lacks it until the comparison
    with him mends one of the two ends.
    """
    try:
        return stored_change(store.cells, table, row)
    except ITEM_FAULTS as error:
        store.aside.add(table, str(row["row_id"]), error)
        return None


def look_again(store: StoreContext) -> None:
    """Look at some of the rows that were set aside: who was mended, or is gone, stands no more."""
    standing = {name: store.aside.keys(name, _ROWS_A_LOOK) for name in TABLES}
    if any(standing.values()):
        store.transactions.read(lambda connection: _look(store, connection, standing))


def _look(store: StoreContext, connection: Connection, standing: Mapping[str, list[str]]) -> None:
    for name, row_ids in standing.items():
        t = REPLICATED[name]
        query = select(t).where(t.c.row_id.in_(row_ids))
        rows = connection.execute(query).mappings() if row_ids else ()
        bad = {str(row["row_id"]) for row in rows if not _opens(store.cells, name, row)}
        for row_id in row_ids:
            if row_id in bad:
                store.aside.again(name, row_id)
            else:
                store.aside.clear(name, row_id)


def _opens(cells: CellSealer, table: str, row: RowMapping) -> bool:
    try:
        stored_change(cells, table, row)
    except ITEM_FAULTS:
        return False
    return True
