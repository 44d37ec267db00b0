"""A small region on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.revocation.place import Place
from tests.databases import Database
from tests.schema import migrated

__all__ = ["place"]


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Iterator[Place]:
    """The township's store is on the database; its neighbours' are SQLite."""
    migrated(database.engine)
    made = Place(tmp_path, database.engine)
    yield made
    made.close()
