"""A log on each database with each sequencer."""

from __future__ import annotations

import pytest

from tests.contracts.changelog.stores import SEQUENCERS, LogStore
from tests.databases import Database


@pytest.fixture(params=sorted(SEQUENCERS))
def store(request: pytest.FixtureRequest, database: Database) -> LogStore:
    """An empty log in its first life, sequencer in charge."""
    return LogStore(database, request.param)


@pytest.fixture
def relay_store(database: Database) -> LogStore:
    """The same with numbers after the commit."""
    return LogStore(database, "relay")


@pytest.fixture
def counter_store(database: Database) -> LogStore:
    """The same with numbers inside the transaction."""
    return LogStore(database, "counter")
