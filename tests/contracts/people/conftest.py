"""A region on each database, and a county with a hospital in it."""

from __future__ import annotations

import pytest

from node.security.roles import Role
from tests.contracts.people.place import Office, Worker
from tests.contracts.storage.conftest import emptied_databases, region
from tests.contracts.storage.region import COUNTY, Region

__all__ = ["emptied_databases", "office", "region"]


@pytest.fixture
def office(region: Region) -> Office:
    """The county's."""
    return Office(region.node(COUNTY))


@pytest.fixture
def hospital(office: Office) -> str:
    """An organization of the county."""
    return office.organization()


@pytest.fixture
def nurse(office: Office, hospital: str) -> Worker:
    """A nurse there, with an account."""
    return office.worker(hospital, Role.NURSE)
