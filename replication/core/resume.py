"""Where a lane goes on when a link comes up: the table of DESIGN.md, as one pure function.

Owns the resume rules alone. Every row of the table must be safe (the peer durably holds everything
for it at or below `scanned`) before it is quick.
"""

from __future__ import annotations

from dataclasses import dataclass

from replication.core.model import Cursor, StreamEpoch

__all__ = ["ResumePoint", "resume_point"]


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where to go on: `acked` is the peer's cursor in the stream, `scanned` our place in the log.

    scanned ≥ acked.covers_to; between them lies nothing for this peer. Up to `held_to`, if that is
    more, the peer holds everything for it too, but a snapshot under way begins before.
    """

    acked: Cursor
    scanned: int
    held_to: int = 0

    @property
    def position(self) -> str:
        """Where a snapshot goes on: it is the peer's cursor that remembers."""
        return self.acked.position if self.scanned == self.acked.covers_to else ""


def resume_point(stream: Cursor, claimed: Cursor | None, saved: Cursor | None) -> ResumePoint:
    """Decide where a sender goes on.

    Args:
        stream: The empty cursor of the stream that both present store epochs name.
        claimed: The peer's cursor from its Hello; None if it has applied nothing of this lane.
        saved: The confirmed cursor this node persisted; None if there is none.
    """
    epoch = stream.stream_epoch
    if claimed is not None and claimed.stream_epoch == epoch:
        return _same_stream(claimed, saved)
    if saved is not None and saved.stream_epoch == epoch:
        # Nothing of this stream is applied there. If we remember no batch either, what we passed
        # over was not for the peer; else the peer forgot what it confirmed and gets everything.
        return _new_stream(stream, saved.covers_to if saved.number == 0 else 0)
    return _new_stream(stream, _start_of_new_stream(epoch, claimed, saved))


def _same_stream(claimed: Cursor, saved: Cursor | None) -> ResumePoint:
    held_to = claimed.covers_to
    if (
        saved is not None
        and saved.stream_epoch == claimed.stream_epoch
        and saved.number <= claimed.number
    ):
        held_to = max(held_to, saved.covers_to)
    return ResumePoint(claimed, claimed.covers_to if claimed.position else held_to, held_to)


def _new_stream(stream: Cursor, start: int) -> ResumePoint:
    acked = Cursor(stream.lane, stream.stream_epoch, 0, start)
    return ResumePoint(acked, start)


def _start_of_new_stream(epoch: StreamEpoch, claimed: Cursor | None, saved: Cursor | None) -> int:
    if saved is not None and saved.stream_epoch.receiver == epoch.receiver:
        # Only we were restored: our log up to `saved` is the one the peer confirmed, and the peer
        # still holds it. What it claims beyond counts a log we no longer have.
        return saved.covers_to
    if claimed is None:
        return 0
    if claimed.stream_epoch.sender == epoch.sender:
        # Only the peer was restored, together with this cursor. What it once confirmed to us
        # beyond it is gone there.
        return claimed.covers_to
    if saved is not None and saved.stream_epoch.sender == claimed.stream_epoch.sender:
        # Both were restored. Up to `saved` our log is the one the claim counts.
        return min(claimed.covers_to, saved.covers_to)
    return 0
