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

__all__ = ["ADMIT", "STALE", "AdmissionContext", "Cause", "Decision", "Verdict", "judge"]


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, with its cause if it is REJECT."""

    decision: Decision
    cause: Cause | None = None


ADMIT: Final = Verdict(Decision.ADMIT)
STALE: Final = Verdict(Decision.STALE)
_REJECTED: Final = {cause: Verdict(Decision.REJECT, cause) for cause in Cause}


@dataclass(frozen=True, slots=True)
class AdmissionContext:
    """Who sends, and what is known here; the same for all rows of a batch but `home_epoch`.

    Args:
        peer_role: What the sender is to this node.
        lane: The lane the row came in.
        here_subtree: This node and everything below it.
        peer_subtree: The sender and everything below it; looked at only if it is a child.
        home_epoch: Newest home epoch known here for the row's resident; 0 if none.
        recovering: This node asks its parent for what it owns, so identity may come from above.
    """

    peer_role: PeerRole
    lane: Lane
    here_subtree: AbstractSet[str]
    peer_subtree: AbstractSet[str]
    home_epoch: int = 0
    recovering: bool = False


def judge(change: RowChange, held: Version | None, context: AdmissionContext) -> Verdict:
    """Judge one row against the version held here (None: the row is not here).

    Scope comes first, so that a row from the wrong side is never taken for a repetition; a
    repetition comes before the home epoch, so that re-sending old history quarantines nothing.
    """
    cause = _out_of_scope(change, context)
    if cause is not None:
        return _REJECTED[cause]
    if held is not None and change.version <= held:
        return STALE
    if change.home_epoch < context.home_epoch:
        return _REJECTED[Cause.HOME_EPOCH_OLD]
    return ADMIT


def _out_of_scope(change: RowChange, context: AdmissionContext) -> Cause | None:
    identity = context.lane is Lane.IDENTITY
    if identity and change.author_node != change.home_node:
        return Cause.IDENTITY_NOT_FROM_HOME
    if context.peer_role is PeerRole.CHILD:
        return None if change.author_node in context.peer_subtree else Cause.AUTHOR_NOT_BELOW
    if change.home_node not in context.here_subtree:
        return Cause.HOME_NOT_HERE
    if change.form is not Form.FULL:
        return Cause.FORM_NOT_FULL
    if identity and not context.recovering:
        # The home lies at or below this node, so its identity data never comes from above.
        return Cause.IDENTITY_NOT_FROM_HOME
    return None
