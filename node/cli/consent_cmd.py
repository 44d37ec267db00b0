"""fenhe consent|access: who may read a resident's rows, and glasses that were broken."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.control.v1.consent_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, out, print_json, print_table, printable
from protos.fenhe.control.v1 import consent_pb2_grpc

__all__ = ["access_app", "consent_app"]

consent_app = typer.Typer(no_args_is_help=True)
access_app = typer.Typer(no_args_is_help=True)
review_app = typer.Typer(no_args_is_help=True)
access_app.add_typer(review_app, name="review", help="Broken glasses, at the resident's home.")

_CALL_S: Final = 30
_PAGE: Final = 200

Resident = Annotated[str, typer.Argument(help="The resident's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FromDay = Annotated[str, typer.Option("--from", help="First day; by default today.")]
UntilDay = Annotated[str, typer.Option("--until", help="Last day.")]
GrantReason = Annotated[str, typer.Option("--reason", help="Why; kept with the grant.")]
GlassReason = Annotated[
    str, typer.Option("--reason", help="Why; kept, and shown to who reviews it.")
]


def _asked(credentials: Any, method: str, request: Any, *, access: bool = True) -> Any:
    stubs = consent_pb2_grpc
    with connected(find_credentials(credentials)) as channel:
        stub = stubs.AccessServiceStub(channel) if access else stubs.ConsentServiceStub(channel)
        return getattr(stub, method)(request, timeout=_CALL_S)


@consent_app.command()
@command
def add(  # noqa: PLR0917 -- the options of a command
    resident: Resident,
    decision: Annotated[
        str,
        typer.Argument(
            help="permit (opens nothing by itself) or deny (without --purpose and --to: everybody)."
        ),
    ],
    purpose: Annotated[
        str,
        typer.Option(
            help="any, treatment, registration, public_health, management, statistics, research."
        ),
    ] = "any",
    recipient: Annotated[
        str, typer.Option("--to", help="everyone, organization:ID or division:CODE.")
    ] = "everyone",
    from_on: FromDay = "",
    until_on: UntilDay = "",
    note: Annotated[str, typer.Option(help="How it was given, such as the paper's number.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Write down what a resident allows or forbids, at his home."""
    request = pb.PutConsentRequest(
        request_id=str(uuid.uuid4()),
        resident_id=resident,
        purpose=purpose,
        recipient=recipient,
        decision=decision,
        from_on=from_on,
        until_on=until_on,
        note=note,
    )
    _tell(_asked(credentials, "PutConsent", request, access=False), as_json)


@consent_app.command("list")
@command
def list_consents(
    resident: Resident, credentials: CredentialsOption = None, as_json: AsJson = False
) -> None:
    """A resident's consents, those that are over too."""
    found: list[pb.Consent] = []
    request = pb.ListConsentsRequest(resident_id=resident, page_size=_PAGE)
    while True:
        page = _asked(credentials, "ListConsents", request, access=False)
        found.extend(page.consents)
        if not page.next_after:
            break
        request.after = page.next_after
    if as_json:
        print_json([_as_dict(each) for each in found])
        return
    print_table(
        ("consent", "says", "purpose", "to", "from", "until", "revoked", "note"),
        [
            (
                each.consent_id,
                each.decision,
                each.purpose,
                each.recipient,
                each.from_on,
                each.until_on or None,
                each.revoked_at[:16] or None,
                printable(each.note),
            )
            for each in found
        ],
    )


