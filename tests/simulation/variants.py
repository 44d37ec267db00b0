"""The protocol as it is, and variants of it with one rule removed that the checkers must catch.

A variant that another rule would cover for removes that one too (`broken` names several): defences
hide bugs from each other, and each is to be shown to matter. `faults` narrows the schedule to what
can hurt, so that a bug is found within few seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from replication.core.config import LinkConfig
from replication.core.effects import Effect
from replication.core.inbound import InboundLane, Offer
from replication.core.link import LinkEnd
from replication.core.model import Batch, Cursor, Hello, Lane, LogEntry, Receipt
from replication.core.outbound import OutboundLane, RateMeter, ReceiptFault
from replication.core.resume import ResumePoint, resume_point

__all__ = [
    "LETTERS",
    "REAL",
    "AltersItsPlace",
    "BelievesAnyClaim",
    "BelievesAnyPosition",
    "BelievesAnyReceipt",
    "BulkFirst",
    "ChecksNoDigest",
    "KeepsPlace",
    "MarksEarly",
    "ProvesContentAlone",
    "ResumesFromOwnBooks",
    "RewindsToReceipt",
    "SkipsTheGoneBackCheck",
    "StepsOverGaps",
    "TakesOldReads",
    "TellsNoBeginning",
    "Variant",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A protocol under test.

    Args:
        caught_by: Invariants any of which may be the first to break; empty for the real protocol.
        unchecked: Invariants not looked at, so that the damage itself is seen.
        first_seed: Where a hunt through 1,000 seeds begins, for a bug that few schedules show.
        save_after_entries: As in LinkConfig. A schedule logs about 200 entries a node, so only a
            small number lets places be saved, and pruned up to, that no receipt speaks of.
        faults: Kinds to draw from; empty: each schedule draws its own.
        away: What share of the writes is for homes elsewhere; None: each schedule draws its own.
        batch_bytes: What the first batches may hold; 0: each schedule draws its own.
    """

    name: str
    link_end: type[LinkEnd] = LinkEnd
    broken: frozenset[str] = field(default_factory=frozenset)
    caught_by: frozenset[str] = field(default_factory=frozenset)
    unchecked: frozenset[str] = field(default_factory=frozenset)
    save_after_entries: int = 1000
    faults: tuple[str, ...] = ()
    fault_count_max: int = 14
    writes: int = 45
    away: float | None = None
    batch_bytes: int = 0
    large_every: int = 0
    first_seed: int = 0


REAL = Variant(name="real", large_every=25, save_after_entries=4)
"""Every 25th schedule has forty nodes."""

LETTERS = replace(
    REAL,
    name="letters",
    faults=("restore_addressee", "restore_relay"),
    fault_count_max=30,
    away=0.6,
    large_every=0,
)
"""The real protocol with much post, and restores where letters are under way."""


# -- resume rules removed -------------------------------------------------------------------------


class ResumesFromOwnBooks(LinkEnd):
    """Goes on from what it persisted, whatever the peer says it holds."""

    @staticmethod
    def resume(stream: Cursor, claimed: Cursor | None, saved: Cursor | None) -> ResumePoint:
        point = resume_point(stream, claimed, saved)
        start = max(saved.covers_to if saved else 0, point.scanned)
        return ResumePoint(point.acked, start)


class BelievesAnyClaim(LinkEnd):
    """Takes the peer's place in the log as it is, even if it counts a log of another epoch."""

    @staticmethod
    def resume(stream: Cursor, claimed: Cursor | None, saved: Cursor | None) -> ResumePoint:
        if claimed is None or claimed.stream_epoch == stream.stream_epoch:
            return resume_point(stream, claimed, saved)
        acked = Cursor(stream.lane, stream.stream_epoch, 0, claimed.covers_to)
        return ResumePoint(acked, claimed.covers_to)


class BelievesAnyPosition(LinkEnd):
    """Goes on with a snapshot in a new stream where another stream had come to."""

    @staticmethod
    def resume(stream: Cursor, claimed: Cursor | None, saved: Cursor | None) -> ResumePoint:
        point = resume_point(stream, claimed, saved)
        if claimed is None or not claimed.position:
            return point
        return replace(point, acked=replace(point.acked, position=claimed.position))


class SkipsTheGoneBackCheck(LinkEnd):
    """Does not notice that the peer has confirmed more than there is."""

    def _on_hello(self, hello: Hello) -> list[Effect]:
        effects = super()._on_hello(hello)
        self._resuming = False
        return effects


# -- rules of a lane removed ----------------------------------------------------------------------


