"""Fixtures: every test that takes `database` runs on SQLite and on MariaDB, each time on a new one.

    def test_something(database: Database) -> None:
        with database.engine.begin() as connection: ...

`sqlite_database` and `mariadb_database` give one kind only. With pytest-xdist each worker process
has a server of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from replication.changelog import prepare_engine
from tests.services.mariadb import MariaDBDatabases

__all__ = [
    "Database",
    "database",
    "mariadb_database",
    "mariadb_databases",
    "sqlite_database",
]


@dataclass
class Database:
    """An empty database: its URL, and an engine prepared for our promises."""

    kind: str
    url: str
    engine: Engine = field(init=False)
    _opened: ExitStack = field(init=False, default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.engine = self.open()

    def open(self) -> Engine:
        """Another engine on the same database, as a second process would have."""
        engine = prepare_engine(create_engine(self.url, pool_size=10, max_overflow=20))
        self._opened.callback(engine.dispose)
        return engine

    def close(self) -> None:
        """Close every engine."""
        self._opened.close()


@pytest.fixture(scope="session")
def mariadb_databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDBDatabases]:
    """The one server of this process, started at the first use."""
    databases = MariaDBDatabases(tmp_path_factory.mktemp("mariadb"))
    yield databases
    databases.close()


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    """A SQLite file."""
    opened = Database("sqlite", f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


@pytest.fixture
def mariadb_database(mariadb_databases: MariaDBDatabases) -> Iterator[Database]:
    """A database on the private MariaDB."""
    with mariadb_databases.fresh() as url:
        opened = Database("mariadb", url)
        yield opened
        opened.close()


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def database(request: pytest.FixtureRequest) -> Database:
    """Both, one after the other."""
    opened: Database = request.getfixturevalue(f"{request.param}_database")
    return opened
