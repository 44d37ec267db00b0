"""The runner of one stream: whatever goes wrong ends this stream, with a code, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest

from replication.core.config import LinkConfig, PeerRole
from replication.core.effects import LogPart
from replication.core.model import (
    AnswerPart,
    Batch,
    Cancel,
    Cursor,
    Frame,
    Goodbye,
    Hello,
    Lane,
    Mark,
    Receipt,
    Request,
    StreamEpoch,
)
from replication.runner import LinkEnded, LinkRunner, RunnerClock
from replication.unsaved import Unsaved

HERE, PEER = "141002001", "141002001201"


class Still:
    """A clock that stands."""

    def monotonic_ms(self) -> int:
        return 0


class Memory:
    """A store without rows; `error` is raised when the peer's life is to be remembered."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self._meeting = threading.Barrier(2)
        self.met = False
        """Whether two marks were ever being saved at the same time."""
        self.marks: list[Mark] = []
        self.enough = threading.Event()

    def read(self, peer: str, lane: Lane, after: int, bytes_max: int, position: str) -> LogPart:
        return LogPart((), after, position)

    def apply(self, peer: str, batch: Batch, cursor: Cursor) -> None:
        raise AssertionError

    def save_delivered(self, peer: str, cursor: Cursor, receipt: Receipt | None) -> None: ...

    def save_mark(self, peer: str, mark: Mark) -> None:
        with suppress(threading.BrokenBarrierError):
            self._meeting.wait(0.2)
            self.met = True
        self.marks.append(mark)
        if mark.homes["b"] == 3:
            self.enough.set()

    def save_peer(self, peer: str, hello: Hello) -> None:
        if self._error is not None:
            raise self._error

    def mark_for(self, peer: str) -> Mark:
        return Mark({}, 0)


class Stream:
    """Says what it was told to say, then waits; None is a pause. `slow` never takes an answer."""

    def __init__(self, *frames: Frame | None, slow: bool = False) -> None:
        self._frames = list(frames)
        self._slow = slow
        self.written: list[Frame] = []

    async def read(self) -> Frame | None:
        await asyncio.sleep(0)
        if not self._frames:
            await asyncio.Event().wait()
        frame = self._frames.pop(0)
        if frame is None:
            for _ in range(20):
                await asyncio.sleep(0)
            return await self.read()
        return frame

    async def write(self, frame: Frame) -> None:
        if self._slow and isinstance(frame, AnswerPart):
            await asyncio.Event().wait()
        self.written.append(frame)


def runner_of(
    stream: Stream, store: Memory, threads: Executor, clock: RunnerClock | None = None
) -> LinkRunner:
    """A parent's runner, not started."""

    async def answer(_request: Request) -> bytes:
        return bytes(1024 * 1024)

    return LinkRunner(
        LinkConfig(
            node_id=HERE,
            peer_id=PEER,
            peer_role=PeerRole.CHILD,
            store_epoch=1,
            store_incarnation="here-1",
        ),
        inbound={},
        outbound={},
        stream=stream,
        store=store,
        answer=answer,
        threads=threads,
        clock=clock or Still(),
        on_up=lambda _hello: None,
    )


async def ended(stream: Stream, store: Memory, clock: RunnerClock | None = None) -> LinkEnded:
    """How the stream ends."""
    with ThreadPoolExecutor(4) as threads:
        runner = runner_of(stream, store, threads, clock)
        return await asyncio.wait_for(runner.run(lambda: 0), 20)


HELLO = Hello(PEER, 1, 1, 1, 1, "peer-1", 0, 1)


@pytest.mark.parametrize("error", [OverflowError("too large"), OSError("disk full")])
async def test_what_nobody_foresaw_ends_the_stream_with_a_code(error: Exception) -> None:
    """Its kind is named, its text is not; the node goes on and the link is dialled again."""
    end = await ended(Stream(HELLO), Memory(error))
    assert (end.code, end.error) == ("INTERNAL", error)
    assert end.reason == f"unexpected {type(error).__name__}"


async def test_a_question_before_hello_ends_the_stream() -> None:
    """Who has not been greeted is not answered."""
    end = await ended(Stream(Request(1, (), "x", 1000)), Memory())
    assert end.code == "REMOTE_PROTOCOL_ERROR"


async def test_a_peer_that_asks_and_does_not_read_is_cut_off() -> None:
    """Answers that wait for the line are bounded."""
    questions = [Request(n, (), "x", 60_000) for n in range(1, 200)]
    end = await ended(Stream(HELLO, *questions, slow=True), Memory())
    assert end.code == "QUEUE_FULL"


async def test_the_rest_of_a_cancelled_answer_leaves_the_queue() -> None:
    """An asker on a slow line gives up and asks again, for hours, without filling the memory."""
    frames: list[Frame | None] = [HELLO]
    for n in range(1, 200):
        frames += [Request(n, (), "x", 60_000), None, Cancel(n)]
    end = await ended(Stream(*frames, Goodbye("enough"), slow=True), Memory())
    assert end.code == "GOODBYE"


class Patient(Stream):
    """Says goodbye once the store has saved enough."""

    def __init__(self, enough: threading.Event, *frames: Frame | None) -> None:
        super().__init__(*frames)
        self._enough = enough

    async def read(self) -> Frame | None:
        if self._frames:
            return await super().read()
        await asyncio.to_thread(self._enough.wait, 15)
        return Goodbye("enough")


async def test_marks_are_saved_one_after_the_other() -> None:
    """An earlier word never lands behind a later one."""
    store = Memory()
    said = [Mark({"a": 1, "b": 1}, 1), Mark({"b": 2}, 2), Mark({"b": 3}, 3)]
    end = await ended(Patient(store.enough, HELLO, said[0], None, *said[1:]), store)
    assert (end.code, store.met) == ("GOODBYE", False)
    now: dict[str, int] = {}
    for mark in store.marks:
        now.update(mark.homes)
    assert now == {"a": 1, "b": 3}


def test_a_place_passed_over_does_not_lose_the_receipt_before_it() -> None:
    """Both come within one pause: they are saved together. Another batch's receipt is no proof."""
    first = Cursor(Lane.CARE, StreamEpoch(1, 1), 4, 40, b"h" * 32)
    proof = Receipt(first, signature=b"sig", key_id="key")
    further = replace(first, covers_to=5100)
    other = replace(first, lane=Lane.BULK)
    unsaved = Unsaved()
    unsaved.note_delivery(first, proof)
    unsaved.note_delivery(further, None)
    unsaved.note_delivery(other, replace(proof, cursor=other))
    unsaved.note_delivery(replace(other, number=5), None)
    assert unsaved.take_deliveries() == [(further, proof), (replace(other, number=5), None)]
    assert unsaved.take_deliveries() == []


def test_of_the_marks_that_wait_each_home_s_last_word_counts() -> None:
    """Even an earlier time."""
    unsaved = Unsaved()
    unsaved.note_mark(Mark({"a": 5, "b": 5}, 1))
    unsaved.note_mark(Mark({"b": 3, "c": 1}, 2))
    assert unsaved.take_mark() == Mark({"a": 5, "b": 3, "c": 1}, 2)
    assert unsaved.take_mark() is None
