"""fenhe node invite|join: how a new machine becomes a node, with a code said on the telephone."""

from __future__ import annotations

import os
import uuid
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.joining_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, errors, out, print_json, print_table, printable
from node.cli.secrets import database_of, spoken
from node.clock import SystemClock
from node.errors import InvalidRequestError
from node.security.suites import Suite
from protos.fenhe.node.v1 import joining_pb2_grpc

__all__ = ["add_to", "show_code"]

_CALL_S: Final = 30
_PAGE: Final = 200
_HOST: Final = "HOST"


def add_to(app: typer.Typer) -> None:
    """Add the commands to `fenhe node`."""
    for function in (invite, join):
        app.command()(command(function))


def invite(  # noqa: PLR0917 -- the options of a command
    node_id: Annotated[
        str, typer.Argument(metavar="CODE", help="Division code of a node directly below this one.")
    ] = "",
    credentials: CredentialsOption = None,
    minutes: Annotated[
        int, typer.Option("--for", help="Minutes that the code holds.", min=1, max=10_080)
    ] = 1_440,
    address: Annotated[
        str, typer.Option(help="host:port of this node, as the child reaches it from outside.")
    ] = "",
    pseudonym_from: Annotated[
        str, typer.Option(help="For a county: the county whose pseudonym key it takes.")
    ] = "",
    new_pseudonym_key: Annotated[
        bool,
        typer.Option("--new-pseudonym-key", help="For a county: it is the first; make the key."),
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the invitations.")] = False,
    withdraw: Annotated[
        str, typer.Option(metavar="CODE", help="Take the open invitation of a node back.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the code with which a new machine joins below this node."""
    if [bool(node_id), listing, bool(withdraw)].count(True) != 1:
        raise InvalidRequestError(
            "one of three is done: invite a node, --list, or --withdraw",
            hint="Name a division code, or give --list, or --withdraw with a division code.",
        )
    with connected(find_credentials(credentials)) as channel:
        stub = joining_pb2_grpc.InvitationServiceStub(channel)
        if listing:
            _show_list(stub, as_json=as_json)
        elif withdraw:
            said = stub.WithdrawInvitation(
                pb.WithdrawInvitationRequest(node_id=withdraw), timeout=_CALL_S
            )
            _show_withdrawn(said, withdraw, as_json=as_json)
        else:
            request = pb.CreateInvitationRequest(
                node_id=node_id,
                minutes=minutes,
                address=address,
                pseudonym_from=pseudonym_from,
                new_pseudonym_key=new_pseudonym_key,
                request_id=uuid.uuid4().hex,
            )
            show_code(stub.CreateInvitation(request, timeout=_CALL_S), as_json=as_json)


def join(  # noqa: PLR0917 -- the options of a command
    data: Annotated[Path, typer.Option("--data", envvar="FENHE_DATA", help="The folder to make.")],
    parent: Annotated[str, typer.Option(help="host:port of the parent's door.")],
    code: Annotated[
        str, typer.Option(help="The code, as it was read out; -: asked for at the terminal.")
    ] = "-",
    listen: Annotated[str, typer.Option(help="host:port of its gRPC server.")] = "127.0.0.1:4510",
    database: Annotated[
        str, typer.Option(help="SQLAlchemy URL, or @FILE that holds it.")
    ] = "sqlite:///store.db",
    profile: Annotated[str, typer.Option(help="Hardware profile; default: its level's.")] = "",
    suite: Annotated[
        Suite, typer.Option(help="Algorithms of what is stored: AES and SHA-256, or SM4 and SM3.")
    ] = Suite.INTL,
    run: Annotated[bool, typer.Option("--run", help="Then run the node.")] = False,
    log: Annotated[Path | None, typer.Option(help="With --run: log file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make this machine a node, with a code from its parent's operator."""
    from node.joining.child import JoinWish, join
    from node.joining.code import read_code
    from node.joining.wire import open_door

    os.umask(0o077)
    wish = JoinWish(
        data, read_code(spoken(code)), parent, listen, database_of(database), profile, suite
    )
    made = join(wish, open_door, clock=SystemClock())
    if as_json:
        print_json(
            {
                "node_id": made.node_id,
                "name": made.name,
                "data": str(data),
                "parent": made.parent_id,
                "parent_endpoint": made.parent_endpoint,
                "root_digest": made.root_digest,
                "rebuilt": made.rebuilt,
            }
        )
    else:
        _say(f"This machine is node {made.node_id} {made.name}, below {made.parent_id}.")
        _say(f"Its folder is {data}. It dials its parent at {made.parent_endpoint}.")
        _say(f"The region's root: {_grouped(made.root_digest)} (as the parent's operator sees it)")
        if made.rebuilt:
            _say("It was linked before: it begins empty and gets back what its neighbours hold.")
    if made.warning:
        errors.print(printable(made.warning), markup=False)
    if run:
        from node.app import run_node

        run_node(data, log)
    elif not as_json:
        _say(f"Start it: fenhe node run --data {data}")


def show_code(made: pb.CreateInvitationResponse, *, as_json: bool) -> None:
    """What to read out and to type, and what keeps the new machine from coming in."""
    if as_json:
        print_json(_as_dict(made))
        return
    invitation = made.invitation
    door = made.door if not made.door.startswith(":") else f"{_HOST}{made.door}"
    _say(f"Code for {invitation.node_id}, until {invitation.expires_at}, shown this once:")
    _say("")
    _say(f"    {made.code}")
    _say("")
    _say("On the new machine:")
    _say(f"    fenhe node join --parent {door} --data FOLDER --run")
    _say("(it asks for the code)")
    _say(f"The region's root: {_grouped(made.root_digest)} (the clinic sees the same)")
    if door.startswith(_HOST):
        errors.print("HOST is this machine's address, as the clinic reaches it.")
    if _is_loopback(door):
        errors.print(
            "This door is reached from its own machine only: no other machine can join. Set listen "
            "in node.yaml to 0.0.0.0:PORT, start the node again, and give --address HOST:PORT."
        )
    if made.replaced:
        errors.print("The code made before for this node was taken back.")
    if made.known_before:
        errors.print(
            f"{invitation.node_id} was linked here before. The new machine begins empty and gets "
            "back what its neighbours hold; the certificate of the old one goes on being taken "
            f"unless it is revoked: `fenhe node revoke {invitation.node_id} --reason TEXT`."
        )


def _show_list(stub: joining_pb2_grpc.InvitationServiceStub, *, as_json: bool) -> None:
    found: list[pb.Invitation] = []
    after = ""
    while True:
        page = stub.ListInvitations(
            pb.ListInvitationsRequest(page_size=_PAGE, after=after), timeout=_CALL_S
        )
        found.extend(page.invitations)
        after = page.next_after
        if not after:
            break
    if as_json:
        print_json([_as_dict(each) for each in found])
        return
    print_table(
        ("node", "state", "made", "until", "joined", "wrong codes", "by"),
        [
            (
                each.node_id,
                each.state,
                each.created_at[:16],
                each.expires_at[:16],
                each.joined_at[:16] or None,
                each.wrong_proofs,
                each.created_by,
            )
            for each in found
        ],
    )


def _show_withdrawn(said: pb.WithdrawInvitationResponse, node_id: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_dict(said))
    elif said.withdrawn:
        _say(f"The invitation of {node_id} is taken back.")
    else:
        _say(f"There is no open invitation of {node_id}.")


def _is_loopback(door: str) -> bool:
    """Whether a host:port is reached from its own machine only."""
    host = door.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(sentence: str) -> None:
    """One line; what other machines wrote is in it."""
    out.print(printable(sentence), markup=False, soft_wrap=True)


def _grouped(digest: str) -> str:
    """The first 32 digits in fours, to be compared on the telephone."""
    return " ".join(digest[at : at + 4] for at in range(0, 32, 4))


def _as_dict(message: Any) -> Any:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
