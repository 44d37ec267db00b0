"""fenhe resident: who residents are, where they live, moves, and what former homes edited late."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.empi.v1.residence_pb2 as pb
from node.cli import person_cmd, steward_cmd
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, out, print_json, print_table, printable
from protos.fenhe.empi.v1 import residence_pb2_grpc

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)
person_cmd.add_to(app)
proposals_app = typer.Typer(no_args_is_help=True)
app.add_typer(proposals_app, name="proposals", help="Identity edits that a former home made late.")

CALL_S: Final = 30

Resident = Annotated[str, typer.Argument(help="The resident's id.")]
ProposalId = Annotated[str, typer.Argument(help="Id, from `fenhe resident proposals list`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_MEANINGS: Final = {
    "": "has not moved, as far as is known here",
    "requested": "the move was asked for; who grants it has not answered yet",
    "refused": "the move was refused",
    "granted": "the move is granted; his history is on its way",
    "shipping": "what this node holds is on its way to the new home",
    "holding": "his history has come; the node above has not confirmed all of it",
    "purging": "the new home holds him; the rows here go",
    "settled": "the move is done",
}


def _asked(credentials: Any, method: str, request: Any) -> Any:
    with connected(find_credentials(credentials)) as channel:
        stub = residence_pb2_grpc.ResidenceServiceStub(channel)
        return getattr(stub, method)(request, timeout=CALL_S)


def _as_dict(message: Any) -> Any:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


@app.command()
@command
def move(
    resident: Resident,
    to: Annotated[str, typer.Option("--to", help="Division code of the new home.")],
    reason: Annotated[
        str, typer.Option(help="Why; kept in the audit. Needed at the new home.")
    ] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Give a resident another home; his history follows."""
    request = pb.MoveRequest(
        resident_id=resident, to_node=to, reason=reason, request_id=str(uuid.uuid4())
    )
    _told(_asked(credentials, "Move", request), as_json)


@app.command()
@command
def where(
    resident: Resident,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """A resident's present home, and how far a move is."""
    _told(_asked(credentials, "Where", pb.WhereRequest(resident_id=resident)), as_json)


@proposals_app.command("list")
@command
def list_proposals(
    credentials: CredentialsOption = None,
    resident: Annotated[str, typer.Option(help="Only of this resident.")] = "",
    state: Annotated[
        str, typer.Option(help="waiting, accepted, rejected or forwarded.")
    ] = "waiting",
    after: Annotated[str, typer.Option(help="Only after this proposal.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """What former homes edited late, oldest first."""
    page = _asked(
        credentials,
        "ListProposals",
        pb.ListProposalsRequest(resident_id=resident, state=state, after=after, limit=limit),
    )
    if as_json:
        print_json(_as_dict(page))
        return
    for proposal in page.proposals:
        _show(proposal)
    out.print(f"{len(page.proposals)} proposal(s).")


@proposals_app.command()
@command
def accept(
    proposal: ProposalId,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")] = "",
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Make a proposal the next version of the row."""
    _decide(proposal, True, reason, credentials, as_json)


@proposals_app.command()
@command
def reject(
    proposal: ProposalId,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Close a proposal without changing anything."""
    _decide(proposal, False, reason, credentials, as_json)


def _decide(proposal: str, accept_it: bool, reason: str, credentials: Any, as_json: bool) -> None:
    done = _asked(
        credentials,
        "DecideProposal",
        pb.DecideProposalRequest(
            proposal_id=proposal, accept=accept_it, reason=reason, request_id=str(uuid.uuid4())
        ),
    )
    if as_json:
        print_json(_as_dict(done))
    else:
        out.print(f"Proposal {done.proposal_id} is {done.state}.")


steward_cmd.add_to(app)


def _told(found: pb.ResidentWhereabouts, as_json: bool) -> None:
    if as_json:
        print_json(_as_dict(found))
        return
    held = "held here in full" if found.held_here else "not held here"
    lines = [
        ("home", f"{found.home_node or 'not known here'}, epoch {found.home_epoch}; {held}"),
        ("move", _MEANINGS.get(found.state, found.state)),
    ]
    if found.from_node:
        lines.append(("from", f"{found.from_node}, known here since {found.since}"))
    if found.code:
        lines.append(("code", found.code))
    if found.forwarding:
        lines.append(("next", f"ask node {found.home_node}"))
    for name, value in lines:
        out.print(f"{name:<5} {printable(value)}", markup=False, soft_wrap=True)


def _show(proposal: pb.Proposal) -> None:
    deed = "deletes" if proposal.deletes else "edits"
    out.print(
        f"{proposal.proposal_id}: {proposal.author_node} {deed} {proposal.table} of"
        f" {proposal.resident_id} at {proposal.recorded_at[:19]}Z, {proposal.state}",
        markup=False,
        soft_wrap=True,
    )
    print_table(
        ("column", "now", "proposed"),
        [
            (change.column, printable(change.present), printable(change.proposed))
            for change in proposal.changes
        ],
    )
