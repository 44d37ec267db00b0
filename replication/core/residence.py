"""Where a resident's home is, and who may move it: the rules, without I/O.

Owns the grant's decision, whether a claimed home is to be believed, what each node owes once a
grant is known, and what becomes of an old home's late edits. Must never know how a grant is signed
or a history is shipped. Places are node ids; a path is a node and everything above it, root last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum

from replication.core.model import Version

__all__ = [
    "Duty",
    "Grant",
    "KnownHome",
    "LateEdit",
    "MoveDecision",
    "MoveRequest",
    "Path",
    "Step",
    "believed_claim",
    "common_ancestor",
    "decide",
    "duty",
    "is_genuine",
    "judge_late_edit",
    "lets_go",
    "may_ask",
    "newest_home",
    "outranks",
    "pseudonym_home",
    "taken_over",
]

Path = Callable[[str], Sequence[str]]
"""A node and all above it, the root last; empty for a node of no region known here."""


MovesFrom = Callable[[AbstractSet[str], int, int], Iterable[tuple[str, str, int]]]
"""(homes, after, up_to): moves granted from one of them, of epochs after < epoch <= up_to, each as
(old home, new home, epoch)."""


@dataclass(frozen=True, slots=True)
class KnownHome:
    """A resident's home as somebody knows it. home_epoch rises with each move, from 1."""

    home_node: str
    home_epoch: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A move as its granter said it; (resident_id, home_epoch) names it.

    `region_epoch`: the hierarchy's epoch in which it was granted, under which it is judged; 0: it
    does not say, so the one in force. Where grants are compared it says nothing.
    """

    resident_id: str
    home_epoch: int
    home_node: str
    from_node: str
    granted_by: str
    granted_at_ms: int
    region_epoch: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class MoveRequest:
    """Somebody asks for a move. `reason` is what the audit keeps."""

    resident_id: str
    to_node: str
    reason: str


class MoveDecision(StrEnum):
    """What a node does with a request."""

    GRANT = "grant"
    ASK_ABOVE = "ask_above"
    ASK_BELOW = "ask_below"
    REFUSE_UNKNOWN = "refuse_unknown"
    REFUSE_HERE_ALREADY = "refuse_here_already"
    REFUSE_PLACE = "refuse_place"


@dataclass(frozen=True, slots=True)
class Step:
    """A decision; of GRANT and ASK_BELOW `node` is the granter, the lowest common ancestor."""

    decision: MoveDecision
    node: str = ""


class Duty(StrEnum):
    """What a node owes once it knows a grant."""

    NEW_HOME = "new_home"
    """Takes the history, then owns him."""
    OLD_HOME = "old_home"
    """Stops writing as home, ships, forwards; lets go of him unless it is above the new one."""
    LEAVES = "leaves"
    """Was above the old home and is not above the new one: lets go of him when he has arrived."""
    KEEPS = "keeps"
    """Above both: his rows come again from the new home, under the later epoch."""
    NONE = "none"
    """On the way to the new home: knows where his rows will come from."""


class LateEdit(StrEnum):
    """What an identity row that reaches a new home after it has taken over is."""

    KNOWN = "known"
    """Taken over already, or older than what was."""
    PROPOSAL = "proposal"
    """Made at the old home without knowledge of the move: the new home decides."""


def common_ancestor(one: str, other: str, path: Path) -> str:
    """The lowest node above (or at) both; "" if there is none."""
    above = set(path(one))
    return next((node for node in path(other) if node in above), "")


def newest_home(known: Iterable[KnownHome | None]) -> KnownHome | None:
    """The one of the latest epoch; of equals the first, since those nearer come first."""
    newest: KnownHome | None = None
    for each in known:
        if each is not None and (newest is None or each.home_epoch > newest.home_epoch):
            newest = each
    return newest


def believed_claim(
    own: KnownHome | None, claim: KnownHome | None, peer_subtree: AbstractSet[str]
) -> KnownHome | None:
    """The newest home, of what is known here and what a child says.

    A child is believed about homes within its own subtree, and only of residents who, for all that
    is known here, live in it.
    """
    if claim is None or claim.home_node not in peer_subtree:
        return own
    if own is not None and own.home_node not in peer_subtree:
        return own
    return newest_home((own, claim))


def decide(here: str, request: MoveRequest, present: KnownHome | None, path: Path) -> Step:
    """What the node `here` does with a request it may answer.

    Args:
        here: This node.
        request: What is asked.
        present: The newest home known here and to those who asked; None if nobody knows one yet.
        path: The hierarchy in force.
    """
    if not path(request.to_node):
        return Step(MoveDecision.REFUSE_PLACE)
    if present is None:
        # Only nodes that copy him know his home; the root is the last that can.
        at_root = len(path(here)) <= 1
        return Step(MoveDecision.REFUSE_UNKNOWN if at_root else MoveDecision.ASK_ABOVE)
    if present.home_node == request.to_node:
        return Step(MoveDecision.REFUSE_HERE_ALREADY)
    granter = common_ancestor(present.home_node, request.to_node, path)
    if granter == here:
        return Step(MoveDecision.GRANT, here)
    if here in path(granter):
        return Step(MoveDecision.ASK_BELOW, granter)
    return Step(MoveDecision.ASK_ABOVE)


def may_ask(
    peer_subtree: AbstractSet[str], present: KnownHome | None, request: MoveRequest
) -> bool:
    """Whether a child may ask for this: he lives in its subtree, or is to, for a stated reason."""
    if present is not None and present.home_node in peer_subtree:
        return True
    return request.to_node in peer_subtree and bool(request.reason.strip())


def is_genuine(grant: Grant, signer: str, path: Path) -> bool:
    """Whether the signer is the one who may grant it: the lowest common ancestor of both homes."""
    return (
        grant.home_epoch > 1
        and grant.home_node != grant.from_node
        and signer == grant.granted_by
        and bool(signer)
        and common_ancestor(grant.from_node, grant.home_node, path) == signer
    )


def outranks(new: Grant, held: Grant, path: Path) -> bool:
    """Whether `new` replaces `held`, the grant held here of the same resident and epoch.

    Two granters can give one epoch while they cannot hear each other: the one above wins, since its
    word reaches both. One granter gives an epoch twice only if its store was put back: then the
    later word wins. Every node decides alike, whichever it hears first.
    """
    if new.granted_by != held.granted_by:
        # One that the hierarchy does not have any more is above nobody.
        heights = [len(path(each.granted_by)) for each in (new, held)]
        return heights[0] > 0 and (heights[1] == 0 or heights[0] < heights[1])
    return (new.granted_at_ms, new.home_node) > (held.granted_at_ms, held.home_node)


def duty(here: str, grant: Grant, path: Path) -> Duty:
    """What the node `here` owes for a grant."""
    if here == grant.home_node:
        return Duty.NEW_HOME
    if here == grant.from_node:
        return Duty.OLD_HOME
    above_old, above_new = here in path(grant.from_node), here in path(grant.home_node)
    if above_old:
        return Duty.KEEPS if above_new else Duty.LEAVES
    return Duty.NONE


def lets_go(here: str, grant: Grant, path: Path) -> bool:
    """Whether a node that held him as old home or above it has to let go of him."""
    return duty(here, grant, path) in {Duty.OLD_HOME, Duty.LEAVES} and here not in path(
        grant.home_node
    )


def taken_over(version: Version) -> Version:
    """The version under which a new home takes an identity row over from the old one."""
    return Version(version.author_epoch + 1, version.number)


def judge_late_edit(base: Version | None, offered: Version) -> LateEdit:
    """What an identity row of the old home is to a new home that has taken over already.

    Args:
        base: The version it was taken over from; None: the row was not known then.
        offered: What the old home has.
    """
    return LateEdit.PROPOSAL if base is None or offered > base else LateEdit.KNOWN


def pseudonym_home(
    held: KnownHome,
    claimed: KnownHome,
    peer_subtree: AbstractSet[str],
    *,
    moves_from: MovesFrom,
    branch: Callable[[str], AbstractSet[str]],
) -> bool:
    """Whether a row without a name may claim another home than the one held of it.

    Nobody above the boundary can say whose it is; but somebody must have been granted moves from
    where this one lived into the subtree that now speaks of him. What was granted inside a branch
    below this node is not known here, so he may have moved there unheard, an epoch each time.

    Args:
        held: His home by the rows held here.
        claimed: What the child says; of a later epoch.
        peer_subtree: The child's.
        moves_from: What this node knows was granted.
        branch: What lies below the child of this node that a home lies below; the home itself.
    """
    if claimed.home_node not in peer_subtree:
        return False
    at_first = branch(held.home_node)
    best: dict[AbstractSet[str], int] = {at_first: held.home_epoch}
    waiting = [at_first]
    while waiting:
        inside = min(waiting, key=best.__getitem__)
        waiting.remove(inside)
        epoch = best[inside]
        for from_node, home_node, home_epoch in moves_from(inside, epoch, claimed.home_epoch):
            is_elsewhere = inside is at_first and from_node != held.home_node
            if is_elsewhere and home_epoch == epoch + 1:
                continue
            if home_node in peer_subtree:
                return True
            beyond = branch(home_node)
            if home_epoch < best.get(beyond, claimed.home_epoch):
                best[beyond] = home_epoch
                waiting += [] if beyond in waiting else [beyond]
    return False
