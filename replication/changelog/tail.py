"""The end of the log in memory: what this process has just committed, for readers who are at it.

A reader whose next entries are all here need not ask the database. What another process of the
same store committed leaves a hole, and a reader before the hole reads from the database. Bounded
by bytes; what falls out is the oldest.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from replication.changelog.slices import LogSlice
from replication.core.model import Lane, LogEntry

__all__ = ["LogTail"]

_BYTES_MAX: Final = 4 << 20
_ENTRY_BYTES: Final = 600
"""What an entry takes in memory beside its rows, roughly."""


class LogTail:
    """Entries that are durable, by number. Safe from several threads."""

    def __init__(self, bytes_max: int = _BYTES_MAX) -> None:
        """`bytes_max`: of rows and what is about them; 0 keeps nothing but the head."""
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._entries: dict[int, LogEntry] = {}
        self._oldest: deque[int] = deque()
        self._bytes = 0
        self._head = 0

    @property
    def head(self) -> int:
        """The greatest number committed by this process; all below it is durable as well."""
        return self._head

    def committed(self, entries: Sequence[LogEntry]) -> None:
        """Take entries that have their numbers and are durable."""
        with self._lock:
            for entry in entries:
                self._entries[entry.sequence] = entry
                self._oldest.append(entry.sequence)
                self._bytes += len(entry.rows) + _ENTRY_BYTES
                self._head = max(self._head, entry.sequence)
            while self._bytes > self._bytes_max:
                gone = self._entries.pop(self._oldest.popleft())
                self._bytes -= len(gone.rows) + _ENTRY_BYTES

    def read(
        self, *, after: int, lane: Lane | None, bytes_max: int, up_to: int, entries_max: int = 2000
    ) -> LogSlice | None:
        """The slice that ChangeLog.read would give; None if any of (after, up_to] is not here."""
        found: list[LogEntry] = []
        size = 0
        sequence = after
        held = self._entries
        while sequence < up_to and len(found) < entries_max and size < bytes_max:
            entry = held.get(sequence + 1)
            if entry is None:
                return None
            sequence += 1
            if lane is None or entry.lane is lane:
                found.append(entry)
                size += len(entry.rows)
        return LogSlice(tuple(found), sequence, max(up_to, after))

    def lanes_after(self, after: int, up_to: int) -> dict[Lane, int] | None:
        """By lane, its greatest number in (after, up_to]; None if not all of it is here."""
        newest: dict[Lane, int] = {}
        held = self._entries
        for sequence in range(after + 1, up_to + 1):
            entry = held.get(sequence)
            if entry is None:
                return None
            newest[entry.lane] = sequence
        return newest
