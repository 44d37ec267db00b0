"""fenhe node recover: how far a recovery has come, and whom not to wait for."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.recovery_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, out, print_json, print_table
from protos.fenhe.common.v1 import common_pb2
from protos.fenhe.node.v1 import recovery_pb2_grpc

__all__ = ["add_to"]

CALL_S: Final = 30


def add_to(app: typer.Typer) -> None:
    """Put the command on `fenhe node`."""
    app.command(name="recover")(command(recover))


def recover(
    credentials: CredentialsOption = None,
    status: Annotated[
        bool, typer.Option("--status", help="Only look; the same as without options.")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="Neighbour that will not answer; may be given again."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a recovering node still waits for. --without ends it without a lost neighbour."""
    if status and without:
        raise typer.BadParameter("--status changes nothing; leave it out to give --without")
    with connected(find_credentials(credentials)) as channel:
        stub = recovery_pb2_grpc.RecoveryServiceStub(channel)
        if without:
            standing = stub.GiveUp(pb.RecoveryGiveUpRequest(peers=without), timeout=CALL_S)
        else:
            standing = stub.Standing(pb.RecoveryStandingRequest(), timeout=CALL_S)
    if as_json:
        print_json(
            MessageToDict(
                standing,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
        )
        return
    _show(standing)


def _show(standing: pb.RecoveryStandingResponse) -> None:
    if not standing.recovering:
        out.print(f"{standing.node_id} is whole: rows can be written, amended and retracted.")
        return
    out.print(
        f"{standing.node_id} is recovering: new rows are taken; amendments, retractions and moves "
        "wait until it is over.",
        soft_wrap=True,
    )
    print_table(
        ("waits for", "link", "state", "lanes to come"),
        [
            (
                each.peer,
                each.role,
                _state(each),
                ", ".join(
                    common_pb2.Lane.Name(lane).removeprefix("LANE_").lower() for lane in each.lanes
                ),
            )
            for each in standing.waiting
        ],
    )
    if standing.without:
        out.print(f"Given up: {', '.join(standing.without)}.")
    away = [each.peer for each in standing.waiting if not each.connected]
    if away:
        out.print(
            f"Next: bring {', '.join(away)} back; if one is lost for good: "
            f"fenhe node recover --without {away[0]}",
            soft_wrap=True,
        )


def _state(each: pb.RecoveryWait) -> str:
    if each.too_old:
        return "too old: upgrade it"
    return "giving back" if each.connected else "away"
