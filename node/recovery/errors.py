"""Errors of recovery and pruning.

NodeError
└── RebuildRefusedError    a node cannot be made anew from its neighbours alone
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = ["RebuildRefusedError"]


class RebuildRefusedError(NodeError):
    """What the node had beside its rows cannot be made anew."""

    code = "REBUILD_REFUSED"
    fault = Fault.OPERATOR
    default_hint = "Put a backup back with `fenhe restore`; nothing was changed."
