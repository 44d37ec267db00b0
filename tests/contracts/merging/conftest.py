"""The small region of the storage's tests, on each database."""

from tests.contracts.storage.conftest import emptied_databases, region

__all__ = ["emptied_databases", "region"]
