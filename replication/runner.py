"""Runs one live link: the core's effects on one side, a frame stream and a store on the other.

Owns the tasks of one stream: reading frames, writing frames, database work in threads, ticks. All
decisions are the core's (replication/core/link.py); all durable state is the store's. When the
stream ends, for whatever reason, nothing here survives: the next stream starts from the store.

Frames go out in two queues: replication in the core's order, questions and answers beside it. A
question is never behind more than one batch, and a flood of answers never starves the lanes. Both
are bounded: a peer that does not take what its own frames call forth is cut off with QUEUE_FULL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

from hierarchy_config.errors import FenheError
from replication.channel import CREDIT_BYTES, OPEN_REQUESTS_MAX, Answerer, Channel, ChannelFrame
from replication.core.config import (
    QUEUE_BATCHES_LIMIT,
    QUEUE_BYTES_LIMIT,
    LinkConfig,
    PeerRole,
)
from replication.core.effects import (
    ApplyBatch,
    Close,
    Effect,
    LinkUp,
    LogPart,
    ReadLog,
    SaveDelivered,
    SaveMark,
    Send,
)
from replication.core.greeting import Versions
from replication.core.link import LinkEnd, LinkState
from replication.core.model import (
    AnswerPart,
    Batch,
    Cancel,
    Credit,
    Cursor,
    Frame,
    Goodbye,
    Hello,
    Lane,
    Mark,
    Receipt,
    Refusal,
    Request,
)
from replication.core.outbound import LaneView, first_rate
from replication.errors import RemoteProtocolError
from replication.unsaved import Unsaved

__all__ = ["FrameStream", "LinkEnded", "LinkRunner", "LinkStore", "RunnerClock"]

TICK_S: Final = 1.0
FLUSH_S: Final = 2.0
SAVE_PAUSE_S: Final = 0.05
CHANNEL_BYTES_MAX: Final = OPEN_REQUESTS_MAX * (CREDIT_BYTES + 64 * 1024)
"""Most that questions and answers may take while they wait for the line."""
LANE_FRAMES_MAX: Final = 4 * len(Lane) * QUEUE_BATCHES_LIMIT
"""Most frames of replication that may wait for the line: twice a window's batches and receipts."""
LANE_BYTES_MAX: Final = 2 * QUEUE_BYTES_LIMIT
"""Most bytes of rows in them: a window, and once more what was sent again after a refusal."""
_FRAME_BYTES: Final = 512
"""What a frame takes in memory beside its body."""


class FrameStream(Protocol):
    """Either end of the gRPC stream, as frames of the core."""

    async def read(self) -> Frame | None:
        """The next frame; None when the peer ended the stream."""

    async def write(self, frame: Frame) -> None:
        """Send one frame; returns when there is room for more."""


class LinkStore(Protocol):
    """Durable state of links. Every method blocks and is called in a thread."""

    def read(self, peer: str, lane: Lane, after: int, bytes_max: int, position: str) -> LogPart:
        """Entries of the log for this peer after a sequence, or where a snapshot had come to."""

    def apply(self, peer: str, batch: Batch, cursor: Cursor) -> None:
        """Apply rows and save the cursor in one durable transaction; a FenheError refuses it."""

    def save_delivered(self, peer: str, cursor: Cursor, receipt: Receipt | None) -> None:
        """Remember what the peer has confirmed: `cursor` may be further than the receipt says."""

    def save_mark(self, peer: str, mark: Mark) -> None:
        """Remember how fresh the copies of the peer's homes are."""

    def save_peer(self, peer: str, hello: Hello) -> None:
        """Remember the peer's store epoch and incarnation."""

    def mark_for(self, peer: str) -> Mark:
        """How fresh the homes are that this node has copies of, own home included."""


class RunnerClock(Protocol):
    """Time that never goes back, for rates and timeouts."""

    def monotonic_ms(self) -> int:
        """Milliseconds since some fixed moment."""


@dataclass(frozen=True, slots=True)
class LinkEnded:
    """Why a stream is over."""

    code: str
    reason: str
    hint: str = ""
    error: BaseException | None = None
    """What nobody foresaw: a database that went away, a frame that met a defect here."""


