"""A township's store on each database, and the small region of the storage's tests."""

from __future__ import annotations

import pytest

from tests.contracts.consent.world import World
from tests.contracts.storage.conftest import emptied_databases, region
from tests.databases import Database

__all__ = ["emptied_databases", "region", "world"]


@pytest.fixture
def world(database: Database) -> World:
    """An empty township."""
    return World(database.engine)
