"""Who works here, as frozen data. Dates are ISO, times milliseconds since 1970 UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from hierarchy_config.model import NodeId
from node.errors import InvalidRequestError
from node.security.roles import Role

__all__ = [
    "ORGANIZATION_KINDS",
    "Account",
    "Assignment",
    "Department",
    "NewAccount",
    "NewAssignment",
    "NewOrganization",
    "NewQualification",
    "NewStaff",
    "Organization",
    "Qualification",
    "SessionSeen",
    "SignedIn",
    "StaffMember",
    "read_day",
    "read_role",
    "read_text",
]

ORGANIZATION_KINDS: Final = ("hospital", "centre", "clinic", "bureau", "other")
_KIND: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class NewOrganization:
    """An organization to be added. `parent_id`: the one above it, or empty."""

    division: NodeId
    name: str
    kind: str
    parent_id: str = ""


@dataclass(frozen=True, slots=True)
class Organization:
    """A hospital, a centre, a clinic. `ended_on`: "" while it is open; "now" once closed."""

    organization_id: str
    division: NodeId
    name: str
    kind: str
    parent_id: str
    ended: bool


@dataclass(frozen=True, slots=True)
class Department:
    """A part of an organization."""

    department_id: str
    organization_id: str
    name: str
    ended: bool


@dataclass(frozen=True, slots=True)
class NewStaff:
    """Somebody who begins to work for an organization."""

    organization_id: str
    name: str = field(repr=False)
    phone: str = field(default="", repr=False)
    title: str = ""


@dataclass(frozen=True, slots=True)
class StaffMember:
    """Somebody who works for an organization. His name is empty if it does not open here."""

    staff_id: str
    organization_id: str
    home: NodeId
    name: str = field(repr=False)
    phone: str = field(repr=False)
    title: str
    ended: bool


@dataclass(frozen=True, slots=True)
class NewQualification:
    """What somebody may do by law: a licence, a certificate."""

    staff_id: str
    kind: str
    number: str = field(default="", repr=False)
    issued_on: str = ""
    expires_on: str = ""


@dataclass(frozen=True, slots=True)
class Qualification:
    """One qualification."""

    qualification_id: str
    staff_id: str
    kind: str
    number: str = field(repr=False)
    issued_on: str
    expires_on: str


@dataclass(frozen=True, slots=True)
class NewAssignment:
    """A role to be given. Empty: his own organization and its division, from now, without end."""

    staff_id: str
    role: Role
    organization_id: str = ""
    department_id: str = ""
    division: str = ""
    from_on: str = ""
    until_on: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A role of somebody at an organization, for the residents of a division's subtree.

    `today`: it counts today. A role that the program does not know counts never.
    """

    assignment_id: str
    staff_id: str
    organization_id: str
    department_id: str
    role: str
    division: NodeId
    from_on: str
    until_on: str
    today: bool


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be added. Without a password only the issuer's token opens it."""

    name: str
    staff_id: str
    password: str = field(default="", repr=False)
    oidc_subject: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """An account as administrators see it."""

    account_id: str
    name: str
    staff_id: str
    created_ms: int
    disabled: bool
    locked_until_ms: int
    failures: int
    must_change: bool
    has_password: bool
    has_totp: bool
    oidc_subject: str


@dataclass(frozen=True, slots=True)
class SessionSeen:
    """A session as it is listed. `state`: "open", or why it is over."""

    session_id: str
    account: str
    staff_id: str
    organization_id: str
    channel: str
    created_ms: int
    renew_until_ms: int
    state: str


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session that was begun or renewed."""

    token: str = field(repr=False)
    token_ends_ms: int
    session_id: str
    renew_until_ms: int
    staff_id: str
    organization_id: str
    roles: tuple[str, ...]


def read_role(text: str) -> Role:
    """A role by its name. Raises InvalidRequestError: there is none of that name."""
    try:
        return Role(text)
    except ValueError:
        raise InvalidRequestError(f"role: one of {', '.join(Role)}") from None


def read_day(name: str, text: str) -> str:
    """An ISO date, or empty. Raises InvalidRequestError: it is neither."""
    if not text:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise InvalidRequestError(f"{name}: a date as 2026-03-01") from None


def read_text(name: str, text: str, limit: int, *, required: bool = False) -> str:
    """One line of text. Raises InvalidRequestError: it is missing, too long, or not printable."""
    clean = text.strip()
    if required and not clean:
        raise InvalidRequestError(f"{name}: is missing")
    if len(clean) > limit or not clean.isprintable():
        raise InvalidRequestError(f"{name}: at most {limit} printable characters")
    return clean


def read_kind(text: str) -> str:
    """The kind of a qualification. Raises InvalidRequestError: it is not a word."""
    if not _KIND.fullmatch(text):
        raise InvalidRequestError("kind: a word of small letters, such as physician-licence")
    return text
