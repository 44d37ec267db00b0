"""Organizations, departments, staff, qualifications and roles: adding, ending, listing. Blocks.

Nothing is amended: what is over gets an ending beside it, written by whoever manages it, so that
two nodes that edit at once never contend for a row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection

from hierarchy_config.model import NodeId
from node.clock import Ids
from node.errors import InvalidRequestError, NotFoundError
from node.people.book import (
    ASSIGNMENTS,
    DEPARTMENTS,
    ENDINGS,
    ORGANIZATIONS,
    QUALIFICATIONS,
    STAFF,
    PeopleBook,
)
from node.people.deeds import Deeds, Done, Wish
from node.people.errors import NotYourDivisionError, PeopleEndedError
from node.people.model import (
    ORGANIZATION_KINDS,
    Assignment,
    Department,
    NewAssignment,
    NewOrganization,
    NewQualification,
    NewStaff,
    Organization,
    Qualification,
    StaffMember,
    read_day,
    read_kind,
    read_text,
)
from node.people.powers import Powers, powers_of, refuse_stranger
from node.security.caller import Caller
from node.storage.audit import Action
from node.storage.context import StoreContext
from node.storage.shapes import is_row_id
from replication.core.model import RowChange

__all__ = ["Registry", "StaffRecord"]

T = TypeVar("T")

_NAME: Final = 200
_ENDS: Final = {table.name: table for table in (ORGANIZATIONS, DEPARTMENTS, STAFF, ASSIGNMENTS)}


@dataclass(frozen=True, slots=True)
class StaffRecord:
    """Somebody with what belongs to him."""

    member: StaffMember
    qualifications: tuple[Qualification, ...]
    assignments: tuple[Assignment, ...]


class Registry:
    """Every change is audited with its asker, and so is what was refused to him."""

    def __init__(self, store: StoreContext, book: PeopleBook, deeds: Deeds) -> None:
        self._store = store
        self._book = book
        self._deeds = deeds
        self._ids: Ids = store.ids

    # -- adding ------------------------------------------------------------------------------------

    def add_organization(self, caller: Caller, new: NewOrganization, request_id: str) -> Done:
        """Add an organization to a division. Its parent stands in the division or above it.

        Raises:
            NotYourDivisionError: The asker does not manage the division.
            NotFoundError: The parent is not here.
        """
        name = read_text("name", new.name, _NAME, required=True)
        if new.kind not in ORGANIZATION_KINDS:
            raise InvalidRequestError(f"kind: one of {', '.join(ORGANIZATION_KINDS)}")
        wish = Wish(
            caller,
            Action.ADD,
            ORGANIZATIONS.name,
            request_id,
            (new.division, name, new.kind, new.parent_id),
        )
        row_id = self._ids.mint()

        def work(connection: Connection) -> Done:
            self._powers(connection, caller).refuse_beyond(new.division)
            if new.parent_id:
                above = self._standing(connection, ORGANIZATIONS, new.parent_id)
                path = self._store.hierarchy.path_to_root(new.division)
                if above.home_node not in path:
                    raise InvalidRequestError(
                        "parent_id: an organization of the division itself, or of one above it"
                    )
            values = {"kind": new.kind, "name": name, "parent_id": new.parent_id}
            return Done(row_id, [self._row(ORGANIZATIONS, row_id, new.division, values, row_id)])

        return self._deeds.carry_out(wish, work)

    def add_department(
        self, caller: Caller, organization_id: str, name: str, request_id: str
    ) -> Done:
        """Add a department to an organization."""
        name = read_text("name", name, _NAME, required=True)
        wish = Wish(caller, Action.ADD, DEPARTMENTS.name, request_id, (organization_id, name))
        row_id = self._ids.mint()

        def work(connection: Connection) -> Done:
            above = self._managed(connection, caller, ORGANIZATIONS, organization_id)
            made = self._row(DEPARTMENTS, above.row_id, above.home_node, {"name": name}, row_id)
            return Done(row_id, [made])

        return self._deeds.carry_out(wish, work)

    def add_staff(self, caller: Caller, new: NewStaff, request_id: str) -> Done:
        """Add somebody who works for an organization, at its division."""
        values = {
            "name": read_text("name", new.name, _NAME, required=True),
            "phone": read_text("phone", new.phone, 64),
            "title": read_text("title", new.title, 100),
        }
        # Not his phone: what an idempotency key is compared by stays, and says who has which.
        wish = Wish(
            caller,
            Action.ADD,
            STAFF.name,
            request_id,
            (new.organization_id, values["name"], values["title"]),
        )
        row_id = self._ids.mint()

        def work(connection: Connection) -> Done:
            above = self._managed(connection, caller, ORGANIZATIONS, new.organization_id)
            return Done(row_id, [self._row(STAFF, above.row_id, above.home_node, values, row_id)])

        return self._deeds.carry_out(wish, work)

    def add_qualification(self, caller: Caller, new: NewQualification, request_id: str) -> Done:
        """Add what somebody may do by law."""
        values = {
            "staff_id": new.staff_id,
            "kind": read_kind(new.kind),
            "number": read_text("number", new.number, 100),
            "issued_on": read_day("issued_on", new.issued_on),
            "expires_on": read_day("expires_on", new.expires_on),
        }
        wish = Wish(
            caller,
            Action.ADD,
            QUALIFICATIONS.name,
            request_id,
            (new.staff_id, values["kind"], values["issued_on"], values["expires_on"]),
        )
        row_id = self._ids.mint()

        def work(connection: Connection) -> Done:
            who = self._managed(connection, caller, STAFF, new.staff_id)
            made = self._row(QUALIFICATIONS, who.resident_id, who.home_node, values, row_id)
            return Done(row_id, [made])

        return self._deeds.carry_out(wish, work)

    def give_role(self, caller: Caller, new: NewAssignment, request_id: str) -> Done:
        """Give somebody a role, over the division of his organization or one below it.

        Raises:
            NotYourDivisionError: The asker does not manage where he works, or the division.
            RoleLackedError: The asker lacks the role there himself.
        """
        days = read_day("from_on", new.from_on), read_day("until_on", new.until_on)
        if days[1] and days[0] > days[1]:
            raise InvalidRequestError("until_on: not before from_on")
        wish = Wish(
            caller,
            Action.GIVE,
            ASSIGNMENTS.name,
            request_id,
            (
                new.staff_id,
                new.role,
                new.organization_id,
                new.department_id,
                new.division,
                *days,
            ),
        )
        row_id = self._ids.mint()

        def work(connection: Connection) -> Done:
            powers = self._powers(connection, caller)
            who = self._managed(connection, caller, STAFF, new.staff_id)
            home = NodeId(who.home_node)
            wanted = new.organization_id or who.resident_id
            organization = self._standing(connection, ORGANIZATIONS, wanted)
            division = NodeId(new.division or organization.home_node)
            self._refuse_above(home, division, NodeId(organization.home_node))
            powers.refuse_beyond(division)
            powers.refuse_lacking([(new.role, division)])
            self._refuse_foreign(connection, new.department_id, organization)
            values = {
                "staff_id": who.row_id,
                "department_id": new.department_id,
                "role": new.role.value,
                "division": division,
                "from_on": days[0],
                "until_on": days[1],
            }
            made = self._row(ASSIGNMENTS, organization.row_id, home, values, row_id)
            return Done(row_id, [made])

        return self._deeds.carry_out(wish, work)

    # -- ending ------------------------------------------------------------------------------------

    def end(self, caller: Caller, table: str, row_id: str, on: str, request_id: str) -> Done:
        """End an organization, a department, somebody's work or his role; on a day, or now.

        What is over already stays so: twice is as good as once.
        """
        day = read_day("ended_on", on)
        action = Action.TAKE if table == ASSIGNMENTS.name else Action.END
        wish = Wish(caller, action, table, request_id, (row_id, day))
        ending_id = self._ids.mint()

        def work(connection: Connection) -> Done:
            change = self._seen(connection, caller, _ENDS[table], row_id)
            powers = self._powers(connection, caller)
            powers.refuse_beyond(NodeId(change.home_node))
            if self._book.ended(connection, [change]):
                return Done(row_id, count=0)
            values = {"ended_table": table, "ended_id": row_id, "ended_on": day}
            made = self._row(ENDINGS, change.resident_id, change.home_node, values, ending_id)
            return Done(row_id, [made])

        return self._deeds.carry_out(wish, work)

    # -- listing -----------------------------------------------------------------------------------

    def organizations(
        self, caller: Caller, after: str, limit: int, division: str = ""
    ) -> list[Organization]:
        """Organizations that the asker may see, of one division or of all, by id."""

        def work(connection: Connection) -> list[Organization]:
            found = self._page(connection, caller, ORGANIZATIONS, (after, limit), division)
            return self._book.organizations(connection, found)

        return self._listed(caller, ORGANIZATIONS, work)

    def organization(
        self, caller: Caller, organization_id: str
    ) -> tuple[Organization, list[Department]]:
        """One organization with its departments. Raises NotFoundError."""

        def work(connection: Connection) -> list[tuple[Organization, list[Department]]]:
            found = self._seen(connection, caller, ORGANIZATIONS, organization_id)
            (shown,) = self._book.organizations(connection, [found])
            return [(shown, self._book.departments(connection, organization_id))]

        return self._listed(caller, ORGANIZATIONS, work)[0]

    def staff(
        self, caller: Caller, after: str, limit: int, organization_id: str = ""
    ) -> list[StaffMember]:
        """Staff that the asker may see, of one organization or of all, by id."""
        of = _only(STAFF.c.resident_id, organization_id)

        def work(connection: Connection) -> list[StaffMember]:
            found = self._page(connection, caller, STAFF, (after, limit), "", *of)
            return self._book.staff(connection, found)

        return self._listed(caller, STAFF, work)

    def staff_record(self, caller: Caller, staff_id: str) -> StaffRecord:
        """One of the staff with qualifications and roles. Raises NotFoundError."""

        def work(connection: Connection) -> list[StaffRecord]:
            found = self._seen(connection, caller, STAFF, staff_id)
            (member,) = self._book.staff(connection, [found])
            given = self._book.find(connection, ASSIGNMENTS, ASSIGNMENTS.c.staff_id == staff_id)
            return [
                StaffRecord(
                    member,
                    tuple(self._book.qualifications(connection, staff_id)),
                    tuple(self._book.assignments(connection, given)),
                )
            ]

        return self._listed(caller, STAFF, work)[0]

    def assignments(
        self, caller: Caller, after: str, limit: int, staff_id: str = ""
    ) -> list[Assignment]:
        """Roles that were given, of one of the staff or of all, by id."""
        of = _only(ASSIGNMENTS.c.staff_id, staff_id)

        def work(connection: Connection) -> list[Assignment]:
            found = self._page(connection, caller, ASSIGNMENTS, (after, limit), "", *of)
            return self._book.assignments(connection, found)

        return self._listed(caller, ASSIGNMENTS, work)

    # -- odds and ends -----------------------------------------------------------------------------

    def _listed(self, caller: Caller, table: Any, work: Callable[[Connection], list[T]]) -> list[T]:
        refuse_stranger(caller)
        return self._deeds.read(caller, table.name, work)

    def _page(
        self,
        connection: Connection,
        caller: Caller,
        table: Any,
        place: tuple[str, int],
        division: str,
        *where: ColumnElement[bool],
    ) -> list[RowChange]:
        if place[0] and not is_row_id(place[0]):
            raise InvalidRequestError("after: an id of the page before")
        homes: Collection[str] = caller.scope
        if division:
            homes = caller.scope & self._store.hierarchy.subtree(NodeId(division))
        return self._book.find(
            connection,
            table,
            table.c.home_node.in_(sorted(homes)),
            *where,
            after=place[0],
            limit=place[1],
        )

    def _seen(self, connection: Connection, caller: Caller, table: Any, row_id: str) -> RowChange:
        """A row that the asker may see. Raises NotFoundError: for him there is none."""
        found = self._book.one(connection, table, row_id)
        if found is None or found.home_node not in caller.scope:
            raise NotFoundError(f"no such row of {table.name} here, or not for you")
        return found

    def _standing(self, connection: Connection, table: Any, row_id: str) -> RowChange:
        """A row that is not over. Raises NotFoundError, PeopleEndedError."""
        found = self._book.one(connection, table, row_id)
        if found is None:
            raise NotFoundError(f"no such row of {table.name} here, or not for you")
        if self._book.ended(connection, [found]):
            raise PeopleEndedError(f"that row of {table.name} is over")
        return found

    def _managed(
        self, connection: Connection, caller: Caller, table: Any, row_id: str
    ) -> RowChange:
        """A standing row that the asker may see and manages."""
        self._seen(connection, caller, table, row_id)
        found = self._standing(connection, table, row_id)
        self._powers(connection, caller).refuse_beyond(NodeId(found.home_node))
        return found

    def _powers(self, connection: Connection, caller: Caller) -> Powers:
        return powers_of(connection, self._book, self._store.hierarchy, caller)

    def _refuse_above(self, home: NodeId, division: NodeId, at: NodeId) -> None:
        """A role is for the home of its staff or below, and so is the organization it is at."""
        below = self._store.hierarchy.subtree(home)
        if division not in below or at not in below:
            raise NotYourDivisionError(
                f"who works at {home} is given roles there and below it",
                hint="Add him to an organization of the other division, as staff of that too.",
            )

    def _refuse_foreign(
        self, connection: Connection, department_id: str, organization: RowChange
    ) -> None:
        if not department_id:
            return
        found = self._standing(connection, DEPARTMENTS, department_id)
        if found.resident_id != organization.row_id:
            raise InvalidRequestError("department_id: a department of the organization")

    def _row(
        self, table: Any, organization_id: str, home: str, values: dict[str, str], row_id: str
    ) -> RowChange:
        return self._deeds.new_row(table.name, organization_id, home, values, row_id)


def _only(column: Any, row_id: str) -> tuple[ColumnElement[bool], ...]:
    """The condition that names one id; none if none was named."""
    if not row_id:
        return ()
    if not is_row_id(row_id):
        raise InvalidRequestError("an id is 36 characters, as it was given here")
    return (column == row_id,)
