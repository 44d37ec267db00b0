"""A region whose residents move, on each database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from node.storage import EngineLimits, open_engine
from tests.contracts.residence.region import MovingRegion
from tests.contracts.storage.conftest import emptied_databases

__all__ = ["emptied_databases", "region"]

_LIMITS = EngineLimits(connections=6)


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def region(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MovingRegion]:
    """Nodes on SQLite files, then nodes on MariaDB."""
    with ExitStack() as opened:
        numbers = count()

        def new_url() -> str:
            if request.param == "sqlite":
                return f"sqlite:///{tmp_path / f'store{next(numbers)}.db'}"
            databases = request.getfixturevalue("emptied_databases")
            url: str = opened.enter_context(databases.lend())
            return url

        made = MovingRegion(lambda: open_engine(new_url(), _LIMITS))
        yield made
        made.close()
