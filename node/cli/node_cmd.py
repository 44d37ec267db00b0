"""fenhe node: make, run and look at one node."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.auditing_pb2 as audit_pb
import protos.fenhe.node.v1.node_pb2 as pb
from hierarchy_config import NodeId, load_region, shipped_region
from hierarchy_config.errors import Fault
from node.cli import joining_cmd, recover_cmd, revocation_cmd
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, errors, format_bytes, out, print_json, print_table, printable
from node.cli.secrets import database_of
from node.clock import SystemClock
from node.errors import NodeError
from node.security.caller import CallerKind
from node.security.suites import Suite
from protos.fenhe.common.v1 import common_pb2
from protos.fenhe.node.v1 import node_pb2_grpc

__all__ = ["ConfirmationMissingError", "app"]

app = typer.Typer(no_args_is_help=True)
recover_cmd.add_to(app)
joining_cmd.add_to(app)
revocation_cmd.add_to(app)

_HOUR_MS = 3_600_000

DataDir = Annotated[
    Path, typer.Option("--data", envvar="FENHE_DATA", help="The node's data folder.")
]


class ConfirmationMissingError(NodeError):
    """A step that cannot be taken back was not confirmed."""

    code = "CONFIRMATION_MISSING"
    fault = Fault.CALLER
    default_hint = "If the database was put back by hand, give the command with --yes."


class KindOption(StrEnum):
    """Whom credentials may be issued to by hand."""

    CLIENT = "client"
    STAFF = "staff"
    ANALYST = "analyst"
    OPERATOR = "operator"


@app.command()
@command
def init(  # noqa: PLR0917 -- the options of a command
    node_id: Annotated[str, typer.Argument(help="Division code of the node.")],
    data: DataDir,
    listen: Annotated[str, typer.Option(help="host:port of its gRPC server.")] = "127.0.0.1:4510",
    region: Annotated[Path | None, typer.Option(help="Region file; default: Linfen.")] = None,
    profile: Annotated[str, typer.Option(help="Hardware profile; default: its level's.")] = "",
    database: Annotated[
        str, typer.Option(help="SQLAlchemy URL, or @FILE that holds it.")
    ] = "sqlite:///store.db",
    parent_data: Annotated[
        Path | None, typer.Option(help="The parent's data folder: it signs this node.")
    ] = None,
    parent_endpoint: Annotated[
        str | None, typer.Option(help="host:port of the parent; default: the region file's.")
    ] = None,
    suite: Annotated[
        Suite, typer.Option(help="Algorithms of what is stored: AES and SHA-256, or SM4 and SM3.")
    ] = Suite.INTL,
    pseudonym_from: Annotated[
        Path | None,
        typer.Option(help="A county: another county's data folder, whose key it takes."),
    ] = None,
    new_pseudonym_key: Annotated[
        bool,
        typer.Option("--new-pseudonym-key", help="A county: the region's first; make the key."),
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="The node was lost: its neighbours give its rows back."),
    ] = False,
) -> None:
    """Make a node's data folder: settings, keys, certificates."""
    from node.initialise import NewNode, initialise
    from node.recovery.rebuild import begin_rebuilt, refuse_rebuild

    hierarchy = load_region(region or shipped_region())
    if rebuild:
        refuse_rebuild(hierarchy, NodeId(node_id), pseudonym_from)
    new = NewNode(
        NodeId(node_id),
        listen,
        database_of(database),
        profile,
        parent_data,
        parent_endpoint,
        suite=suite,
        pseudonym_from=pseudonym_from,
        new_pseudonym_key=new_pseudonym_key,
    )
    initialise(data, hierarchy, new, SystemClock())
    if rebuild:
        begin_rebuilt(data, SystemClock())
    out.print(
        f"Node {node_id} is made in {data}. Start it: fenhe node run --data {data}", soft_wrap=True
    )


@app.command()
@command
def credentials(
    kind: Annotated[KindOption, typer.Argument(help="What they allow (docs/cli.md).")],
    name: Annotated[str, typer.Argument(help="Who it is: a-z, 0-9, hyphens.")],
    data: DataDir,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to write the credentials to.")],
    days: Annotated[int, typer.Option(help="How long they hold.", min=1, max=825)] = 90,
    address: Annotated[
        str | None, typer.Option(help="host:port to call; needed if it listens on 0.0.0.0.")
    ] = None,
) -> None:
    """Issue credentials to someone who calls this node."""
    from node.callers import credentials_of

    made = credentials_of(
        data, CallerKind(kind), name, out_dir, clock=SystemClock(), days=days, address=address
    )
    out.print(
        f"{made.principal} at {made.address} is in {out_dir} for {days} days. "
        f"Try: fenhe node status --as {out_dir}",
        soft_wrap=True,
    )


