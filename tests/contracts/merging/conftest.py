"""The small region of the storage's tests, on each database."""

import pytest

from tests.contracts.merging.place import fill
from tests.contracts.storage.conftest import emptied_databases, region
from tests.contracts.storage.region import Region

__all__ = ["emptied_databases", "filled", "region"]


@pytest.fixture
def filled(region: Region) -> Region:
    """With three residents of two villages."""
    fill(region)
    return region
