"""A new life for a store that was put back from a backup.

Numbers of the change log and of batches are never used twice with different contents: whatever the
store does after a restore it does under a greater epoch, which neighbours learn from its Hello.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from node.clock import RandomBytes
from node.errors import SettingsError
from node.guards import folder_locked
from node.opening import database_url
from node.settings import NodePaths, load_settings
from node.storage import EngineLimits, migrate, open_engine
from node.storage.recovering import RECOVERING_FACT
from node.storage.tables import CHANGELOG
from replication.changelog import StoreState, write_transaction

__all__ = ["NewEpoch", "begin_new_epoch"]

_CONNECTIONS = 2
_INCARNATION_BYTES = 16


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """What the store's epoch was, and what it is."""

    node_id: str
    before: int
    now: int


def begin_new_epoch(
    data_dir: Path, random_bytes: RandomBytes = os.urandom, *, above: int = 0
) -> NewEpoch:
    """Raise the store's epoch and give this life a name of its own: it recovers. Durable on return.

    Args:
        data_dir: Of a node that does not run.
        random_bytes: For the name.
        above: An epoch that a neighbour remembers; the new one is greater.

    Raises:
        DataFolderInUseError: The node runs; nothing was changed.
        SettingsError: The data folder is no node's, or its store has never been used.
        DurabilityError: The database could lose what it acknowledged; nothing was changed.
    """
    settings = load_settings(data_dir)
    with folder_locked(NodePaths(data_dir).lock):
        engine = open_engine(
            database_url(settings.database, data_dir), EngineLimits(connections=_CONNECTIONS)
        )
        try:
            migrate(engine)
            before, now = _raise_epoch(engine, random_bytes, above)
        finally:
            engine.dispose()
    return NewEpoch(settings.node_id, before, now)


def _raise_epoch(engine: Engine, random_bytes: RandomBytes, above: int) -> tuple[int, int]:
    state = StoreState(CHANGELOG)
    with write_transaction(engine) as connection:
        said = state.load(connection)
        if "store_epoch" not in said:
            raise SettingsError(
                "the store of this data folder has never been used",
                hint="Put the backup back first; a node that is new needs no new epoch.",
            )
        before = int(said["store_epoch"])
        now = max(before, above) + 1
        state.save(connection, "store_epoch", str(now))
        state.save(connection, "store_incarnation", random_bytes(_INCARNATION_BYTES).hex())
        state.save(connection, RECOVERING_FACT, "1")
    return before, now