@app.command()
@command
def run(
    data: DataDir,
    log: Annotated[Path | None, typer.Option(help="Log file; default: stderr.")] = None,
) -> None:
    """Run the node until Ctrl-C or SIGTERM."""
    from node.app import run_node

    run_node(data, log)


@app.command()
@command
def new_epoch(
    data: DataDir,
    above: Annotated[
        int, typer.Option(min=0, help="An epoch that a neighbour remembers; greater than that.")
    ] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for a confirmation.")] = False,
) -> None:
    """Begin a new life of a store that was put back by hand."""
    from node.new_epoch import begin_new_epoch
    from node.settings import load_settings

    node_id = load_settings(data).node_id
    if not yes:
        _confirm_new_epoch(node_id)
    begun = begin_new_epoch(data, above=above)
    out.print(
        f"The store of node {begun.node_id} is at epoch {begun.now}, was at {begun.before}. "
        f"Start it: fenhe node run --data {data}",
        soft_wrap=True,
    )
    errors.print(
        "It recovers: its neighbours give back what is younger than the backup. New rows are taken "
        "meanwhile; amendments and retractions wait (fenhe node recover --status).",
        soft_wrap=True,
    )


def _confirm_new_epoch(node_id: str) -> None:
    """Say what it costs and ask; somebody who cannot be asked has to say --yes.

    Raises:
        ConfirmationMissingError: Nobody can be asked, or the answer is no.
    """
    errors.print(
        f"Only for a store that was put back by hand: until its parent and every child have "
        f"answered, node {node_id} will amend, retract and move nothing and answer no question "
        "for its own home, and this cannot be taken back.",
        soft_wrap=True,
    )
    if not _is_terminal():
        raise ConfirmationMissingError("there is no terminal to ask at; nothing was changed")
    if not typer.confirm(f"Begin a new epoch of node {node_id}?", err=True):
        raise ConfirmationMissingError("not confirmed; nothing was changed")


def _is_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


@app.command()
@command
def status(
    credentials: CredentialsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask a node how it is."""
    with connected(find_credentials(credentials)) as channel:
        response = node_pb2_grpc.NodeServiceStub(channel).Status(pb.StatusRequest(), timeout=10)
    if as_json:
        print_json(
            MessageToDict(
                response,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
        )
        return
    _show_state(response)
    _show_links(response)


def _show_state(response: pb.StatusResponse) -> None:
    """What the node is and holds."""
    out.print(
        f"{response.node_id} {response.name} ({response.level}), fenhe {response.version}, "
        f"{response.database}, profile {response.profile}, up {response.uptime_ms // 1000} s",
        soft_wrap=True,
    )
    print_table(("table", "rows"), sorted(response.rows.items()))
    out.print(
        f"Change log at {response.log_sequence}, about {format_bytes(response.log_bytes)}, pruned "
        f"to {response.log_pruned_to}; columnar replica at {response.columnar_sequence}.",
        soft_wrap=True,
    )
    out.print(f"Store epoch {response.store_epoch}, region epoch {response.config_epoch}.")
    if response.config_epoch_decided:
        errors.print(
            f"Region epoch {response.config_epoch_decided} is decided and not in force here yet "
            "(fenhe hierarchy history, at the root)."
        )
    _show_audit(response.audit)
    if response.recovering:
        errors.print("Recovering: amendments and retractions wait (fenhe node recover --status).")


def _show_audit(audit: audit_pb.AuditStanding) -> None:
    """How the audit stands, if the node says so."""
    if not audit.state:
        return
    out.print(f"Audit at {audit.position}, {audit.state.replace('_', ' ')}.")
    if audit.unanchored_ms >= _HOUR_MS:
        errors.print(
            f"No other node holds the audit's end, for {audit.unanchored_ms // _HOUR_MS} h "
            "(docs/settings.md, audit_unanchored_hours)."
        )


def _show_links(response: pb.StatusResponse) -> None:
    """How far each lane is, and what is amiss."""
    print_table(
        ("link", "to", "state", "lane", "delivered to", "applied to", "to go"),
        [
            (
                link.role,
                link.peer,
                "up" if link.connected else "down",
                common_pb2.Lane.Name(lane.lane).removeprefix("LANE_").lower(),
                lane.delivered_to,
                lane.applied_to,
                lane.backlog,
            )
            for link in response.links
            for lane in link.lanes
        ],
    )
    for alarm in response.alarms:
        errors.print(
            printable(f"ALARM {alarm.kind} {alarm.peer}: {alarm.message} Next: {alarm.next_step}"),
            markup=False,
        )
    if response.quarantined:
        errors.print(
            f"{response.quarantined} changes from neighbours were not admitted and wait; answers "
            "leave their residents out (fenhe quarantine list)."
        )
    for link in response.links:
        if link.last_error:
            errors.print(printable(f"{link.peer}: {link.last_error}"), markup=False)
