"""Room on the disk that is the audit's alone: a file that is given up when nothing else is left.

Three lines, from above: the profile's watermark, below which bundles and neighbours' rows are
refused while reads and their audit go on; the least room, at which the file is deleted, so that the
audit lives on from its blocks while an operator is called; and the same least room again without a
file, at which reads stop with a code, before the database fails in the middle of something.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from node.clock import Clock
from node.logs import get_logger

__all__ = ["LEAST_BYTES", "AuditReserve"]

_MIB: Final = 1 << 20
LEAST_BYTES: Final = 16 * _MIB
"""What a database may still want for its own log while it writes the last entries."""
_SHARE: Final = 64
_BYTES_MIN: Final = 4 * _MIB
_BYTES_MAX: Final = 32 * _MIB
_LOOK_MS: Final = 1000


class AuditReserve:
    """The file, and whether there is room for another entry. Safe from several threads."""

    def __init__(
        self,
        path: Path,
        watermark_mb: int,
        free: Callable[[], int],
        clock: Clock,
    ) -> None:
        """Makes nothing yet.

        Args:
            path: Of the file, in the data folder.
            watermark_mb: The profile's disk_free_min_mb; the file takes a 64th of it,
                between 4 and 32 MiB: some thousands of entries, each about 1 KB with its indexes.
            free: Bytes free on the fullest disk that the node writes to.
            clock: For looking at most once a second.
        """
        self._path = path
        self._bytes = min(max(watermark_mb * _MIB // _SHARE, _BYTES_MIN), _BYTES_MAX)
        self._watermark = watermark_mb * _MIB
        self._free = free
        self._clock = clock
        self._looked_ms = -_LOOK_MS
        self._room = True
        self._log = get_logger("audit")

    @property
    def bytes_kept(self) -> int:
        """Size of the file; 0 while it is given up."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def has_room(self) -> bool:
        """Whether another entry fits; gives the file up if nothing else is left."""
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._looked_ms >= _LOOK_MS:
            self._looked_ms = now_ms
            self._room = self._look()
        return self._room

    def make(self) -> bool:
        """Make the file if it is not there and the disk has room; whether it is there. Blocks."""
        if self.bytes_kept >= self._bytes:
            return True
        if self._free() < self._bytes + min(self._watermark, 2 * self._bytes) + LEAST_BYTES:
            return False
        fresh = self._path.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._bytes)
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            self._log.warning("no reserve for the audit", reason=error.strerror)
            return False
        return True

    def _look(self) -> bool:
        if self._free() >= LEAST_BYTES:
            return True
        if self.bytes_kept:
            self._path.unlink(missing_ok=True)
            self._log.error("the audit's reserve is given up: free space at once")
            return True
        return False