@consent_app.command()
@command
def revoke(
    consent: Annotated[str, typer.Argument(help="Id, from `fenhe consent list`.")],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """End a consent, from now on."""
    request = pb.RevokeConsentRequest(consent_id=consent)
    _tell(_asked(credentials, "RevokeConsent", request, access=False), as_json)


@access_app.command()
@command
def relate(  # noqa: PLR0917 -- the options of a command
    resident: Resident,
    kind: Annotated[str, typer.Argument(help="contract or encounter.")],
    organization: Annotated[
        str, typer.Option(help="Who cares for him; for staff, their own.")
    ] = "",
    from_on: FromDay = "",
    until_on: UntilDay = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Write down that an organization cares for a resident."""
    request = pb.PutRelationRequest(
        request_id=str(uuid.uuid4()),
        resident_id=resident,
        organization_id=organization,
        kind=kind,
        from_on=from_on,
        until_on=until_on,
    )
    _tell(_asked(credentials, "PutRelation", request), as_json)


@access_app.command()
@command
def end(
    relation: Annotated[str, typer.Argument(help="Id, from `fenhe access list`.")],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """End a care relation, from now on."""
    _tell(_asked(credentials, "EndRelation", pb.EndRelationRequest(relation_id=relation)), as_json)


@access_app.command()
@command
def grant(
    resident: Resident,
    to: Annotated[str, typer.Option("--to", help="staff:ID or organization:ID.")],
    reason: GrantReason,
    hours: Annotated[int, typer.Option(help="From now on.", min=1, max=2160)] = 24,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Let somebody see whom you see, for a while."""
    request = pb.CreateGrantRequest(
        request_id=str(uuid.uuid4()), resident_id=resident, grantee=to, hours=hours, reason=reason
    )
    _tell(_asked(credentials, "CreateGrant", request), as_json)


@access_app.command("list")
@command
def list_access(
    resident: Resident, credentials: CredentialsOption = None, as_json: AsJson = False
) -> None:
    """A resident's care relations and grants."""
    found = pb.ListAccessResponse()
    request = pb.ListAccessRequest(resident_id=resident, page_size=_PAGE)
    while True:
        page = _asked(credentials, "ListAccess", request)
        found.relations.extend(page.relations)
        found.grants.extend(page.grants)
        if not page.next_after:
            break
        request.after = page.next_after
    if as_json:
        print_json(_as_dict(found))
        return
    relations = [
        (r.relation_id, r.kind, r.organization_id, r.from_on, r.until_on, r.ended_at[:16] or None)
        for r in found.relations
    ]
    grants = [
        (g.grant_id, g.kind, g.grantee, g.from_at[:16], g.until_at[:16], g.revoked_at[:16] or None)
        for g in found.grants
    ]
    print_table(("id", "kind", "who", "from", "until", "ended"), [*relations, *grants])


@access_app.command("revoke")
@command
def revoke_grant(
    grant_id: Annotated[str, typer.Argument(metavar="GRANT", help="Id, from `fenhe access list`.")],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """End a grant, from now on."""
    _tell(_asked(credentials, "RevokeGrant", pb.RevokeGrantRequest(grant_id=grant_id)), as_json)


@access_app.command("break-glass")
@command
def break_glass(
    resident: Resident,
    reason: GlassReason,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """See one resident for 30 minutes; his home reviews it."""
    request = pb.BreakGlassRequest(
        request_id=str(uuid.uuid4()), resident_id=resident, reason=reason
    )
    done = _asked(credentials, "BreakGlass", request)
    if as_json:
        print_json(_as_dict(done))
        return
    out.print(f"Open until {done.grant.until_at[:16]} UTC; every look is written down.")
    if done.overrides_consent:
        out.print("A consent of the resident forbids this: it stands in what he may ask to see.")
    out.print(f"{done.home_node} reviews it.")


@review_app.command("list")
@command
def list_reviews(
    every: Annotated[bool, typer.Option("--all", help="Those that are closed too.")] = False,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Glasses that were broken over residents whose home is this node."""
    found: list[pb.Review] = []
    request = pb.ListReviewsRequest(all=every, page_size=_PAGE)
    while True:
        page = _asked(credentials, "ListReviews", request)
        found.extend(page.reviews)
        if not page.next_after:
            break
        request.after = page.next_after
    if as_json:
        print_json([_as_dict(each) for each in found])
        return
    for each in found:
        broken = each.grant
        out.print(
            f"{broken.grant_id}: {broken.granted_by} saw {broken.resident_id} from"
            f" {broken.from_at[:16]} to {broken.until_at[:16]} UTC, {each.state}:"
            f" {printable(broken.reason)}",
            markup=False,
            soft_wrap=True,
        )
    out.print(f"{len(found)} review(s).")


@review_app.command()
@command
def close(
    grant_id: Annotated[
        str, typer.Argument(metavar="GRANT", help="Id, from `fenhe access review list`.")
    ],
    finding: Annotated[str, typer.Argument(help="justified or unjustified.")],
    note: Annotated[str, typer.Option(help="Why.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Say what was found of a broken glass."""
    request = pb.CloseReviewRequest(grant_id=grant_id, finding=finding, note=note)
    done = _asked(credentials, "CloseReview", request)
    if as_json:
        print_json(_as_dict(done))
    else:
        out.print(f"{done.grant.grant_id} is {done.state}.")


def _tell(done: Any, as_json: bool) -> None:
    """What was written, a line a field."""
    if as_json:
        print_json(_as_dict(done))
        return
    for name, value in _as_dict(done).items():
        if value:
            out.print(f"{name:<15} {printable(str(value))}", markup=False, soft_wrap=True)


def _as_dict(message: Any) -> Any:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
