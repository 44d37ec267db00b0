"""Columns that came before this release knew them: kept aside then, now put in their place.

A node keeps what a newer one sent it beyond its own schema, sealed in one cell, and relays it. Once
it is upgraded itself that belongs into the columns that it has now: reads look nowhere else. Done
at the first start under a schema, before anybody is served, in bounded transactions; a death
between two of them begins anew, and what is in its place is passed over.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Table, select, update

from node.aside import ITEM_FAULTS
from node.storage.context import StoreContext
from node.storage.purging import note_purged
from node.storage.specs import TABLES, TableSpec
from node.storage.tables import CHANGELOG, REPLICATED
from replication.changelog import StoreState
from replication.core.model import SCHEMA_VERSION

__all__ = ["adopt_columns"]

_ADOPTED: Final = "columns_adopted"
"""In store_state: the schema whose columns have been filled."""
_ROWS_AT_ONCE: Final = 500


def adopt_columns(store: StoreContext) -> int:
    """Fill this schema's columns from what older releases kept aside; how many rows were filled.

    A row whose cell does not open is set aside and stays as it is.
    """
    facts = StoreState(CHANGELOG)
    held = store.transactions.read(facts.load).get(_ADOPTED, "0")
    if int(held) >= SCHEMA_VERSION:
        return 0
    filled = 0
    for spec in TABLES.values():
        after: str | None = ""
        while after is not None:
            some, after = store.transactions.write(partial(_fill, store, spec, after))
            filled += some
    store.transactions.write(
        lambda connection: facts.save(connection, _ADOPTED, str(SCHEMA_VERSION))
    )
    return filled


def _fill(
    store: StoreContext, spec: TableSpec, after: str, connection: Connection
) -> tuple[int, str | None]:
    """Rows filled of the next few, and the last of them; None: there are no more."""
    t = REPLICATED[spec.name]
    query = (
        select(t)
        .where(t.c.unknown_fields.is_not(None), t.c.row_id > after)
        .order_by(t.c.row_id)
        .limit(_ROWS_AT_ONCE)
        .with_for_update()
    )
    rows = connection.execute(query).mappings().all()
    filled = sum(_adopted(store, spec, t, row, connection) for row in rows)
    if filled:
        # No version of theirs changed and no log entry says so: the next backup copies them whole.
        note_purged(connection)
    return filled, rows[-1]["row_id"] if len(rows) == _ROWS_AT_ONCE else None


def _adopted(
    store: StoreContext, spec: TableSpec, t: Table, row: RowMapping, connection: Connection
) -> bool:
    row_id = row["row_id"]
    try:
        kept = store.cells.open_unknown(spec, row)
        known = kept.keys() & spec.names
        if not known:
            return False
        made = store.cells.seal(spec, row_id, {**store.cells.open(spec, row), **kept})
    except ITEM_FAULTS as error:
        store.aside.add(spec.name, row_id, error)
        return False
    values: dict[str, Any] = {name: made[name] for name in (*known, "unknown_fields")}
    connection.execute(update(t).where(t.c.row_id == row_id).values(values))
    return True
