"""fenhe replication verify: are the copies what they should be?"""

from __future__ import annotations

from typing import Annotated, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.maintenance_pb2 as pb
from hierarchy_config.errors import Fault
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, errors, out, print_json, print_table, printable
from node.errors import NodeError
from protos.fenhe.node.v1 import maintenance_pb2_grpc

__all__ = ["ReportMissingError", "verify"]

EXIT_DIFFERENT: Final = 5


class ReportMissingError(NodeError):
    """The node ended a comparison without its report and without an error."""

    code = "REPORT_MISSING"
    fault = Fault.PEER
    retryable = True
    default_hint = "Compare again; if it comes back, look at the log of the node that was asked."


@command
def verify(
    credentials: CredentialsOption = None,
    peer: Annotated[
        str, typer.Option("--peer", help="Division code of one neighbour; default: all.")
    ] = "",
    table: Annotated[
        list[str] | None, typer.Option("--table", help="Only this table; may be repeated.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what differs, from its owner's side.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a node's rows with its neighbours'. Exit code 5: some differ."""
    request = pb.VerifyRequest(peer=peer, tables=table or [], repair=repair)
    with connected(find_credentials(credentials)) as channel:
        stub = maintenance_pb2_grpc.MaintenanceServiceStub(channel)
        report = None
        for event in stub.Verify(request):
            if event.WhichOneof("event") == "report":
                report = event.report
            elif not as_json and errors.is_terminal:
                done = event.progress
                errors.print(f"{done.peer}: {done.rows:,} rows, {done.differing} differ", end="\r")
    if report is None:
        raise ReportMissingError("the node ended the comparison without a report")
    if as_json:
        print_json(
            MessageToDict(
                report,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
        )
    else:
        _show(report)
    if not report.equal:
        raise typer.Exit(EXIT_DIFFERENT)


def _show(report: pb.VerifyReport) -> None:
    print_table(
        ("neighbour", "rows", "differ", "mended", "undecided", "on the way", "asked", "bytes"),
        [
            (
                link.peer,
                link.rows,
                link.differing,
                link.repaired,
                link.undecided_count,
                link.young,
                link.questions,
                link.bytes,
            )
            for link in report.links
        ],
    )
    for link in report.links:
        if link.fault:
            line = f"{link.peer}: not complete: {link.fault}: {link.fault_message}"
            errors.print(printable(line), markup=False)
        for cause, rows in sorted(link.causes.items()):
            errors.print(printable(f"{link.peer}: {cause}: {rows}"), markup=False)
        for row in link.undecided:
            line = f"{link.peer}: {row.direction} {row.table} {row.row_id}: {row.cause}"
            errors.print(printable(line), markup=False)
    if report.equal:
        out.print("Equal.")
    elif any(link.differing > link.repaired for link in report.links):
        out.print("Not equal.")
    else:
        out.print("Not complete: what was compared is equal.")
