"""The sending half of one lane: numbers, what is unacknowledged, what receipts confirm.

Owns a lane's place in the log and in its stream. Must never know when to send (link.py decides) nor
what is in an entry. The rate meter that sizes batches lives here too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from replication.core.config import BATCH_BYTES_LIMIT, QUEUE_BATCHES_LIMIT
from replication.core.effects import SEED
from replication.core.greeting import seed_feature
from replication.core.hashing import batch_digest, running_hash
from replication.core.model import PROTOCOL_MAX, Batch, Cursor, Lane, LogEntry, Receipt
from replication.core.resume import ResumePoint

__all__ = [
    "ENTRY_OVERHEAD_BYTES",
    "LaneView",
    "OutboundLane",
    "RateMeter",
    "ReceiptFault",
    "first_rate",
]

_RATE_MIN: Final = 4096
ENTRY_OVERHEAD_BYTES: Final = 64
"""What an entry weighs beside its rows, for the window."""


@dataclass(frozen=True, slots=True)
class _Sent:
    cursor: Cursor
    body_bytes: int
    in_flight_bytes: int
    sent_ms: int


@dataclass(frozen=True, slots=True)
class ReceiptFault:
    """Why a receipt cannot be believed."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class LaneView:
    """Batches without a receipt; refusals since the last receipt, and the code of the last one.

    Up to `sent_to` of the log nothing for the peer is still to be sent.
    """

    in_flight: int
    refusals: int
    refused: str
    sent_to: int = 0

    @property
    def waiting(self) -> bool:
        """Whether a receipt is owed."""
        return self.in_flight > 0


