"""The words in which consents and grants name decisions, recipients and grantees."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from hierarchy_config.model import NodeId
from node.security.caller import Caller

__all__ = [
    "BREAK_GLASS",
    "DENY",
    "EVERYONE",
    "PERMIT",
    "Finding",
    "GrantKind",
    "RelationKind",
    "division",
    "grantees_of",
    "organization",
    "recipients_for",
    "recipients_of",
    "staff",
]

PERMIT: Final = "permit"
"""Kept as the proof that he was asked; it opens nothing by itself, and no deny yields to it."""
DENY: Final = "deny"
EVERYONE: Final = "everyone"


class RelationKind(StrEnum):
    """Why an organization cares for somebody."""

    CONTRACT = "contract"
    """He signed with its family doctors."""
    ENCOUNTER = "encounter"
    """He was registered there."""


class GrantKind(StrEnum):
    """Why access was granted."""

    CONSULTATION = "consultation"
    BREAK_GLASS = "break_glass"


class Finding(StrEnum):
    """What a review found."""

    JUSTIFIED = "justified"
    UNJUSTIFIED = "unjustified"


BREAK_GLASS: Final = GrantKind.BREAK_GLASS.value


def organization(organization_id: str) -> str:
    """An organization, as a recipient and as a grantee."""
    return f"organization:{organization_id}"


def division(node_id: str) -> str:
    """Whoever acts for a node of this division or below."""
    return f"division:{node_id}"


def staff(staff_id: str) -> str:
    """One member of staff, as a grantee."""
    return f"staff:{staff_id}"


def recipients_of(caller: Caller, path: Iterable[NodeId]) -> list[str]:
    """All that a consent may call the caller; `path`: his node and all above it."""
    return recipients_for(caller.organization_id, path)


def recipients_for(organization_id: str, path: Iterable[NodeId]) -> list[str]:
    """All that a consent may call whoever acts for an organization (empty: none) at a node."""
    named = [organization(organization_id)] if organization_id else []
    return [EVERYONE, *named, *map(division, path)]


def grantees_of(caller: Caller) -> list[str]:
    """All that a grant may call a member of staff; nothing for one who is nobody's."""
    named = [staff(caller.staff_id)] if caller.staff_id else []
    if caller.organization_id:
        named.append(organization(caller.organization_id))
    return named
