"""A log on each database."""

from __future__ import annotations

import pytest

from tests.contracts.changelog.stores import LogStore
from tests.databases import Database


@pytest.fixture
def store(database: Database) -> LogStore:
    """An empty log in its first life, numbered as a node numbers it."""
    return LogStore(database)
