"""A lost node made anew: its store begins as a recovering one, under an epoch never used before.

Its neighbours remember the epochs of its former store. Seconds since 1970 are more than any count
of restores, and a later rebuild has more again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from hierarchy_config import CareLevel, Hierarchy, NodeId
from node.clock import Clock, RandomBytes
from node.guards import folder_locked
from node.opening import database_url
from node.recovery.errors import RebuildRefusedError
from node.settings import NodePaths, load_settings
from node.storage import EngineLimits, migrate, open_engine
from node.storage.recovering import RECOVERING_FACT
from node.storage.tables import CHANGELOG
from replication.changelog import StoreState, write_transaction

__all__ = ["RebuiltNode", "begin_rebuilt", "refuse_rebuild"]

_CONNECTIONS: Final = 2
_INCARNATION_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class RebuiltNode:
    """The new life of its store."""

    node_id: str
    store_epoch: int


def refuse_rebuild(hierarchy: Hierarchy, node_id: NodeId, pseudonym_from: Path | None) -> None:
    """Refuse what neighbours cannot give back, before anything is made.

    Raises:
        RebuildRefusedError: The root's certificate or the counties' pseudonym key would be new.
    """
    entry = hierarchy.entry(node_id)
    if entry.parent is None:
        raise RebuildRefusedError(
            f"{node_id} is the region's root: with a new root certificate no node would know it"
        )
    if entry.level is CareLevel.COUNTY and pseudonym_from is None:
        raise RebuildRefusedError(
            f"{node_id} is a county: under a new pseudonym key its residents would be strangers "
            "to what the city holds of them",
            hint="Name another county's data folder: --pseudonym-from FOLDER; or put this node's "
            "backup back with `fenhe restore`.",
        )


def begin_rebuilt(
    data_dir: Path, clock: Clock, random_bytes: RandomBytes = os.urandom
) -> RebuiltNode:
    """Begin the store of a data folder that `initialise` has just made. Durable on return.

    Raises:
        DataFolderInUseError: The node runs; nothing was changed.
        RebuildRefusedError: Its database holds a store already; nothing was changed.
        DurabilityError: The database could lose what it acknowledged; nothing was changed.
    """
    settings = load_settings(data_dir)
    with folder_locked(NodePaths(data_dir).lock):
        engine = open_engine(
            database_url(settings.database, data_dir), EngineLimits(connections=_CONNECTIONS)
        )
        try:
            migrate(engine)
            with write_transaction(engine) as connection:
                epoch = _begin(connection, clock.now_ms() // 1000, random_bytes)
        finally:
            engine.dispose()
    return RebuiltNode(settings.node_id, epoch)


def _begin(connection: Connection, epoch: int, random_bytes: RandomBytes) -> int:
    state = StoreState(CHANGELOG)
    if "store_epoch" in state.load(connection):
        raise RebuildRefusedError(
            "the database holds a store already",
            hint="Name an empty database with --database; for a backup that was put back there is "
            "`fenhe node new-epoch`.",
        )
    for name, value in (
        ("store_epoch", str(epoch)),
        ("store_incarnation", random_bytes(_INCARNATION_BYTES).hex()),
        (RECOVERING_FACT, "1"),
    ):
        state.save(connection, name, value)
    return epoch
