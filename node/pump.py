"""The log's pulse: tells every reader of the change log that there is more, and where it ends.

Owns one task. What this process commits is numbered in its own transaction, so a write's
notification finds the new head in memory; a poll numbers and finds what another process of the
same store committed. The first commit after a quiet moment is told at once, those of the next
milliseconds together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Final, Protocol

from replication.core.model import Lane

__all__ = ["LogEnds", "LogPump"]

GATHER_S: Final = 0.003


class LogEnds(Protocol):
    """Where the log ends, as far as this process knows without asking; replication's LogTail."""

    @property
    def head(self) -> int:
        """The greatest number that this process committed, durable."""

    def lanes_after(self, after: int, up_to: int) -> Mapping[Lane, int] | None:
        """By lane, its greatest number in (after, up_to]; None if that is not known."""


class LogPump:
    """Calls `readers` on the event loop whenever the change log's head has moved."""

    def __init__(
        self,
        durable_head: Callable[[], int],
        threads: Executor,
        poll_s: float = 1.0,
        *,
        ends: LogEnds | None = None,
        lane_heads: Callable[[int], Mapping[Lane, int]] | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            durable_head: Of the log; how far readers may go; it blocks.
            threads: Where it runs, one call at a time.
            poll_s: How often to look for what another process committed.
            ends: What this process committed; None: every look goes to the database.
            lane_heads: By lane, its greatest number at or below a head; it blocks. Asked where
                `ends` does not know; None: every lane is read.
        """
        self._durable_head = durable_head
        self._threads = threads
        self._poll_s = poll_s
        self._ends = ends
        self._lane_heads = lane_heads
        self._readers: list[Callable[[int], None]] = []
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[Lane, int] = {}
        self.head = 0

    @property
    def lane_heads(self) -> Mapping[Lane, int]:
        """By lane, the greatest number at or below `head`; empty if that is not known."""
        return self._lanes

    def subscribe(self, reader: Callable[[int], None]) -> None:
        """Call `reader(head)` after every move of the head, on the event loop."""
        self._readers.append(reader)

    def notify(self) -> None:
        """Something committed. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._wake.set)

    async def step(self) -> int:
        """Number once and tell the readers; returns the head."""
        await self._advance(await self._loop.run_in_executor(self._threads, self._durable_head))
        return self.head

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            # The poll: another process of the same store may have written.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._poll_s)
            self._wake.clear()
            known = self._ends.head if self._ends is not None else 0
            if known > self.head:
                await self._advance(known)
            else:
                await self.step()
            # Commits of these milliseconds are told together.
            await asyncio.sleep(GATHER_S)

    async def _advance(self, head: int) -> None:
        if head <= self.head:
            return
        moved = self._ends.lanes_after(self.head, head) if self._ends is not None else None
        if moved is not None and self._lanes:
            self._lanes = {**self._lanes, **moved}
        elif self._lane_heads is not None:
            self._lanes = dict(
                await self._loop.run_in_executor(self._threads, self._lane_heads, head)
            )
        self.head = head
        for reader in self._readers:
            reader(head)