class LinkRunner:
    """One live stream of a link. `run` returns when it is over; make a new one per connection."""

    def __init__(
        self,
        config: LinkConfig,
        *,
        inbound: Mapping[Lane, Cursor],
        outbound: Mapping[Lane, Cursor],
        stream: FrameStream,
        store: LinkStore,
        answer: Answerer,
        threads: Executor,
        clock: RunnerClock,
        on_up: Callable[[Hello], None],
    ) -> None:
        """`on_up` is called once the peer's Hello is accepted and remembered."""
        self.peer = config.peer_id
        self._to_parent = config.peer_role is PeerRole.PARENT
        self._core = LinkEnd(config, inbound, outbound)
        self._stream = stream
        self._store = store
        self._threads = threads
        self._clock = clock
        self._on_up = on_up
        self.channel = Channel(self._queue_channel, answer, peer=config.peer_id)
        self._lane_frames: deque[Frame] = deque()
        self._lane_bytes = 0
        self._channel_frames: deque[ChannelFrame] = deque()
        self._channel_bytes = 0
        self._to_write = asyncio.Event()
        self._unsaved = Unsaved()
        self._to_save = asyncio.Event()
        self._ended: asyncio.Future[LinkEnded] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._effects: deque[Effect] = deque()
        self._paused = False
        self._drained = asyncio.Event()
        self._head: Callable[[], int] = lambda: 0
        self._up = False
        self.last_heard_ms = 0

    async def run(self, head: Callable[[], int], mark_interval_s: float = 2.0) -> LinkEnded:
        """Serve the stream until it ends; `head` tells the log's newest sequence."""
        self._head = head
        try:
            self._perform(self._core.start(self._now()))
            for work in (
                self._read_frames(),
                self._write_frames(),
                self._save_what_was_said(),
                self._tick(),
            ):
                self._start(work)
            # Freshness rises: a child has no use for its parent's.
            if self._to_parent:
                self._start(self._send_marks(mark_interval_s))
            ended = await asyncio.shield(self._ended)
            await self._flush()
            return ended
        finally:
            self.channel.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def log_advanced(self, head: int, lane_heads: Mapping[Lane, int] | None = None) -> None:
        """The node's log reached `head`, each lane its own end: there may be something to send."""
        if not self._ended.done():
            self._perform(self._core.log_advanced(head, self._now(), lane_heads))

    def end(self, code: str, reason: str) -> None:
        """Say goodbye and finish."""
        self._queue(Goodbye(reason))
        self._finish(LinkEnded(code, reason))

    @property
    def delivered_to(self) -> Mapping[Lane, int]:
        """By lane: up to where the peer durably holds all that is for it; empty before it is up."""
        return self._core.delivered_to

    @property
    def lane_views(self) -> Mapping[Lane, LaneView]:
        """How each lane is; empty before it is up."""
        return self._core.lane_views

    @property
    def rate_next(self) -> int:
        """What the next stream of this link is to take the line for, bytes a second."""
        stalled = self._ended.done() and self._ended.result().code == "STALLED"
        return first_rate(self.bytes_per_s, stalled=stalled)

    @property
    def bytes_per_s(self) -> int:
        """What the peer confirms a second, as measured; a guess before the first receipts."""
        return self._core.meter.bytes_per_s

    @property
    def peer_versions(self) -> Versions | None:
        """What the peer's Hello said of its release, refused or not; None before it has come."""
        return self._core.peer_versions

    @property
    def is_up(self) -> bool:
        """True once the peer's Hello was accepted."""
        return self._up and not self._ended.done()

    def _now(self) -> int:
        return self._clock.monotonic_ms()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, FenheError):
            self._finish(LinkEnded(error.code, error.message, error.hint))
        elif error is not None:
            # One stream ends with it, never the node: the link is dialled again. The text stays
            # out, for a library's may quote a cell.
            self._finish(LinkEnded("INTERNAL", f"unexpected {type(error).__name__}", error=error))

    def _finish(self, end: LinkEnded) -> None:
        if not self._ended.done():
            self._ended.set_result(end)

    async def _flush(self) -> None:
        """Give last words (Refusal, Goodbye) a moment to leave."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._drained.wait()

    def _perform(self, effects: Sequence[Effect]) -> None:
        """Carry out effects in order; what blocks goes to a thread and comes back by itself."""
        self._effects.extend(effects)
        while self._effects and not self._paused:
            self._carry_out(self._effects.popleft())

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(frame):
                self._queue(frame)
            case ReadLog():
                self._start(self._read_log(effect))
            case ApplyBatch():
                self._start(self._apply(effect))
            case SaveDelivered(cursor, receipt):
                self._unsaved.note_delivery(cursor, receipt)
                self._to_save.set()
            case SaveMark(mark):
                self._unsaved.note_mark(mark)
                self._to_save.set()
            case LinkUp(hello):
                # What follows must find the peer's epoch on disk, so later effects wait.
                self._paused = True
                self._start(self._go_up(hello))
            case Close(code, reason, hint):
                self._finish(LinkEnded(code, reason, hint))
            case _:
                assert_never(effect)

    async def _go_up(self, hello: Hello) -> None:
        await self._in_thread(self._store.save_peer, self.peer, hello)
        self._up = True
        self._paused = False
        self._to_write.set()
        self._on_up(hello)
        self._perform(())
        self.log_advanced(self._head())

    def _queue(self, frame: Frame) -> None:
        if self._ended.done():
            return
        self._lane_frames.append(frame)
        self._lane_bytes += _body_bytes(frame)
        if len(self._lane_frames) > LANE_FRAMES_MAX or self._lane_bytes > LANE_BYTES_MAX:
            # No honest peer gets here: what it is owed lies within the window both ways.
            self._finish(LinkEnded("QUEUE_FULL", "the peer does not take what it is sent"))
        self._drained.clear()
        self._to_write.set()

    def _queue_channel(self, frame: ChannelFrame) -> None:
        if self._ended.done():
            return
        self._channel_frames.append(frame)
        self._channel_bytes += _weight(frame)
        if self._channel_bytes > CHANNEL_BYTES_MAX:
            self._finish(LinkEnded("QUEUE_FULL", "the peer asks and does not take the answers"))
        self._to_write.set()

    def _take_channel(self, frame: ChannelFrame) -> None:
        if self._core.state is LinkState.GREETING:
            raise RemoteProtocolError("a question arrived before Hello")
        if isinstance(frame, Cancel):
            # What waits of an answer that nobody wants must not hold up those that are wanted.
            kept = [f for f in self._channel_frames if not _answers(f, frame.id)]
            self._channel_frames = deque(kept)
            self._channel_bytes = sum(map(_weight, kept))
        self.channel.handle(frame)

    async def _in_thread(self, work: Callable[..., object], *args: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    async def _read_log(self, effect: ReadLog) -> None:
        loop = asyncio.get_running_loop()
        part = await loop.run_in_executor(
            self._threads,
            self._store.read,
            self.peer,
            effect.lane,
            effect.after,
            effect.bytes_max,
            effect.position,
        )
        self._perform(
            self._core.entries_read(
                effect.lane,
                part.entries,
                part.scanned_to,
                self._now(),
                position=part.position,
                coalesced=part.coalesced,
            )
        )

    async def _apply(self, effect: ApplyBatch) -> None:
        lane = effect.batch.lane
        try:
            await self._in_thread(self._store.apply, self.peer, effect.batch, effect.cursor_after)
        except FenheError as error:
            self._perform(self._core.batch_failed(lane, error.code, self._now()))
        else:
            self._perform(self._core.batch_applied(lane, effect.cursor_after, self._now()))

    async def _read_frames(self) -> None:
        while not self._ended.done():
            frame = await self._stream.read()
            if frame is None:
                self._finish(LinkEnded("LINK_DOWN", "the peer ended the stream"))
                return
            self.last_heard_ms = self._now()
            match frame:
                case Request() | AnswerPart() | Cancel() | Credit():
                    self._take_channel(frame)
                case Hello() | Refusal() | Batch() | Receipt() | Mark() | Goodbye():
                    self._perform(self._core.receive(frame, self._now()))
                case _:
                    assert_never(frame)

    async def _write_frames(self) -> None:
        """Alternate between the queues; questions wait until the peer's Hello is accepted."""
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            while self._lane_frames or (self._channel_frames and self._up):
                if self._channel_frames and self._up:
                    frame = self._channel_frames.popleft()
                    self._channel_bytes -= _weight(frame)
                    await self._stream.write(frame)
                if self._lane_frames:
                    next_frame = self._lane_frames.popleft()
                    self._lane_bytes -= _body_bytes(next_frame)
                    await self._stream.write(next_frame)
            self._drained.set()

    async def _save_what_was_said(self) -> None:
        """Save cursors and marks one after the other: nothing older lands behind what is newer."""
        while True:
            await self._to_save.wait()
            self._to_save.clear()
            for cursor, receipt in self._unsaved.take_deliveries():
                await self._in_thread(self._store.save_delivered, self.peer, cursor, receipt)
            mark = self._unsaved.take_mark()
            if mark is not None:
                await self._in_thread(self._store.save_mark, self.peer, mark)
            await asyncio.sleep(SAVE_PAUSE_S)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._perform(self._core.tick(self._now()))

    async def _send_marks(self, interval_s: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(interval_s)
            if self.is_up:
                mark = await loop.run_in_executor(self._threads, self._store.mark_for, self.peer)
                self._perform(self._core.marks_ready(mark, self._now()))


def _body_bytes(frame: Frame) -> int:
    return frame.body_bytes if isinstance(frame, Batch) else 0


def _weight(frame: ChannelFrame) -> int:
    body = frame.body if isinstance(frame, Request | AnswerPart) else b""
    return _FRAME_BYTES + len(body)


def _answers(frame: ChannelFrame, number: int) -> bool:
    return isinstance(frame, AnswerPart) and frame.id == number
