"""fenhe replication: how copies move between a node and its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.operations_pb2 as pb
from node.cli import stick_cmd
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import (
    command,
    errors,
    format_age,
    format_bytes,
    out,
    print_json,
    print_table,
    printable,
)
from node.cli.verify_cmd import verify
from protos.fenhe.common.v1 import common_pb2
from protos.fenhe.node.v1 import operations_pb2_grpc

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)
stick_cmd.add_to(app)
app.command()(verify)

EXIT_ALARM: Final = 5
CALL_S: Final = 30
NODES_SHOWN: Final = 4


@app.callback()
def group() -> None:
    """How copies move between a node and its neighbours."""


@app.command()
@command
def status(
    credentials: CredentialsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Lags, receipts and alarms of every link. Exit code 5: an alarm stands."""
    with connected(find_credentials(credentials)) as channel:
        stub = operations_pb2_grpc.ReplicationServiceStub(channel)
        response = stub.Status(pb.ReplicationStatusRequest(), timeout=CALL_S)
    if as_json:
        print_json(
            MessageToDict(
                response,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
        )
    else:
        _show(response)
    if response.alarms:
        raise typer.Exit(EXIT_ALARM)


def _show(response: pb.ReplicationStatusResponse) -> None:
    """What is wrong first, then every lane on a line of at most 100 columns."""
    for alarm in response.alarms:
        who = f" {alarm.peer}" if alarm.peer else ""
        errors.print(f"[bold red]ALARM {alarm.kind}[/]{who} since {alarm.since[:19]}Z")
        errors.print(printable(f"  {alarm.message}"), markup=False)
        errors.print(printable(f"  Next: {alarm.next_step}"), markup=False)
    print_table(
        ("to", "lane", "state", "receipt", "at", "lag", "oldest", "bytes", "rate/s"),
        [_line(link, lane) for link in response.links for lane in link.lanes],
        right=("lag", "oldest", "bytes", "rate/s"),
    )
    for line in _versions(response):
        out.print(printable(line), markup=False)
    for cause, waiting in sorted(response.quarantine.items()):
        out.print(f"Quarantine: {waiting} of {cause}; see fenhe quarantine list.")
    for link in response.links:
        if link.last_error:
            errors.print(printable(f"{link.peer}: {link.last_error}"), markup=False)
            if link.next_step:
                errors.print(printable(f"  Next: {link.next_step}"), markup=False)
    if not response.alarms:
        out.print("No alarm stands.")


def _versions(response: pb.ReplicationStatusResponse) -> Iterator[str]:
    """Who speaks what, this node's own first; neighbours of one release stand on one line."""
    groups: dict[str, list[str]] = {_speaks(response.versions): ["this node"]}
    for link in response.links:
        if link.HasField("versions"):
            groups.setdefault(_speaks(link.versions), []).append(link.peer)
    for speaks, nodes in groups.items():
        more = f" and {len(nodes) - NODES_SHOWN} more" if len(nodes) > NODES_SHOWN else ""
        yield f"{speaks}: {', '.join(nodes[:NODES_SHOWN])}{more}"


def _speaks(said: pb.LinkVersions) -> str:
    schema = f"{said.schema_min} to {said.schema_max}" if said.schema_min else f"{said.schema_max}"
    return f"Protocol {said.protocol_min} to {said.protocol_max}, schema {schema}"


def _line(link: pb.LinkReplication, lane: pb.LaneReplication) -> tuple[object, ...]:
    more = "+" if lane.at_least else ""
    return (
        link.peer,
        common_pb2.Lane.Name(lane.lane).removeprefix("LANE_").lower(),
        _state(lane),
        lane.receipt_number,
        lane.receipt_at[5:19].replace("T", " ") or "–",
        f"{lane.lag_entries}{more}",
        format_age(lane.lag_seconds) if lane.lag_entries else "–",
        format_bytes(lane.backlog_bytes) + more,
        format_bytes(link.bytes_per_second),
    )


def _state(lane: pb.LaneReplication) -> str:
    if lane.refusals:
        return f"{lane.state} x{lane.refusals} {lane.refused}"
    return f"{lane.state}, snapshot" if lane.owes_snapshot else lane.state
