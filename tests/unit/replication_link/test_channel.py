"""Questions over a link: answers whole or not at all, credit, deadlines, rules for the peer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import pytest

from replication.channel import (
    ANSWER_BYTES_MAX,
    ANSWERS_BYTES_MAX,
    OPEN_REQUESTS_MAX,
    AskRefusedError,
    AskTimeoutError,
    Channel,
    LinkDownError,
)
from replication.core.model import AnswerPart, Cancel, Credit, Request
from replication.errors import LocalProtocolError, RemoteProtocolError

_MIB = 1024 * 1024
Frame = Request | AnswerPart | Cancel | Credit


class Pair:
    """Two channels joined in memory; `sent` keeps what the asker's side sent."""

    def __init__(self, answer: Callable[[Request], Awaitable[bytes]]) -> None:
        self.sent: list[Frame] = []
        self.answered: list[Frame] = []
        self.asker = Channel(self._to_answerer, self._nobody, peer="141002")
        self.answerer = Channel(self._to_asker, answer, peer="1410")

    async def _nobody(self, request: Request) -> bytes:
        raise AskRefusedError("UNKNOWN_METHOD", request.method)

    def _to_answerer(self, frame: Frame) -> None:
        self.sent.append(frame)
        self.answerer.handle(frame)

    def _to_asker(self, frame: Frame) -> None:
        self.answered.append(frame)
        self.asker.handle(frame)


async def test_an_answer_comes_whole() -> None:
    """A large answer travels in parts and is put together again."""
    body = bytes(range(256)) * 10_000

    async def answer(request: Request) -> bytes:
        return request.body + body

    pair = Pair(answer)
    assert await pair.asker.ask("echo", b"x", remaining_ms=5000) == b"x" + body
    parts = [frame for frame in pair.answered if isinstance(frame, AnswerPart)]
    assert [part.n for part in parts] == list(range(1, len(parts) + 1))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert any(isinstance(frame, Credit) for frame in pair.sent)


async def test_an_answerer_waits_for_credit() -> None:
    """Without credit no more than the first megabyte leaves."""
    sent: list[Frame] = []

    async def answer(_request: Request) -> bytes:
        return bytes(3 * 1024 * 1024)

    channel = Channel(sent.append, answer, peer="1410")
    channel.handle(Request(1, (), "large", 5000))
    for _ in range(20):
        await asyncio.sleep(0)
    held = sum(len(f.body) for f in sent if isinstance(f, AnswerPart))
    assert held == 1024 * 1024
    channel.handle(Credit(1, 512 * 1024))
    for _ in range(20):
        await asyncio.sleep(0)
    assert sum(len(f.body) for f in sent if isinstance(f, AnswerPart)) == held + 512 * 1024
    channel.close()


async def test_a_late_answer_is_a_timeout_and_the_peer_is_told() -> None:
    """The asker gives up at the deadline and cancels."""
    never = asyncio.Event()
    stopped = asyncio.Event()

    async def answer(_request: Request) -> bytes:
        try:
            await never.wait()
        finally:
            stopped.set()
        return b""

    pair = Pair(answer)
    with pytest.raises(AskTimeoutError):
        await pair.asker.ask("slow", b"", remaining_ms=50)
    await asyncio.wait_for(stopped.wait(), 5)


async def test_a_refusal_carries_its_code() -> None:
    """An error of ours becomes a status; its text has no secrets to hide."""

    async def answer(_request: Request) -> bytes:
        raise LocalProtocolError("not today")

    pair = Pair(answer)
    with pytest.raises(AskRefusedError) as caught:
        await pair.asker.ask("x", b"", remaining_ms=5000)
    assert caught.value.status == "LOCAL_PROTOCOL_ERROR"


async def test_a_broken_link_fails_every_open_question() -> None:
    """Nobody waits for a stream that is gone."""
    channel = Channel(lambda frame: None, _silence, peer="141002")
    waiting = [asyncio.create_task(channel.ask("x", b"", remaining_ms=60_000)) for _ in range(3)]
    await asyncio.sleep(0)
    channel.close()
    for task in waiting:
        with pytest.raises(LinkDownError):
            await task
    with pytest.raises(LinkDownError):
        await channel.ask("x", b"", remaining_ms=1000)


