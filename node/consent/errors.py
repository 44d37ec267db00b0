"""Errors of consents, relations and grants.

ConsentError
├── ConsentNotAtHomeError   a consent is amended at the resident's home alone
├── AccessUnknownError      no such consent, relation, grant or review here
├── AccessAuthorError       it was written at another node
├── BreakGlassError         who asks is nobody for whom a glass is broken
├── GrantBorrowedError      who grants sees the resident by a grant or a broken glass alone
└── OwnReviewError          who closes a review has broken the glass himself
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "AccessAuthorError",
    "AccessUnknownError",
    "BreakGlassError",
    "ConsentError",
    "ConsentNotAtHomeError",
    "GrantBorrowedError",
    "OwnReviewError",
]


class ConsentError(NodeError):
    """Base of this room's errors."""

    code = "CONSENT_ERROR"


class ConsentNotAtHomeError(ConsentError):
    """The resident's home is another node: what he allows is written down there."""

    code = "CONSENT_NOT_AT_HOME"
    fault = Fault.CALLER
    default_hint = "Ask at the resident's home: the message names it."


class AccessUnknownError(ConsentError):
    """Nothing of that id is held here, or nothing that this caller may end."""

    code = "ACCESS_UNKNOWN"
    fault = Fault.CALLER
    default_hint = "`fenhe consent list` and `fenhe access list` show the ids."


class AccessAuthorError(ConsentError):
    """A relation or grant is ended where it was written."""

    code = "ACCESS_NOT_AUTHOR"
    fault = Fault.CALLER
    default_hint = "Ask at the node that the message names."


class BreakGlassError(ConsentError):
    """A glass is broken for a person, who answers for it: not for a certificate alone."""

    code = "BREAK_GLASS_NOBODY"
    fault = Fault.CALLER
    default_hint = "Sign in with your own account and ask again."


class GrantBorrowedError(ConsentError):
    """Nobody passes on what was lent to him: a grant, or the half hour of a broken glass."""

    code = "GRANT_BORROWED"
    fault = Fault.CALLER
    default_hint = (
        "Let the organization that cares for the resident grant it, or have the desk open a care "
        "relation of yours: `fenhe access relate`."
    )


class OwnReviewError(ConsentError):
    """Nobody reviews the glass that he broke himself."""

    code = "REVIEW_OF_ONESELF"
    fault = Fault.CALLER
    default_hint = (
        "Somebody else who is auditor or administrator at the resident's home closes it, or the "
        "node's operator."
    )
