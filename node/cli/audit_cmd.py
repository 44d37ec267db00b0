"""fenhe audit: who did what to whose data, whether it still stands so, and its way out."""

from __future__ import annotations

import hashlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.auditing_pb2 as pb
from node.auditing.errors import AuditExportCutError
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import (
    EXIT_PARTIAL,
    command,
    errors,
    out,
    print_json,
    print_table,
    printable,
)
from node.cli.verify_cmd import ReportMissingError
from protos.fenhe.node.v1 import auditing_pb2_grpc

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

_CALL_S: Final = 60
_PAGE_MAX: Final = 500

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Resident = Annotated[str, typer.Option("--resident", help="Id of a resident.")]
Who = Annotated[str, typer.Option("--principal", help="SPIFFE id of who did it.")]
Did = Annotated[
    str,
    typer.Option("--action", help="One deed: read, put, sign_in, break_glass, … (docs/cli.md)."),
]
Ended = Annotated[str, typer.Option("--outcome", help="done, not_found, repeated or refused.")]
Since = Annotated[str, typer.Option("--since", help="From this time on: 2026-11-23T08:00, UTC.")]
Until = Annotated[str, typer.Option("--until", help="Before this time.")]
Grant = Annotated[str, typer.Option("--grant", help="Id of the grant of one broken glass.")]
Glass = Annotated[bool, typer.Option("--break-glass", help="Done through any broken glass.")]


@app.command()
@command
def search(  # noqa: PLR0917 -- the options of a command
    credentials: CredentialsOption = None,
    resident: Resident = "",
    principal: Who = "",
    action: Did = "",
    outcome: Ended = "",
    since: Since = "",
    until: Until = "",
    grant: Grant = "",
    break_glass: Glass = False,
    count: Annotated[int, typer.Option("--count", help="At most so many.", min=1)] = 100,
    as_json: AsJson = False,
) -> None:
    """Find entries of a node's audit, newest first."""
    wanted = _filter(
        resident, principal, action, outcome, since, until, grant, break_glass=break_glass
    )
    with connected(find_credentials(credentials)) as channel:
        stub = auditing_pb2_grpc.AuditServiceStub(channel)
        found, has_more = _pages(stub, wanted, count)
    if as_json:
        print_json([_as_dict(each) for each in found])
    else:
        _show(found)
    if has_more:
        errors.print("There are older ones: --count, or --until the last time shown.")


@app.command()
@command
def about(
    resident_id: Annotated[str, typer.Argument(help="Id of the resident.")],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Who has looked at a resident's record, at every node within reach. Exit code 5: partial."""
    request = pb.AboutResidentRequest(resident_id=resident_id)
    with connected(find_credentials(credentials)) as channel:
        stub = auditing_pb2_grpc.AuditServiceStub(channel)
        said = stub.AboutResident(request, timeout=_CALL_S)
    if as_json:
        print_json(_as_dict(said))
    else:
        rows = sorted(
            ((each, node.node_id) for node in said.nodes for each in node.records),
            key=lambda row: row[0].at,
            reverse=True,
        )
        print_table(
            ("when", "who", "as", "of node", "at node", "did", "rows", "why", ""),
            [
                (
                    each.at,
                    _name(each.principal),
                    each.kind,
                    each.node_id,
                    node,
                    _did(each),
                    each.row_count,
                    each.purpose,
                    "BREAK-GLASS" if each.break_glass else None,
                )
                for each, node in rows
            ],
        )
        for node in said.nodes:
            if node.fault:
                errors.print(f"{node.node_id} did not answer: {printable(node.fault)}")
            elif node.more:
                errors.print(f"{node.node_id} has older entries: fenhe audit search there.")
    if not said.complete:
        raise typer.Exit(EXIT_PARTIAL)


@app.command()
@command
def verify(credentials: CredentialsOption = None, as_json: AsJson = False) -> None:
    """Walk the audit's chain and compare it with its anchors. Exit code 5: it does not hold."""
    report = None
    with connected(find_credentials(credentials)) as channel:
        stub = auditing_pb2_grpc.AuditServiceStub(channel)
        for event in stub.VerifyAudit(pb.VerifyAuditRequest()):
            if event.WhichOneof("event") == "report":
                report = event.report
            elif not as_json and errors.is_terminal:
                errors.print(f"{event.position:,} entries hold", end="\r")
    if report is None:
        raise ReportMissingError("the node ended the verification without a report")
    if as_json:
        print_json(_as_dict(report))
    else:
        _show_report(report)
    if not report.holds:
        raise typer.Exit(EXIT_PARTIAL)


@app.command()
@command
def export(  # noqa: PLR0917 -- the options of a command
    credentials: CredentialsOption = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="File to write; default: standard output.")
    ] = None,
    resident: Resident = "",
    principal: Who = "",
    action: Did = "",
    outcome: Ended = "",
    since: Since = "",
    until: Until = "",
    grant: Grant = "",
    break_glass: Glass = False,
) -> None:
    """Write entries as DICOM audit messages, one a line."""
    request = pb.ExportAuditRequest(
        filter=_filter(
            resident, principal, action, outcome, since, until, grant, break_glass=break_glass
        )
    )
    with connected(find_credentials(credentials)) as channel:
        pieces = auditing_pb2_grpc.AuditServiceStub(channel).ExportAudit(request)
        if to is None:
            end = _written(pieces, sys.stdout.buffer)
        else:
            with to.open("xb") as file:
                end = _written(pieces, file)
    errors.print(f"{end.count} messages, SHA-256 {end.digest}")