async def test_too_many_questions_are_refused() -> None:
    """A limit on every queue, on both sides."""
    channel = Channel(lambda frame: None, _silence, peer="141002")
    waiting = [
        asyncio.create_task(channel.ask("x", b"", remaining_ms=60_000))
        for _ in range(OPEN_REQUESTS_MAX)
    ]
    await asyncio.sleep(0)
    with pytest.raises(AskRefusedError, match="too many"):
        await channel.ask("x", b"", remaining_ms=1000)
    sent: list[Frame] = []
    answerer = Channel(sent.append, _silence, peer="1410")
    for n in range(OPEN_REQUESTS_MAX + 1):
        answerer.handle(Request(n + 1, (), "x", 60_000))
    refused = [f for f in sent if isinstance(f, AnswerPart)]
    assert [part.status for part in refused] == ["OVERLOADED"]
    channel.close()
    answerer.close()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_parts_out_of_order_and_false_digests_break_the_link() -> None:
    """What a peer gets wrong is never guessed around."""
    sent: list[Frame] = []
    channel = Channel(sent.append, _silence, peer="141002")
    asked = asyncio.create_task(channel.ask("x", b"", remaining_ms=60_000))
    await asyncio.sleep(0)
    with pytest.raises(RemoteProtocolError, match="out of order"):
        channel.handle(AnswerPart(1, 2, last=False, body=b"second"))
    with pytest.raises(RemoteProtocolError, match="digest"):
        channel.handle(AnswerPart(1, 1, last=True, digest=b"no", body=b"first"))
    channel.handle(Request(7, (), "x", 60_000))
    with pytest.raises(RemoteProtocolError, match="open already"):
        channel.handle(Request(7, (), "x", 60_000))
    channel.close()
    await asyncio.gather(asked, return_exceptions=True)


