"""What SQLite and MySQL need so that the same statements keep the same promises on both.

SQLite: write-ahead log, FULL synchronisation, one writer that queues instead of failing, and write
transactions that take the write lock when they begin (a lock upgraded in the middle fails without
waiting). MySQL and MariaDB: READ COMMITTED, so each statement sees all that has committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.dml import Insert

__all__ = [
    "ConnectionFactory",
    "after_commit",
    "prepare_engine",
    "read_transaction",
    "upsert",
    "write_transaction",
]

ConnectionFactory = Callable[[], AbstractContextManager[Connection]]
"""Opens a connection in a transaction that commits at the end, such as `engine.begin`."""

_READ_ONLY: Final = "fenhe_read_only"
_AFTER_COMMIT: Final = "fenhe_after_commit"
_BUSY_TIMEOUT_MS: Final = 30_000


def prepare_engine(engine: Engine, *, busy_timeout_ms: int = _BUSY_TIMEOUT_MS) -> Engine:
    """Put the hooks on a new engine, before its first connection, and return it.

    Args:
        engine: SQLite on a file, or MySQL/MariaDB.
        busy_timeout_ms: How long a SQLite connection waits for another writer.

    Raises:
        ValueError: The engine's database is neither.
    """
    match engine.dialect.name:
        case "sqlite":
            _prepare_sqlite(engine, busy_timeout_ms)
        case "mysql" | "mariadb":
            event.listen(engine, "connect", _connect_mysql)
        case other:
            raise ValueError(f"no such store: {other}")
    return engine


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads: on SQLite it never waits for a writer and never stops one."""
    with engine.connect() as connection:
        # Set on this connection only, in place: the hook on `begin` reads it.
        connection.execution_options(**{_READ_ONLY: True})
        with connection.begin():
            yield connection


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes; once it is durable, what `after_commit` was given is done."""
    with engine.begin() as connection:
        info = connection.info
        # Left by a transaction that was not begun here, or was rolled back.
        info.pop(_AFTER_COMMIT, None)
        yield connection
        # Taken while the connection is ours: once it is back in the pool, what stands there may be
        # of another thread's transaction, which has not committed.
        ours = info.pop(_AFTER_COMMIT, ())
    for done in ours:
        done()


def after_commit(connection: Connection, done: Callable[[], None]) -> None:
    """Call `done` once the connection's write_transaction is durable; never if it is rolled back.

    A transaction begun in another way forgets it.
    """
    connection.info.setdefault(_AFTER_COMMIT, []).append(done)


def upsert(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], changed: Sequence[str]
) -> None:
    """Insert rows, or where the primary key exists set the `changed` columns to the new values."""
    if not rows:
        return
    statement: Insert
    if connection.dialect.name == "sqlite":
        lite = sqlite.insert(table)
        statement = lite.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={name: lite.excluded[name] for name in changed},
        )
    else:
        large = mysql.insert(table)
        statement = large.on_duplicate_key_update({name: large.inserted[name] for name in changed})
    connection.execute(statement, [dict(row) for row in rows])


def _prepare_sqlite(engine: Engine, busy_timeout_ms: int) -> None:
    def connect(dbapi: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        # sqlite3 would otherwise begin its own, deferred, transactions behind our back.
        dbapi.isolation_level = None
        cursor = dbapi.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(busy_timeout_ms)}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)


def _connect_mysql(dbapi: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = dbapi.cursor()
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    cursor.close()
