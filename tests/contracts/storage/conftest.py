"""A region on each database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import update

from node.storage import METADATA, EngineLimits, open_engine
from node.storage.tables import AUDIT_CHAIN, CHANGELOG
from replication.changelog import ensure_log
from tests.contracts.storage.region import VILLAGE, NodeStore, Region
from tests.services.mariadb import MariaDBDatabases

_LIMITS = EngineLimits(connections=6)


class _EmptiedDatabases:
    """MariaDB databases used again and again: creating tables takes it longer than any test."""

    def __init__(self, databases: MariaDBDatabases, opened: ExitStack) -> None:
        self._databases = databases
        self._opened = opened
        self._free: list[str] = []

    @contextmanager
    def lend(self) -> Iterator[str]:
        """URL of a database without rows, with or without tables."""
        url = (
            self._free.pop() if self._free else self._opened.enter_context(self._databases.fresh())
        )
        yield url
        _empty(url)
        self._free.append(url)


def _empty(url: str) -> None:
    engine = open_engine(url, _LIMITS)
    with engine.begin() as connection:
        for table in METADATA.sorted_tables:
            if table is not AUDIT_CHAIN:
                # As text: an engine that has just been opened would compile each of them anew.
                connection.exec_driver_sql(f"DELETE FROM {table.name}")
        connection.execute(update(AUDIT_CHAIN).values(position=0, hash=""))
        ensure_log(connection, CHANGELOG)
    engine.dispose()


@pytest.fixture(scope="session")
def emptied_databases(mariadb_databases: MariaDBDatabases) -> Iterator[_EmptiedDatabases]:
    """The databases of this test process."""
    with ExitStack() as opened:
        yield _EmptiedDatabases(mariadb_databases, opened)


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def region(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Region]:
    """Nodes on SQLite files, then nodes on MariaDB."""
    with ExitStack() as opened:
        numbers = count()

        def new_url() -> str:
            if request.param == "sqlite":
                return f"sqlite:///{tmp_path / f'store{next(numbers)}.db'}"
            databases: _EmptiedDatabases = request.getfixturevalue("emptied_databases")
            return opened.enter_context(databases.lend())

        made = Region(lambda: open_engine(new_url(), _LIMITS))
        yield made
        made.close()


@pytest.fixture
def village(region: Region) -> NodeStore:
    """One village node."""
    return region.node(VILLAGE)
