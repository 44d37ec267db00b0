"""fenhe hierarchy plan, apply, history, rollback: changes of the region, asked of its root node."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.region_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import EXIT_PARTIAL, command, errors, out, print_json, print_table, printable
from node.errors import SettingsError
from protos.fenhe.node.v1 import region_pb2_grpc

__all__ = ["add_to"]

_CALL_S: Final = 60.0
_LOOK_AGAIN_S: Final = 1.0
_SHOWN: Final = 12

NewRegion = Annotated[Path, typer.Argument(help="Region file: a changed copy of that in force.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", help="Node given up: it learns of it when it is back. Repeatable."),
]
PurgeAfter = Annotated[
    int,
    typer.Option(help="Minutes in which it can be rolled back; then old branches delete.", min=0),
]
Wait = Annotated[int, typer.Option(help="Seconds to wait for nodes that lack it.", min=0)]
Follow = Annotated[
    int, typer.Option(help="Seconds to watch what follows until it is settled; 0: none.", min=0)
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `fenhe hierarchy`."""
    for function in (plan, apply, history, rollback):
        app.command()(command(function))


def plan(file: NewRegion, credentials: CredentialsOption = None, as_json: AsJson = False) -> None:
    """Say what a region file would change, before anything moves."""
    text = _text(file)
    with connected(find_credentials(credentials)) as channel:
        said = region_pb2_grpc.RegionServiceStub(channel).Plan(
            pb.PlanRequest(region_text=text), timeout=_CALL_S
        )
    if as_json:
        print_json(_as_dict(said))
    else:
        _show_plan(said)
    if said.blocks:
        raise typer.Exit(EXIT_PARTIAL)


def apply(  # noqa: PLR0917 -- the options of a command
    file: NewRegion,
    credentials: CredentialsOption = None,
    without: Without = None,
    purge_after: PurgeAfter = 60,
    wait: Wait = 30,
    follow: Follow = 0,
    note: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    as_json: AsJson = False,
) -> None:
    """Put a region file in force at every node; the records follow."""
    request = pb.ApplyRequest(
        request_id=uuid.uuid4().hex,
        region_text=_text(file),
        without=without or [],
        purge_after_s=purge_after * 60,
        wait_s=wait,
        note=note,
    )
    with connected(find_credentials(credentials)) as channel:
        stub = region_pb2_grpc.RegionServiceStub(channel)
        _tell(stub, stub.Apply(request, timeout=_CALL_S + wait), follow, as_json=as_json)


def rollback(
    credentials: CredentialsOption = None,
    without: Without = None,
    purge_after: PurgeAfter = 60,
    wait: Wait = 30,
    follow: Follow = 0,
    as_json: AsJson = False,
) -> None:
    """Take the last change back. Refused once an old branch was told to delete."""
    request = pb.RollbackRequest(
        request_id=uuid.uuid4().hex,
        without=without or [],
        purge_after_s=purge_after * 60,
        wait_s=wait,
    )
    with connected(find_credentials(credentials)) as channel:
        stub = region_pb2_grpc.RegionServiceStub(channel)
        _tell(stub, stub.Rollback(request, timeout=_CALL_S + wait), follow, as_json=as_json)


def history(
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
    count: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=200)] = 20,
) -> None:
    """List the region's epochs: who signed, what changed."""
    with connected(find_credentials(credentials)) as channel:
        said = region_pb2_grpc.RegionServiceStub(channel).History(
            pb.HistoryRequest(page_size=count), timeout=_CALL_S
        )
    if as_json:
        print_json(_as_dict(said))
        return
    for each in said.epochs:
        when = each.activated_at or each.received_at
        by = each.by or "a file put in place by hand"
        out.print(printable(f"epoch {each.epoch} ({each.state}) since {when}, by {by}"))
        if each.note:
            out.print(printable(f"  why: {each.note}"), markup=False)
        for sentence in (*each.changes, *each.progress):
            out.print(printable(f"  {sentence}"), markup=False)
        if each.children_without:
            out.print(f"  children that lack it: {_few(each.children_without)}")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{file} cannot be read: {error}", hint="Name a region file, for example region.yaml."
        ) from None


