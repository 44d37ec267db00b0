"""fenhe resident links|merge|unmerge|apart: which residents are one person."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Final

import typer

import protos.fenhe.empi.v1.steward_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, out, print_json, printable
from node.cli.person_cmd import Resident, as_dict
from protos.fenhe.empi.v1 import steward_pb2_grpc

__all__ = ["AsJson", "add_to", "asked"]

_CALL_S: Final = 60

Survivor = Annotated[str, typer.Argument(help="Id of the resident who is shown.")]
Merged = Annotated[str, typer.Argument(help="Id of the one who is merged into him.")]
One = Annotated[str, typer.Argument(help="Id of one resident.")]
Other = Annotated[str, typer.Argument(help="Id of the other.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, 4 to 200 characters; kept, sealed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_SAID: Final = {pb.DECISION_SAME: "one person", pb.DECISION_DIFFERENT: "two people"}


def add_to(app: typer.Typer) -> None:
    """Add the commands to `fenhe resident`."""
    for each in (links, merge, unmerge, apart):
        app.command()(each)


def asked(credentials: Any, method: str, request: Any) -> Any:
    """What the steward's service answers."""
    with connected(find_credentials(credentials)) as channel:
        stub = steward_pb2_grpc.StewardServiceStub(channel)
        return getattr(stub, method)(request, timeout=_CALL_S)


@command
def links(
    resident: Resident,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """A resident's other ids, and what was decided over them."""
    found = asked(credentials, "ListEvents", pb.ListEventsRequest(resident_id=resident))
    if as_json:
        print_json(as_dict(found))
        return
    if found.is_cut:
        out.print("More ids were merged than a person has: nobody is joined. Undo what is wrong.")
    out.print(f"shown as  {found.survivor_id}", markup=False)
    for each in found.member_ids:
        if each != found.survivor_id:
            out.print(f"merged    {each}", markup=False)
    for event in found.events:
        _show_event(event)


def _show_event(event: pb.IdentityEvent) -> None:
    said = _SAID.get(event.decision, "decided otherwise, by a later release")
    lines = [
        ("event", event.event_id),
        ("survivor" if event.decision == pb.DECISION_SAME else "one", event.survivor_id),
        ("other", event.merged_id),
        ("by", f"{event.decided_by}, at node {event.author_node}"),
        ("because", event.reason),
        ("ends", ", ".join(event.ends)),
    ]
    out.print()
    at = event.decided_at[:16].replace("T", " ")
    state = "in force" if event.in_force else "not in force"
    out.print(f"{at}Z  {said}, {state}", markup=False)
    for name, value in lines:
        if value:
            out.print(f"  {name:<8}  {printable(value)}", markup=False, soft_wrap=True)


@command
def merge(
    survivor: Survivor,
    merged: Merged,
    reason: Reason,
    despite: Annotated[
        bool, typer.Option("--despite", help="Merge although they were told apart before.")
    ] = False,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Say that two residents are one person. `unmerge` gives back what was."""
    _decide(credentials, "Merge", (survivor, merged), reason, as_json, despite=despite)


@command
def unmerge(
    one: One,
    other: Other,
    reason: Reason,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Undo a merge: each has his own records again."""
    _decide(credentials, "Unmerge", (one, other), reason, as_json)


@command
def apart(
    one: One,
    other: Other,
    reason: Reason,
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Say that two residents are two people."""
    _decide(credentials, "TellApart", (one, other), reason, as_json)


def _decide(
    credentials: Any,
    method: str,
    pair: tuple[str, str],
    reason: str,
    as_json: bool,
    *,
    despite: bool = False,
) -> None:
    """Write a decision down, and say what is in force now."""
    survivor, merged = pair
    request = pb.DecideRequest(
        request_id=str(uuid.uuid4()),
        survivor_id=survivor,
        merged_id=merged,
        reason=reason,
        despite=despite,
    )
    event = asked(credentials, method, request)
    if as_json:
        print_json(as_dict(event))
        return
    if event.decision == pb.DECISION_SAME:
        out.print(f"{event.merged_id} is shown as {event.survivor_id} from now on.", markup=False)
    else:
        out.print("The two are two people; matching does not propose them again.")
    out.print(f"Event {event.event_id}; it reaches both homes over the links.", markup=False)
