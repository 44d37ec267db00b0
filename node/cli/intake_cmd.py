"""fenhe intake: files and feeds of a hospital, what became of them, and what was not admitted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

import protos.fenhe.node.v1.intake_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import (
    EXIT_FAILED,
    EXIT_PARTIAL,
    command,
    errors,
    out,
    print_json,
    print_table,
    printable,
)
from node.errors import SettingsError
from node.ingestion.mapping import load_mapping
from node.ingestion.proposing import propose
from node.ingestion.report import html_report, text_report
from protos.fenhe.node.v1 import intake_pb2_grpc

__all__ = ["AsJson", "MappingOption", "app", "as_dict", "load_file", "run_line"]

app = typer.Typer(no_args_is_help=True)

CALL_S: Final = 60
LOAD_S: Final = 7 * 24 * 3600
_PIECE_BYTES: Final = 1 << 20

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MappingOption = Annotated[
    str, typer.Option("--mapping", help="Name of a mapping that comes with Fenhe, or a file.")
]


@app.callback()
def group() -> None:
    """Bring data in: every unit is accepted, or waits in the quarantine with its reason."""


def as_dict(message: Any) -> Any:
    """A message as JSON has it, with numbers as numbers."""
    return _numbers(
        MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    )


_COUNTED: Final = frozenset(
    {
        "read",
        "accepted",
        "quarantined",
        "unchanged",
        "residents",
        "records",
        "amended",
        "warnings",
        "item_id",
        "unit",
        "line",
        "waiting",
    }
)


def _numbers(value: Any) -> Any:
    """Protobuf's JSON writes 64-bit numbers as text."""
    if isinstance(value, dict):
        return {
            key: int(each)
            if key in _COUNTED and isinstance(each, str)
            else {k: int(v) for k, v in each.items()}
            if key == "waiting" and isinstance(each, dict)
            else _numbers(each)
            for key, each in value.items()
        }
    return [_numbers(each) for each in value] if isinstance(value, list) else value


