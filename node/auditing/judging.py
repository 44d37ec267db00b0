"""Whether a head follows from what was anchored before. Pure: no store, no clock, no keys.

A head alone proves only where a chain ends. So the holder asks what the chain holds at its newest
anchor, and takes the head only with that answer in it: a chain that was written anew from some
entry on cannot hold the old hash there. A head that is older than the holder's newest anchor is no
finding before the node has been asked about that anchor: it may only have come late.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.auditing.model import NOWHERE, Finding, FindingKind, Head, Held, Point, bound_of

__all__ = ["Ask", "Taken", "judge"]


@dataclass(frozen=True, slots=True)
class Ask:
    """The head must say what its chain holds at this position."""

    position: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The head follows. `lost`: what a new life of the store left behind; None: nothing."""

    lost: Finding | None = None


def judge(head: Head, newest: Held | None, below: Point) -> Ask | Taken | Finding:
    """Judge a head.

    Args:
        head: As its node signed it.
        newest: The newest head of that node kept here; None: the first.
        below: The newest anchor of it, of any life, that must be in the chain by what the head says
            of the lives of its store; NOWHERE: none.
    """
    if newest is None:
        return Taken()
    if head.store_epoch < newest.store_epoch:
        found = head.end.hash
        return _finding(FindingKind.FORMER_LIFE, head, newest.end, found)
    is_same_life = head.store_epoch == newest.store_epoch
    known = newest.end if is_same_life else below
    if head.seen.position != known.position:
        return Ask(known.position)
    differing = _differing(head, known)
    if differing is not None:
        return differing
    if is_same_life:
        if head.lives != newest.lives:
            return _finding(FindingKind.REWRITTEN, head, known, head.seen.hash)
        return Taken()
    bound = bound_of(head.lives, newest.store_epoch)
    lost = newest.end.position - (bound or 0)
    if lost <= 0:
        return Taken()
    began = Point((bound or 0) + 1, newest.end.hash)
    return Taken(_finding(FindingKind.LOST, head, began, "", lost))


def _differing(head: Head, known: Point) -> Finding | None:
    """Where the chain contradicts an anchor, if it does."""
    if known == NOWHERE or (head.seen.hash == known.hash and head.end.position >= known.position):
        return None
    if not head.seen.hash or head.end.position < known.position:
        missing = known.position - head.end.position
        return _finding(FindingKind.CUT, head, known, head.seen.hash, max(missing, 1))
    return _finding(FindingKind.REWRITTEN, head, known, head.seen.hash)


def _finding(kind: FindingKind, head: Head, known: Point, found: str, entries: int = 0) -> Finding:
    return Finding(kind, head.store_epoch, known.position, known.hash, found, entries)
