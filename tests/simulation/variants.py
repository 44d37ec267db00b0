"""The protocol as it is, and variants of it with one rule removed that the checkers must catch.

A variant that another rule would cover for removes that one too (`broken` names several): defences
hide bugs from each other, and each is to be shown to matter. `faults` narrows the schedule to what
can hurt, so that a bug is found within few seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from replication.core.effects import Effect
from replication.core.inbound import InboundLane
from replication.core.link import LinkEnd
from replication.core.model import Batch, Cursor, Hello, Receipt
from replication.core.outbound import OutboundLane, RateMeter, ReceiptFault
from replication.core.resume import ResumePoint, resume_point
from tests.simulation.tree import TREE

__all__ = ["PLANTED_BUGS", "REAL", "Variant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A protocol under test.

    Args:
        caught_by: Invariants any of which may be the first to break; empty for the real protocol.
        unchecked: Invariants not looked at, so that the damage itself is seen.
        faults: Kinds to draw from; empty: each schedule draws its own.
    """

    name: str
    link_end: type[LinkEnd] = LinkEnd
    broken: frozenset[str] = field(default_factory=frozenset)
    caught_by: frozenset[str] = field(default_factory=frozenset)
    unchecked: frozenset[str] = field(default_factory=frozenset)
    faults: tuple[str, ...] = ()
    fault_count_max: int = 14
    fault_nodes: tuple[str, ...] = TREE.nodes
    write_nodes: tuple[str, ...] = (*TREE.villages, *TREE.nodes)
    writes: int = 45


REAL = Variant(name="real")


# -- resume rules removed -------------------------------------------------------------------------


class _ResumesFromOwnBooks(LinkEnd):
    """Goes on from what it persisted, whatever the peer says it holds."""

    @staticmethod
    def resume(stream: Cursor, claimed: Cursor | None, saved: Cursor | None) -> ResumePoint:
        point = resume_point(stream, claimed, saved)
        start = max(saved.covers_to if saved else 0, point.scanned)
        return ResumePoint(point.acked, start)


class _BelievesAnyClaim(LinkEnd):
    """Takes the peer's place in the log as it is, even if it counts a log of another epoch."""

    @staticmethod
    def resume(stream: Cursor, claimed: Cursor | None, saved: Cursor | None) -> ResumePoint:
        if claimed is None or claimed.stream_epoch == stream.stream_epoch:
            return resume_point(stream, claimed, saved)
        acked = Cursor(stream.lane, stream.stream_epoch, 0, claimed.covers_to)
        return ResumePoint(acked, claimed.covers_to)


class _SkipsTheGoneBackCheck(LinkEnd):
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


class _KeepsPlace(LinkEnd):
    outbound_type = _LaneKeepsItsPlace


class _TakesOldReads(LinkEnd):
    outbound_type = _LaneTakesOldReads


class _MarksEarly(LinkEnd):
    outbound_type = _LaneCountsSentAsDelivered


class _BelievesAnyReceipt(LinkEnd):
    outbound_type = _LaneBelievesAnyReceipt
    inbound_type = _LaneStepsOverGaps


class _StepsOverGaps(LinkEnd):
    inbound_type = _LaneStepsOverGaps


# -- the list -------------------------------------------------------------------------------------


def _bug(  # a table row, read by its keywords
    name: str,
    *,
    caught_by: str,
    faults: str,
    broken: str = "",
    unchecked: str = "",
    link_end: type[LinkEnd] = LinkEnd,
    writes: int = 45,
) -> Variant:
    return Variant(
        name=name,
        link_end=link_end,
        broken=frozenset(broken.split()),
        caught_by=frozenset(caught_by.split()),
        unchecked=frozenset(unchecked.split()),
        faults=tuple(faults.split()),
        fault_count_max=30,
        writes=writes,
    )


PLANTED_BUGS = (
    _bug(
        "numbers_given_before_commit",
        broken="numbers_at_begin",
        faults="delay",
        caught_by="I2 MARK",
    ),
    _bug(
        "acknowledged_before_commit",
        broken="acknowledge_before_commit",
        faults="crash",
        caught_by="I1",
    ),
    _bug(
        "receipt_before_commit",
        broken="receipt_before_commit cursor_not_compared",
        link_end=_ResumesFromOwnBooks,
        unchecked="I5 MARK",
        faults="crash crash_now",
        caught_by="I2",
    ),
    _bug("cursor_before_rows", broken="cursor_before_rows", faults="crash", caught_by="I2 MARK"),
    _bug(
        "log_outside_transaction",
        broken="log_outside_transaction",
        unchecked="MARK",
        faults="crash",
        caught_by="I2 I6",
    ),
    _bug("version_guard", broken="version_guard", faults="restore crash_now", caught_by="I3 I4"),
    _bug(
        "routing_by_author_alone",
        broken="route_by_author admission",
        faults="delay",
        caught_by="I9",
    ),
    _bug(
        "own_books_after_peer_restore",
        link_end=_ResumesFromOwnBooks,
        faults="restore",
        caught_by="I2 MARK",
    ),
    _bug(
        "claim_of_another_epoch",
        link_end=_BelievesAnyClaim,
        faults="restore",
        caught_by="I2 I8 MARK",
    ),
    _bug("epoch_kept", broken="epoch_kept", faults="restore", caught_by="I10"),
    _bug(
        "epoch_kept_is_noticed",
        broken="epoch_kept",
        unchecked="I7 I10 MARK",
        faults="restore",
        caught_by="I2 I8",
    ),
    _bug(
        "epoch_kept_unnoticed",
        broken="epoch_kept",
        link_end=_SkipsTheGoneBackCheck,
        unchecked="I7 I10 MARK",
        faults="restore",
        caught_by="I2",
    ),
    _bug("amends_after_restore", broken="amends_after_restore", faults="restore", caught_by="I2"),
    _bug(
        "place_kept_after_refusal",
        link_end=_KeepsPlace,
        faults="lose_frame fill_disk",
        caught_by="I2 MARK",
    ),
    _bug(
        "old_read_after_refusal",
        link_end=_TakesOldReads,
        faults="fill_disk",
        writes=250,
        caught_by="I2 MARK",
    ),
    _bug("mark_before_receipts", link_end=_MarksEarly, faults="delay slow", caught_by="MARK"),
    _bug(
        "gap_stepped_over",
        broken="cursor_not_compared",
        link_end=_StepsOverGaps,
        faults="lose_frame",
        caught_by="I5",
    ),
    _bug(
        "gap_loses",
        broken="cursor_not_compared",
        link_end=_BelievesAnyReceipt,
        unchecked="I5 I7 MARK",
        faults="lose_frame",
        caught_by="I2",
    ),
    _bug(
        "cursor_not_compared",
        broken="cursor_not_compared",
        faults="dial_twice slow break_stream",
        caught_by="I5 I7",
    ),
)
"""Each must be caught within 1,000 seeds; most are within three."""
