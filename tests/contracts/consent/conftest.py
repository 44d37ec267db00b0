"""A township's store on each database, and the small region of the storage's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from node.storage import EngineLimits, open_engine
from tests.contracts.consent.world import World
from tests.contracts.storage.conftest import emptied_databases, region

__all__ = ["emptied_databases", "region", "world"]


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """An empty township."""
    with ExitStack() as opened:
        url = f"sqlite:///{tmp_path / 'store.db'}"
        if request.param == "mariadb":
            url = opened.enter_context(request.getfixturevalue("emptied_databases").lend())
        engine = open_engine(url, EngineLimits(connections=6))
        opened.callback(engine.dispose)
        yield World(engine)
