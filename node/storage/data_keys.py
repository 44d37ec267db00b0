"""The node's data keys as they are stored: wrapped, never clear."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Connection, Engine, insert, select, update

from node.clock import Clock, format_ms
from node.security.sealing import WrappedKey
from node.storage.model import DataKey
from node.storage.tables import DATA_KEYS
from node.storage.transactions import Transactions

__all__ = ["KeyState", "StoredKeys"]


class KeyState(StrEnum):
    """What a data key is for."""

    CURRENT = "current"
    RETIRED = "retired"


class StoredKeys:
    """The table data_keys. It is needed before there is a Sealer, so it stands alone."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._transactions = Transactions(engine)
        self._clock = clock

    def load(self) -> tuple[DataKey, ...]:
        """All keys, oldest first; exactly one is current once there is any."""
        query = select(DATA_KEYS).order_by(DATA_KEYS.c.created_at, DATA_KEYS.c.key_id)
        return self._transactions.read(
            lambda connection: tuple(
                DataKey(row.key_id, row.suite, bytes(row.wrapped), row.created_at, row.state)
                for row in connection.execute(query)
            )
        )

    def add_current(self, key: WrappedKey) -> None:
        """Store a new key and seal with it from now on; the others only open."""
        values = {
            "key_id": key.key_id,
            "suite": key.suite,
            "wrapped": key.wrapped,
            "created_at": format_ms(self._clock.now_ms()),
            "state": KeyState.CURRENT.value,
        }

        def work(connection: Connection) -> None:
            connection.execute(update(DATA_KEYS).values(state=KeyState.RETIRED.value))
            connection.execute(insert(DATA_KEYS).values(values))

        self._transactions.write(work)
