"""Ingestion of a village, on each database."""

from __future__ import annotations

import pytest

from tests.contracts.ingestion.place import Intake
from tests.contracts.storage.conftest import emptied_databases, region
from tests.contracts.storage.region import VILLAGE, Region

__all__ = ["emptied_databases", "intake", "region"]


@pytest.fixture
def intake(region: Region) -> Intake:
    """The village's."""
    return Intake(region.node(VILLAGE))
