"""Errors of comparing and mending.

ReconcileError
├── ReconcileBehindError    too much is on its way over the link to tell what differs
├── ReconcilePeerError      the peer named is no neighbour, or is not connected
└── ReconcileScopeError     a neighbour asked for what is not in the child's subtree
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "ReconcileBehindError",
    "ReconcileError",
    "ReconcilePeerError",
    "ReconcileScopeError",
]


class ReconcileError(NodeError):
    """Base of this room's errors."""

    code = "RECONCILE_ERROR"


class ReconcileBehindError(ReconcileError):
    """More of the log than can be looked through is not confirmed by the other end."""

    code = "RECONCILE_BEHIND"
    fault = Fault.HERE
    retryable = True
    default_hint = "Wait until the link has caught up (`fenhe node status`), then compare again."


class ReconcilePeerError(ReconcileError):
    """The node named with --peer is no neighbour of this one."""

    code = "RECONCILE_PEER"
    fault = Fault.CALLER
    default_hint = "Name the parent or a child of the node; `fenhe node status` lists its links."


class ReconcileScopeError(ReconcileError):
    """A neighbour asked about homes that are not below the child's end of the link."""

    code = "RECONCILE_SCOPE"
    fault = Fault.PEER
    default_hint = "Compare the region files of both nodes."
