"""OrganizationService and StaffService: who works here, and what they may."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, TypeVar

import grpc

import protos.fenhe.control.v1.people_pb2 as pb
from hierarchy_config.model import NodeId
from node.people.deeds import Done
from node.people.model import (
    Assignment,
    Department,
    NewAssignment,
    NewOrganization,
    NewQualification,
    NewStaff,
    Organization,
    StaffMember,
    read_role,
)
from node.people.registry import Registry
from node.people.room import PeopleRoom
from node.security.caller import Caller, CallerKind
from node.security.roles import Role
from node.services.interceptor import current_call
from protos.fenhe.control.v1 import people_pb2_grpc

__all__ = ["OrganizationServicer", "StaffServicer", "added_out", "ended_out", "page_of", "paged"]

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

_PAGE: Final = 50
_PAGE_MAX: Final = 200


class OrganizationServicer(people_pb2_grpc.OrganizationServiceServicer):
    """fenhe.control.v1.OrganizationService."""

    def __init__(self, room: PeopleRoom) -> None:
        self._room = room
        self._registry: Registry = room.parts.registry

    async def AddOrganization(
        self, request: pb.AddOrganizationRequest, context: Context
    ) -> pb.Added:
        """Add one to a division."""
        new = NewOrganization(
            NodeId(request.division), request.name, request.kind, request.parent_id
        )
        work = partial(self._registry.add_organization, _caller(), new, request.request_id)
        return added_out(await self._room.change(work))

    async def GetOrganization(
        self, request: pb.GetOrganizationRequest, context: Context
    ) -> pb.OrganizationRecord:
        """One with its departments."""
        found, departments = await self._room.run(
            partial(self._registry.organization, _caller(), request.organization_id)
        )
        return pb.OrganizationRecord(
            organization=_organization_out(found), departments=map(_department_out, departments)
        )

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: Context
    ) -> pb.ListOrganizationsResponse:
        """A page of them."""
        size = page_of(request.page_size)
        work = partial(
            self._registry.organizations, _caller(), request.after, size + 1, request.division
        )
        shown, more = paged(await self._room.run(work), size)
        return pb.ListOrganizationsResponse(
            organizations=map(_organization_out, shown),
            next_after=shown[-1].organization_id if more else "",
        )

    async def CloseOrganization(self, request: pb.EndRequest, context: Context) -> pb.Ended:
        """Close one."""
        return await _end(self._room, "organizations", request)

    async def AddDepartment(self, request: pb.AddDepartmentRequest, context: Context) -> pb.Added:
        """Add one to an organization."""
        work = partial(
            self._registry.add_department,
            _caller(),
            request.organization_id,
            request.name,
            request.request_id,
        )
        return added_out(await self._room.change(work))

    async def CloseDepartment(self, request: pb.EndRequest, context: Context) -> pb.Ended:
        """Close one."""
        return await _end(self._room, "departments", request)


class StaffServicer(people_pb2_grpc.StaffServiceServicer):
    """fenhe.control.v1.StaffService."""

    def __init__(self, room: PeopleRoom) -> None:
        self._room = room
        self._registry: Registry = room.parts.registry

    async def AddStaff(self, request: pb.AddStaffRequest, context: Context) -> pb.Added:
        """Add somebody."""
        new = NewStaff(request.organization_id, request.name, request.phone, request.title)
        work = partial(self._registry.add_staff, _caller(), new, request.request_id)
        return added_out(await self._room.change(work))

    async def GetStaff(self, request: pb.GetStaffRequest, context: Context) -> pb.StaffRecord:
        """One with qualifications and roles."""
        caller = _caller()
        found = await self._room.run(partial(self._registry.staff_record, caller, request.staff_id))
        return pb.StaffRecord(
            staff=_staff_out(found.member, caller),
            qualifications=[
                pb.Qualification(
                    qualification_id=each.qualification_id,
                    kind=each.kind,
                    number=each.number if _sees_personal(caller) else "",
                    issued_on=each.issued_on,
                    expires_on=each.expires_on,
                )
                for each in found.qualifications
            ],
            assignments=map(_assignment_out, found.assignments),
        )

    async def ListStaff(
        self, request: pb.ListStaffRequest, context: Context
    ) -> pb.ListStaffResponse:
        """A page of them."""
        caller, size = _caller(), page_of(request.page_size)
        work = partial(
            self._registry.staff, caller, request.after, size + 1, request.organization_id
        )
        shown, more = paged(await self._room.run(work), size)
        return pb.ListStaffResponse(
            staff=[_staff_out(each, caller) for each in shown],
            next_after=shown[-1].staff_id if more else "",
        )

    async def EndStaff(self, request: pb.EndRequest, context: Context) -> pb.Ended:
        """He works here no more."""
        return await _end(self._room, "staff", request)

    async def AddQualification(
        self, request: pb.AddQualificationRequest, context: Context
    ) -> pb.Added:
        """Add what he may do by law."""
        new = NewQualification(
            request.staff_id,
            request.kind,
            request.number,
            request.issued_on,
            request.expires_on,
        )
        work = partial(self._registry.add_qualification, _caller(), new, request.request_id)
        return added_out(await self._room.change(work))

    async def GiveRole(self, request: pb.GiveRoleRequest, context: Context) -> pb.Added:
        """Give one that the asker holds."""
        new = NewAssignment(
            request.staff_id,
            read_role(request.role),
            request.organization_id,
            request.department_id,
            request.division,
            request.from_on,
            request.until_on,
        )
        work = partial(self._registry.give_role, _caller(), new, request.request_id)
        return added_out(await self._room.change(work))

    async def TakeRole(self, request: pb.EndRequest, context: Context) -> pb.Ended:
        """Take one."""
        return await _end(self._room, "assignments", request)

    async def ListRoles(
        self, request: pb.ListRolesRequest, context: Context
    ) -> pb.ListRolesResponse:
        """A page of what was given."""
        size = page_of(request.page_size)
        work = partial(
            self._registry.assignments, _caller(), request.after, size + 1, request.staff_id
        )
        shown, more = paged(await self._room.run(work), size)
        return pb.ListRolesResponse(
            assignments=map(_assignment_out, shown),
            next_after=shown[-1].assignment_id if more else "",
        )


def page_of(asked: int) -> int:
    """How many a page holds."""
    return min(asked or _PAGE, _PAGE_MAX)


def paged(found: Sequence[T], size: int) -> tuple[Sequence[T], bool]:
    """A page of what was found, and whether there is more; one more than a page was asked for."""
    return found[:size], len(found) > size


def added_out(done: Done) -> pb.Added:
    """What was made."""
    return pb.Added(id=done.object_id, repeated=done.repeated)


def ended_out(done: Done) -> pb.Ended:
    """What was ended or changed."""
    return pb.Ended(id=done.object_id, changed=done.count > 0)


async def _end(room: PeopleRoom, table: str, request: pb.EndRequest) -> pb.Ended:
    work = partial(
        room.parts.registry.end, _caller(), table, request.id, request.on, request.request_id
    )
    return ended_out(await room.change(work))


def _caller() -> Caller:
    return current_call().caller


def _sees_personal(caller: Caller) -> bool:
    return caller.kind is CallerKind.OPERATOR or Role.ADMINISTRATOR in caller.roles


def _organization_out(each: Organization) -> pb.Organization:
    return pb.Organization(
        organization_id=each.organization_id,
        division=each.division,
        name=each.name,
        kind=each.kind,
        parent_id=each.parent_id,
        ended=each.ended,
    )


def _department_out(each: Department) -> pb.Department:
    return pb.Department(
        department_id=each.department_id,
        organization_id=each.organization_id,
        name=each.name,
        ended=each.ended,
    )


def _staff_out(each: StaffMember, caller: Caller) -> pb.Staff:
    return pb.Staff(
        staff_id=each.staff_id,
        organization_id=each.organization_id,
        division=each.home,
        name=each.name,
        phone=each.phone if _sees_personal(caller) else "",
        title=each.title,
        ended=each.ended,
    )


def _assignment_out(each: Assignment) -> pb.Assignment:
    return pb.Assignment(
        assignment_id=each.assignment_id,
        staff_id=each.staff_id,
        organization_id=each.organization_id,
        department_id=each.department_id,
        role=each.role,
        division=each.division,
        from_on=each.from_on,
        until_on=each.until_on,
        today=each.today,
    )
