"""Runs a piece of work as one transaction, again if it only lost against others.

Deadlocks, lock timeouts and two requests with the same key at once are ordinary: the loser's
transaction is gone, so running it again from the start is safe and shows it what the winner did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from node.storage.errors import StorageBusyError
from replication.changelog.dialects import read_transaction, write_transaction

__all__ = ["ChangedMeanwhileError", "Transactions"]

T = TypeVar("T")

_ATTEMPTS: Final = 6
# Lock wait timeout, deadlock, and a record that changed since the snapshot was read (MariaDB).
_LOST_CODES: Final = frozenset({1205, 1213, 1020})


class ChangedMeanwhileError(Exception):
    """A conditional update met another version than the one read; the work is run again."""


class Transactions:
    """Transactions on one engine."""

    def __init__(self, engine: Engine, attempts: int = _ATTEMPTS) -> None:
        self._engine = engine
        self._attempts = attempts

    @property
    def dialect(self) -> str:
        """Name of the database: sqlite, mysql or mariadb."""
        return self._engine.dialect.name

    def write(self, work: Callable[[Connection], T], *, attempts: int | None = None) -> T:
        """Run `work` in a transaction that is durable when this returns.

        `work` may run several times (`attempts`) and must touch nothing but the connection.

        Raises:
            StorageBusyError: It lost on every attempt.
        """
        last: Exception | None = None
        for _ in range(self._attempts if attempts is None else attempts):
            try:
                with write_transaction(self._engine) as connection:
                    return work(connection)
            except (DBAPIError, ChangedMeanwhileError) as error:
                if not _lost(error):
                    raise
                last = error
        raise StorageBusyError("a transaction lost against others on every attempt") from last

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that only reads.

        For the node's own readers: what a caller reads is audited, and that is a write.
        """
        with read_transaction(self._engine) as connection:
            return work(connection)


def _lost(error: Exception) -> bool:
    if isinstance(error, ChangedMeanwhileError | IntegrityError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    reason = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return reason in _LOST_CODES or "database is locked" in str(error.orig)
