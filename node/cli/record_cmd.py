"""fenhe record: where one record is, from its author to its home and up from there."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.care.v1.care_pb2 as care
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, out, print_json, print_table, printable
from protos.fenhe.care.v1 import care_pb2_grpc

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

CALL_S: Final = 30

_NEXT: Final = {
    "waiting_key": "nothing; the home's certificate is asked for again by itself, so see that the "
    "nodes on the way run.",
    "refused": "look at the code at the home's line: it waits in the home's quarantine and is "
    "judged again there.",
}


@app.callback()
def group() -> None:
    """What became of a single record."""


@app.command()
@command
def where(
    record_id: Annotated[str, typer.Argument(help="UUID of the record.")],
    credentials: CredentialsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Each node on a record's way, and what it has of it."""
    with connected(find_credentials(credentials)) as channel:
        stub = care_pb2_grpc.RecordServiceStub(channel)
        found = stub.Where(care.WhereRequest(record_id=record_id), timeout=CALL_S)
    if as_json:
        print_json(
            MessageToDict(
                found,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
        )
        return
    _show(found)


def _show(found: care.WhereResponse) -> None:
    version = f"{found.version.author_epoch}.{found.version.number}"
    out.print(
        f"Record {found.record_id}, version {version}, by {found.author_node},"
        f" home {found.home_node}",
        markup=False,
        soft_wrap=True,
    )
    if found.HasField("letter"):
        out.print(_letter_line(found.letter), markup=False, soft_wrap=True)
    print_table(
        ("node", "as", "state", "since", "why"),
        [
            (
                hop.node_id,
                hop.place,
                hop.state,
                hop.at[:19].replace("T", " ") or "–",
                printable(hop.cause) or "–",
            )
            for hop in found.hops
        ],
    )


def _letter_line(letter: care.Letter) -> str:
    """What the author knows of the letter, and what can be done, in a line or two."""
    said = f"Letter {letter.letter_id}: {letter.state}"
    if letter.code:
        said += f" by {letter.code}"
    said += f" {letter.attempts}x" if letter.state == "sent" else f", sent {letter.attempts}x"
    if letter.receipt_at:
        said += f", receipt of {letter.receipt_at[:19]}Z signed with {letter.receipt_key_id[:16]}"
    elif letter.next_at:
        said += f", again at {letter.next_at[:19]}Z"
    step = _NEXT.get(letter.state)
    return f"{said}\nNext: {step}" if step else said
