"""Errors of residence.

    ResidenceError
    ├── ResidentMovedError        his home is another node by now; the message says which
    ├── ResidentInTransferError   his home is here, his history on its way
    ├── MoveRefusedError          who was asked for the move said no
    ├── MoveNotNeededError        he lives there already
    ├── GrantInvalidError         a grant is not the common ancestor's word
    ├── GrantEarlyError           a grant of a hierarchy that this node does not have yet
    ├── HandoverInvalidError      a letter of a hand-over is not one
    └── ProposalUnknownError      no such proposal waits here

No message holds patient data: a node id and an epoch are none.
"""

from __future__ import annotations

from collections.abc import Iterable

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "GrantEarlyError",
    "GrantInvalidError",
    "HandoverInvalidError",
    "MoveNotNeededError",
    "MoveRefusedError",
    "ProposalUnknownError",
    "ResidenceError",
    "ResidentInTransferError",
    "ResidentMovedError",
]


class ResidenceError(NodeError):
    """Base of the errors of residence."""

    code = "RESIDENCE_ERROR"


class ResidentMovedError(ResidenceError):
    """The resident's home is another node since a move; `home_node` and `home_epoch` say which."""

    code = "RESIDENT_MOVED"
    fault = Fault.CALLER
    default_hint = "Ask or write at the node named, the resident's home."

    def __init__(self, home_node: str, home_epoch: int, positions: Iterable[str] = ()) -> None:
        where = ", ".join(positions)
        super().__init__(
            f"the resident's home is {home_node} since epoch {home_epoch}"
            + (f": {where}" if where else ""),
            hint=f"Ask or write at node {home_node}, the resident's home.",
        )
        self.home_node = home_node
        self.home_epoch = home_epoch


class ResidentInTransferError(ResidenceError):
    """The resident has moved here, but his history has not come yet."""

    code = "RESIDENT_IN_TRANSFER"
    fault = Fault.HERE
    retryable = True
    default_hint = (
        "Write records; who he is can be changed once his history is here: `fenhe resident where`."
    )


class MoveRefusedError(ResidenceError):
    """A node above refused a move; the message holds its code."""

    code = "MOVE_REFUSED"
    fault = Fault.CALLER
    default_hint = "See docs/errors.md for the code in the message."


class MoveNotNeededError(ResidenceError):
    """The resident lives there already."""

    code = "MOVE_NOT_NEEDED"
    fault = Fault.CALLER
    default_hint = "See `fenhe resident where` for his home."


class GrantInvalidError(ResidenceError):
    """A grant that does not come from the lowest common ancestor of both homes."""

    code = "GRANT_INVALID"
    fault = Fault.PEER
    default_hint = "Compare the region files of both nodes; if they agree, look at who sent it."


class GrantEarlyError(ResidenceError):
    """A grant made under a later epoch of the hierarchy than the one in force here."""

    code = "GRANT_EARLY"
    fault = Fault.HERE
    default_hint = "It is sent again, and taken once this node has that epoch: `fenhe node status`."


class HandoverInvalidError(ResidenceError):
    """A letter of a hand-over that cannot be read, or contradicts the others."""

    code = "HANDOVER_INVALID"
    fault = Fault.PEER
    default_hint = "The sender ships again; if it lasts, compare the releases of both nodes."


class ProposalUnknownError(ResidenceError):
    """No proposal of that id waits here."""

    code = "PROPOSAL_UNKNOWN"
    fault = Fault.CALLER
    default_hint = "See `fenhe resident proposals list` for what waits."
