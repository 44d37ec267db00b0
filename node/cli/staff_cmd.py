"""fenhe staff, fenhe role: who works here, and what they may."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import protos.fenhe.control.v1.people_pb2 as pb
from node.cli.client import CredentialsOption
from node.cli.output import command, print_json, print_table
from node.cli.people_output import (
    AsJson,
    all_pages,
    as_dict,
    asked,
    new_request_id,
    say,
    show_added,
    show_ended,
)
from node.errors import InvalidRequestError

__all__ = ["role_app", "staff_app"]

staff_app = typer.Typer(no_args_is_help=True)
role_app = typer.Typer(no_args_is_help=True)

StaffId = Annotated[str, typer.Argument(metavar="STAFF", help="Id of one of the staff.")]
OnDay = Annotated[str, typer.Option("--on", help="First day without it; default: now.")]


@staff_app.command("add")
@command
def add_staff(
    organization: Annotated[str, typer.Argument(help="Id of the organization.")],
    name: Annotated[str, typer.Option(help="His or her name.")],
    phone: Annotated[str, typer.Option(help="Telephone number.")] = "",
    title: Annotated[str, typer.Option(help="Professional title.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Add somebody who works for an organization."""
    request = pb.AddStaffRequest(
        organization_id=organization,
        name=name,
        phone=phone,
        title=title,
        request_id=new_request_id(),
    )
    show_added(asked(credentials, "staff", "AddStaff", request), "Added: staff", as_json=as_json)


@staff_app.command("list")
@command
def list_staff(
    organization: Annotated[str, typer.Option(help="Only of this organization.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """List the staff that you may see."""
    request = pb.ListStaffRequest(organization_id=organization)
    found = all_pages(credentials, "staff", "ListStaff", request, "staff")
    if as_json:
        print_json([as_dict(each) for each in found])
        return
    print_table(
        ("staff", "division", "name", "title", "state"),
        [
            (
                each.staff_id,
                each.division,
                each.name or None,
                each.title or None,
                "ended" if each.ended else "works",
            )
            for each in found
        ],
    )


@staff_app.command("show")
@command
def show_staff(
    staff: StaffId, credentials: CredentialsOption = None, as_json: AsJson = False
) -> None:
    """Show one of the staff with qualifications and roles."""
    found = asked(credentials, "staff", "GetStaff", pb.GetStaffRequest(staff_id=staff))
    if as_json:
        print_json(as_dict(found))
        return
    one = found.staff
    title = f", {one.title}" if one.title else ""
    say(f"{one.name or 'name not readable here'}{title}, at {one.division}")
    say(f"organization {one.organization_id}{', ended' if one.ended else ''}")
    if one.phone:
        say(f"telephone {one.phone}")
    if found.qualifications:
        print_table(
            ("qualification", "number", "issued", "expires"),
            [
                (each.kind, each.number or None, each.issued_on or None, each.expires_on or None)
                for each in found.qualifications
            ],
        )
    _show_roles(found.assignments)


@staff_app.command("end")
@command
def end_staff(
    staff: StaffId,
    on: OnDay = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Somebody works here no more: roles and sessions are over."""
    request = pb.EndRequest(id=staff, on=on, request_id=new_request_id())
    done = asked(credentials, "staff", "EndStaff", request)
    show_ended(done, f"Ended, {on or 'now'}.", as_json=as_json)


@staff_app.command("qualify")
@command
def qualify(  # noqa: PLR0917 -- the options of a command
    staff: StaffId,
    kind: Annotated[str, typer.Argument(help="A word for it, such as physician-licence.")],
    number: Annotated[str, typer.Option(help="Its number.")] = "",
    issued: Annotated[str, typer.Option(help="Day of issue.")] = "",
    expires: Annotated[str, typer.Option(help="Last day on which it holds.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Add a qualification to one of the staff."""
    request = pb.AddQualificationRequest(
        staff_id=staff,
        kind=kind,
        number=number,
        issued_on=issued,
        expires_on=expires,
        request_id=new_request_id(),
    )
    done = asked(credentials, "staff", "AddQualification", request)
    show_added(done, "Added: qualification", as_json=as_json)


@role_app.command("give")
@command
def give(  # noqa: PLR0917 -- the options of a command
    staff: StaffId,
    roles: Annotated[
        list[str],
        typer.Argument(
            metavar="ROLE...",
            help="administrator, doctor, nurse, registrar, analyst, auditor; several with spaces.",
        ),
    ],
    organization: Annotated[str, typer.Option(help="For this organization; default: own.")] = "",
    department: Annotated[str, typer.Option(help="Id of a department of it.")] = "",
    division: Annotated[
        str,
        typer.Option(help="Over this division and below; default: the organization's."),
    ] = "",
    begins: Annotated[str, typer.Option("--from", help="First day; default: now.")] = "",
    until: Annotated[str, typer.Option(help="Last day; default: no end.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Give somebody roles that you hold yourself."""
    done = []
    for role in roles:
        request = pb.GiveRoleRequest(
            staff_id=staff,
            role=role,
            organization_id=organization,
            department_id=department,
            division=division,
            from_on=begins,
            until_on=until,
            request_id=new_request_id(),
        )
        done.append(asked(credentials, "staff", "GiveRole", request))
    if as_json:
        print_json([as_dict(each) for each in done])
        return
    for role, each in zip(roles, done, strict=True):
        show_added(each, f"Given: {role}", as_json=False)


@role_app.command("take")
@command
def take(
    assignment: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the assignment, as listed.")
    ],
    on: OnDay = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Take a role: it counts no more."""
    request = pb.EndRequest(id=assignment, on=on, request_id=new_request_id())
    done = asked(credentials, "staff", "TakeRole", request)
    show_ended(done, f"Taken, {on or 'now'}.", as_json=as_json)


@role_app.command("list")
@command
def list_roles(
    staff: Annotated[str, typer.Option(help="Only of this one of the staff.")] = "",
    role: Annotated[str, typer.Option(help="Only this role.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """List the roles that were given."""
    request = pb.ListRolesRequest(staff_id=staff)
    found = all_pages(credentials, "staff", "ListRoles", request, "assignments")
    found = [each for each in found if role in {"", each.role}]
    if role and not found and not staff:
        raise InvalidRequestError(f"nobody here has the role {role}")
    if as_json:
        print_json([as_dict(each) for each in found])
    else:
        _show_roles(found, whose=not staff)


def _show_roles(found: Any, *, whose: bool = False) -> None:
    if whose:
        # Ids are long: two of them fit a line of 100 columns, and no dates beside them.
        print_table(
            ("assignment", "role", "over", "staff"),
            [
                (
                    each.assignment_id,
                    each.role if each.today else f"({each.role})",
                    each.division,
                    each.staff_id,
                )
                for each in found
            ],
        )
        return
    print_table(
        ("assignment", "role", "over", "from", "until", "today"),
        [
            (
                each.assignment_id,
                each.role,
                each.division,
                each.from_on or None,
                each.until_on or None,
                "yes" if each.today else "no",
            )
            for each in found
        ],
    )
