"""A village on each database, below a township on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.auditing.place import Place
from tests.databases import Database

__all__ = ["place"]


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Iterator[Place]:
    """Both nodes, started, and nothing anchored yet."""
    upper = Database("sqlite", f"sqlite:///{tmp_path / 'township.db'}")
    made = Place(tmp_path, database.engine, upper.engine)
    yield made
    made.close()
    upper.close()
