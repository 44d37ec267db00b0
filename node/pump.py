"""The log's pulse: numbers what has committed and tells every reader that there is more.

Owns one task. A write notifies it; it numbers in a thread (one at a time, so that many small
commits share one numbering) and then calls its readers with the new head. A poll catches what
another process of the same store committed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

__all__ = ["LogPump"]

GATHER_S: Final = 0.003


class LogPump:
    """Calls `readers` on the event loop whenever the change log's head has moved."""

    def __init__(self, number: Callable[[], int], threads: Executor, poll_s: float = 1.0) -> None:
        """`number` assigns numbers to committed entries and returns the head; it blocks."""
        self._number = number
        self._threads = threads
        self._poll_s = poll_s
        self._readers: list[Callable[[int], None]] = []
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.head = 0

    def subscribe(self, reader: Callable[[int], None]) -> None:
        """Call `reader(head)` after every move of the head, on the event loop."""
        self._readers.append(reader)

    def notify(self) -> None:
        """Something committed. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._wake.set)

    async def step(self) -> int:
        """Number once and tell the readers; returns the head."""
        head = await self._loop.run_in_executor(self._threads, self._number)
        if head != self.head:
            self.head = head
            for reader in self._readers:
                reader(head)
        return head

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            # The poll: another process of the same store may have written.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._poll_s)
            # Commits of these milliseconds share one numbering, which is a commit itself.
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            await self.step()
