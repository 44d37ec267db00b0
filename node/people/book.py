"""Reads who works here from the replicated tables, and says what of it counts today.

A row counts where it was admitted (node/storage/apply.py); an assignment counts at the home of its
staff alone, for a division in that home's subtree, while it, its staff and its organization stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, select

from hierarchy_config.model import NodeId
from node.clock import today
from node.people.model import (
    Assignment,
    Department,
    Organization,
    Qualification,
    StaffMember,
)
from node.security.roles import Role
from node.storage.context import StoreContext
from node.storage.rows import chunks
from node.storage.shapes import is_row_id
from node.storage.stored import change_or_aside
from node.storage.tables import REPLICATED
from replication.core.model import Form, RowChange

__all__ = ["ASSIGNMENTS", "DEPARTMENTS", "ENDINGS", "HeldRole", "PeopleBook", "text_of"]

ORGANIZATIONS: Final = REPLICATED["organizations"]
DEPARTMENTS: Final = REPLICATED["departments"]
STAFF: Final = REPLICATED["staff"]
QUALIFICATIONS: Final = REPLICATED["qualifications"]
ASSIGNMENTS: Final = REPLICATED["assignments"]
ENDINGS: Final = REPLICATED["endings"]


@dataclass(frozen=True, slots=True)
class HeldRole:
    """A role that somebody has today: for which organization, over which division's subtree."""

    role: Role
    division: NodeId
    organization_id: str


def text_of(change: RowChange, column: str) -> str:
    """A text cell; empty where there is none."""
    value = change.values.get(column)
    return value if isinstance(value, str) else ""


class PeopleBook:
    """Reads in the transaction that it is given."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store

    @property
    def day(self) -> str:
        """Today, as dates are compared."""
        return today(self._store.clock).isoformat()

    def find(
        self,
        connection: Connection,
        table: Any,
        *where: ColumnElement[bool],
        after: str = "",
        limit: int | None = None,
    ) -> list[RowChange]:
        """Current rows of a table in the order of their ids, clear; those that open."""
        query = (
            select(table)
            .where(
                table.c.deleted.is_(False),
                table.c.form == Form.FULL.value,
                table.c.row_id > after,
                *where,
            )
            .order_by(table.c.row_id)
            .limit(limit)
        )
        rows = connection.execute(query).mappings().all()
        found = (change_or_aside(self._store, table.name, row) for row in rows)
        return [change for change in found if change is not None]

    def one(self, connection: Connection, table: Any, row_id: str) -> RowChange | None:
        """The row of an id."""
        if not is_row_id(row_id):
            return None
        return next(iter(self.find(connection, table, table.c.row_id == row_id)), None)

    def ended(self, connection: Connection, changes: Iterable[RowChange]) -> frozenset[str]:
        """Ids of those that are over today."""
        homes = {change.row_id: (change.table, change.home_node) for change in changes}
        over = set()
        for some in chunks(sorted(homes)):
            for row in self.find(connection, ENDINGS, ENDINGS.c.ended_id.in_(some)):
                ended_id, day = text_of(row, "ended_id"), text_of(row, "ended_on")
                is_of = homes.get(ended_id) == (text_of(row, "ended_table"), row.home_node)
                if is_of and (not day or day <= self.day):
                    over.add(ended_id)
        return frozenset(over)

    def roles(self, connection: Connection, staff_id: str) -> tuple[HeldRole, ...]:
        """What somebody may be today at this node; nothing if he does not work here."""
        here = self._store.node_id
        member = self.one(connection, STAFF, staff_id)
        if member is None or member.home_node != here:
            return ()
        given = self.find(connection, ASSIGNMENTS, ASSIGNMENTS.c.staff_id == staff_id)
        given = [each for each in given if each.home_node == here]
        named = sorted({each.resident_id for each in given})
        organizations = self.find(connection, ORGANIZATIONS, ORGANIZATIONS.c.row_id.in_(named))
        over = self.ended(connection, [member, *given, *organizations])
        if staff_id in over:
            return ()
        standing = {each.row_id for each in organizations} - over
        held = (self._held(each) for each in given if each.row_id not in over)
        return tuple(each for each in held if each and each.organization_id in standing)

    def _held(self, change: RowChange) -> HeldRole | None:
        """The role of an assignment by its own dates; None: it is of no use today."""
        division = self.division(change)
        role = text_of(change, "role")
        first, last = text_of(change, "from_on"), text_of(change, "until_on")
        is_now = first <= self.day and (not last or self.day <= last)
        if not is_now or role not in set(Role) or division is None:
            return None
        return HeldRole(Role(role), division, change.resident_id)

    def division(self, change: RowChange) -> NodeId | None:
        """The division of an assignment today; None: it is not below the home of its staff."""
        hierarchy = self._store.hierarchy
        said = NodeId(text_of(change, "division"))
        division = said if said in hierarchy else hierarchy.successor(said)
        home = NodeId(change.home_node)
        if division is None or home not in hierarchy or division not in hierarchy.subtree(home):
            return None
        return division

    def organizations(
        self, connection: Connection, changes: Sequence[RowChange]
    ) -> list[Organization]:
        """Organizations as they are shown."""
        over = self.ended(connection, changes)
        return [
            Organization(
                each.row_id,
                NodeId(each.home_node),
                text_of(each, "name"),
                text_of(each, "kind"),
                text_of(each, "parent_id"),
                each.row_id in over,
            )
            for each in changes
        ]

    def departments(self, connection: Connection, organization_id: str) -> list[Department]:
        """Departments of an organization."""
        of_it = DEPARTMENTS.c.resident_id == organization_id
        changes = self.find(connection, DEPARTMENTS, of_it)
        over = self.ended(connection, changes)
        return [
            Department(each.row_id, each.resident_id, text_of(each, "name"), each.row_id in over)
            for each in changes
        ]

    def staff(self, connection: Connection, changes: Sequence[RowChange]) -> list[StaffMember]:
        """Staff as they are shown."""
        over = self.ended(connection, changes)
        return [
            StaffMember(
                each.row_id,
                each.resident_id,
                NodeId(each.home_node),
                text_of(each, "name"),
                text_of(each, "phone"),
                text_of(each, "title"),
                each.row_id in over,
            )
            for each in changes
        ]

    def qualifications(self, connection: Connection, staff_id: str) -> list[Qualification]:
        """Qualifications of somebody, those that have run out too."""
        of_him = QUALIFICATIONS.c.staff_id == staff_id
        return [
            Qualification(
                each.row_id,
                staff_id,
                text_of(each, "kind"),
                text_of(each, "number"),
                text_of(each, "issued_on"),
                text_of(each, "expires_on"),
            )
            for each in self.find(connection, QUALIFICATIONS, of_him)
        ]

    def assignments(self, connection: Connection, changes: Sequence[RowChange]) -> list[Assignment]:
        """Assignments as they are shown; whether staff and organization stand is not asked here."""
        over = self.ended(connection, changes)
        return [
            Assignment(
                each.row_id,
                text_of(each, "staff_id"),
                each.resident_id,
                text_of(each, "department_id"),
                text_of(each, "role"),
                NodeId(text_of(each, "division")),
                text_of(each, "from_on"),
                text_of(each, "until_on"),
                each.row_id not in over and self._held(each) is not None,
            )
            for each in changes
        ]
