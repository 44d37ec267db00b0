"""A node on each database, and empty databases to restore into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from tests.contracts.backup.nodes import BackedUpNode
from tests.services.mariadb import MariaDBDatabases


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """URLs of empty databases of one kind."""
    numbers = count(1)
    with ExitStack() as opened:

        def made() -> str:
            if request.param == "sqlite":
                return f"sqlite:///{tmp_path / f'store{next(numbers)}.db'}"
            databases: MariaDBDatabases = request.getfixturevalue("mariadb_databases")
            return opened.enter_context(databases.fresh())

        yield made


@pytest.fixture
def node(new_url: Callable[[], str], tmp_path: Path) -> Iterator[BackedUpNode]:
    """A village whose store has been opened once."""
    made = BackedUpNode(tmp_path / "node", new_url(), tmp_path / "shelf")
    yield made
    made.close()


@pytest.fixture
def village(tmp_path: Path) -> Iterator[BackedUpNode]:
    """A village on SQLite, with some rows."""
    made = BackedUpNode(tmp_path / "node", f"sqlite:///{tmp_path / 'one.db'}", tmp_path / "shelf")
    made.write(3)
    yield made
    made.close()
