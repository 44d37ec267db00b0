"""Errors of merging.

MergingError
├── MergeNotHereError    this node does not stand over both homes
├── MergeStandsError     an event in force stands in the way
├── MergeApartError      somebody decided that they are two people
├── MergeTooLargeError   one person would have more ids than anybody has
└── MergeUnknownError    no such event here, or nothing is in force over the two
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "MergeApartError",
    "MergeNotHereError",
    "MergeStandsError",
    "MergeTooLargeError",
    "MergeUnknownError",
    "MergingError",
]


class MergingError(NodeError):
    """Base of this room's errors."""

    code = "MERGING_ERROR"


class MergeNotHereError(MergingError):
    """Who is one person is decided at a node over both homes."""

    code = "MERGE_NOT_HERE"
    fault = Fault.CALLER
    default_hint = "Ask at the node that the message names, or at one above it."


class MergeStandsError(MergingError):
    """One of the two is merged already."""

    code = "MERGE_STANDS"
    fault = Fault.CALLER
    default_hint = "`fenhe resident links` shows what is in force."


class MergeApartError(MergingError):
    """A steward said that these are two people; a merge does not pass over that by accident."""

    code = "MERGE_TOLD_APART"
    fault = Fault.CALLER
    default_hint = "If that was wrong, merge with --despite."


class MergeTooLargeError(MergingError):
    """So many ids of one person can only be a mistake."""

    code = "MERGE_TOO_LARGE"
    fault = Fault.CALLER
    default_hint = "See `fenhe resident links` for what is merged, and undo what is wrong."


class MergeUnknownError(MergingError):
    """There is nothing to undo."""

    code = "MERGE_UNKNOWN"
    fault = Fault.CALLER
    default_hint = "`fenhe resident links` shows what is in force."
