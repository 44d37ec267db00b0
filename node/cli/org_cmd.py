"""fenhe org: hospitals, centres and clinics under the divisions, and their departments."""

from __future__ import annotations

from typing import Annotated

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

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

OrganizationId = Annotated[str, typer.Argument(metavar="ID", help="Id of the organization.")]


@app.command()
@command
def add(
    name: Annotated[str, typer.Argument(help="Its name.")],
    division: Annotated[str, typer.Option(help="Division code where it works.")],
    kind: Annotated[str, typer.Option(help="hospital, centre, clinic, bureau or other.")],
    parent: Annotated[str, typer.Option(help="Id of the organization above it.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Add an organization to a division."""
    request = pb.AddOrganizationRequest(
        division=division, name=name, kind=kind, parent_id=parent, request_id=new_request_id()
    )
    done = asked(credentials, "org", "AddOrganization", request)
    show_added(done, "Added: organization", as_json=as_json)


@app.command("list")
@command
def list_organizations(
    division: Annotated[str, typer.Option(help="Only of this division's subtree.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """List the organizations that you may see."""
    request = pb.ListOrganizationsRequest(division=division)
    found = all_pages(credentials, "org", "ListOrganizations", request, "organizations")
    if as_json:
        print_json([as_dict(each) for each in found])
        return
    print_table(
        ("organization", "division", "kind", "name", "state"),
        [
            (
                each.organization_id,
                each.division,
                each.kind,
                each.name,
                "closed" if each.ended else "open",
            )
            for each in found
        ],
    )


@app.command()
@command
def show(
    organization: OrganizationId, credentials: CredentialsOption = None, as_json: AsJson = False
) -> None:
    """Show an organization with its departments."""
    request = pb.GetOrganizationRequest(organization_id=organization)
    found = asked(credentials, "org", "GetOrganization", request)
    if as_json:
        print_json(as_dict(found))
        return
    one = found.organization
    say(f"{one.name}: a {one.kind} of {one.division}{', closed' if one.ended else ''}")
    if one.parent_id:
        say(f"below organization {one.parent_id}")
    print_table(
        ("department", "name", "state"),
        [
            (each.department_id, each.name, "closed" if each.ended else "open")
            for each in found.departments
        ],
    )


@app.command()
@command
def close(
    organization: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the organization, or of a department.")
    ],
    department: Annotated[
        bool, typer.Option("--department", help="It is a department that closes.")
    ] = False,
    on: Annotated[str, typer.Option(help="First day on which it is closed; default: now.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Close an organization or a department: its roles count no more."""
    request = pb.EndRequest(id=organization, on=on, request_id=new_request_id())
    method = "CloseDepartment" if department else "CloseOrganization"
    done = asked(credentials, "org", method, request)
    show_ended(done, f"Closed, {on or 'now'}.", as_json=as_json)


@app.command("department")
@command
def add_department(
    organization: OrganizationId,
    name: Annotated[str, typer.Argument(help="Its name.")],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Add a department to an organization."""
    request = pb.AddDepartmentRequest(
        organization_id=organization, name=name, request_id=new_request_id()
    )
    done = asked(credentials, "org", "AddDepartment", request)
    show_added(done, "Added: department", as_json=as_json)
