"""Errors of changing the region.

RegionError
├── RegionStatementError   a configuration, decision or order is not what the root signed
├── RegionNotNextError     it does not follow the epoch in force here
├── RegionBlockedError     the plan says what forbids the change
├── RegionNotHeldError     nodes do not hold the configuration yet
├── RegionClosedError      this node was closed: its residents live at its successor
├── RegionRollbackError    there is nothing to go back to, or the purge was ordered
├── RegionNotRootError     asked of another node than the region's root
└── RegionRenewalError     the node above cannot certify this one yet, or answered with a wrong one
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "RegionBlockedError",
    "RegionClosedError",
    "RegionError",
    "RegionNotHeldError",
    "RegionNotNextError",
    "RegionNotRootError",
    "RegionRenewalError",
    "RegionRollbackError",
    "RegionStatementError",
]


class RegionError(NodeError):
    """Base of this room's errors."""

    code = "REGION_ERROR"


class RegionStatementError(RegionError):
    """A configuration, a decision, an order or a node's word is not what its signer signed."""

    code = "REGION_STATEMENT"
    fault = Fault.PEER
    default_hint = "Nothing was changed. Find out which node handed it over; its log says more."


class RegionNotNextError(RegionError):
    """A configuration is not the one that follows the epoch in force here."""

    code = "REGION_NOT_NEXT"
    fault = Fault.OPERATOR
    default_hint = (
        "Compare region.yaml of this node with that of the root: the one in force must be the same."
    )


class RegionBlockedError(RegionError):
    """The change cannot be made as it is."""

    code = "REGION_BLOCKED"
    fault = Fault.OPERATOR
    default_hint = "Run `fenhe hierarchy plan` with the file: it names everything that blocks."


class RegionNotHeldError(RegionError):
    """Not every node has the configuration; nothing was put in force."""

    code = "REGION_NOT_HELD"
    fault = Fault.OPERATOR
    retryable = True
    default_hint = (
        "See why these nodes are away and apply again; a node that is not moved itself may be given"
        " up with --without CODE and learns of the change when it comes back."
    )


class RegionClosedError(RegionError):
    """The region has closed this node: what it held is delivered, nothing more is written here."""

    code = "REGION_CLOSED"
    fault = Fault.CALLER
    default_hint = "Write at the node that succeeds it: see `fenhe hierarchy history` at the root."


class RegionRollbackError(RegionError):
    """The last change cannot be taken back as such."""

    code = "REGION_ROLLBACK"
    fault = Fault.OPERATOR
    default_hint = "Plan and apply a new change that leads back: it moves the records again."


class RegionNotRootError(RegionError):
    """The hierarchy is changed at the region's root node alone."""

    code = "REGION_NOT_ROOT"
    fault = Fault.CALLER
    default_hint = "Use credentials of an operator of the root node."


class RegionRenewalError(RegionError):
    """No new certificate came about yet; the node goes on with the one it has and asks again."""

    code = "REGION_RENEWAL"
    fault = Fault.PEER
    retryable = True
    default_hint = "Wait for the node above; if it lasts, see the log of both nodes."
