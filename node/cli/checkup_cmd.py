"""fenhe doctor: what is amiss with a node, and its canaries."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.doctor_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, errors, out, print_json, printable
from node.clock import SystemClock, format_ms
from protos.fenhe.node.v1 import doctor_pb2_grpc

__all__ = ["add_to"]

EXIT_BAD: Final = 5
_CALL_S: Final = 600

app = typer.Typer(invoke_without_command=True)
canary_app = typer.Typer(no_args_is_help=True)
app.add_typer(canary_app, name="canary", help="Residents of no person that show a leak.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_WORDS: Final = {
    pb.SEVERITY_BAD: ("bad", "[bold red]BAD[/]"),
    pb.SEVERITY_WARNING: ("warning", "[yellow]WARNING[/]"),
    pb.SEVERITY_GOOD: ("good", "[green]good[/]"),
}


def add_to(root: typer.Typer) -> None:
    """Add the group to the root."""
    root.add_typer(app, name="doctor", help="What is amiss with a node, and what to do.")


@app.callback()
@command
def examine(
    context: typer.Context,
    credentials: CredentialsOption = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Look at the folder of a node that does not run."),
    ] = None,
    whole_audit: Annotated[
        bool, typer.Option("--whole-audit", help="Also walk the whole chain of the audit.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything: each finding with its next step. Exit code 5: one is bad."""
    if context.invoked_subcommand is not None:
        return
    if data is not None:
        said = _of_folder(data, whole_audit=whole_audit)
    else:
        with connected(find_credentials(credentials)) as channel:
            stub = doctor_pb2_grpc.DoctorServiceStub(channel)
            said = stub.Examine(pb.ExamineRequest(whole_audit=whole_audit), timeout=_CALL_S)
    if as_json:
        print_json(_as_json(said))
    else:
        _show(said)
    if any(finding.severity == pb.SEVERITY_BAD for finding in said.findings):
        raise typer.Exit(EXIT_BAD)


@canary_app.command()
@command
def plant(credentials: CredentialsOption = None, as_json: AsJson = False) -> None:
    """Make the node's canary; if it has one, say which."""
    with connected(find_credentials(credentials)) as channel:
        stub = doctor_pb2_grpc.DoctorServiceStub(channel)
        request = pb.PlantCanaryRequest(request_id=str(uuid.uuid4()))
        said = stub.PlantCanary(request, timeout=_CALL_S)
    if as_json:
        print_json(_as_dict(said))
    elif said.planted:
        out.print(f"The canary {said.resident_id} is planted. It is no person and is not counted.")
    else:
        out.print(f"The node has its canary: {said.resident_id}.")


@canary_app.command()
@command
def look(
    credentials: CredentialsOption = None,
    folder: Annotated[
        str, typer.Option("--folder", help="Search this folder of the node's machine too.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Look for canaries where they must not be. Exit code 5: one is there."""
    with connected(find_credentials(credentials)) as channel:
        stub = doctor_pb2_grpc.DoctorServiceStub(channel)
        said = stub.FindCanaries(pb.FindCanariesRequest(folder=folder), timeout=_CALL_S)
    if as_json:
        print_json(_as_dict(said))
    else:
        for stray in said.strays:
            of = f" of {stray.home_node}" if stray.home_node else ""
            errors.print(printable(f"CANARY in {stray.place}: {stray.detail}{of}"), markup=False)
        out.print(
            f"{said.at_home} canaries where they may be, {len(said.strays)} where they must not; "
            f"{said.looked_at} things were looked at.",
            soft_wrap=True,
        )
    if said.strays:
        raise typer.Exit(EXIT_BAD)


def _of_folder(data: Path, *, whole_audit: bool) -> pb.ExamineResponse:
    from node.doctor.stopped import examine_folder

    clock = SystemClock()
    node_id, found = examine_folder(data, clock, whole_audit=whole_audit)
    return pb.ExamineResponse(
        node_id=node_id,
        at=format_ms(clock.now_ms()),
        findings=[
            pb.Finding(
                topic=each.topic,
                severity=pb.Severity.ValueType(each.severity.value),
                about=each.about,
                message=each.message,
                next_step=each.next_step,
            )
            for each in found
        ],
    )


def _show(said: pb.ExamineResponse) -> None:
    for finding in said.findings:
        out.print(_WORDS[finding.severity][1], end=" ")
        about = f" {finding.about}" if finding.about else ""
        line = f"{finding.topic}{about}: {finding.message}"
        out.print(printable(line), markup=False, soft_wrap=True)
        if finding.next_step:
            step = printable(f"  Next: {finding.next_step}")
            out.print(step, markup=False, soft_wrap=True)
    bad = sum(finding.severity == pb.SEVERITY_BAD for finding in said.findings)
    warnings = sum(finding.severity == pb.SEVERITY_WARNING for finding in said.findings)
    out.print(f"Node {said.node_id}: {bad} bad, {warnings} warnings.")


def _as_json(said: pb.ExamineResponse) -> dict[str, Any]:
    made = _as_dict(said)
    for shown, finding in zip(made["findings"], said.findings, strict=True):
        shown["severity"] = _WORDS[finding.severity][0]
    return made


def _as_dict(message: Any) -> dict[str, Any]:
    made: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return made
