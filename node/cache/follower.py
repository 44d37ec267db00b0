"""Follows the change log and takes out of the cache whoever changed."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Protocol

from node.cache.contract import Cache
from replication.changelog import LogPrunedError

__all__ = ["CacheFollower", "ChangeSource", "ChangedResidents", "FollowerTask"]

_LOOK_AGAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ChangedResidents:
    """Residents whose own rows or identifiers the log changed, looked at up to `up_to`."""

    up_to: int
    resident_ids: frozenset[str]


class ChangeSource(Protocol):
    """What the follower asks of the storage."""

    def changed_residents(self, after: int, *, up_to: int) -> ChangedResidents:
        """Who changed in a part of (after, up_to]; call again from its `up_to`.

        Raises:
            LogPrunedError: The log no longer reaches back to `after`.
        """


class CacheFollower:
    """The cache's cursor reader. One thread at a time."""

    def __init__(self, cache: Cache, source: ChangeSource) -> None:
        self._cache = cache
        self._source = source

    def follow(self, head: int) -> None:
        """Bring the cache to `head`, the log's durable end; nothing if it cannot be reached.

        A cache that has no place in the log, or one that the log does not have, starts over.
        """
        position = self._cache.position()
        if position is None or position > head:
            self._cache.start_over(head)
            return
        while position is not None and position < head:
            try:
                changed = self._source.changed_residents(position, up_to=head)
            except LogPrunedError:
                self._cache.start_over(head)
                return
            moved = self._cache.advance(position, changed.up_to, changed.resident_ids)
            # Elsewhere than we moved it: the server went, or was emptied. The next call sees.
            position = moved if moved == changed.up_to else None


class FollowerTask:
    """Runs a follower at the log's pulse, and now and then for a server that has come back."""

    def __init__(self, follower: CacheFollower, thread: Executor) -> None:
        """`thread` runs one call at a time."""
        self._follower = follower
        self._thread = thread
        self._head = 0
        self._more = asyncio.Event()

    def log_advanced(self, head: int) -> None:
        """The log's durable end is `head`."""
        self._head = head
        self._more.set()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._more.clear()
            await loop.run_in_executor(self._thread, self._follower.follow, self._head)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), _LOOK_AGAIN_S)