async def test_what_the_answerer_did_not_foresee_is_answered_at_once() -> None:
    """The asker hears INTERNAL, not silence until its deadline, and nothing of the text."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)

    async def answer(_request: Request) -> bytes:
        raise KeyError("张三")

    pair = Pair(answer)
    with pytest.raises(AskRefusedError) as caught:
        await asyncio.wait_for(pair.asker.ask("x", b"", remaining_ms=60_000), 5)
    assert (caught.value.status, caught.value.message) == ("INTERNAL", "unexpected KeyError")


async def test_credit_never_exceeds_the_first() -> None:
    """A peer that grants without end, and reads nothing, is not sent everything at once."""
    sent: list[Frame] = []

    async def answer(_request: Request) -> bytes:
        return bytes(8 * 1024 * 1024)

    channel = Channel(sent.append, answer, peer="1410")
    channel.handle(Request(1, (), "large", 5000))
    for _ in range(3):
        channel.handle(Credit(1, 2**32 - 1))
    for _ in range(50):
        await asyncio.sleep(0)
    assert sum(len(f.body) for f in sent if isinstance(f, AnswerPart)) == 1024 * 1024
    channel.close()


async def test_what_was_cancelled_counts_until_it_has_stopped() -> None:
    """Asking and cancelling by turns gets no more work done at once than asking."""
    stop = asyncio.Event()
    at_work = 0

    async def stubborn(_request: Request) -> bytes:
        nonlocal at_work
        at_work += 1
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue
        return b""

    sent: list[Frame] = []
    channel = Channel(sent.append, stubborn, peer="1410")
    for n in range(3 * OPEN_REQUESTS_MAX):
        channel.handle(Request(n, (), "x", 60_000))
        await asyncio.sleep(0)
        channel.handle(Cancel(n))
    assert at_work == OPEN_REQUESTS_MAX
    stop.set()


async def test_a_number_used_again_after_a_cancel_is_another_question() -> None:
    """The end of the first does not forget the second."""
    sent: list[Frame] = []
    channel = Channel(sent.append, _silence, peer="1410")
    channel.handle(Request(1, (), "x", 60_000))
    await asyncio.sleep(0)
    channel.handle(Cancel(1))
    channel.handle(Request(1, (), "x", 60_000))
    for _ in range(5):
        await asyncio.sleep(0)
    with pytest.raises(RemoteProtocolError, match="open already"):
        channel.handle(Request(1, (), "x", 60_000))
    channel.close()


async def test_an_answer_in_crumbs_breaks_the_link() -> None:
    """Parts without a body would go on for ever within the size limit."""
    channel = Channel(lambda frame: None, _silence, peer="141002")
    asked = asyncio.create_task(channel.ask("x", b"", remaining_ms=60_000))
    await asyncio.sleep(0)
    with pytest.raises(RemoteProtocolError, match="too many parts"):
        channel.handle(AnswerPart(1, 1, last=False))
    channel.close()
    await asyncio.gather(asked, return_exceptions=True)


async def test_answers_that_come_at_once_share_one_bound() -> None:
    """Over it the first alone is granted more; the others wait for room, and all come whole."""
    size, many, part = 24 * _MIB, 6, 128 * 1024
    body, sent = bytes(size), list[Frame]()
    channel = Channel(sent.append, _silence, peer="1410")
    asked = [asyncio.create_task(channel.ask("x", b"", remaining_ms=60_000)) for _ in range(many)]
    await asyncio.sleep(0)
    come, may, most = dict.fromkeys(range(1, many + 1), 0), dict.fromkeys(range(1, 7), _MIB), 0
    while min(come.values()) < size:
        going = [n for n in come if come[n] < size and come[n] + part <= may[n]]
        assert going, "every answer waits for credit"
        for n in going:
            come[n] += part
            last = come[n] == size
            digest = hashlib.sha256(body).digest() if last else b""
            channel.handle(AnswerPart(n, come[n] // part, last, digest=digest, body=body[:part]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for frame in sent:
            if isinstance(frame, Credit):
                may[frame.id] += frame.bytes
        sent.clear()
        most = max(most, sum(bytes_ for bytes_ in come.values() if bytes_ < size))
    assert most <= ANSWERS_BYTES_MAX + (many - 1) * _MIB + size
    assert [len(each) for each in await asyncio.gather(*asked)] == [size] * many


async def test_an_answer_without_credit_breaks_the_link() -> None:
    """What is granted bounds what may come, whoever sends it."""
    channel = Channel(lambda frame: None, _silence, peer="1410")
    first, second = (
        asyncio.create_task(channel.ask("x", b"", remaining_ms=60_000)) for _ in range(2)
    )
    await asyncio.sleep(0)
    whole = bytes(_MIB)
    for n in range(1, ANSWERS_BYTES_MAX // _MIB):
        channel.handle(AnswerPart(1, n, last=False, body=whole))
    channel.handle(AnswerPart(2, 1, last=False, body=whole))
    channel.handle(AnswerPart(2, 2, last=False, body=whole))
    with pytest.raises(RemoteProtocolError, match="without credit"):
        channel.handle(AnswerPart(2, 3, last=False, body=b"more"))
    channel.close()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_large_answers_that_wait_for_the_line_are_bounded() -> None:
    """Whoever asks for many of them and takes none is refused those over the bound."""
    sent: list[Frame] = []
    large = bytes(ANSWER_BYTES_MAX)

    async def answer(request: Request) -> bytes:
        return large + b"!" if request.method == "larger" else large

    channel = Channel(sent.append, answer, peer="1410")
    channel.handle(Request(1, (), "larger", 60_000))
    for n in (2, 3, 4):
        channel.handle(Request(n, (), "large", 60_000))
    for _ in range(20):
        await asyncio.sleep(0)
    refused = [(f.id, f.status) for f in sent if isinstance(f, AnswerPart) and f.status]
    assert refused == [(1, "ANSWER_TOO_LARGE"), (4, "OVERLOADED")]
    channel.close()


async def test_nothing_is_asked_without_time() -> None:
    """A hop that has used up the time says so; a negative time does not fit the frame."""
    sent: list[Frame] = []
    channel = Channel(sent.append, _silence, peer="141002")
    with pytest.raises(AskTimeoutError):
        await channel.ask("x", b"", remaining_ms=-40)
    assert sent == []


async def _silence(_request: Request) -> bytes:
    await asyncio.Event().wait()
    return b""
