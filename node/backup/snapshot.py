"""One consistent view of a node's database, and the rows of any table in it.

Tables are found by looking, so that what another release added is in a backup too. Cells are what
the driver gives; nothing here knows what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    TableClause,
    column,
    delete,
    func,
    insert,
    inspect,
    or_,
    select,
    table,
    tuple_,
)

from replication.changelog import read_transaction

__all__ = [
    "Snapshot",
    "TableShape",
    "clear",
    "consistent_view",
    "keep",
    "put",
    "remove",
    "shapes",
]

KEYS_A_QUERY: Final = 300
_FETCHED_AT_ONCE: Final = 500
_NOT_OURS: Final = frozenset({"alembic_version"})
_PATIENCE_S: Final = 3600

Picked = Callable[[TableClause], ColumnElement[bool]]


@dataclass(frozen=True)
class TableShape:
    """A table as it is found: its columns in order, its key (empty: none).

    `clause` is for statements, without types, so that cells stay as the driver has them.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    clause: TableClause


def shapes(connection: Connection) -> dict[str, TableShape]:
    """Every table of the database, by name; Alembic's own is left out."""
    found = inspect(connection)
    made = {}
    for name in sorted(set(found.get_table_names()) - _NOT_OURS):
        columns = tuple(each["name"] for each in found.get_columns(name))
        key = tuple(found.get_pk_constraint(name).get("constrained_columns") or ())
        clause = table(name, *(column(each) for each in columns))
        made[name] = TableShape(name, columns, key, clause)
    return made


@contextmanager
def consistent_view(engine: Engine) -> Iterator[Connection]:
    """A transaction in which nothing changes, however long it lasts. Stops no writer."""
    if engine.dialect.name == "sqlite":
        with read_transaction(engine) as connection:
            # BEGIN alone takes no view: the first read does.
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
            yield connection
        return
    with engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # A slow store must not make the server give the reader up.
        connection.exec_driver_sql(f"SET SESSION net_write_timeout = {_PATIENCE_S}")
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        try:
            yield connection
        finally:
            connection.rollback()
            connection.invalidate()


class Snapshot:
    """Reads tables within a view."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.shapes = shapes(connection)

    @classmethod
    def of(cls, connection: Connection) -> Self:
        """The tables of a view."""
        return cls(connection)

    def count(self, name: str, where: Picked | None = None) -> int:
        """Rows of a table."""
        clause = self.shapes[name].clause
        query = select(func.count()).select_from(clause)
        if where is not None:
            query = query.where(where(clause))
        return int(self.connection.execute(query).scalar_one())

    def value(self, name: str, wanted: Callable[[TableClause], Any]) -> Any:
        """One value, such as the greatest of a column; None in an empty table."""
        clause = self.shapes[name].clause
        return self.connection.execute(select(wanted(clause)).select_from(clause)).scalar()

    def rows(self, name: str, where: Picked | None = None) -> Iterator[Sequence[Any]]:
        """Rows of a table as they come, few in memory at a time. Read them before asking more."""
        clause = self.shapes[name].clause
        query = select(clause)
        if where is not None:
            query = query.where(where(clause))
        options = {"stream_results": True, "yield_per": _FETCHED_AT_ONCE}
        with self.connection.execute(query, execution_options=options) as result:
            yield from result

    def rows_by_key(self, name: str, keys: Sequence[Sequence[Any]]) -> Iterator[Sequence[Any]]:
        """The rows under these keys, as far as they are there."""
        shape = self.shapes[name]
        for start in range(0, len(keys), KEYS_A_QUERY):
            some = keys[start : start + KEYS_A_QUERY]
            yield from self.connection.execute(
                select(shape.clause).where(_under(shape, some))
            ).all()


def clear(connection: Connection, shape: TableShape) -> None:
    """Delete every row."""
    connection.execute(delete(shape.clause))


def remove(connection: Connection, shape: TableShape, keys: Sequence[Sequence[Any]]) -> None:
    """Delete the rows under these keys."""
    for start in range(0, len(keys), KEYS_A_QUERY):
        connection.execute(
            delete(shape.clause).where(_under(shape, keys[start : start + KEYS_A_QUERY]))
        )


def keep(connection: Connection, shape: TableShape, name: str, least: Any, most: Any) -> None:
    """Delete the rows whose column is not within least..most (None: unbounded), or is null."""
    cell = shape.clause.c[name]
    outside = [cell.is_(None)]
    if least is not None:
        outside.append(cell < least)
    if most is not None:
        outside.append(cell > most)
    connection.execute(delete(shape.clause).where(or_(*outside)))


def put(connection: Connection, shape: TableShape, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows."""
    if rows:
        connection.execute(insert(shape.clause), list(rows))


def _under(shape: TableShape, keys: Sequence[Sequence[Any]]) -> ColumnElement[bool]:
    columns = [shape.clause.c[name] for name in shape.key]
    if len(columns) == 1:
        return columns[0].in_([key[0] for key in keys])
    return tuple_(*columns).in_([tuple(key) for key in keys])
