"""The node's data keys as they are stored: wrapped, never clear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from sqlalchemy import Connection, Engine, bindparam, delete, insert, select, update

from node.clock import Clock, format_ms
from node.security.sealing import WrappedKey
from node.storage.model import DataKey
from node.storage.tables import DATA_KEYS
from node.storage.transactions import Transactions

__all__ = ["KeyState", "StoredKeys", "wrapped_of"]

_T = DATA_KEYS


class KeyState(StrEnum):
    """What a data key is for."""

    CURRENT = "current"
    RETIRED = "retired"


def wrapped_of(keys: Iterable[DataKey]) -> list[WrappedKey]:
    """Stored keys as they are unwrapped."""
    return [WrappedKey(key.key_id, key.suite, key.wrapped, key.purpose) for key in keys]


class StoredKeys:
    """The table data_keys. It is needed before there is a Sealer, so it stands alone."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._transactions = Transactions(engine)
        self._clock = clock

    def load(self) -> tuple[DataKey, ...]:
        """All keys, oldest first; exactly one of each purpose is current once it has any."""
        return self._transactions.read(self.all)

    def all(self, connection: Connection) -> tuple[DataKey, ...]:
        """As `load`, in the caller's transaction."""
        query = select(_T).order_by(_T.c.created_at, _T.c.key_id)
        return tuple(
            DataKey(
                row.key_id,
                row.suite,
                bytes(row.wrapped),
                row.created_at,
                row.state,
                row.purpose,
                row.seals,
            )
            for row in connection.execute(query)
        )

    def add_current(self, *keys: WrappedKey) -> None:
        """Store new keys and seal with them from now on; others of their purposes only open."""
        self._transactions.write(lambda connection: self.replace(connection, keys))

    def replace(self, connection: Connection, keys: Iterable[WrappedKey]) -> None:
        """As `add_current`, in the caller's transaction."""
        created_at = format_ms(self._clock.now_ms())
        for key in keys:
            same = update(_T).where(_T.c.purpose == key.purpose)
            connection.execute(same.values(state=KeyState.RETIRED.value))
            connection.execute(
                insert(_T).values(
                    key_id=key.key_id,
                    suite=key.suite,
                    wrapped=key.wrapped,
                    created_at=created_at,
                    state=KeyState.CURRENT.value,
                    purpose=key.purpose,
                    seals=0,
                )
            )

    def rewrap(self, connection: Connection, keys: Iterable[WrappedKey]) -> None:
        """Store keys under another wrapping; nothing else of them changes."""
        again = update(_T).where(_T.c.key_id == bindparam("id")).values(wrapped=bindparam("new"))
        connection.execute(again, [{"id": key.key_id, "new": key.wrapped} for key in keys])

    def destroy(self, connection: Connection, key_id: str) -> bool:
        """Delete a key that only opens; False if it seals or is gone."""
        gone = delete(_T).where(_T.c.key_id == key_id, _T.c.state == KeyState.RETIRED.value)
        return connection.execute(gone).rowcount == 1

    def count_seals(self, taken: Mapping[str, int]) -> None:
        """Add to what the keys have sealed so far."""
        more = update(_T).where(_T.c.key_id == bindparam("id"))
        more = more.values(seals=_T.c.seals + bindparam("count"))
        rows = [{"id": key_id, "count": count} for key_id, count in taken.items()]
        if rows:
            self._transactions.write(lambda connection: connection.execute(more, rows))
