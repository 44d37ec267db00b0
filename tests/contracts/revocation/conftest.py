"""A small region on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.storage import migrate
from tests.contracts.revocation.place import Place
from tests.databases import Database

__all__ = ["place"]


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Iterator[Place]:
    """The township's store is on the database; its neighbours' are SQLite."""
    migrate(database.engine)
    made = Place(tmp_path, database.engine)
    yield made
    made.close()
