"""A node's store opened by a benchmark, with or without its change log."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine

from hierarchy_config import NodeId
from node.clock import SystemClock, system_ids
from node.foundations import Foundations, read_foundations
from node.keys.node_key import find_node_key
from node.keys.opening import keys_of
from node.security.blind_index import BlindIndex
from node.security.caller import Caller, local_operator
from node.security.folders import NodeFolder
from node.security.key_files import load_key
from node.security.sealing import DataKeys
from node.storage import EngineLimits, Storage, open_engine
from node.storage.data_keys import StoredKeys, wrapped_of
from node.storage.tables import CHANGELOG
from replication.changelog import (
    ChangeLog,
    CounterSequencer,
    NewEntry,
    StoreState,
    Together,
    read_transaction,
)

__all__ = ["NoLog", "OpenNode", "attach", "without_log"]

_CONNECTIONS = 2


class NoLog(ChangeLog):
    """A change log that forgets: what the same writes cost without one."""

    def append(
        self,
        connection: Connection,
        entries: Sequence[NewEntry],
        *,
        before: Together | None = None,
    ) -> None:
        """Only what goes before. The entries have been made and encoded by the caller."""
        if before is not None:
            before.send()


@dataclass(frozen=True)
class OpenNode:
    """A node's storage, and the operator of its machine as the one who writes."""

    base: Foundations
    engine: Engine
    storage: Storage
    caller: Caller


def attach(data_dir: Path) -> OpenNode:
    """Open a running node's MariaDB store as a second process, without taking its numbering over.

    What is appended here is numbered at once; the node itself sees it when it next looks (once a
    second).
    """
    base = read_foundations(data_dir, SystemClock())
    engine = open_engine(base.settings.database, EngineLimits(connections=_CONNECTIONS))
    return OpenNode(base, engine, _storage(base, engine, ChangeLog), _operator(base))


def without_log(base: Foundations, engine: Engine) -> OpenNode:
    """The same store without its log."""
    return OpenNode(base, engine, _storage(base, engine, NoLog), _operator(base))


def _operator(base: Foundations) -> Caller:
    return local_operator(base.node_id, base.hierarchy, "benchmark")


def _storage(base: Foundations, engine: Engine, kind: Callable[..., ChangeLog]) -> Storage:
    """As node/opening.py builds it, but for the log and the taking over."""
    clock = SystemClock()
    folder = NodeFolder(base.paths.data)
    keys = _data_keys(engine, folder, base.node_id)
    with read_transaction(engine) as connection:
        epoch = int(StoreState(CHANGELOG).load(connection)["store_epoch"])
    numbering = CounterSequencer(CHANGELOG, store_epoch=epoch)
    log = kind(
        CHANGELOG,
        node_id=base.node_id,
        store_epoch=epoch,
        sealer=keys.of(CHANGELOG.change_log.name),
        numbering=numbering,
    )
    return Storage(
        engine,
        node_id=base.node_id,
        hierarchy=base.hierarchy,
        sealer=keys,
        blind_index=BlindIndex(load_key(folder.blind_index_key)),
        changelog=log,
        clock=clock,
        ids=system_ids(),
    )


def _data_keys(engine: Engine, folder: NodeFolder, node_id: NodeId) -> DataKeys:
    """The keys that the node made at its first start."""
    held = StoredKeys(engine, SystemClock()).load()
    node_key = find_node_key(folder, node_id, wrapped_of(held), None)
    return keys_of(node_id, node_key, held, os.urandom)