class _LaneKeepsItsPlace(OutboundLane):
    """After a refusal goes on where it was, instead of reading again what was refused."""

    def rewind(self) -> int:
        place = self.scanned
        freed = super().rewind()
        self.scanned = place
        self._read_outdated = False
        return freed


class _LaneTakesOldReads(OutboundLane):
    """Sends what was read before a refusal threw the lane back."""

    def end_read(self) -> bool:
        self.reading = False
        return True


class _LaneCountsSentAsDelivered(OutboundLane):
    """Takes for delivered what is only under way."""

    @property
    def delivered_to(self) -> int:
        return self.scanned


class _LaneBelievesAnyReceipt(OutboundLane):
    """Compares numbers only, not what they stand for."""

    def confirm(
        self, receipt: Receipt, meter: RateMeter, now: int
    ) -> tuple[int, ReceiptFault | None]:
        for sent in tuple(self._sent):
            if sent.cursor.number == receipt.cursor.number:
                return super().confirm(Receipt(sent.cursor), meter, now)
        return 0, None


class _LaneStepsOverGaps(InboundLane):
    """Applies whatever number comes next."""

    def _continues(self, batch: Batch) -> bool:
        return batch.number > self._tail.number


class _LaneTakesAnyPlace(OutboundLane):
    """Takes a receipt's place in the log as it came."""

    def confirm(
        self, receipt: Receipt, meter: RateMeter, now: int
    ) -> tuple[int, ReceiptFault | None]:
        for sent in tuple(self._sent):
            if sent.cursor.number == receipt.cursor.number:
                freed, fault = super().confirm(Receipt(sent.cursor), meter, now)
                self.acked = receipt.cursor
                self._saved_to = self._held_to = receipt.cursor.covers_to
                return freed, fault
        return 0, None


class _LaneTellsNoBeginning(OutboundLane):
    """Tells the end of a snapshot, but not the beginning of an empty one."""

    def is_news(self, entries: Sequence[LogEntry], position: str) -> bool:
        super().is_news(entries, position)
        return bool(entries) or (self.position != "" and position == "")


class _LaneChecksNoDigest(InboundLane):
    """Applies a batch whatever became of it on the way."""

    def offer(self, batch: Batch) -> Offer:
        return super().offer(replace(batch, digest=self._digest(batch)))


class _LaneProvesContentAlone(OutboundLane):
    """Leaves out of the digest what a batch stands for, as protocol 1 does."""

    def __init__(self, lane: Lane, start: ResumePoint, protocol: int) -> None:
        super().__init__(lane, start, min(1, protocol))


class _LaneAsksForContentAlone(InboundLane):
    """Compares with a digest that says nothing of what a batch stands for."""

    def __init__(self, cursor: Cursor, protocol: int) -> None:
        super().__init__(cursor, min(1, protocol))


class _LaneRewindsToReceipt(OutboundLane):
    """After a refusal reads from the last receipt again, also what is persisted as passed over."""

    def rewind(self) -> int:
        freed = super().rewind()
        self.scanned = self._held_to = self.acked.covers_to
        return freed


class KeepsPlace(LinkEnd):
    outbound_type = _LaneKeepsItsPlace


class TakesOldReads(LinkEnd):
    outbound_type = _LaneTakesOldReads


class MarksEarly(LinkEnd):
    outbound_type = _LaneCountsSentAsDelivered


class BelievesAnyReceipt(LinkEnd):
    outbound_type = _LaneBelievesAnyReceipt
    inbound_type = _LaneStepsOverGaps


class StepsOverGaps(LinkEnd):
    inbound_type = _LaneStepsOverGaps


class AltersItsPlace(LinkEnd):
    """Believes receipts that nobody signed, and where in the log they say the peer stands."""

    outbound_type = _LaneTakesAnyPlace

    def __init__(
        self,
        config: LinkConfig,
        inbound: Mapping[Lane, Cursor],
        outbound: Mapping[Lane, Cursor],
    ) -> None:
        super().__init__(replace(config, verify=lambda _receipt: True), inbound, outbound)


class TellsNoBeginning(LinkEnd):
    outbound_type = _LaneTellsNoBeginning


class ChecksNoDigest(LinkEnd):
    inbound_type = _LaneChecksNoDigest


class ProvesContentAlone(LinkEnd):
    outbound_type = _LaneProvesContentAlone
    inbound_type = _LaneAsksForContentAlone


class RewindsToReceipt(LinkEnd):
    outbound_type = _LaneRewindsToReceipt


class BulkFirst(LinkEnd):
    """Serves the lanes from the last to the first."""

    def _on_hello(self, hello: Hello) -> list[Effect]:
        effects = super()._on_hello(hello)
        self._out = dict(reversed(self._out.items()))
        return effects