@app.command()
@command
def accept(
    node_id: Annotated[str, typer.Argument(metavar="CODE", help="Whose audit.")],
    reason: Annotated[str, typer.Option(help="Why, in a few words without patient data.")],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Anchor a neighbour's audit anew after a contradiction."""
    request = pb.AcceptAuditRequest(node_id=node_id, reason=reason, request_id=uuid.uuid4().hex)
    with connected(find_credentials(credentials)) as channel:
        said = auditing_pb2_grpc.AuditServiceStub(channel).AcceptAudit(request, timeout=_CALL_S)
    if as_json:
        print_json(_as_dict(said))
    else:
        out.print(f"{said.accepted} contradictions of {node_id} are accepted; they stay on record.")


def _filter(*said: str, break_glass: bool) -> pb.AuditFilter:
    names = ("resident_id", "principal", "action", "outcome", "since", "until", "grant_id")
    return pb.AuditFilter(**dict(zip(names, said, strict=True)), break_glass=break_glass)


def _pages(
    stub: auditing_pb2_grpc.AuditServiceStub, wanted: pb.AuditFilter, count: int
) -> tuple[list[pb.AuditRecord], bool]:
    """At most so many entries, and whether there are more."""
    found: list[pb.AuditRecord] = []
    token = ""  # of a page  # nosec B105
    while len(found) < count:
        page = stub.SearchAudit(
            pb.SearchAuditRequest(
                filter=wanted, page_size=min(count - len(found), _PAGE_MAX), token=token
            ),
            timeout=_CALL_S,
        )
        found.extend(page.records)
        token = page.next_token
        if not token:
            break
    return found, bool(token)


def _written(pieces: Iterator[pb.ExportAuditPiece], file: IO[bytes]) -> pb.ExportAuditEnd:
    """Write all lines; the end, if what came is what it says.

    Raises:
        AuditExportCutError: It is not, or there is no end.
    """
    digest, lines = hashlib.sha256(), 0
    for piece in pieces:
        if piece.WhichOneof("piece") == "end":
            if (piece.end.count, piece.end.digest) != (lines, digest.hexdigest()):
                raise AuditExportCutError("the export's count or digest does not fit")
            file.flush()
            return piece.end
        file.write(piece.lines)
        digest.update(piece.lines)
        lines += piece.lines.count(b"\n")
    raise AuditExportCutError("the export ended without its count and digest")


def _show(found: list[pb.AuditRecord]) -> None:
    print_table(
        ("when", "who", "as", "of node", "did", "resident", "rows", "outcome", "position", ""),
        [
            (
                each.at,
                _name(each.principal),
                each.kind,
                each.node_id,
                _did(each),
                each.resident_id or None,
                each.row_count,
                each.outcome,
                each.position or None,
                "BREAK-GLASS" if each.break_glass else None,
            )
            for each in found
        ],
    )


def _show_report(report: pb.AuditVerification) -> None:
    print_table(
        ("anchored by", "anchors", "up to", "lost by a restore", "not judged", "asked"),
        [
            (
                each.holder,
                each.anchors,
                each.newest,
                each.lost,
                each.unjudged,
                each.fault or "answered",
            )
            for each in report.comparisons
        ],
    )
    for life in report.lives[1:]:
        out.print(f"Store epoch {life.store_epoch} began after position {life.position}.")
    if report.broken_at:
        because = printable(report.broken_because)
        errors.print(f"The chain breaks at position {report.broken_at}: {because}.")
    for each in report.comparisons:
        for one in each.breaks:
            note = " (accepted)" if one.accepted else ""
            errors.print(
                f"{one.fault} from position {one.position} on: {each.holder} anchored "
                f"{one.anchored}{note}."
            )
    words = "holds" if report.holds else "does NOT hold"
    out.print(f"The audit {words}: {report.entries:,} entries, {report.unanchored} not anchored.")
    if report.holds and not report.complete:
        errors.print("Not every node that anchors was asked: see above.")


def _did(each: pb.AuditRecord) -> str:
    return f"{each.action} {each.object_table}"


def _name(principal: str) -> str:
    """The end of a SPIFFE id, which tells people apart."""
    return "/".join(principal.split("/")[-2:])


def _as_dict(message: Any) -> Any:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
