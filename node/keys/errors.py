"""Errors of the room of keys.

KeysError
├── KeyPurposeError        there is no key of that name to rotate
├── KeysBusyError          a backup reads the key files just now
├── KeyServiceError        the outside key service failed, was slow, or is not configured
├── KeyMisplacedError      a key lies in this node's folder that its level must not hold
├── EscrowMissingError     this node holds no keys in escrow for that node
├── EscrowInvalidError     what was deposited is not the child's, or cannot be read
└── RecoveryFileError      a recovery file does not open this store
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "EscrowInvalidError",
    "EscrowMissingError",
    "KeyMisplacedError",
    "KeyPurposeError",
    "KeyServiceError",
    "KeysBusyError",
    "KeysError",
    "RecoveryFileError",
]


class KeysError(NodeError):
    """Base of this room's errors."""

    code = "KEYS_ERROR"


class KeyPurposeError(KeysError):
    """There is no sealed table of that name; nothing was rotated."""

    code = "KEY_PURPOSE"
    fault = Fault.CALLER
    default_hint = "Name a table as `fenhe keys status` lists it."


class KeysBusyError(KeysError):
    """A backup of this node is being made, and reads the key files that would be exchanged."""

    code = "KEYS_BUSY"
    fault = Fault.OPERATOR
    retryable = True
    default_hint = "Run the same command again when the backup has ended; nothing was changed."


class KeyServiceError(KeysError):
    """The outside key service did not do what was asked; the store stays shut, or as it was."""

    code = "KEY_SERVICE"
    fault = Fault.OPERATOR
    default_hint = (
        "Run the program of key_command by hand, as the node's user, and see its own log; then"
        " start the node again."
    )


class KeyMisplacedError(KeysError):
    """A key lies in the data folder that a node of this level must not hold."""

    code = "KEY_MISPLACED"
    fault = Fault.OPERATOR
    default_hint = (
        "Delete the file named. If anybody else could use this machine meanwhile, the counties'"
        " shared key has to be replaced."
    )


class EscrowMissingError(KeysError):
    """This node holds no keys in escrow for the node named."""

    code = "ESCROW_MISSING"
    fault = Fault.CALLER
    default_hint = (
        "`fenhe keys escrow status` lists what is held. Keys are deposited at the parent, and only"
        " where policy copies in full; a county has its keys in its backup alone."
    )


class EscrowInvalidError(KeysError):
    """A deposit is not the child's own, is sealed to another key, or cannot be read."""

    code = "ESCROW_INVALID"
    fault = Fault.PEER
    default_hint = "The child deposits anew within an hour of its link; compare both nodes' logs."


class RecoveryFileError(KeysError):
    """A recovery file does not hold the keys of this store; nothing was changed."""

    code = "RECOVERY_FILE"
    fault = Fault.OPERATOR
    default_hint = (
        "Use the file that `fenhe keys recover` wrote at the parent for this very node; for an"
        " older state of the store, put a backup back instead."
    )