def _show_plan(said: pb.PlanResponse) -> None:
    out.print(f"From epoch {said.epoch_now} to epoch {said.epoch_next}:")
    if said.changes:
        print_table(
            ("change", "node", "how", "nodes below", "residents", "rows"),
            [
                (
                    each.kind,
                    each.node_id or "–",
                    each.detail,
                    each.nodes_below,
                    each.residents if each.HasField("residents") else "unknown",
                    each.rows if each.HasField("rows") else "unknown",
                )
                for each in said.changes
            ],
        )
    for each in said.changes:
        if each.key_digest:
            out.print(f"{each.node_id} has the key {each.key_digest[:32]}… (compare it there)")
    if said.purges:
        print_table(
            ("deletes afterwards", "homes that leave", "rows of them"),
            [
                (each.node_id, each.homes, each.rows if each.HasField("rows") else "unknown")
                for each in said.purges
            ],
        )
    if said.new_certificates:
        names = said.new_certificates
        out.print(f"New certificates over the links: {len(names)} ({_few(names)})")
    if said.away:
        out.print(f"Not connected: {_few(said.away)}")
    for note in said.notes:
        out.print(printable(f"Note: {note}"), markup=False)
    for block in said.blocks:
        errors.print(printable(f"Blocked: {block}"), markup=False)


@dataclass
class _Course:
    """What came of an apply or a rollback: printed as it comes, or as one JSON document."""

    as_json: bool
    steps: list[dict[str, Any]] = field(default_factory=list)
    progress: list[str] = field(default_factory=list)
    settled: bool = False

    def step(self, said: Any) -> None:
        """One step of the call."""
        self.steps.append(_as_dict(said))
        self._say(f"epoch {said.epoch}: {said.step}: {said.detail}")

    def come_to(self, progress: list[str]) -> None:
        """How far the epoch has come; what was said before is not said again."""
        for sentence in progress:
            if sentence not in self.progress:
                self._say(f"  {sentence}")
        self.progress = progress
        self.settled = progress == ["settled"]

    def _say(self, text: str) -> None:
        if not self.as_json:
            out.print(printable(text), markup=False)


def _tell(
    stub: region_pb2_grpc.RegionServiceStub, steps: Iterable[Any], follow: int, *, as_json: bool
) -> None:
    """Print the steps and what follows. A call that fails midway leaves the steps before it."""
    course = _Course(as_json)
    epoch = 0
    try:
        for step in steps:
            epoch = step.epoch
            course.step(step)
        _follow(stub, epoch, follow, course)
    finally:
        if as_json and course.steps:
            print_json(
                {
                    "epoch": str(epoch),
                    "steps": course.steps,
                    "progress": course.progress,
                    "settled": course.settled,
                }
            )
    if follow and not course.settled:
        errors.print(
            f"Epoch {epoch} is in force and not settled yet: see `fenhe hierarchy history`."
        )
        raise typer.Exit(EXIT_PARTIAL)


def _follow(
    stub: region_pb2_grpc.RegionServiceStub, epoch: int, seconds: int, course: _Course
) -> None:
    """Take in an epoch's progress until it is settled or the time is over."""
    if not (seconds or course.as_json):
        out.print("See how far it is with `fenhe hierarchy history`.")
    for _ in range(seconds):
        time.sleep(_LOOK_AGAIN_S)
        try:
            said = stub.History(pb.HistoryRequest(page_size=3), timeout=_CALL_S)
        except grpc.RpcError:
            # The root starts its parts again on the new epoch.
            continue
        course.come_to(
            next((list(each.progress) for each in said.epochs if each.epoch == epoch), [])
        )
        if course.settled:
            return


def _few(nodes: Any) -> str:
    shown = ", ".join(nodes[:_SHOWN])
    return shown if len(nodes) <= _SHOWN else f"{shown} and {len(nodes) - _SHOWN} more"


def _as_dict(message: Any) -> Any:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
