"""Marks on their way into the database: those of one second share a transaction.

A parent of hundreds hears a mark of each child every two seconds, and each would be a durable
transaction. What waits here when the process dies is said again by the next mark; until then the
copies count as a little older than they are, which is the safe side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["FreshMarks"]

_PAUSE_MS: Final = 1000


class FreshMarks:
    """Collects marks; safe from several threads."""

    def __init__(
        self, save: Callable[[Mapping[str, int]], None], monotonic_ms: Callable[[], int]
    ) -> None:
        """`save` writes homes with their times, durably; it blocks."""
        self._save = save
        self._monotonic_ms = monotonic_ms
        self._lock = threading.Lock()
        self._waiting: dict[str, int] = {}
        self._saved_ms: int | None = None
        self._saving = False

    def add(self, homes: Mapping[str, int]) -> None:
        """Save with all that waits, if the last time is a second ago; else let it wait.

        The newest word of a home counts, even an earlier time; so one save at a time, or an older
        word could reach the disk last.
        """
        now = self._monotonic_ms()
        with self._lock:
            self._waiting.update(homes)
            is_early = self._saved_ms is not None and 0 <= now - self._saved_ms < _PAUSE_MS
            if is_early or self._saving:
                return
            self._saved_ms, self._saving = now, True
            taken, self._waiting = self._waiting, {}
        saved = False
        try:
            self._save(taken)
            saved = True
        finally:
            with self._lock:
                self._saving = False
                if not saved:
                    # What came meanwhile is newer.
                    self._waiting = {**taken, **self._waiting}
                    self._saved_ms = None
