"""Questions and answers over a link, in both directions, beside the replication lanes.

Owns the open requests of one live stream: numbering, credit, cutting answers into parts, deadlines
and cancelling. Knows neither what is asked nor how frames travel. Lives and dies with its stream:
a dropped stream fails every open question with LINK_DOWN, and the asker decides what that means.

Flow control: an answerer may send 1 MiB unasked; after that it waits for credit, which the asker
grants as it takes parts in. So one large answer never fills a slow line's memory. While all that
has come of open answers is over ANSWERS_BYTES_MAX, only the one that began first is granted more:
it comes to its end, and the others wait for room instead of failing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final

from hierarchy_config.errors import Fault, FenheError
from replication.core.model import AnswerPart, Cancel, Credit, Request
from replication.errors import RemoteProtocolError, ReplicationError

__all__ = [
    "ANSWERS_BYTES_MAX",
    "ANSWER_BYTES_MAX",
    "CREDIT_BYTES",
    "OPEN_REQUESTS_MAX",
    "Answerer",
    "AskError",
    "AskRefusedError",
    "AskTimeoutError",
    "Channel",
    "ChannelFrame",
    "LinkDownError",
]

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
ANSWERS_BYTES_MAX: Final = 64 * 1024 * 1024
"""Over this, in all open answers of a link together, one at a time goes on. At either end at most
this, one whole answer, and what OPEN_REQUESTS_MAX answers may send unasked: 192 MiB."""
PART_BYTES: Final = 128 * 1024
CREDIT_BYTES: Final = 1024 * 1024
OPEN_REQUESTS_MAX: Final = 64
PARTS_MAX: Final = 4096

ChannelFrame = Request | AnswerPart | Cancel | Credit


class AskError(ReplicationError):
    """A question over a link got no answer."""

    code = "ASK_FAILED"
    fault = Fault.PEER
    retryable = True


class LinkDownError(AskError):
    """There is no live link to the node, or it broke before the answer was complete."""

    code = "LINK_DOWN"
    default_hint = "The node dials by itself when it is back; see its link in `fenhe node status`."


class AskTimeoutError(AskError):
    """The time for the answer ran out."""

    code = "ASK_TIMEOUT"
    default_hint = "Ask with a longer timeout, or look at the load of the node named."


class AskRefusedError(AskError):
    """The other end answered with a refusal; `status` is its stable code."""

    code = "ASK_REFUSED"
    default_hint = "Look at the log of the node that was asked."
    retryable: ClassVar[bool] = False

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason or status)
        self.status = status


Answerer = Callable[[Request], Awaitable[bytes]]
"""Answers a peer's request with a body; a FenheError it raises becomes a refusal."""


@dataclass(slots=True)
class _Open:
    """A question of ours on its way. `owed`: bytes taken in for which no credit was given yet."""

    done: asyncio.Future[bytes]
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    owed: int = 0


@dataclass(slots=True)
class _Serving:
    """A question of the peer's that is being answered."""

    task: asyncio.Task[None] | None = None
    credit: int = CREDIT_BYTES
    more: asyncio.Event = field(default_factory=asyncio.Event)


