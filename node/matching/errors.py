"""Errors of matching in a running node.

MatchingError
├── MatchingOffError         this node does not match; the sentence says why
│   └── TooManyResidentsError    it holds more residents than its profile has memory for
└── MatchingNotReadyError    the index is being built and holds nobody yet
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "MatchingError",
    "MatchingNotReadyError",
    "MatchingOffError",
    "TooManyResidentsError",
]


class MatchingError(NodeError):
    """Base of this room's errors."""

    code = "MATCHING_ERROR"


class MatchingOffError(MatchingError):
    """This node does not match residents; the sentence says why."""

    code = "MATCHING_OFF"
    fault = Fault.OPERATOR
    default_hint = (
        "Mend what the sentence names (the extra: pip install 'fenhe[empi]'; the keys: matching in "
        "node.yaml, matching_residents_max in the profile), and start the node again."
    )


class TooManyResidentsError(MatchingOffError):
    """The node holds more residents than matching may take memory for."""

    default_hint = (
        "Raise matching_residents_max in the profile if the memory is there (0.9 GiB a million), "
        "or set matching: on in node.yaml, and start the node again."
    )


class MatchingNotReadyError(MatchingError):
    """The index is being built, as after every start, and holds nobody yet."""

    code = "MATCHING_NOT_READY"
    fault = Fault.HERE
    retryable = True
    default_hint = "Ask again in a minute; meanwhile look for the resident by a number of his."
