"""Follows the change log and takes out of the cache whoever changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from node.cache.contract import Cache
from replication.changelog import LogPrunedError

__all__ = ["CacheFollower", "ChangeSource", "ChangedResidents"]


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
