"""One private MariaDB for a test process, with a fresh database for whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from node.mariadb_server import PrivateMariaDB

__all__ = ["MariaDBDatabases"]


class MariaDBDatabases:
    """Starts the server when the first database is wanted; a run without one never starts it."""

    def __init__(self, folder: Path) -> None:
        self._server = PrivateMariaDB(folder)
        self._numbers = count(1)

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """URL of an empty database, gone afterwards."""
        self._server.start()
        name = f"test_{next(self._numbers)}"
        url = self._server.create_database(name)
        try:
            yield url
        finally:
            self._server.drop_database(name)

    def close(self) -> None:
        """Stop the server if it runs."""
        self._server.stop()
