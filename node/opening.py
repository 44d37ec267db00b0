"""Opens a node's store: database, schema, keys, change log, and what hangs on them.

The order matters: durability is checked before anything is written, the schema is brought up to
date, the data keys are unwrapped, and only then does this process take the log's numbering over.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, make_url

from hardware_profiles import HardwareProfile
from hierarchy_config import Hierarchy, NodeId
from node.cache import Cache, InProcessCache, RedisCache, StoreLife
from node.clock import Clock, Ids, RandomBytes
from node.keys.opening import open_data_keys, refuse_misplaced
from node.keys.service import service_of
from node.residence.making import residence_of
from node.residence.residence import Residence
from node.revocation.book import RevokedBook
from node.revocation.store import load_entries
from node.security.blind_index import BlindIndex, Pseudonymizer, RegionalIndex
from node.security.folders import NodeFolder
from node.security.key_files import load_key, read_secret
from node.security.sealing import DataKeys
from node.security.suites import suite_named
from node.settings import NodeSettings
from node.storage import EngineLimits, Storage, migrate, open_engine
from node.storage.adopting import adopt_columns
from node.storage.tables import CHANGELOG, TRANSIT
from node.transit import Post
from node.transit.making import post_of
from replication.changelog import (
    ChangeLog,
    CounterSequencer,
    LinkState,
    LogTail,
    Marks,
    StoreState,
    read_transaction,
    write_transaction,
)
from replication.core.model import Lane

__all__ = ["NodeLog", "OpenStore", "cache_shares", "database_url", "open_store", "uses_redis"]

_SPARE_CONNECTIONS: Final = 4
_PAGES_MB_MIN: Final = 2
_ANSWERS_SHARE: Final = 4


class NodeLog:
    """A node's change log with its numbering: in the commit itself, the newest entries in memory.

    Opens nothing and writes nothing before `take_over`. Safe from several threads.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        node_id: NodeId,
        store_epoch: int,
        keys: DataKeys,
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        tail = LogTail()
        self._engine = engine
        self._one_at_a_time = threading.Lock()
        self._sequencer = CounterSequencer(
            CHANGELOG, store_epoch=store_epoch, durable=lambda: tail.head
        )
        self.log = ChangeLog(
            CHANGELOG,
            node_id=node_id,
            store_epoch=store_epoch,
            sealer=keys.of(CHANGELOG.change_log.name),
            numbering=self._sequencer,
            random_bytes=random_bytes,
            tail=tail,
        )

    def take_over(self) -> None:
        """Become the log's one owner in this life of the store; before the first append."""
        self._sequencer.take_over(lambda: write_transaction(self._engine))

    def durable_head(self) -> int:
        """The head, once it is durable."""
        with self._one_at_a_time:
            return self._sequencer.durable_head(lambda: write_transaction(self._engine))


@dataclass(frozen=True)
class OpenStore:
    """A node's open database and everything that works on it."""

    engine: Engine
    storage: Storage
    cache: Cache
    log: ChangeLog
    links: LinkState
    marks: Marks
    epoch: int
    incarnation: str
    durable_head: Callable[[], int]
    """The log's head, once it is durable. Safe from several threads."""
    tail: LogTail
    """What this process has just committed."""
    post: Post
    """Letters to nodes that are not neighbours."""
    residence: Residence
    """Moves of residents."""
    revoked: RevokedBook
    """Keys that are not to be believed any more."""
    keys: DataKeys
    """What is stored is sealed with these."""

    def lane_heads(self, up_to: int) -> dict[Lane, int]:
        """By lane, its greatest number at or below `up_to`."""
        with read_transaction(self.engine) as connection:
            return self.log.lane_heads(connection, up_to)

    @property
    def database(self) -> str:
        """Either "sqlite" or "mysql"."""
        return "sqlite" if self.engine.dialect.name == "sqlite" else "mysql"

    def close(self) -> None:
        """Give the connections back."""
        self.cache.close()
        self.engine.dispose()


def open_store(
    data_dir: Path,
    settings: NodeSettings,
    hierarchy: Hierarchy,
    profile: HardwareProfile,
    clock: Clock,
) -> OpenStore:
    """Open the store of a data folder.

    Raises:
        KeyFileError: A key is missing or exposed; nothing was changed.
        KeyMisplacedError: A key lies there that this level must not hold; nothing was changed.
        KeyServiceError: The outside service does not unwrap the node's key.
        DurabilityError: The database could lose what it acknowledged; nothing was changed.
        SealBrokenError: keys/node.key is not the one the data keys were wrapped with.
        SettingsError: node.yaml names another suite than the store was made with.
    """
    node_id = NodeId(settings.node_id)
    _read_keys(NodeFolder(data_dir))
    refuse_misplaced(NodeFolder(data_dir), hierarchy, node_id)
    engine = open_engine(database_url(settings.database, data_dir), _limits(settings, profile))
    migrate(engine)
    keys = _keys(engine, NodeFolder(data_dir), settings, clock)
    epoch, incarnation = _life(engine)
    node_log = NodeLog(engine, node_id=node_id, store_epoch=epoch, keys=keys)
    log, revoked = node_log.log, RevokedBook(hierarchy, load_entries(engine))
    post = post_of(
        NodeFolder(data_dir),
        node_id,
        hierarchy,
        changelog=log,
        sealer=keys.of(TRANSIT.out.name),
        clock=clock,
        revoked=revoked,
    )
    life = StoreLife(node_id, epoch, incarnation)
    cache = _cache(settings, profile, life, keys, clock)
    storage = _storage(
        engine,
        NodeFolder(data_dir),
        hierarchy=hierarchy,
        node_id=node_id,
        keys=keys,
        log=log,
        clock=clock,
        cache=cache,
        post=post,
    )
    with read_transaction(engine) as connection:
        storage.recovery.load(connection)
    node_log.take_over()
    adopt_columns(storage.context)
    return OpenStore(
        engine,
        storage,
        cache,
        log,
        LinkState(CHANGELOG),
        Marks(CHANGELOG),
        epoch,
        incarnation,
        node_log.durable_head,
        log.tail,
        post,
        residence_of(
            NodeFolder(data_dir), storage, hierarchy, keys=keys, clock=clock, revoked=revoked
        ),
        revoked,
        keys,
    )


