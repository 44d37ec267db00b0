"""Errors of this room: what is managed, and signing in.

PeopleError
├── NotYourDivisionError      it lies outside the subtree that the asker administers
├── RoleLackedError           who lacks a role cannot give it, nor act for one who has it
├── PeopleEndedError          it cannot be: the organization is closed, he works here no more
├── AccountExistsError        the name, or the subject, is another account's
├── PasswordWeakError
├── TotpRefusedError          a second factor is not confirmed by that code
├── SignInError
│   ├── SignInRefusedError    one answer, whatever was wrong
│   ├── SignInBusyError       too many at once
│   ├── PasswordMustChangeError   the rest is said to those alone who have proven who they are
│   ├── OrganizationNeededError
│   └── NoRoleTodayError
├── SessionError
│   ├── SessionEndedError     the token is none, or of a session that is over
│   └── SessionNeededError    only who has signed in may call this
└── OidcError
    ├── OidcMissingError      the extra is not installed
    ├── OidcOffError          no issuer is configured here
    └── OidcKeysError         the issuer's keys cannot be read
"""

from __future__ import annotations

from hierarchy_config.errors import Fault
from node.errors import NodeError

__all__ = [
    "AccountExistsError",
    "NoRoleTodayError",
    "NotYourDivisionError",
    "OidcError",
    "OidcKeysError",
    "OidcMissingError",
    "OidcOffError",
    "OrganizationNeededError",
    "PasswordMustChangeError",
    "PasswordWeakError",
    "PeopleEndedError",
    "PeopleError",
    "RoleLackedError",
    "SessionEndedError",
    "SessionError",
    "SessionNeededError",
    "SignInBusyError",
    "SignInError",
    "SignInRefusedError",
    "TotpRefusedError",
]


class PeopleError(NodeError):
    """Base of this room's errors."""

    code = "PEOPLE_ERROR"


class NotYourDivisionError(PeopleError):
    """What is to be managed lies outside the subtree that the asker administers."""

    code = "NOT_YOUR_DIVISION"
    fault = Fault.CALLER
    default_hint = (
        "Ask an administrator of that division, or of one above it; `fenhe role list` shows who"
        " administers what."
    )


class RoleLackedError(PeopleError):
    """Who lacks a role there cannot give it, nor set the password of somebody who has it."""

    code = "ROLE_LACKED"
    fault = Fault.CALLER
    default_hint = "Ask an administrator who holds that role there, or the node's operator."


class PeopleEndedError(PeopleError):
    """An organization that is closed, or staff who work here no more, are given nothing new."""

    code = "PEOPLE_ENDED"
    fault = Fault.CALLER
    default_hint = "Add it anew: what has ended is kept as it was and does not begin again."


class AccountExistsError(PeopleError):
    """The name, or the issuer's subject, is another account's at this node."""

    code = "ACCOUNT_EXISTS"
    fault = Fault.CALLER
    default_hint = "Choose another name; `fenhe account list` shows those that are taken."


class PasswordWeakError(PeopleError):
    """The new password is too short, too plain, or holds the account's name."""

    code = "PASSWORD_WEAK"
    fault = Fault.CALLER
    default_hint = (
        "Take 12 to 128 characters, at least six of them different, without the account's name;"
        " four words that do not belong together are easy to keep."
    )


class TotpRefusedError(PeopleError):
    """The code does not confirm the second factor, or there is none to confirm."""

    code = "TOTP_REFUSED"
    fault = Fault.CALLER
    default_hint = (
        "Compare the clocks of the telephone and of the node, and give the code that the telephone"
        " shows now; each code counts once."
    )


class SignInError(PeopleError):
    """Base of what keeps somebody from signing in."""

    code = "SIGN_IN_ERROR"


class SignInRefusedError(SignInError):
    """Name, password or second factor is wrong, or the account is locked, disabled or none."""

    code = "SIGN_IN_REFUSED"
    fault = Fault.CALLER
    default_hint = (
        "Try again with care: after five errors an account is locked, each time for longer. If it"
        " has a second factor, sign in with `--totp`. An administrator sees with"
        " `fenhe account list` what is the matter."
    )


class SignInBusyError(SignInError):
    """Too many sign in at once."""

    code = "SIGN_IN_BUSY"
    fault = Fault.CALLER
    retryable = True
    default_hint = "Try again in half a minute; nothing was counted."


class PasswordMustChangeError(SignInError):
    """All of it is right, and the password was set by somebody else: take one of your own."""

    code = "PASSWORD_MUST_CHANGE"
    fault = Fault.CALLER
    default_hint = "Sign in again with a new password: `fenhe session sign-in NAME --new-password`."


class OrganizationNeededError(SignInError):
    """All of it is right, and he works for several organizations: for which now?"""

    code = "ORGANIZATION_NEEDED"
    fault = Fault.CALLER
    default_hint = "Sign in again and name the organization with --organization."


class NoRoleTodayError(SignInError):
    """All of it is right, and he has no role here today."""

    code = "NO_ROLE_TODAY"
    fault = Fault.CALLER
    default_hint = "Ask an administrator for a role: `fenhe role give`."


class SessionError(PeopleError):
    """Base of what is wrong with a session."""

    code = "SESSION_ERROR"


class SessionEndedError(SessionError):
    """The token is none of this node's, has run out, or its session is over."""

    code = "SESSION_ENDED"
    fault = Fault.CALLER
    default_hint = (
        "Sign in again: `fenhe session sign-in NAME`. A session ends after 15 minutes without"
        " use, after 12 hours, and with the account, the role or the workstation's certificate."
    )


class SessionNeededError(SessionError):
    """Only somebody who has signed in may do this; a certificate alone is not enough."""

    code = "SESSION_NEEDED"
    fault = Fault.CALLER
    default_hint = "Sign in first: `fenhe session sign-in NAME`."


class OidcError(PeopleError):
    """Base of the faults of signing in with another issuer's token."""

    code = "OIDC_ERROR"


class OidcMissingError(OidcError):
    """node.yaml names an issuer of tokens, and pyjwt is not installed."""

    code = "OIDC_MISSING"
    fault = Fault.OPERATOR
    default_hint = "Install it: pip install 'fenhe[oidc]'; or take oidc_issuer out of node.yaml."


class OidcOffError(OidcError):
    """A token was shown to a node that trusts no issuer."""

    code = "OIDC_OFF"
    fault = Fault.OPERATOR
    default_hint = "Set oidc_issuer, oidc_audience and oidc_jwks in node.yaml, or sign in by name."


class OidcKeysError(OidcError):
    """The issuer's keys cannot be read now."""

    code = "OIDC_KEYS"
    fault = Fault.PEER
    retryable = True
    default_hint = "See that oidc_jwks in node.yaml is right and can be reached from this machine."
