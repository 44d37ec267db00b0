"""Errors of recovery and pruning.

NodeError
├── NotANeighbourError     a node was named that is not linked to this one
└── RebuildRefusedError    a node cannot be made anew from its neighbours alone
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = ["NotANeighbourError", "RebuildRefusedError"]


class NotANeighbourError(NodeError):
    """Only the parent and the children of a node are linked to it."""

    code = "NOT_A_NEIGHBOUR"
    fault = Fault.CALLER
    default_hint = "Name division codes as `fenhe node status` lists them under its links."


class RebuildRefusedError(NodeError):
    """What the node had beside its rows cannot be made anew."""

    code = "REBUILD_REFUSED"
    fault = Fault.OPERATOR
    default_hint = "Put a backup back with `fenhe restore`; nothing was changed."
