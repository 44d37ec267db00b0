"""Gathers point reads that come together into one transaction.

A read of a resident is audited before it is answered, so each costs a durable commit, and a disk
does a few hundred of those a second. While one transaction is on its way the reads that arrive
meanwhile wait for each other and share the next. A read alone waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from node.security.caller import Caller
from node.storage import ResidentQuestion

__all__ = ["PointReads"]

READS_A_TRANSACTION: Final = 64
"""Bounds how long one transaction holds the database's lock."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    question: ResidentQuestion
    answer: asyncio.Future[bytes | None]


class PointReads:
    """Answers questions for residents; used on one event loop.

    What waits is bounded by the streams that the server lets its connections have.
    """

    def __init__(
        self,
        read: Callable[[Sequence[ResidentQuestion]], Sequence[bytes | None]],
        threads: Executor,
    ) -> None:
        """`read` blocks, and answers all or raises."""
        self._read = read
        self._threads = threads
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def resident(self, caller: Caller, resident_id: str) -> bytes | None:
        """The resident as he goes on the wire; None: not there, or not for this caller."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes | None] = loop.create_future()
        self._waiting.append(_Waiting(ResidentQuestion(caller, resident_id), answer))
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), READS_A_TRANSACTION)
                batch = [self._waiting.popleft() for _ in range(count)]
                if not await self._answer(batch):
                    # One of them is at fault, and the others shall not suffer for it.
                    for each in batch:
                        await self._answer([each])
        finally:
            self._worker = None

    async def _answer(self, batch: Sequence[_Waiting]) -> bool:
        """Answer all, or a single one with the error; False if several failed together."""
        questions = [each.question for each in batch]
        done = asyncio.get_running_loop().run_in_executor(self._threads, self._read, questions)
        await asyncio.wait((done,))
        error = done.exception()
        if error is not None and len(batch) > 1:
            return False
        for each, answer in zip(batch, done.result() if error is None else [None], strict=True):
            # Done already: its caller has gone.
            if each.answer.done():
                continue
            if error is not None:
                each.answer.set_exception(error)
            else:
                each.answer.set_result(answer)
        return True