@app.command()
@command
def load(
    file: Annotated[Path, typer.Argument(help="File to load.", exists=True, dir_okay=False)],
    mapping: MappingOption,
    credentials: CredentialsOption = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Load a file. The same file again adds nothing; a load that broke off goes on."""
    with connected(find_credentials(credentials)) as channel:
        stub = intake_pb2_grpc.IntakeServiceStub(channel)
        run = load_file(stub, file, mapping, wait=wait, quiet=as_json)
    if as_json:
        print_json(as_dict(run))
    else:
        out.print(run_line(run), markup=False, soft_wrap=True)
    if run.state == "failed":
        errors.print(f"{run.code}: {printable(run.message)}", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED)
    if run.quarantined:
        errors.print(
            f"{run.quarantined} wait: fenhe intake quarantine list --run {run.run_id}",
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(EXIT_PARTIAL)


def load_file(
    stub: intake_pb2_grpc.IntakeServiceStub,
    file: Path,
    mapping: str,
    *,
    wait: bool = True,
    quiet: bool = False,
    watermark: str = "",
) -> pb.Run:
    """Send a file and follow its run."""
    _, text = load_mapping(mapping)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        console=errors,
        disable=quiet,
    ) as progress:
        size = file.stat().st_size
        task = progress.add_task("looking at it", total=size)
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while data := stream.read(_PIECE_BYTES):
                digest.update(data)
                progress.advance(task, len(data))
        offered = stub.Offer(
            pb.OfferRequest(
                sha256=digest.hexdigest(),
                size=size,
                file_name=file.name,
                mapping=text,
                watermark=watermark,
            ),
            timeout=CALL_S,
        )
        run: pb.Run = offered.run
        if run.state == "arriving":
            done = offered.next_piece * _PIECE_BYTES
            progress.update(task, description="sending it", completed=done)
            pieces = _pieces(file, run.run_id, offered.next_piece, progress, task)
            stub.Send(pieces, timeout=LOAD_S)
        elif run.state == "done" and not quiet:
            errors.print("This file has come in before, under this mapping: nothing is added.")
        return _followed(stub, run, progress, task) if wait else run


def _pieces(
    file: Path, run_id: str, first: int, progress: Progress, task: Any
) -> Iterator[pb.ContentPiece]:
    with file.open("rb") as stream:
        stream.seek(first * _PIECE_BYTES)
        number = first
        while data := stream.read(_PIECE_BYTES):
            yield pb.ContentPiece(run_id=run_id, number=number, data=data)
            number += 1
            progress.advance(task, len(data))


def _followed(
    stub: intake_pb2_grpc.IntakeServiceStub, run: pb.Run, progress: Progress, task: Any
) -> pb.Run:
    for each in stub.Follow(pb.FollowRequest(run_id=run.run_id), timeout=LOAD_S):
        run = each
        said = f"read {run.read}, accepted {run.accepted}, quarantined {run.quarantined}"
        progress.update(task, description=said, total=None)
    return run


def run_line(run: pb.Run) -> str:
    """A run in one sentence."""
    if run.state == "failed" and not run.read:
        return f"Run {run.run_id} failed before its first unit"
    said = (
        f"Run {run.run_id} is {run.state}: read {run.read} = accepted {run.accepted} + "
        f"quarantined {run.quarantined}; {run.residents} registered, {run.records} records, "
        f"{run.amended} amended, {run.unchanged} unchanged, {run.warnings} warnings"
    )
    if run.encoding and run.encoding != "utf-8":
        said += f"; decoded from {run.encoding}"
    return said + ("; the file breaks off in the middle" if run.truncated else "")


@app.command("map")
@command
def propose_mapping(
    file: Annotated[Path, typer.Argument(help="File to look at.", exists=True, dir_okay=False)],
    name: Annotated[str, typer.Option(help="Name of the mapping and its source.")] = "source-1",
    to: Annotated[Path | None, typer.Option("--to", help="Write it here instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Propose a mapping for a table, by its header and its cells. Nothing leaves this machine."""
    made = propose(file, name)
    if as_json:
        print_json(
            {
                "format": made.format.value,
                "encoding": made.encoding,
                "rows": made.rows,
                "mapping": made.text,
                "columns": [
                    {
                        "column": each.column,
                        "element": each.element,
                        "sureness": each.sureness,
                        "reason": each.reason,
                        "taken": each.is_sure,
                        "notes": list(each.notes),
                    }
                    for each in made.columns
                ],
            }
        )
    elif to is not None:
        if to.exists():
            raise SettingsError(f"{to} is there already", hint="Name another file.")
        to.write_text(made.text, encoding="utf-8")
        taken = sum(each.is_sure for each in made.columns)
        out.print(
            f"Wrote {to}: {taken} of {len(made.columns)} columns are mapped. Read it before it is "
            "used.",
            markup=False,
            soft_wrap=True,
        )
        for note in made.notes:
            out.print(printable(note), markup=False, soft_wrap=True)
    else:
        out.print(printable(made.text), markup=False, soft_wrap=True)


@app.command()
@command
def status(
    credentials: CredentialsOption = None,
    source: Annotated[str, typer.Option(help="Only of this source.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Runs, newest first."""
    with connected(find_credentials(credentials)) as channel:
        stub = intake_pb2_grpc.IntakeServiceStub(channel)
        runs = stub.ListRuns(pb.ListRunsRequest(source=source, limit=limit), timeout=CALL_S).runs
    if as_json:
        print_json([as_dict(run) for run in runs])
        return
    print_table(
        ("run", "source", "state", "since", "read", "accepted", "quarantined"),
        [
            (
                run.run_id,
                run.source,
                f"{run.state} {run.code}".strip(),
                run.created_at[5:16].replace("T", " "),
                run.read,
                run.accepted,
                run.quarantined,
            )
            for run in runs
        ],
    )


@app.command()
@command
def report(
    credentials: CredentialsOption = None,
    run: Annotated[str, typer.Option("--run", help="Only this run.")] = "",
    source: Annotated[str, typer.Option(help="Only of this source; its newest runs.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="Runs in the trend.")] = 20,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Quality by column and over runs: text, JSON, or a page with plots."""
    request = pb.ListRunsRequest(run_id=run, source=source, limit=limit, quality=True)
    with connected(find_credentials(credentials)) as channel:
        stub = intake_pb2_grpc.IntakeServiceStub(channel)
        runs = stub.ListRuns(request, timeout=CALL_S).runs
    reports = [json.loads(each.quality) for each in runs if each.quality]
    if html is not None:
        html.write_text(html_report(reports), encoding="utf-8")
    if as_json:
        print_json(reports)
    elif html is not None:
        out.print(f"Wrote {html}.", markup=False)
    else:
        for name in dict.fromkeys(each["source"] for each in reports):
            own = [each for each in reports if each["source"] == name]
            out.print(printable(text_report(own)), markup=False, soft_wrap=True)
