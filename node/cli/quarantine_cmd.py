"""fenhe quarantine: changes from neighbours that were not admitted, and their exits.

Ids, causes and times only: what a change says stays under seal.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict

import protos.fenhe.node.v1.operations_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import command, out, print_json, print_table, printable
from protos.fenhe.common.v1 import common_pb2
from protos.fenhe.node.v1 import operations_pb2_grpc

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

CALL_S: Final = 30

_SEALED: Final = "sealed"
_EXITS: Final = {
    "released": "judged again and admitted",
    "superseded": "the row is held here at that version or a newer one",
    "discarded": "it is never applied here, however often it is sent again",
}

ItemId = Annotated[int, typer.Argument(min=1, help="Number of the item, as listed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _asked(credentials: Any, method: str, request: Any) -> Any:
    with connected(find_credentials(credentials)) as channel:
        stub = operations_pb2_grpc.ReplicationServiceStub(channel)
        return getattr(stub, method)(request, timeout=CALL_S)


def _as_dict(message: Any) -> Any:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


@app.command("list")
@command
def list_items(
    credentials: CredentialsOption = None,
    cause: Annotated[str, typer.Option(help="Only items of this cause.")] = "",
    resident: Annotated[str, typer.Option(help="Only items of this resident.")] = "",
    after: Annotated[int, typer.Option(min=0, help="Only items after this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """What waits, oldest first."""
    request = pb.ListQuarantineRequest(after=after, limit=limit, cause=cause, resident_id=resident)
    page = _asked(credentials, "ListQuarantine", request)
    if as_json:
        print_json(_as_dict(page))
        return
    if not page.items:
        out.print(f"Nothing to show; {page.waiting} wait in all.")
        return
    print_table(
        ("item", "cause", "from", "table", "resident", "tried", "last", "again"),
        [
            (
                item.item_id,
                item.cause,
                item.peer,
                item.table or ("a letter" if item.form == _SEALED else "an entry"),
                item.resident_id[:8] or "–",
                item.attempts,
                _short(item.last_at),
                _short(item.retry_at) if item.retry_at else "by operator",
            )
            for item in page.items
        ],
    )
    out.print(
        f"{page.waiting} wait in all; times are UTC. An item's exits: fenhe quarantine show ITEM",
        soft_wrap=True,
    )


@app.command()
@command
def show(item_id: ItemId, credentials: CredentialsOption = None, as_json: AsJson = False) -> None:
    """One item: whose, from where, why, how often tried."""
    item = _asked(credentials, "ShowQuarantine", pb.ShowQuarantineRequest(item_id=item_id))
    if as_json:
        print_json(_as_dict(item))
        return
    lane = common_pb2.Lane.Name(item.lane).removeprefix("LANE_").lower()
    for name, value in (
        ("state", _state(item)),
        ("cause", f"{item.cause}: {item.meaning}"),
        ("tried", f"{item.attempts}x, first {item.first_at[:19]}Z, last {item.last_at[:19]}Z"),
        ("from", f"{item.peer}, lane {lane}"),
        *_subject(item),
        ("origin", f"{item.origin_node} {item.origin_epoch}/{item.origin_sequence}"),
    ):
        out.print(f"{name:<9} {printable(value)}", markup=False, soft_wrap=True)
    if not item.closed_as:
        out.print(
            f"{'next':<9} {_next(item)}. Or: fenhe quarantine retry, ask or skip {item.item_id} "
            "(docs/cli.md has a table of causes)",
            soft_wrap=True,
        )


def _state(item: pb.QuarantineItem) -> str:
    if not item.closed_as:
        return "waits"
    said = f"{item.closed_as} at {item.closed_at[:19]}Z: {_EXITS.get(item.closed_as, '')}"
    return f"{said} ({item.reason})" if item.reason else said


def _next(item: pb.QuarantineItem) -> str:
    if item.retry_at:
        return f"judged again by itself at {item.retry_at[:19]}Z"
    return "nothing by itself, an operator decides"


def _subject(item: pb.QuarantineItem) -> tuple[tuple[str, str], ...]:
    """The row; or what is known of an entry that was not read, or of a letter."""
    if item.whole_entry:
        kind = "a letter" if item.form == _SEALED else f"a whole entry of {item.rows} row(s)"
        return (("what", f"{kind}, not opened here; for home {item.home_node}"),)
    return (
        ("row", f"{item.table} {item.row_id}, {item.form}"),
        ("resident", item.resident_id or "not known"),
        ("version", f"{item.version_epoch}.{item.version_number}"),
        ("author", f"{item.author_node}, home {item.home_node}"),
    )


@app.command()
@command
def retry(item_id: ItemId, credentials: CredentialsOption = None, as_json: AsJson = False) -> None:
    """Judge an item again now, as if it had just come."""
    done = _asked(credentials, "RetryQuarantine", pb.RetryQuarantineRequest(item_id=item_id))
    _told(done, as_json)


@app.command()
@command
def skip(
    item_id: ItemId,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit. No patient data.")],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Close an item for good without applying it."""
    request = pb.SkipQuarantineRequest(item_id=item_id, reason=reason)
    _told(_asked(credentials, "SkipQuarantine", request), as_json)


@app.command()
@command
def ask(item_id: ItemId, credentials: CredentialsOption = None, as_json: AsJson = False) -> None:
    """Ask the neighbour it came from to send the current version again."""
    answer = _asked(credentials, "AskQuarantine", pb.AskQuarantineRequest(item_id=item_id))
    if as_json:
        print_json(_as_dict(answer))
        return
    out.print(
        f"{answer.peer} sends {answer.rows} row(s) again; see fenhe quarantine show {item_id}",
        soft_wrap=True,
    )


def _told(done: pb.QuarantineOutcome, as_json: bool) -> None:
    if as_json:
        print_json(_as_dict(done))
    elif done.outcome == "waiting":
        out.print(f"Item {done.item_id} still waits: {printable(done.cause)}", markup=False)
    else:
        means = _EXITS.get(done.outcome, "")
        out.print(
            f"Item {done.item_id} is {done.outcome}: {means}; {done.applied} row(s) applied.",
            markup=False,
            soft_wrap=True,
        )


def _short(stamp: str) -> str:
    """Month, day and minute of an ISO time: what a table has room for."""
    return stamp[5:16].replace("T", " ")
