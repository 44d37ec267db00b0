"""Errors of the security room.

SecurityError
├── SealBrokenError           a sealed value was altered, moved, or sealed under another key
├── DataKeyUnknownError       the key it names is not among this node's data keys
├── SuiteUnknownError         no such suite of algorithms
├── KeyFileError
│   ├── KeyFileExposedError   others on the machine can read it
│   ├── KeyFileOwnerError     it is another user's, who can exchange it
│   └── KeyFileExistsError    a key is never written over
├── PeerIdentityError         a certificate does not say who its holder is
│   └── PeerRevokedError      it does, and a key in its chain is revoked
├── SignatureInvalidError     a detached signature, or its chain, does not hold
└── CertificateUnusableError  this node's own certificate: another's, expired, not its key's
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "CertificateUnusableError",
    "DataKeyUnknownError",
    "KeyFileError",
    "KeyFileExistsError",
    "KeyFileExposedError",
    "KeyFileOwnerError",
    "PeerIdentityError",
    "PeerRevokedError",
    "SealBrokenError",
    "SecurityError",
    "SignatureInvalidError",
    "SuiteUnknownError",
]


class SecurityError(NodeError):
    """Base of this room's errors."""

    code = "SECURITY_ERROR"


class SealBrokenError(SecurityError):
    """A sealed value does not open: altered, moved to another place, or under another key."""

    code = "SEAL_BROKEN"
    default_hint = (
        "The stored value was altered or moved. Keep the database as it is, compare it with a"
        " backup, and let the parent re-send the row."
    )


class DataKeyUnknownError(SecurityError):
    """A sealed value names a data key that this node does not have."""

    code = "DATA_KEY_UNKNOWN"
    default_hint = "Restore the table data_keys and keys/node.key from the same backup."


class SuiteUnknownError(SecurityError):
    """A suite of algorithms was named that this program does not have."""

    code = "SUITE_UNKNOWN"
    fault = Fault.OPERATOR
    default_hint = "The suites are `intl` and `gm`."


class KeyFileError(SecurityError):
    """A key file is missing or is not what it should be."""

    code = "KEY_FILE"
    fault = Fault.OPERATOR
    default_hint = "Restore the file from the node's backup; a new key opens nothing old."


class KeyFileExposedError(KeyFileError):
    """A key file can be read or changed by others on the machine."""

    code = "KEY_FILE_EXPOSED"
    default_hint = "Run `chmod 600` on the file, and replace the key if others had access."


class KeyFileOwnerError(KeyFileError):
    """A key file belongs to another user of the machine, who can read and exchange it."""

    code = "KEY_FILE_OWNER"
    default_hint = (
        "Run the command as the user whom the data folder belongs to, or `chown` the file to the"
        " user the node runs as; replace the key if others had access."
    )


class KeyFileExistsError(KeyFileError):
    """A key was to be created where one is: what it sealed would be lost."""

    code = "KEY_FILE_EXISTS"
    default_hint = "Use another folder, or delete this one first if nothing in it is needed."


class PeerIdentityError(SecurityError):
    """The peer's certificate does not say unambiguously which member of the region it is."""

    code = "PEER_IDENTITY"
    fault = Fault.PEER
    default_hint = "Let the node that issued the certificate issue a new one."


class PeerRevokedError(PeerIdentityError):
    """The key of the peer, or of an authority above it, is revoked."""

    code = "PEER_REVOKED"
    default_hint = (
        "`fenhe node revoked` at the node above says when and why. A machine that is to be"
        " trusted again joins anew with other keys: `fenhe node invite CODE`. A caller gets new"
        " credentials, under another name if the name was revoked."
    )


class SignatureInvalidError(SecurityError):
    """A detached signature or the chain of its certificate does not hold."""

    code = "SIGNATURE_INVALID"
    fault = Fault.PEER
    default_hint = "Compare the clocks and the root certificates of both nodes."


class CertificateUnusableError(SecurityError):
    """This node's own certificate cannot be used."""

    code = "CERTIFICATE_UNUSABLE"
    fault = Fault.OPERATOR
    default_hint = "Let the parent node issue a new certificate for this node."
