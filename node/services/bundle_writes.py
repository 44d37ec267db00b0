"""Gathers bundles that come together into one transaction.

A bundle is durable before it is answered, and a disk does a few hundred durable commits a second.
While one transaction is on its way the bundles that arrive meanwhile wait for each other and share
the next, and those who have just been answered get a moment to be in it with their next one. A
bundle alone waits for nobody; one that is at fault takes no other with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from node.records.model import Bundle
from node.security.caller import Caller
from node.storage.model import BundleRequest, BundleResult

__all__ = ["BUNDLES_A_TRANSACTION", "BYTES_A_TRANSACTION", "BundleWrites", "Gathered"]

BUNDLES_A_TRANSACTION: Final = 128
BYTES_A_TRANSACTION: Final = 512 << 10
"""With the count, bounds how long one transaction holds its locks; one bundle may be larger."""


GATHER_S_MAX: Final = 0.005


@dataclass(frozen=True, slots=True)
class Gathered:
    """A bundle on its way: `prepare` reads and checks it, and raises what is wrong with it."""

    caller: Caller
    prepare: Callable[[], Bundle]
    size: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    what: Gathered
    answer: asyncio.Future[BundleResult]


class BundleWrites:
    """Stores bundles; used on one event loop.

    What waits is bounded by the streams that the server lets its connections have.
    """

    def __init__(
        self,
        store: Callable[[Sequence[BundleRequest]], Sequence[BundleResult | Exception]],
        threads: Executor,
        notify: Callable[[], None],
    ) -> None:
        """`store` blocks until durable; `notify` is called after each transaction."""
        self._store = store
        self._threads = threads
        self._notify = notify
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._together = 1
        self._taken_s = 0.0

    async def put(self, what: Gathered) -> BundleResult:
        """Store a bundle; returns once it is durable, raises what storing it alone would."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[BundleResult] = loop.create_future()
        self._waiting.append(_Waiting(what, answer))
        self._arrived.set()
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                await self._gather()
                batch = self._next()
                started = loop.time()
                done = loop.run_in_executor(self._threads, self._put, [each.what for each in batch])
                await asyncio.wait((done,))
                self._taken_s = loop.time() - started
                self._together = len(batch) + len(self._waiting)
                error = done.exception()
                if error is None and any(map(_is_news, done.result())):
                    # Before the answers: a reader of the log shall not wait for those who wrote.
                    self._notify()
                outcomes = done.result() if error is None else [error] * len(batch)
                for each, outcome in zip(batch, outcomes, strict=True):
                    _answer(each.answer, outcome)
        finally:
            self._worker = None

    async def _gather(self) -> None:
        """Wait until as many are here as were under way, half a transaction's time at most.

        Else two groups form that take turns, each waiting for the other's transaction.
        """
        wanted = min(self._together, BUNDLES_A_TRANSACTION)
        if len(self._waiting) >= wanted:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(min(self._taken_s / 2, GATHER_S_MAX)):
                while len(self._waiting) < wanted:
                    self._arrived.clear()
                    await self._arrived.wait()

    def _next(self) -> list[_Waiting]:
        batch = [self._waiting.popleft()]
        size = batch[0].what.size
        while self._waiting and len(batch) < BUNDLES_A_TRANSACTION:
            size += self._waiting[0].what.size
            if size > BYTES_A_TRANSACTION:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _put(self, batch: Sequence[Gathered]) -> list[BundleResult | Exception]:
        """In a thread: prepare each, store those that can be, together."""
        outcomes: list[BundleResult | Exception | None] = []
        requests: list[BundleRequest] = []
        for each in batch:
            try:
                requests.append(BundleRequest(each.caller, each.prepare()))
                outcomes.append(None)
            except Exception as error:  # noqa: BLE001  # raised again to the one who asked
                outcomes.append(error)
        stored = iter(self._store(requests) if requests else ())
        return [next(stored) if outcome is None else outcome for outcome in outcomes]


def _is_news(outcome: BundleResult | Exception) -> bool:
    return isinstance(outcome, BundleResult) and not outcome.repeated


def _answer(answer: asyncio.Future[BundleResult], outcome: BundleResult | BaseException) -> None:
    # Done already: its caller has gone. What he sent is stored all the same.
    if answer.done():
        return
    if isinstance(outcome, BundleResult):
        answer.set_result(outcome)
    else:
        answer.set_exception(outcome)