def first_rate(before: int, *, stalled: bool) -> int:
    """What a line is taken to carry at its next stream, bytes a second.

    Args:
        before: What the stream before took it for at its end.
        stalled: That stream ended because no receipt came in time: it may carry far less.
    """
    return min(max(before // 4 if stalled else before, _RATE_MIN), BATCH_BYTES_LIMIT)


class RateMeter:
    """Measures what the link confirms a second, receiver's commit included.

    A batch's sample is all that was in flight when it left, over the time to its receipt; so a
    burst of late receipts cannot look like a fast link. A batch far smaller than a second's worth
    measures latency, not rate: unless it took a second all the same, it can only raise the
    estimate. A sample at most doubles it.
    """

    __slots__ = ("bytes_per_s",)

    def __init__(self, bytes_per_s: int) -> None:
        self.bytes_per_s = bytes_per_s

    def confirmed(self, in_flight_bytes: int, elapsed_ms: int) -> None:
        """Take one sample."""
        sample = in_flight_bytes * 1000 // max(1, elapsed_ms)
        filled = in_flight_bytes * 2 >= self.bytes_per_s or elapsed_ms >= 1000
        if not filled and sample < self.bytes_per_s:
            return
        self.bytes_per_s = max(1, (3 * self.bytes_per_s + min(sample, 2 * self.bytes_per_s)) // 4)


class OutboundLane:
    """One lane towards the peer, from a resume point on; `protocol` is the link's.

    Four places in the log, of which only `scanned` ever moves back:

    - `acked`: the peer's own cursor, by its Hello or its last receipt;
    - `_held_to`: the peer holds everything for it up to there. Never moves back: beyond `acked` lie
      entries that were passed over while nothing was in flight;
    - `scanned`: read so far, where the next read begins. After a rewind it is `_held_to` again;
    - `_saved_to`: the part of `_held_to` that SaveDelivered has asked to persist.

    acked.covers_to <= _held_to and _saved_to <= _held_to. The log may be pruned up to what is
    saved, so nothing at or below it is read again, but for a snapshot that was begun before it.
    """

    def __init__(self, lane: Lane, start: ResumePoint, protocol: int = PROTOCOL_MAX) -> None:
        self.lane = lane
        self._protocol = protocol
        self.acked = start.acked
        self.tail = start.acked
        self.scanned = start.scanned
        self.position = start.position
        self.reading = False
        self.read_to = 0
        self.at_end = False
        """Whether the last read reached what was the end of the log when it began."""
        self._paused_until_ms: int | None = None
        self._sent: deque[_Sent] = deque()
        self._held_to = max(start.scanned, start.held_to)
        self._saved_to = self._held_to
        self._read_outdated = False
        self._failures = 0
        self._refused = ""
        self.seed_wanted = False
        self._seed_end = 0
        self._snapshot_deferred = False

    @property
    def read_position(self) -> str:
        """What ReadLog says of a snapshot: where it goes on, that one is wanted, or nothing."""
        asked = self.seed_wanted and not self._seed_end and not self._snapshot_deferred
        return self.position or (SEED if asked else "")

    def take_wishes(self, features: Collection[str]) -> None:
        """Note whether the peer, which is recovering, wants a snapshot of this lane."""
        self.seed_wanted = seed_feature(self.lane) in features

    def ask_snapshot_again(self) -> None:
        """Ask once more for a snapshot that the store put off."""
        self._snapshot_deferred = False

    def is_news(self, entries: Sequence[LogEntry], position: str) -> bool:
        """Whether an answer to ReadLog makes a batch: rows, or a snapshot's begin or end.

        Those are told even without rows, for a peer that waits for them.
        """
        if not self.position and not position:
            # The store cannot seed the peer yet: it is asked again after a while.
            self._snapshot_deferred = self.seed_wanted
        return bool(entries) or (self.position == "") != (position == "")

    @property
    def view(self) -> LaneView:
        """How the lane is, for those who look after it."""
        return LaneView(len(self._sent), self._failures, self._refused, self.scanned)

    @property
    def delivered_to(self) -> int:
        """Log sequence up to which the peer durably holds everything of this lane for it."""
        return self._held_to if self._sent else max(self._held_to, self.scanned)

    @property
    def confirmed(self) -> Cursor:
        """What to persist of the peer's cursor: it may hold more than the cursor says."""
        if self._held_to == self.acked.covers_to:
            return self.acked
        return replace(self.acked, covers_to=self._held_to)

    def has_delivered(self, sequence: int) -> bool:
        """Whether the peer holds what is for it up to a sequence, and needs no snapshot."""
        return self.delivered_to >= sequence and not self.seed_wanted

    @property
    def waiting(self) -> bool:
        """Whether a receipt is owed."""
        return bool(self._sent)

    @property
    def oldest_sent_ms(self) -> int:
        """When the oldest unacknowledged batch left; only while waiting."""
        return self._sent[0].sent_ms

    def is_paused(self, now: int) -> bool:
        """Whether a refusal still makes the lane wait."""
        return self._paused_until_ms is not None and now < self._paused_until_ms

    @property
    def full(self) -> bool:
        """Whether the lane has as many batches in flight as it may."""
        return len(self._sent) >= QUEUE_BATCHES_LIMIT

    @property
    def in_flight(self) -> int:
        """How many batches are unacknowledged."""
        return len(self._sent)

    def begin_read(self, head: int) -> None:
        """Note that the log is being read after `scanned`, while its end is at `head`."""
        self.reading = True
        self.read_to = head
        self._read_outdated = False

    def end_read(self) -> bool:
        """Note the read's end; False if a rewind has made its answer worthless."""
        self.reading = False
        return not self._read_outdated

    def add(
        self,
        entries: Sequence[LogEntry],
        scanned_to: int,
        *,
        position: str,
        coalesced: bool,
        in_flight: int,
        now: int,
    ) -> Batch:
        """Make the next batch of the stream and remember it as unacknowledged."""
        before = self.tail
        self._held_to = self.delivered_to
        digest = batch_digest(
            self.lane,
            entries,
            covers_from=before.covers_to,
            covers_to=scanned_to,
            position=position,
            protocol=self._protocol,
        )
        self.tail = Cursor(
            self.lane,
            before.stream_epoch,
            before.number + 1,
            scanned_to,
            running_hash(before.running_hash, digest),
            position,
        )
        if self.position and not position:
            self._seed_end = self.tail.number
        self.scanned = scanned_to
        self.position = position
        body_bytes = sum(len(entry.rows) for entry in entries) + ENTRY_OVERHEAD_BYTES * len(entries)
        self._sent.append(_Sent(self.tail, body_bytes, in_flight + body_bytes, now))
        return Batch(
            lane=self.lane,
            stream_epoch=before.stream_epoch,
            number=self.tail.number,
            previous=before.number,
            covers_from=before.covers_to,
            covers_to=scanned_to,
            coalesced=coalesced,
            digest=digest,
            entries=tuple(entries),
            row_count=sum(entry.row_count for entry in entries),
            body_bytes=body_bytes,
            position=position,
        )

    def confirm(
        self, receipt: Receipt, meter: RateMeter, now: int
    ) -> tuple[int, ReceiptFault | None]:
        """Advance to the receipt's cursor. Returns the bytes it frees, and a fault if it lies."""
        cursor = receipt.cursor
        if cursor.stream_epoch != self.acked.stream_epoch or cursor.number > self.tail.number:
            return 0, ReceiptFault("RECEIPT_UNKNOWN", "the receipt is for a batch never sent")
        freed = 0
        while self._sent and self._sent[0].cursor.number <= cursor.number:
            sent = self._sent.popleft()
            freed += sent.body_bytes
            if sent.cursor.number < cursor.number:
                continue
            if sent.cursor != cursor:
                return freed, ReceiptFault(
                    "RECEIPT_HASH", "the receipt's hash or range is not that of the batch sent"
                )
            meter.confirmed(sent.in_flight_bytes, now - sent.sent_ms)
            self.acked = cursor
            self._saved_to = self._held_to = max(self._held_to, cursor.covers_to)
            self._failures = 0
            self._refused = ""
            if self._seed_end and cursor.number >= self._seed_end:
                self.seed_wanted, self._seed_end = False, 0
        return freed, None

    def rewind(self) -> int:
        """Forget what is unacknowledged and read again what it was. Returns the bytes freed.

        Not what was passed over before it: that place may be persisted and the log pruned up to it.
        A snapshot under way goes on where the peer's cursor says.
        """
        freed = sum(sent.body_bytes for sent in self._sent)
        self._sent.clear()
        self.tail = self.acked
        self.position = self.acked.position
        self.scanned = self.acked.covers_to if self.position else self._held_to
        self._seed_end = 0
        self._read_outdated = True
        return freed

    def back_off(self, code: str, now: int, pause_ms_min: int, pause_ms_max: int) -> None:
        """Pause the lane: twice as long after each refusal, until a receipt accepts."""
        self._refused = code
        doublings = min(self._failures, 16)
        self._failures += 1
        self._paused_until_ms = now + min(pause_ms_min << doublings, pause_ms_max)

    def place_to_save(self, entries_min: int) -> Cursor | None:
        """The place to persist once so many entries were passed that are not for this peer."""
        reached = self.delivered_to
        if reached - self._saved_to < entries_min:
            return None
        self._saved_to = self._held_to = reached
        return self.confirmed