class Channel:
    """The request side of one live stream."""

    def __init__(
        self, send: Callable[[ChannelFrame], None], answer: Answerer, *, peer: str
    ) -> None:
        """`send` queues a frame; it must not block and may be called until close."""
        self._send = send
        self._answer = answer
        self._peer = peer
        self._next_id = 1
        self._open: dict[int, _Open] = {}
        self._coming: dict[int, _Open] = {}
        self._coming_bytes = 0
        self._leaving_bytes = 0
        self._serving: dict[int, _Serving] = {}
        self._at_work: set[asyncio.Task[None]] = set()
        self._closed = False

    async def ask(
        self,
        method: str,
        body: bytes,
        *,
        remaining_ms: int,
        route: tuple[str, ...] = (),
        manifest: bytes = b"",
    ) -> bytes:
        """Ask the peer, or through it the node at the end of `route`, and wait for the answer.

        Raises:
            LinkDownError: The stream is gone or goes before the answer is complete.
            AskTimeoutError: Nothing complete within remaining_ms; the peer is told to stop.
            AskRefusedError: The peer refused.
        """
        if self._closed:
            raise LinkDownError(f"no link to {self._peer}")
        if remaining_ms <= 0:
            raise AskTimeoutError(f"no time is left to ask {self._peer}")
        if len(self._open) >= OPEN_REQUESTS_MAX:
            raise AskRefusedError("OVERLOADED", f"too many open questions to {self._peer}")
        number = self._next_id
        self._next_id += 1
        waiting = _Open(asyncio.get_running_loop().create_future())
        self._open[number] = waiting
        self._send(Request(number, route, method, remaining_ms, manifest, body))
        try:
            return await asyncio.wait_for(waiting.done, remaining_ms / 1000)
        except TimeoutError:
            self._cancel(number)
            raise AskTimeoutError(f"{self._peer} gave no answer within {remaining_ms} ms") from None
        except asyncio.CancelledError:
            self._cancel(number)
            raise
        finally:
            self._forget(number)

    def handle(self, frame: ChannelFrame) -> None:
        """Take a frame of the peer in. Never blocks.

        Raises:
            RemoteProtocolError: The peer broke the rules of numbering, size or credit.
        """
        match frame:
            case Request():
                self._serve(frame)
            case AnswerPart():
                self._take_part(frame)
            case Cancel():
                serving = self._serving.pop(frame.id, None)
                if serving is not None and serving.task is not None:
                    serving.task.cancel()
            case Credit():
                granted = self._serving.get(frame.id)
                if granted is not None:
                    # Never more than at first: what is granted has been sent and taken in before.
                    granted.credit = min(granted.credit + frame.bytes, CREDIT_BYTES)
                    granted.more.set()

    def close(self) -> None:
        """End every open question, ours and the peer's."""
        self._closed = True
        for waiting in self._open.values():
            if not waiting.done.done():
                waiting.done.set_exception(LinkDownError(f"the link to {self._peer} broke"))
        for serving in self._serving.values():
            if serving.task is not None:
                serving.task.cancel()
        self._serving.clear()

    def _cancel(self, number: int) -> None:
        if not self._closed:
            self._send(Cancel(number))

    def _take_part(self, part: AnswerPart) -> None:
        waiting = self._open.get(part.id)
        if waiting is None or waiting.done.done():
            return  # the question was given up; the peer has been told
        if part.n != len(waiting.parts) + 1:
            raise RemoteProtocolError(f"answer part {part.n} came out of order")
        if part.n > PARTS_MAX or not (part.body or part.last):
            raise RemoteProtocolError("an answer comes in too many parts")
        waiting.parts.append(part.body)
        waiting.size += len(part.body)
        waiting.owed += len(part.body)
        self._coming_bytes += len(part.body)
        if waiting.size > ANSWER_BYTES_MAX:
            raise RemoteProtocolError("an answer is over the size limit")
        if waiting.owed > CREDIT_BYTES:
            raise RemoteProtocolError("an answer comes without credit")
        if not part.last:
            self._coming[part.id] = waiting
            self._grant()
            return
        self._coming.pop(part.id, None)
        self._grant()
        if part.status:
            waiting.done.set_exception(AskRefusedError(part.status, part.reason))
            return
        body = b"".join(waiting.parts)
        if hashlib.sha256(body).digest() != part.digest:
            raise RemoteProtocolError("an answer has another digest than it says")
        waiting.parts.clear()
        waiting.done.set_result(body)

    def _grant(self) -> None:
        """Give the credit that is owed, while there is room; without room to the first alone."""
        for place, (number, waiting) in enumerate(self._coming.items()):
            if place and self._coming_bytes > ANSWERS_BYTES_MAX:
                return
            if waiting.owed:
                self._send(Credit(number, waiting.owed))
                waiting.owed = 0

    def _forget(self, number: int) -> None:
        """The asker has the answer, or has given up."""
        waiting = self._open.pop(number)
        self._coming.pop(number, None)
        self._coming_bytes -= waiting.size
        if not self._closed:
            self._grant()

    def _serve(self, request: Request) -> None:
        if request.id in self._serving:
            raise RemoteProtocolError(f"request {request.id} is open already")
        # What was cancelled counts until it has stopped: cancelling asks for work too.
        if len(self._at_work) >= OPEN_REQUESTS_MAX:
            self._refuse(request.id, "OVERLOADED", "too many open questions; ask again later")
            return
        serving = _Serving()
        self._serving[request.id] = serving
        task = asyncio.get_running_loop().create_task(self._run(request, serving))
        serving.task = task
        self._at_work.add(task)
        task.add_done_callback(lambda done: self._served(request.id, done))

    def _served(self, number: int, task: asyncio.Task[None]) -> None:
        """Answer what the answerer did not foresee: the asker must not wait for its deadline."""
        self._at_work.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._refuse(number, "INTERNAL", f"unexpected {type(error).__name__}")
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a question of {self._peer} failed", "exception": error}
            )

    async def _run(self, request: Request, serving: _Serving) -> None:
        try:
            body = await asyncio.wait_for(
                self._answer(request), max(request.remaining_ms, 1) / 1000
            )
            await self._send_answer(request.id, body, serving)
        except TimeoutError:
            self._refuse(request.id, "ASK_TIMEOUT", "the time for the answer ran out")
        except AskRefusedError as refused:
            self._refuse(request.id, refused.status, refused.message)
        except FenheError as error:
            self._refuse(request.id, error.code, error.message)
        finally:
            # After a Cancel the number may be another question's already.
            if self._serving.get(request.id) is serving:
                del self._serving[request.id]

    async def _send_answer(self, number: int, body: bytes, serving: _Serving) -> None:
        if len(body) > ANSWER_BYTES_MAX:
            raise AskRefusedError("ANSWER_TOO_LARGE", "the answer is over the size limit")
        if self._leaving_bytes + len(body) > ANSWERS_BYTES_MAX + ANSWER_BYTES_MAX:
            raise AskRefusedError("OVERLOADED", "too many large answers wait for the line")
        self._leaving_bytes += len(body)
        try:
            for n, start in enumerate(range(0, len(body) or 1, PART_BYTES), 1):
                piece = body[start : start + PART_BYTES]
                while serving.credit < len(piece):
                    serving.more.clear()
                    await serving.more.wait()
                serving.credit -= len(piece)
                last = start + PART_BYTES >= len(body)
                digest = hashlib.sha256(body).digest() if last else b""
                self._send(AnswerPart(number, n, last, digest=digest, body=piece))
        finally:
            self._leaving_bytes -= len(body)

    def _refuse(self, number: int, status: str, reason: str) -> None:
        if not self._closed:
            self._send(AnswerPart(number, 1, last=True, status=status, reason=reason))
