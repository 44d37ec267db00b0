"""The receiving half of one lane: what may be applied next, and what is refused.

Owns the rule that there is no step over a gap (I5). Must never know how rows are applied.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from replication.core.config import QUEUE_BATCHES_LIMIT
from replication.core.effects import ApplyBatch
from replication.core.hashing import batch_digest, running_hash
from replication.core.model import PROTOCOL_MAX, Batch, Cursor

__all__ = ["InboundLane", "Offer"]


class Offer(StrEnum):
    """What becomes of an arriving batch; the last three are codes of a refusing receipt."""

    QUEUED = "QUEUED"
    DROPPED = "DROPPED"
    REPEATED = "REPEATED"
    OVERFLOW = "QUEUE_FULL"
    STREAM_EPOCH = "STREAM_EPOCH"
    GAP = "GAP"
    DIGEST = "DIGEST"


class InboundLane:
    """One lane from the peer, from the persisted cursor on; `protocol` is the link's."""

    def __init__(self, cursor: Cursor, protocol: int = PROTOCOL_MAX) -> None:
        self.cursor = cursor
        self._protocol = protocol
        self.queued_bytes = 0
        self._tail = cursor
        self._queue: deque[ApplyBatch] = deque()
        self._applying: ApplyBatch | None = None
        self._refusal_due = ""
        self._dropping_until_resent = False

    @property
    def applying(self) -> bool:
        """Whether a batch is with the store."""
        return self._applying is not None

    def offer(self, batch: Batch) -> Offer:
        """Judge an arriving batch and queue it if it is the next one."""
        if batch.stream_epoch != self.cursor.stream_epoch:
            return Offer.STREAM_EPOCH
        if batch.number <= self.cursor.number:
            return Offer.REPEATED
        if self._refusal_due or batch.number <= self._tail.number:
            return Offer.DROPPED
        if not self._continues(batch):
            return Offer.DROPPED if self._dropping_until_resent else Offer.GAP
        if batch.digest != self._digest(batch):
            return Offer.DIGEST
        if len(self._queue) >= QUEUE_BATCHES_LIMIT:
            return Offer.OVERFLOW
        self._dropping_until_resent = False
        self._tail = Cursor(
            batch.lane,
            batch.stream_epoch,
            batch.number,
            batch.covers_to,
            running_hash(self._tail.running_hash, batch.digest),
            batch.position,
        )
        self.queued_bytes += batch.body_bytes
        self._queue.append(ApplyBatch(batch, self._tail))
        return Offer.QUEUED

    def _digest(self, batch: Batch) -> bytes:
        return batch_digest(
            batch.lane,
            batch.entries,
            covers_from=batch.covers_from,
            covers_to=batch.covers_to,
            position=batch.position,
            protocol=self._protocol,
        )

    def _continues(self, batch: Batch) -> bool:
        tail = self._tail
        if batch.previous != tail.number or batch.number != batch.previous + 1:
            return False
        if batch.covers_to < batch.covers_from:
            return False
        # The first batch of a stream starts where the resume rules said; later ones where the last
        # one ended.
        return tail.number == 0 or batch.covers_from <= tail.covers_to

    def next_apply(self) -> ApplyBatch | None:
        """Take the next batch to apply, if none is being applied."""
        if self._applying is not None or not self._queue:
            return None
        self._applying = self._queue.popleft()
        return self._applying

    def applied(self, cursor: Cursor) -> bool:
        """Note a durable apply; False if it is not the one that was asked for."""
        asked = self._applying
        if asked is None or asked.cursor_after != cursor:
            return False
        self._applying = None
        self.queued_bytes -= asked.batch.body_bytes
        self.cursor = cursor
        if not self._queue:
            self._tail = cursor
        return True

    def failed(self) -> bool:
        """Note that the apply did not happen; False if none was asked for."""
        asked = self._applying
        if asked is None:
            return False
        self._applying = None
        self.queued_bytes -= asked.batch.body_bytes
        return True

    def refuse(self, code: str) -> None:
        """Give up what waits; a refusal with `code` is due once no apply is in progress."""
        self.queued_bytes -= sum(asked.batch.body_bytes for asked in self._queue)
        self._queue.clear()
        self._refusal_due = code

    def due_refusal(self) -> str:
        """The code to refuse with now, once; "" if none is due.

        It waits for the running apply, because the sender resumes from the cursor it carries.
        Afterwards everything that does not continue that cursor is dropped in silence: it was
        under way before the sender knew.
        """
        if self._applying is not None or not self._refusal_due:
            return ""
        code, self._refusal_due = self._refusal_due, ""
        self._dropping_until_resent = True
        self._tail = self.cursor
        return code
