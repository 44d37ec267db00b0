"""Errors of revocation.

RevocationError
├── RevocationInvalidError    an entry is not what its signer may say
├── RevokeNotBelowError       only what lies below this node is revoked here
└── RevocationFullError       a signer has said more than a region can need
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "RevocationError",
    "RevocationFullError",
    "RevocationInvalidError",
    "RevokeNotBelowError",
]


class RevocationError(NodeError):
    """Base of this room's errors."""

    code = "REVOCATION_ERROR"


class RevocationInvalidError(RevocationError):
    """An entry of a list of revoked keys is not what its signer may say, or cannot be read."""

    code = "REVOCATION_INVALID"
    fault = Fault.PEER
    default_hint = (
        "It was not taken. If it came from a node that is in order, compare both nodes' region"
        " files and releases."
    )


class RevokeNotBelowError(RevocationError):
    """A node revokes what lies below it, and its own callers; nothing else."""

    code = "REVOKE_NOT_BELOW"
    fault = Fault.CALLER
    default_hint = (
        "Revoke a node at its parent or any node above it, a caller at the node that issued the"
        " credentials; `fenhe hierarchy tree` shows who is above whom."
    )


class RevocationFullError(RevocationError):
    """This node has signed as many entries as others take from it."""

    code = "REVOCATION_FULL"
    fault = Fault.OPERATOR
    default_hint = (
        "Revoke at the parent instead; so many revocations mean that something else is wrong."
    )
