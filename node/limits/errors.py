"""Errors of this room: too much was asked, and when to ask again.

LimitError                 `wait_ms`: when it is worth asking again
├── RateLimitedError       this caller, or its address, asks more often than its share
├── LookupsLimitedError    this caller, or all together, look up too many people by number
├── TooManyCallsError      this caller has too many calls under way
└── OverloadedError        this node has all the calls under way that it can serve
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "LimitError",
    "LookupsLimitedError",
    "OverloadedError",
    "RateLimitedError",
    "TooManyCallsError",
]


class LimitError(NodeError):
    """Base of this room's errors; nothing was done, and the same call may be made again."""

    code = "LIMIT_ERROR"
    fault = Fault.CALLER
    retryable = True

    def __init__(self, message: str, wait_ms: int) -> None:
        super().__init__(message)
        self.wait_ms = wait_ms


class RateLimitedError(LimitError):
    """The caller, or the address it calls from, has used up its calls for now."""

    code = "RATE_LIMITED"
    default_hint = (
        "Wait as long as fenhe-retry-after-ms in the trailing metadata says; send more rows in a "
        "bundle rather than more calls (calls_per_s of the profile)."
    )


class LookupsLimitedError(LimitError):
    """Too many people were looked up by a number: whoever may do so without end lists them all."""

    code = "LOOKUPS_LIMITED"
    default_hint = (
        "Wait as long as fenhe-retry-after-ms in the trailing metadata says; read residents by "
        "their id where it is known (lookups_per_minute of the profile)."
    )


class TooManyCallsError(LimitError):
    """The caller has more calls under way than one caller may have."""

    code = "TOO_MANY_CALLS"
    default_hint = "Wait for the answers that are under way (calls_at_once of the profile)."


class OverloadedError(LimitError):
    """The node has as many calls under way as it can serve; those go on, new ones do not begin."""

    code = "OVERLOADED"
    fault = Fault.HERE
    default_hint = (
        "Wait as long as fenhe-retry-after-ms in the trailing metadata says and call again; if it "
        "lasts, see who calls so much (fenhe_calls of the metrics)."
    )
