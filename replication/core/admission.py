"""Whether a row that arrives over a link may be applied: scope, ownership, epochs, version.

Owns the verdict, one row at a time. Whatever it rejects goes to the resident's quarantine with its
cause, never into a table and never silently away. Must never know a table: the lane says whether a
row is identity data.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from replication.core.config import PeerRole
from replication.core.model import Form, Lane, RowChange, Version

__all__ = [
    "ADMIT",
    "STALE",
    "AdmissionContext",
    "Cause",
    "Decision",
    "Held",
    "Verdict",
    "judge",
]


class Decision(StrEnum):
    """What becomes of the row."""

    ADMIT = "admit"
    STALE = "stale"
    REJECT = "reject"


class Cause(StrEnum):
    """Why a row is rejected; stands in the quarantine."""

    AUTHOR_NOT_BELOW = "AUTHOR_NOT_BELOW"
    HOME_NOT_HERE = "HOME_NOT_HERE"
    IDENTITY_NOT_FROM_HOME = "IDENTITY_NOT_FROM_HOME"
    FORM_NOT_FULL = "FORM_NOT_FULL"
    HOME_EPOCH_OLD = "HOME_EPOCH_OLD"
    HOME_DISPUTED = "HOME_DISPUTED"
    HOME_NOT_GRANTED = "HOME_NOT_GRANTED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, with its cause if it is REJECT."""

    decision: Decision
    cause: Cause | None = None


ADMIT: Final = Verdict(Decision.ADMIT)
STALE: Final = Verdict(Decision.STALE)
_NOT_GRANTED: Final = Cause.HOME_NOT_GRANTED
_REJECTED: Final = {cause: Verdict(Decision.REJECT, cause) for cause in Cause}


@dataclass(frozen=True, slots=True, order=True)
class Held:
    """What is held of a row. The same version under a later home epoch is newer: he has moved."""

    version: Version
    home_epoch: int


@dataclass(frozen=True, slots=True)
class AdmissionContext:
    """Who sends, and what is known here; the same for all rows of a batch but the last four.

    Args:
        peer_role: What the sender is to this node.
        lane: The lane the row came in.
        here_subtree: This node and everything below it.
        peer_subtree: The sender and everything below it; looked at only if it is a child.
        here_path: This node and everything above it.
        recovering: This node asks its neighbours for what it lost, so what was written here, and
            identity data, may come from them.
        home_epoch: Newest home epoch known here for the row's resident; 0 if none.
        home_node: His home under that epoch; "" if none is known.
        granted_epoch: Newest home epoch that a grant held here gives him; 0 if there is none.
        granted_home: His home under that grant.
    """

    peer_role: PeerRole
    lane: Lane
    here_subtree: AbstractSet[str]
    peer_subtree: AbstractSet[str]
    here_path: AbstractSet[str] = frozenset()
    recovering: bool = False
    home_epoch: int = 0
    home_node: str = ""
    granted_epoch: int = 0
    granted_home: str = ""


def judge(change: RowChange, held: Held | None, context: AdmissionContext) -> Verdict:
    """Judge one row against what is held of it here (None: the row is not here).

    Scope comes first, so that a row from the wrong side is never taken for a repetition; a
    repetition comes before the home epoch, so that re-sending old history quarantines nothing.
    """
    cause = _out_of_scope(change, held, context)
    if cause is not None:
        return _REJECTED[cause]
    if held is not None and Held(change.version, change.home_epoch) <= held:
        return STALE
    cause = _wrong_home(change, context)
    return ADMIT if cause is None else _REJECTED[cause]


def _wrong_home(change: RowChange, context: AdmissionContext) -> Cause | None:
    """Whether the row claims a home that this node knows to be another, or a move nobody granted.

    A child is trusted for moves within its own subtree: whoever granted them stands there.
    """
    epoch = max(context.home_epoch, context.granted_epoch)
    if change.home_epoch < epoch:
        return Cause.HOME_EPOCH_OLD
    if change.home_epoch == context.granted_epoch:
        return None if change.home_node == context.granted_home else Cause.HOME_DISPUTED
    if not context.home_node:
        return None
    if change.home_epoch == context.home_epoch:
        return None if change.home_node == context.home_node else Cause.HOME_DISPUTED
    if context.peer_role is PeerRole.CHILD:
        inside = context.home_node in context.peer_subtree
        return None if inside and change.home_node in context.peer_subtree else _NOT_GRANTED
    return _NOT_GRANTED if context.home_node in context.here_subtree else None


def _out_of_scope(change: RowChange, held: Held | None, context: AdmissionContext) -> Cause | None:
    identity = context.lane is Lane.IDENTITY
    if identity and change.author_node != change.home_node:
        return Cause.IDENTITY_NOT_FROM_HOME
    if context.peer_role is PeerRole.CHILD:
        return None if _child_may_send(change, held, context) else Cause.AUTHOR_NOT_BELOW
    if change.home_node not in context.here_subtree and not _is_lost_record(change, context):
        return Cause.HOME_NOT_HERE
    if change.form is not Form.FULL:
        return Cause.FORM_NOT_FULL
    if identity and not context.recovering:
        # The home lies at or below this node, so its identity data never comes from above.
        return Cause.IDENTITY_NOT_FROM_HOME
    return None


def _is_lost_record(change: RowChange, context: AdmissionContext) -> bool:
    """Whether it is what this node itself wrote of somebody who lives elsewhere, and lost."""
    here = change.author_node in context.here_subtree and change.author_node in context.here_path
    return context.recovering and here


def _child_may_send(change: RowChange, held: Held | None, context: AdmissionContext) -> bool:
    """Its subtree's own rows, and what came to a home there by letter.

    What this node or one above it wrote went down to the home from here. It comes back only because
    the resident has moved: unchanged, or to a node that never held it but knows of the move.
    """
    if change.author_node in context.peer_subtree:
        return True
    if change.home_node not in context.peer_subtree:
        return False
    if change.author_node not in context.here_path:
        return True
    if context.recovering and change.form is Form.FULL:
        return True
    if held is not None:
        return change.home_epoch > 1 and change.version <= held.version
    granted = (context.granted_epoch, context.granted_home)
    return context.granted_epoch > 0 and granted == (change.home_epoch, change.home_node)
