"""Matching at a village and a township, on each database."""

from __future__ import annotations

import pytest

from tests.contracts.consent.conftest import world
from tests.contracts.matching.place import Matching
from tests.contracts.storage.conftest import emptied_databases, region
from tests.contracts.storage.region import TOWNSHIP, VILLAGE, Region

__all__ = ["emptied_databases", "matching", "region", "upper", "world"]


@pytest.fixture
def matching(region: Region) -> Matching:
    """The village's, where residents are registered."""
    return Matching(region.node(VILLAGE))


@pytest.fixture
def upper(region: Region) -> Matching:
    """The township's, where they arrive."""
    return Matching(region.node(TOWNSHIP))
