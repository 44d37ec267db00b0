"""For how long the end of the audit has been held by no other node. Pure: times come in.

Time is counted, not compared: what has passed while the process ran, by the clock that no hand
sets, is added up and kept in the database. So no jump of the wall clock stops care at once, and
none hides a state that lasts. Two things are added at each start while the audit stands unanchored:
a minute, the most that may be missing since the figure was last kept, so that no row of restarts
hides anything; and the time that the node was off by the wall clock, at least nothing and at most a
day, because a switched-off machine grows no younger and its clock may be wrong by years.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Final

__all__ = ["AnchorClock", "SavedStanding"]

START_MS: Final = 60_000
OFF_MS_MAX: Final = 86_400_000
_MS_MAX: Final = 2**62


@dataclass(frozen=True, slots=True)
class SavedStanding:
    """What is kept over a restart: counted so far, and the wall clock when it was."""

    unanchored_ms: int
    wall_ms: int

    def text(self) -> str:
        """As the database keeps it."""
        return json.dumps([self.unanchored_ms, self.wall_ms])

    @staticmethod
    def read(text: str) -> SavedStanding | None:
        """The inverse; None: there is nothing kept, or it is no standing."""
        try:
            counted, wall = json.loads(text)
            return SavedStanding(min(max(int(counted), 0), _MS_MAX), int(wall))
        except (ValueError, TypeError):
            return None


class AnchorClock:
    """Counts. Safe from several threads."""

    def __init__(self, saved: SavedStanding | None, wall_ms: int, monotonic_ms: int) -> None:
        """`saved` None: the first start of the store."""
        self._lock = threading.Lock()
        counted = 0
        if saved is not None and saved.unanchored_ms > 0:
            off_ms = min(max(wall_ms - saved.wall_ms, 0), OFF_MS_MAX)
            counted = saved.unanchored_ms + off_ms + START_MS
        self._counted = counted
        self._seen_ms = monotonic_ms
        self._is_anchored = False

    def unanchored_ms(self, monotonic_ms: int) -> int:
        """Counted up to now; 0 while every entry is anchored."""
        with self._lock:
            return self._so_far(monotonic_ms)

    def grown(self, monotonic_ms: int) -> None:
        """There are entries that nobody else holds: from now on time counts."""
        with self._lock:
            self._counted = self._so_far(monotonic_ms)
            self._seen_ms = monotonic_ms
            self._is_anchored = False

    def anchored(self, monotonic_ms: int, *, everything: bool) -> None:
        """A neighbour holds the end of the chain as it was now; `everything`: nothing came since.

        With `everything` time stands still until `grown`.
        """
        with self._lock:
            self._counted = 0
            self._seen_ms = monotonic_ms
            self._is_anchored = everything

    def saved(self, wall_ms: int, monotonic_ms: int) -> SavedStanding:
        """What to keep."""
        with self._lock:
            return SavedStanding(self._so_far(monotonic_ms), wall_ms)

    def _so_far(self, monotonic_ms: int) -> int:
        if self._is_anchored:
            return 0
        return self._counted + max(monotonic_ms - self._seen_ms, 0)
