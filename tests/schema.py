"""A database with the schema of this release, copied from one that was migrated once a process.

The migrations run statement by statement and are tested by themselves; a test that needs six nodes
should not wait for them six times.
"""

from __future__ import annotations

import sqlite3
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, inspect, text

from node.storage import EngineLimits, migrate, open_engine

__all__ = ["migrated"]

_STANDING: set[str] = set()
"""Databases of servers that have the schema: they are emptied and used again."""
_COPIED: dict[str, tuple[list[str], list[str]]] = {}
"""Of a server, by its address: what makes the tables, and what fills those that are not empty."""


def migrated(engine: Engine) -> None:
    """As `migrate` does it; to an empty database by copying."""
    database = f"{engine.url.host}:{engine.url.port}/{engine.url.database}"
    if inspect(engine).has_table("alembic_version"):
        if database not in _STANDING:
            migrate(engine)
        return
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            held: Any = connection.connection.driver_connection
            assert isinstance(held, sqlite3.Connection)
            _template().backup(held)
        return
    _STANDING.add(database)
    server = f"{engine.url.host}:{engine.url.port}"
    if server not in _COPIED:
        migrate(engine)
        with engine.connect() as connection:
            _COPIED[server] = _statements(connection)
        return
    making, filling = _COPIED[server]
    with engine.begin() as connection:
        for statement in (*making, *filling):
            connection.exec_driver_sql(statement)


@cache
def _template() -> sqlite3.Connection:
    """In memory, as a store on disk has it."""
    kept = sqlite3.connect(":memory:", check_same_thread=False)
    with tempfile.TemporaryDirectory(prefix="fenhe-schema-") as folder:
        engine = open_engine(f"sqlite:///{Path(folder) / 'store.db'}", EngineLimits(connections=1))
        migrate(engine)
        with engine.connect() as connection:
            held: Any = connection.connection.driver_connection
            held.backup(kept)
        engine.dispose()
    return kept


def _statements(connection: Connection) -> tuple[list[str], list[str]]:
    """Percent signs are doubled, for the driver takes them for parameters."""
    making, filling = [], []
    for name in inspect(connection).get_table_names():
        made = connection.execute(text(f"SHOW CREATE TABLE `{name}`")).one()
        making.append(str(made[1]).replace("%", "%%"))
        for row in connection.execute(text(f"SELECT * FROM `{name}`")):
            values = ", ".join(_literal(value) for value in row)
            filling.append(f"INSERT INTO `{name}` VALUES ({values})".replace("%", "%%"))
    return making, filling


def _literal(value: object) -> str:
    """Rows of a new store hold numbers, codes and nothing."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(int(value))
    assert isinstance(value, str)
    assert value.replace("_", "").replace("-", "").isalnum() or not value
    return f"'{value}'"
