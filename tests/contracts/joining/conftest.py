"""A township's door on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.joining.place import Place
from tests.databases import Database
from tests.schema import migrated

__all__ = ["place"]


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Iterator[Place]:
    """A township that has invited its village."""
    migrated(database.engine)
    made = Place(tmp_path, database.engine)
    made.invite()
    yield made
    made.threads.shutdown()
