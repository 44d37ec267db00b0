"""Canaries: residents of no person, whose presence where they must not be shows a leak.

A canary's id is a UUID of version 8 (RFC 9562) that names its home:

    ca9a27ee-ca9a-8141-8002-001201xxxxxx        home 141002001201, six random digits
    ca9a27ee-ca9a-8141-8002-ffffffxxxxxx        home 141002

So every node tells a canary without opening a cell or knowing a secret, and leaves it out of what
people see. People's ids are minted as version 7; a bundle that names an id of this kind is refused.
MARK stands in every sealed cell of a canary: found in clear anywhere, something was not sealed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    # Whoever only tells ids apart, such as a command, does not wait for the database's library.
    from sqlalchemy import ColumnElement, Table

__all__ = [
    "BEYOND",
    "MARK",
    "START",
    "are_canaries",
    "are_people",
    "canary_home",
    "is_canary",
    "mint_canary",
]

MARK: Final = "fenhe-canary-not-a-person"

START: Final = "ca9a27ee-ca9a-8"
BEYOND: Final = "ca9a27ee-ca9a-9"
"""Ids of canaries begin with the first, and are less than the second."""

_ID: Final = re.compile(
    r"ca9a27ee-ca9a-8([0-9f]{3})-8([0-9f]{3})-([0-9f]{6})[0-9a-f]{6}",
)
_HOME: Final = re.compile(r"([0-9]{4,12})f*")
_HOME_DIGITS: Final = 12


def mint_canary(home: str, random_bytes: bytes) -> str:
    """The id of a canary of a home; the first three of the bytes tell it from another."""
    code = home.ljust(_HOME_DIGITS, "f")
    return f"{START}{code[:3]}-8{code[3:6]}-{code[6:12]}{random_bytes[:3].hex()}"


def is_canary(resident_id: str) -> bool:
    """Whether an id is a canary's."""
    return resident_id.startswith(START)


def canary_home(resident_id: str) -> str | None:
    """The home that a canary's id names; None: it is none, or names nothing."""
    found = _ID.fullmatch(resident_id)
    home = _HOME.fullmatch("".join(found.groups())) if found else None
    return home[1] if home else None


def are_canaries(table: Table) -> ColumnElement[bool]:
    """The condition on rows of canaries; by the index of resident_id."""
    column = table.c.resident_id
    return (column >= START) & (column < BEYOND)


def are_people(table: Table) -> ColumnElement[bool]:
    """The condition on rows of everybody else."""
    column = table.c.resident_id
    return (column < START) | (column >= BEYOND)
