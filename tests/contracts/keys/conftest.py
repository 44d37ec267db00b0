"""A village with its keys on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.keys.place import KeyedNode
from tests.databases import Database

__all__ = ["node", "village"]


@pytest.fixture
def node(database: Database, tmp_path: Path) -> Iterator[KeyedNode]:
    """A village with some residents and their records."""
    made = KeyedNode(tmp_path / "node", database.url, tmp_path / "shelf")
    made.write(5)
    yield made
    made.close()


@pytest.fixture
def village(tmp_path: Path) -> Iterator[KeyedNode]:
    """The same on SQLite alone, for what no database decides."""
    made = KeyedNode(tmp_path / "node", f"sqlite:///{tmp_path / 'one.db'}", tmp_path / "shelf")
    made.write(5)
    yield made
    made.close()