def _keys(engine: Engine, folder: NodeFolder, settings: NodeSettings, clock: Clock) -> DataKeys:
    """The data keys, opened by the node's key or by the outside service that keeps it."""
    return open_data_keys(
        engine,
        folder,
        NodeId(settings.node_id),
        suite_named(settings.suite),
        service_of(settings.key_command),
        clock=clock,
    )


def _limits(settings: NodeSettings, profile: HardwareProfile) -> EngineLimits:
    connections = profile.grpc_workers + profile.database_pool + _SPARE_CONNECTIONS
    _, pages_mb = cache_shares(settings, profile)
    return EngineLimits(
        connections=connections, cache_mb=max(_PAGES_MB_MIN, pages_mb // connections)
    )


def _cache(
    settings: NodeSettings,
    profile: HardwareProfile,
    life: StoreLife,
    keys: DataKeys,
    clock: Clock,
) -> Cache:
    if uses_redis(settings, profile):
        return RedisCache(settings.redis_url or "", life, keys, clock, os.urandom)
    answers_mb, _ = cache_shares(settings, profile)
    return InProcessCache(answers_mb << 20)


def _read_keys(folder: NodeFolder) -> None:
    """Find a missing or exposed key before anything is written."""
    read_secret(folder.node_key)
    load_key(folder.blind_index_key)
    for path in (folder.regional_index_key, folder.pseudonym_key):
        if path.exists():
            load_key(path)


def _storage(
    engine: Engine,
    folder: NodeFolder,
    *,
    hierarchy: Hierarchy,
    node_id: NodeId,
    keys: DataKeys,
    log: ChangeLog,
    clock: Clock,
    cache: Cache,
    post: Post,
) -> Storage:
    # The regional index and the pseudonyms must be alike at every county, whatever a single node
    # chose for what it stores: only the node's own index follows its suite.
    regional = folder.regional_index_key
    pseudonym = folder.pseudonym_key
    return Storage(
        engine,
        node_id=node_id,
        hierarchy=hierarchy,
        sealer=keys,
        blind_index=BlindIndex(load_key(folder.blind_index_key), suite_named(keys.suite)),
        changelog=log,
        clock=clock,
        ids=Ids(clock, os.urandom),
        regional_index=RegionalIndex(load_key(regional)) if regional.exists() else None,
        pseudonymizer=Pseudonymizer(load_key(pseudonym)) if pseudonym.exists() else None,
        cache=cache,
        post=post,
    )


def uses_redis(settings: NodeSettings, profile: HardwareProfile) -> bool:
    """Whether answers are kept in Redis: the profile has one, and node.yaml says where."""
    return profile.redis and settings.redis_url is not None


def cache_shares(settings: NodeSettings, profile: HardwareProfile) -> tuple[int, int]:
    """How cache_mb is shared: kept answers in the process, and SQLite's pages, both in MiB.

    MariaDB has a buffer pool of its own (mariadb.innodb_buffer_pool_mb).
    """
    has_pages = make_url(settings.database).get_backend_name() == "sqlite"
    if uses_redis(settings, profile):
        answers = 0
    else:
        answers = max(1, profile.cache_mb // _ANSWERS_SHARE) if has_pages else profile.cache_mb
    return answers, profile.cache_mb - answers if has_pages else 0


def _life(engine: Engine) -> tuple[int, str]:
    """The store's epoch and its random name; both are kept from the first start on."""
    state = StoreState(CHANGELOG)
    with read_transaction(engine) as connection:
        said = state.load(connection)
    if "store_epoch" not in said:
        said = {"store_epoch": "1", "store_incarnation": os.urandom(16).hex()}
        with write_transaction(engine) as connection:
            for name, value in said.items():
                state.save(connection, name, value)
    return int(said["store_epoch"]), said["store_incarnation"]


def database_url(url: str, data_dir: Path) -> str:
    """The URL of node.yaml for a data folder: a relative SQLite path lies in it."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return url
    path = (data_dir / parsed.database).resolve()
    return parsed.set(database=str(path)).render_as_string(hide_password=False)
