"""Errors of renewing at the door.

RenewingError
├── CertificateExpiredError   this node's certificate has ended: it is limited
├── ClockWrongError           one of two clocks is wrong: by it a good certificate looks bad
├── RenewalRefusedError       what was asked at the door is not what the asker may have
│   └── RenewalTooLateError       its certificate ended too long ago
└── RenewalAnswerError        the answer of the door proves nothing
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "CertificateExpiredError",
    "ClockWrongError",
    "RenewalAnswerError",
    "RenewalRefusedError",
    "RenewalTooLateError",
    "RenewingError",
]


class RenewingError(NodeError):
    """Base of this room's errors."""

    code = "RENEWING_ERROR"


class CertificateExpiredError(RenewingError):
    """This node's certificate has ended; it serves its own place and asks for another."""

    code = "CERTIFICATE_EXPIRED"
    fault = Fault.OPERATOR
    retryable = True
    default_hint = (
        "It asks at its parent's door by itself: see that the parent runs, that parent_door in"
        " node.yaml is its door, and that the line is there."
    )


class ClockWrongError(RenewingError):
    """This machine's clock and its parent's differ so far that a certificate is in doubt."""

    code = "CLOCK_WRONG"
    fault = Fault.OPERATOR
    retryable = True
    default_hint = (
        "Set the clock that is wrong (compare both times with a telephone); the node goes on by"
        " itself."
    )


class RenewalRefusedError(RenewingError):
    """A certificate is not renewed at this door for who asks."""

    code = "RENEWAL_REFUSED"
    fault = Fault.PEER
    default_hint = "Let the machine join again: `fenhe node invite CODE` at the parent."


class RenewalTooLateError(RenewalRefusedError):
    """The certificate ended longer ago than the parent's renewal_grace_days."""

    code = "RENEWAL_TOO_LATE"
    default_hint = (
        "Find out where the machine was; then let it join again (`fenhe node invite CODE` at the"
        " parent), or set renewal_grace_days in the parent's node.yaml."
    )


class RenewalAnswerError(RenewingError):
    """The answer of a door is not the parent's, or not to what this node asked."""

    code = "RENEWAL_ANSWER"
    fault = Fault.PEER
    retryable = True
    default_hint = "Compare parent_door in node.yaml with the parent's door; it is asked again."
