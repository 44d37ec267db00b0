"""One end of one live link: the state machine between two nodes.

Owns the order of things: Hello before all else, the resume of each lane, which lane may send, what
a frame leads to. Effects come out in order and are carried out in order. It must never do I/O, read
a clock, or know a table; the rules of a lane are in outbound.py and inbound.py, the choice of a
resume point in resume.py.

    NEW ──start──► GREETING ──Hello fits──► UP ──anything wrong, Goodbye──► CLOSED
                       └──Hello does not fit, Refusal───────────────────────►┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, Final, assert_never

from replication.core.config import BODY_BYTES_LIMIT, QUEUE_BYTES_LIMIT, LinkConfig
from replication.core.effects import (
    Close,
    Effect,
    LinkFrame,
    LinkUp,
    ReadLog,
    SaveDelivered,
    SaveMark,
    Send,
)
from replication.core.greeting import Versions, hello_of, refusal_of, versions_of
from replication.core.inbound import InboundLane, Offer
from replication.core.model import (
    Batch,
    Cursor,
    Goodbye,
    Hello,
    Lane,
    LogEntry,
    Mark,
    Receipt,
    Refusal,
    StreamEpoch,
)
from replication.core.outbound import LaneView, OutboundLane, RateMeter
from replication.core.resume import resume_point
from replication.errors import LocalProtocolError

__all__ = ["TRANSITIONS", "LinkEnd", "LinkEvent", "LinkState"]

CURSOR_CODES: Final = frozenset({"BATCH_OUT_OF_ORDER", "CURSOR_WENT_BACK"})
"""With these a store says that the lane no longer stands where this end believes."""


class LinkState(StrEnum):
    """Where one end of a link is in its life."""

    NEW = "new"
    GREETING = "greeting"
    UP = "up"
    CLOSED = "closed"


class LinkEvent(StrEnum):
    """What moves a LinkEnd from state to state."""

    START = "start"
    HELLO = "hello"
    STREAM_FRAME = "stream_frame"
    END = "end"


TRANSITIONS: Final[Mapping[tuple[LinkState, LinkEvent], LinkState]] = {
    (LinkState.NEW, LinkEvent.START): LinkState.GREETING,
    (LinkState.NEW, LinkEvent.END): LinkState.CLOSED,
    (LinkState.GREETING, LinkEvent.HELLO): LinkState.UP,
    (LinkState.GREETING, LinkEvent.END): LinkState.CLOSED,
    (LinkState.UP, LinkEvent.STREAM_FRAME): LinkState.UP,
    (LinkState.UP, LinkEvent.END): LinkState.CLOSED,
    (LinkState.CLOSED, LinkEvent.END): LinkState.CLOSED,
}
"""What is not here is an error of whoever caused the event."""


class LinkEnd:
    """One end of one live stream; a new one per connection. Not thread-safe.

    Every method takes the time in milliseconds of one clock, best a monotonic one, and returns
    effects to carry out in order. Once closed, everything returns no effects: what is still under
    way for this connection no longer matters.

    Args:
        inbound: What this node has durably applied from the peer, read at connection time.
        outbound: What the peer is durably known to have applied, as persisted by SaveDelivered.
    """

    outbound_type: ClassVar[type[OutboundLane]] = OutboundLane
    inbound_type: ClassVar[type[InboundLane]] = InboundLane
    resume = staticmethod(resume_point)

    def __init__(
        self,
        config: LinkConfig,
        inbound: Mapping[Lane, Cursor],
        outbound: Mapping[Lane, Cursor],
    ) -> None:
        self.config = config
        self.state = LinkState.NEW
        self.protocol = 0
        self.peer_versions: Versions | None = None
        """Of the peer's Hello, whether it fits or not; None before it has come."""
        self.meter = RateMeter(min(config.rate_first, config.batch_bytes_max))
        self._inbound_saved = dict(inbound)
        self._outbound_saved = dict(outbound)
        self._in: dict[Lane, InboundLane] = {}
        self._out: dict[Lane, OutboundLane] = {}
        self._head = 0
        self._lane_heads: dict[Lane, int] = {}
        self._resuming = True
        self._claims_to_save: list[Effect] = []
        self._in_flight_bytes = 0
        self._marks: list[Mark] = []
        self._heard_ms = 0
        self._raw_ms = 0
        self._clock_back_ms = 0

    # -- what happens ---------------------------------------------------------------------------

    def start(self, now_ms: int) -> list[Effect]:
        """Say Hello."""
        self._move(LinkEvent.START)
        self._raw_ms = now_ms
        self._heard_ms = now_ms
        return [Send(hello_of(self.config, tuple(self._inbound_saved.values())))]

    def receive(self, frame: LinkFrame, now_ms: int) -> list[Effect]:
        """Take a frame that the peer sent, in the order it was sent."""
        if self.state is LinkState.CLOSED:
            return []
        now = self._time(now_ms)
        match frame:
            case Hello():
                return self._on_hello(frame)
            case Refusal():
                return self._close(frame.code, frame.reason, frame.hint)
            case Goodbye():
                return self._close("GOODBYE", frame.reason or "the peer said goodbye")
            case Batch() | Receipt() | Mark():
                return self._on_stream_frame(frame, now)
            case _:
                assert_never(frame)

    def log_advanced(
        self, head: int, now_ms: int, lane_heads: Mapping[Lane, int] | None = None
    ) -> list[Effect]:
        """Take note that the numbered log reaches `head`.

        Args:
            head: Greatest sequence numbered and durable.
            lane_heads: Greatest sequence of each lane at or below head (0: none), if known: a lane
                without news is then not read at all. A lane that is absent is read.
        """
        if self.state is LinkState.CLOSED:
            return []
        now = self._time(now_ms)
        if head >= self._head:
            # News that was overtaken by newer news is dropped: its lane_heads are too low.
            self._head = head
            self._lane_heads = dict(lane_heads or {})
        if self.state is not LinkState.UP:
            return []
        if self._resuming:
            self._resuming = False
            if any(lane.scanned > self._head for lane in self._out.values()):
                return self._close(
                    "STORE_WENT_BACK",
                    "the peer has confirmed more of this node's log than there is",
                    "Start it from its newest store; for a backup: `fenhe node new-epoch`.",
                )
            # Only now: what a peer confirmed of a log that is gone must not be kept.
            return self._claims_to_save + self._pump(now)
        return self._pump(now)

    def entries_read(
        self,
        lane: Lane,
        entries: Sequence[LogEntry],
        scanned_to: int,
        now_ms: int,
        *,
        position: str = "",
        coalesced: bool = False,
    ) -> list[Effect]:
        """Take the answer to ReadLog: what of (after, scanned_to] is for this peer, in order.

        See LogPart for `position` and `coalesced`.
        """
        if self.state is LinkState.CLOSED:
            return []
        now = self._time(now_ms)
        out = self._out.get(lane)
        if out is None or not out.reading:
            raise LocalProtocolError(f"no read of lane {lane.name} was asked for")
        effects: list[Effect] = []
        if out.end_read():
            stays = scanned_to == out.scanned and not (position or out.position)
            if scanned_to < out.scanned or (entries and stays):
                raise LocalProtocolError(f"a read of lane {lane.name} went back to {scanned_to}")
            if out.is_news(entries, position):
                batch = out.add(
                    entries,
                    scanned_to,
                    position=position,
                    coalesced=coalesced,
                    in_flight=self._in_flight_bytes,
                    now=now,
                )
                self._in_flight_bytes += batch.body_bytes
                effects.append(Send(batch))
            else:
                out.scanned, out.position = scanned_to, position
            out.at_end = scanned_to >= out.read_to
        return effects + self._pump(now)

    def batch_applied(self, lane: Lane, cursor: Cursor, now_ms: int) -> list[Effect]:
        """Take note that an ApplyBatch is durably committed; the receipt goes out."""
        if self.state is LinkState.CLOSED:
            return []
        self._time(now_ms)
        inbound = self._in.get(lane)
        if inbound is None or not inbound.applied(cursor):
            raise LocalProtocolError(f"that batch of lane {lane.name} was not to be applied")
        return [self._accept(cursor), *self._after_apply(inbound)]

    def batch_failed(self, lane: Lane, code: str, now_ms: int) -> list[Effect]:
        """Take note that an ApplyBatch left no trace, with a stable code; the sender is told."""
        if self.state is LinkState.CLOSED:
            return []
        self._time(now_ms)
        inbound = self._in.get(lane)
        if inbound is None or not inbound.failed():
            raise LocalProtocolError(f"no batch of lane {lane.name} was to be applied")
        if code in CURSOR_CODES:
            return self._close(code, "another connection of this peer has advanced the lane")
        inbound.refuse(code)
        return self._after_apply(inbound)

    def marks_ready(self, mark: Mark, now_ms: int) -> list[Effect]:
        """Take freshness to pass on once the peer holds the log up to `mark.at_sequence`.

        The caller reads the marks first, then takes the durable head as at_sequence: so all that a
        mark speaks of lies at or below it.
        """
        if self.state is LinkState.CLOSED or not mark.homes:
            return []
        now = self._time(now_ms)
        # The older waiting mark stays, or steady traffic would put off every mark for ever.
        del self._marks[1:]
        self._marks.append(mark)
        return self._pump(now) if self.state is LinkState.UP else []

    def tick(self, now_ms: int) -> list[Effect]:
        """Let time pass: give up a silent peer, end pauses. Call about once a second."""
        if self.state in (LinkState.NEW, LinkState.CLOSED):
            return []
        now = self._time(now_ms)
        owed_since = self._owed_since()
        if owed_since is not None and now - owed_since >= self.config.stall_ms:
            return self._close("STALLED", f"the peer has owed an answer for {now - owed_since} ms")
        if self.state is not LinkState.UP:
            return []
        effects: list[Effect] = []
        for out in self._out.values():
            out.ask_snapshot_again()
            place = out.place_to_save(self.config.save_after_entries)
            if place is not None:
                effects.append(SaveDelivered(place, None))
        return effects + self._pump(now)

    def goodbye(self, reason: str) -> list[Effect]:
        """End the link in order."""
        if self.state is not LinkState.UP:
            return self._close("GOODBYE", reason)
        return [Send(Goodbye(reason)), *self._close("GOODBYE", reason)]

    # -- greeting -------------------------------------------------------------------------------

    def _on_hello(self, hello: Hello) -> list[Effect]:
        if self.state is not LinkState.GREETING:
            return self._close("FRAME_OUT_OF_ORDER", "a second Hello arrived")
        if hello.node_id == self.config.peer_id:
            self.peer_versions = versions_of(hello)
        refusal = refusal_of(self.config, hello)
        if refusal is not None:
            return [
                Send(refusal),
                *self._close(refusal.code, refusal.reason, refusal.hint),
            ]
        self._move(LinkEvent.HELLO)
        self.protocol = min(self.config.protocol_max, hello.protocol_max)
        mine, theirs = self.config.store_epoch, hello.store_epoch
        claims = {cursor.lane: cursor for cursor in hello.cursors}
        for lane in sorted(self.config.lanes):
            stream = Cursor(lane, StreamEpoch(mine, theirs), 0, 0)
            saved = self._outbound_saved.get(lane)
            start = type(self).resume(stream, claims.get(lane), saved)
            out = self._out[lane] = self.outbound_type(lane, start, self.protocol)
            out.take_wishes(hello.features if self.protocol > 1 else ())
            if start.acked.number and not start.acked.is_at(saved):
                # The receipt was lost, but what it would have let go need not wait for another.
                self._claims_to_save.append(SaveDelivered(out.confirmed, None))
            self._in[lane] = self.inbound_type(self._inbound_start(lane, theirs), self.protocol)
        return [LinkUp(hello)]

    def _inbound_start(self, lane: Lane, peer_epoch: int) -> Cursor:
        epoch = StreamEpoch(peer_epoch, self.config.store_epoch)
        saved = self._inbound_saved.get(lane)
        if saved is not None and saved.stream_epoch == epoch:
            return saved
        return Cursor(lane, epoch, 0, 0)

    # -- the stream -----------------------------------------------------------------------------

    def _on_stream_frame(self, frame: Batch | Receipt | Mark, now: int) -> list[Effect]:
        if (self.state, LinkEvent.STREAM_FRAME) not in TRANSITIONS:
            return self._close("FRAME_OUT_OF_ORDER", "a frame arrived before Hello")
        if isinstance(frame, Batch):
            return self._on_batch(frame)
        if isinstance(frame, Receipt):
            return self._on_receipt(frame, now)
        # The sender holds a mark back until our receipts cover it, so it is true at once.
        return [SaveMark(frame)]

    def _on_batch(self, batch: Batch) -> list[Effect]:
        inbound = self._in.get(batch.lane)
        if inbound is None:
            return self._close("LANE_UNKNOWN", "a batch came in a lane this node does not have")
        if batch.body_bytes > BODY_BYTES_LIMIT:
            return self._close("BATCH_TOO_LARGE", f"a batch of {batch.body_bytes} bytes came")
        offer = inbound.offer(batch)
        match offer:
            case Offer.QUEUED:
                if sum(lane.queued_bytes for lane in self._in.values()) > QUEUE_BYTES_LIMIT:
                    return self._close("QUEUE_FULL", "the peer sent more than the window allows")
                return _apply_next(inbound)
            case Offer.REPEATED:
                return [self._accept(inbound.cursor)]
            case Offer.DROPPED:
                return []
            case Offer.OVERFLOW:
                return self._close(
                    "QUEUE_FULL", "the peer sent more batches than the window allows"
                )
            case Offer.STREAM_EPOCH | Offer.GAP | Offer.DIGEST:
                inbound.refuse(offer.value)
                return self._after_apply(inbound)
            case _:
                assert_never(offer)

    def _after_apply(self, inbound: InboundLane) -> list[Effect]:
        code = inbound.due_refusal()
        if code:
            return [Send(Receipt(inbound.cursor, refused=code))]
        return _apply_next(inbound)

    def _accept(self, cursor: Cursor) -> Effect:
        signature, key_id = self.config.sign(cursor)
        return Send(Receipt(cursor, "", signature, key_id))

    def _on_receipt(self, receipt: Receipt, now: int) -> list[Effect]:
        out = self._out.get(receipt.cursor.lane)
        if out is None:
            return self._close("RECEIPT_UNKNOWN", "a receipt came for a lane this node lacks")
        self._heard_ms = now
        if receipt.refused:
            return self._on_refused(out, receipt, now)
        if not self.config.verify(receipt):
            return self._close(
                "RECEIPT_SIGNATURE",
                "a receipt's signature is not the peer's",
                "Compare the certificate the peer presents with the one its parent issued.",
            )
        before = out.acked.number
        freed, fault = out.confirm(receipt, self.meter, now)
        self._in_flight_bytes -= freed
        if fault is not None:
            return self._close(fault.code, fault.reason)
        effects: list[Effect] = []
        if out.acked.number > before:
            effects.append(SaveDelivered(out.confirmed, receipt))
        return effects + self._pump(now)

    def _on_refused(self, out: OutboundLane, receipt: Receipt, now: int) -> list[Effect]:
        stands = receipt.cursor
        if stands.stream_epoch != out.acked.stream_epoch or stands.number != out.acked.number:
            # In order, every batch before the refused one has been confirmed by now.
            return self._close("RECEIPT_UNKNOWN", "a refusal stands where no receipt put the peer")
        self._in_flight_bytes -= out.rewind()
        out.back_off(receipt.refused, now, self.config.backoff_ms_min, self.config.backoff_ms_max)
        return self._pump(now)

    # -- what to do next ------------------------------------------------------------------------

    def _pump(self, now: int) -> list[Effect]:
        """Read for every lane that has backlog and room, highest lane first; send a due mark."""
        effects: list[Effect] = []
        batch_bytes = self.batch_bytes
        window = min(self.config.window_bytes, 2 * batch_bytes)
        reserved = self._in_flight_bytes
        urgent = False
        for lane, out in self._out.items():
            if out.reading:
                reserved += batch_bytes
                urgent = urgent or lane <= Lane.CARE
                continue
            if self._skip_quiet(lane, out) or out.full or out.is_paused(now):
                continue
            # At the log's end there is little to send yet: what comes meanwhile goes with it.
            if out.at_end and out.in_flight >= self.config.small_in_flight:
                continue
            # A lane with nothing in flight may always send one batch: care never waits for the
            # receipts of bulk. Half a batch of grace, for batches end with a whole entry. While
            # care is being read nothing more may overtake it.
            if out.waiting and (urgent or reserved + batch_bytes // 2 > window):
                continue
            urgent = urgent or lane <= Lane.CARE
            out.begin_read(self._head)
            reserved += batch_bytes
            effects.append(ReadLog(lane, out.scanned, batch_bytes, out.read_position))
        if self._marks and self.is_delivered(self._marks[0].at_sequence):
            effects.append(Send(self._marks.pop(0)))
        return effects

    @property
    def batch_bytes(self) -> int:
        """About one second of the measured rate, within the configured bounds."""
        config = self.config
        return min(max(self.meter.bytes_per_s, config.batch_bytes_min), config.batch_bytes_max)

    def _skip_quiet(self, lane: Lane, out: OutboundLane) -> bool:
        if out.read_position:
            return False
        if out.scanned >= self._head:
            return True
        lane_head = self._lane_heads.get(lane)
        if lane_head is None or lane_head > out.scanned:
            return False
        out.scanned = self._head
        return True

    def is_delivered(self, sequence: int) -> bool:
        """Whether the peer durably holds all that is for it up to this sequence of the log."""
        lanes = self._out.values()
        return self.state is LinkState.UP and all(out.has_delivered(sequence) for out in lanes)

    @property
    def delivered_to(self) -> Mapping[Lane, int]:
        """By lane: up to where the peer durably holds all that is for it; empty before it is up.

        Ahead of what SaveDelivered asked to persist, where entries for others were passed over.
        """
        if self.state is not LinkState.UP:
            return {}
        return {lane: out.delivered_to for lane, out in self._out.items()}

    @property
    def lane_views(self) -> Mapping[Lane, LaneView]:
        """By lane; empty before the link is up."""
        return {lane: out.view for lane, out in self._out.items()}

    def _owed_since(self) -> int | None:
        """Since when the peer owes a Hello or a receipt; None if it owes nothing."""
        if self.state is LinkState.GREETING:
            return self._heard_ms
        waiting = [out.oldest_sent_ms for out in self._out.values() if out.waiting]
        return max(min(waiting), self._heard_ms) if waiting else None

    def _time(self, now_ms: int) -> int:
        """The link's own time, which stands still where the given clock jumps back."""
        if now_ms < self._raw_ms:
            self._clock_back_ms += self._raw_ms - now_ms
        self._raw_ms = now_ms
        return now_ms + self._clock_back_ms

    def _move(self, event: LinkEvent) -> None:
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise LocalProtocolError(f"{event} while the link is {self.state}") from None

    def _close(self, code: str, reason: str, hint: str = "") -> list[Effect]:
        if self.state is LinkState.CLOSED:
            return []
        self._move(LinkEvent.END)
        return [Close(code, reason, hint)]


def _apply_next(inbound: InboundLane) -> list[Effect]:
    asked = inbound.next_apply()
    return [] if asked is None else [asked]
