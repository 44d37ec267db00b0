"""What an asker may manage: the subtree of the divisions he administers, and the roles he holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.errors import DeniedError
from node.people.book import HeldRole, PeopleBook
from node.people.errors import NotYourDivisionError, RoleLackedError
from node.security.caller import Caller, CallerKind
from node.security.roles import Role

__all__ = ["Powers", "powers_of", "refuse_stranger"]


@dataclass(frozen=True, slots=True)
class Powers:
    """Of one asker, today. The node's operator holds every role over the node's subtree."""

    hierarchy: Hierarchy
    held: tuple[HeldRole, ...]

    def manages(self, division: NodeId) -> bool:
        """Whether the division lies in the subtree of one that he administers."""
        return self.holds(Role.ADMINISTRATOR, division)

    def holds(self, role: Role, division: NodeId) -> bool:
        """Whether he has the role over the division."""
        return any(
            each.role is role and division in self.hierarchy.subtree(each.division)
            for each in self.held
        )

    def refuse_beyond(self, division: NodeId) -> None:
        """Raise NotYourDivisionError unless he manages the division."""
        if not self.manages(division):
            raise NotYourDivisionError(f"division {division} is not yours to manage")

    def refuse_lacking(self, roles: Iterable[tuple[Role, NodeId]]) -> None:
        """Raise RoleLackedError unless he has every one of these roles himself, over as much."""
        for role, division in roles:
            if not self.holds(role, division):
                raise RoleLackedError(f"you are not {role} over {division} yourself")


def powers_of(
    connection: Connection, book: PeopleBook, hierarchy: Hierarchy, caller: Caller
) -> Powers:
    """An asker's powers, by the assignments of the organization he has signed in for."""
    if caller.kind is CallerKind.OPERATOR:
        every = (HeldRole(role, caller.node_id, "") for role in Role)
        return Powers(hierarchy, tuple(every))
    if caller.kind is not CallerKind.STAFF or not caller.staff_id:
        return Powers(hierarchy, ())
    held = book.roles(connection, caller.staff_id)
    mine = (each for each in held if each.organization_id == caller.organization_id)
    return Powers(hierarchy, tuple(mine))


def refuse_stranger(caller: Caller) -> None:
    """Refuse who has neither signed in nor is the node's operator.

    Raises:
        DeniedError: He is a certificate alone.
    """
    if caller.kind is not CallerKind.OPERATOR and not caller.roles:
        raise DeniedError(
            "who works here is shown to those who work here",
            hint="Sign in first: `fenhe session sign-in NAME`.",
        )
