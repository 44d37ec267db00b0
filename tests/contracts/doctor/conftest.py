"""A region on each database."""

from __future__ import annotations

from tests.contracts.storage.conftest import emptied_databases, region, village

__all__ = ["emptied_databases", "region", "village"]
