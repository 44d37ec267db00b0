"""Joins federation to this node: feeds the columnar replica, answers and asks over links."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from federation.availability import ExtraMissingError
from federation.columnar import COLUMN_NAMES, ColumnarChanges, ColumnarLimits, ColumnarReplica
from node.clock import Clock
from node.links import LinkHub
from node.links.hub import RequestHandler
from node.logs import get_logger
from node.opening import OpenStore
from node.pump import LogPump
from node.storage import Storage

if TYPE_CHECKING:
    from node.app import Foundations

__all__ = ["Questions", "StorageSource"]


class StorageSource:
    """federation.columnar.ReplicaSource over this node's storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def columnar_changes(self, after: int, limit: int) -> ColumnarChanges:
        """Current rows touched by the log after a sequence, as tuples in the schema's order."""
        changes = self._storage.columnar_changes(after, limit)
        rows = {
            dataset: [tuple(row[name] for name in COLUMN_NAMES[dataset]) for row in group]
            for dataset, group in changes.rows.items()
        }
        return ColumnarChanges(changes.up_to, rows, changes.deleted)


class Questions:
    """Everything of this node that has to do with federated questions."""

    def __init__(self, base: Foundations, store: OpenStore, hub: LinkHub, clock: Clock) -> None:
        self._base = base
        self._store = store
        self._hub = hub
        self._clock = clock
        self._log = get_logger("questions")
        self._source = StorageSource(store.storage)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="columnar")
        self._more = asyncio.Event()
        self._replica: ColumnarReplica | None = None
        self.handlers: Mapping[str, RequestHandler] = {}

    @classmethod
    def build(
        cls, base: Foundations, store: OpenStore, hub: LinkHub, clock: Clock, pump: LogPump
    ) -> Questions:
        return cls(base, store, hub, clock)

    @property
    def columnar_sequence(self) -> int:
        """Log sequence the columnar replica stands at; 0 without one."""
        return self._replica.sequence if self._replica is not None else 0

    def log_advanced(self, head: int) -> None:
        """There may be more to feed."""
        self._more.set()

    async def start(self) -> None:
        """Open the columnar replica, if the analytics extra is installed."""
        profile = self._base.profile
        limits = ColumnarLimits(
            profile.columnar_threads, profile.columnar_memory_mb, profile.columnar_segment_rows
        )
        loop = asyncio.get_running_loop()
        try:
            self._replica = await loop.run_in_executor(
                self._thread,
                lambda: ColumnarReplica.open(
                    self._base.paths.columnar, limits, source=self._store.incarnation
                ),
            )
        except ExtraMissingError as error:
            self._log.warning("no analytics", reason=error.message, hint=error.hint)

    async def run(self) -> None:
        """Feed the replica for ever: at most a second behind the log."""
        self._more.set()
        loop = asyncio.get_running_loop()
        while self._replica is not None:
            await self._more.wait()
            self._more.clear()
            before = -1
            while before != self._replica.sequence:
                before = self._replica.sequence
                await loop.run_in_executor(self._thread, self._replica.feed_once, self._source)

    async def stop(self) -> None:
        """Write the delta down and close."""
        replica, self._replica = self._replica, None
        if replica is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, replica.close)
        self._thread.shutdown()
