"""fenhe intake quarantine: units that were not admitted, and their exits."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer

import protos.fenhe.node.v1.intake_pb2 as pb
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.intake_cmd import AsJson, as_dict
from node.cli.output import EXIT_PARTIAL, command, out, print_json, print_table, printable
from node.errors import SettingsError
from node.ingestion.cells import safe_cell
from protos.fenhe.node.v1 import intake_pb2_grpc

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

CALL_S: Final = 600
_PAGE: Final = 500

ItemId = Annotated[int, typer.Argument(min=1, help="Number of the unit, as listed.")]
RunOption = Annotated[str, typer.Option("--run", help="Only of this run.")]


@app.callback()
def group() -> None:
    """What was not admitted, why, and how it gets in."""


@app.command("list")
@command
def list_items(
    credentials: CredentialsOption = None,
    *,
    run: RunOption = "",
    rule: Annotated[str, typer.Option(help="Only of this rule.")] = "",
    state: Annotated[str, typer.Option(help="waiting or retried.")] = "waiting",
    after: Annotated[int, typer.Option(min=0, help="Only after this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Units, oldest first: where they stand and which rule they broke."""
    request = pb.ListItemsRequest(run_id=run, rule=rule, state=state, after=after, limit=limit)
    with connected(find_credentials(credentials)) as channel:
        page = intake_pb2_grpc.IntakeServiceStub(channel).ListItems(request, timeout=CALL_S)
    if as_json:
        print_json(as_dict(page))
        return
    print_table(
        ("unit", "run", "place", "line", "rule", "field", "state"),
        [
            (
                item.item_id,
                item.run_id[:8],
                item.unit,
                item.line or "–",
                item.rule,
                item.field,
                item.state,
            )
            for item in page.items
        ],
    )
    said = ", ".join(f"{rule} {count}" for rule, count in sorted(page.waiting.items()))
    out.print(f"Waiting: {said or 'nothing'}", markup=False, soft_wrap=True)


@app.command()
@command
def show(item_id: ItemId, credentials: CredentialsOption = None, as_json: AsJson = False) -> None:
    """One unit with what it says and the offending values. That you looked is audited."""
    with connected(find_credentials(credentials)) as channel:
        stub = intake_pb2_grpc.IntakeServiceStub(channel)
        item = stub.ShowItem(pb.ShowItemRequest(item_id=item_id), timeout=CALL_S)
    if as_json:
        print_json(as_dict(item))
        return
    out.print(f"Unit {item.item_id} of run {item.run_id}, line {item.line}, {item.state}")
    print_table(
        ("rule", "field", "value", "expected"),
        [(each.rule, each.field, each.value, each.asks) for each in item.broken],
    )
    if item.cells:
        print_table(("column", "cell"), [(each.column, each.text) for each in item.cells])
    elif item.raw:
        out.print(printable(item.raw.replace("\r", "\n")), markup=False, soft_wrap=True)


@app.command()
@command
def fix(
    item_id: ItemId,
    cells: Annotated[
        list[str], typer.Option("--set", help="COLUMN=VALUE; may be given several times.")
    ],
    credentials: CredentialsOption = None,
    as_json: AsJson = False,
) -> None:
    """Replace cells of a unit and judge it again."""
    changed = dict(_parted(each) for each in cells)
    _retry(credentials, pb.RetryItemsRequest(item_ids=[item_id], cells=changed), as_json)


@app.command()
@command
def retry(
    item_ids: Annotated[
        list[int] | None, typer.Argument(min=1, help="Numbers of units; none: of the run.")
    ] = None,
    credentials: CredentialsOption = None,
    run: RunOption = "",
    as_json: AsJson = False,
) -> None:
    """Judge units again, as when a person was registered meanwhile."""
    _retry(credentials, pb.RetryItemsRequest(item_ids=item_ids or [], run_id=run), as_json)


@app.command()
@command
def export(
    to: Annotated[Path, typer.Option("--to", help="CSV file to write; not there yet.")],
    credentials: CredentialsOption = None,
    run: RunOption = "",
    as_json: AsJson = False,
) -> None:
    """Write what waits, with its rules, as a table for the source's owner."""
    if to.exists():
        raise SettingsError(f"{to} is there already", hint="Name another file.")
    with connected(find_credentials(credentials)) as channel:
        stub = intake_pb2_grpc.IntakeServiceStub(channel)
        items = list(_all(stub, run))
    # It holds what the source says of patients, so it is its owner's alone (umask 077).
    with to.open("w", encoding="utf-8-sig", newline="") as file:
        _write(file, items)
    if as_json:
        print_json({"file": str(to), "units": len(items)})
    else:
        out.print(f"Wrote {len(items)} unit(s) to {to}.", markup=False, soft_wrap=True)


def _all(stub: intake_pb2_grpc.IntakeServiceStub, run: str) -> Iterator[pb.QuarantinedUnit]:
    after = 0
    while True:
        request = pb.ListItemsRequest(run_id=run, after=after, limit=_PAGE)
        page = stub.ListItems(request, timeout=CALL_S).items
        for item in page:
            yield stub.ShowItem(pb.ShowItemRequest(item_id=item.item_id), timeout=CALL_S)
        if len(page) < _PAGE:
            return
        after = page[-1].item_id


def _write(file: TextIO, items: list[pb.QuarantinedUnit]) -> None:
    columns = list(dict.fromkeys(each.column for item in items for each in item.cells))
    writer = csv.writer(file)
    writer.writerow(["unit", "line", "rules", *map(safe_cell, columns), "raw"])
    for item in items:
        rules = "; ".join(f"{each.rule} {each.field}".strip() for each in item.broken)
        held = {each.column: each.text for each in item.cells}
        cells = [held.get(name, "") for name in columns]
        row = [str(item.item_id), str(item.line), rules, *cells, item.raw]
        writer.writerow(map(safe_cell, row))


def _retry(credentials: Any, request: pb.RetryItemsRequest, as_json: bool) -> None:
    with connected(find_credentials(credentials)) as channel:
        stub = intake_pb2_grpc.IntakeServiceStub(channel)
        done = stub.RetryItems(request, timeout=CALL_S)
    if as_json:
        print_json(as_dict(done))
    else:
        out.print(f"{done.accepted} stored, {done.waiting} still wait.")
    if done.waiting:
        raise typer.Exit(EXIT_PARTIAL)


def _parted(text: str) -> tuple[str, str]:
    column, sign, value = text.partition("=")
    if not sign:
        raise SettingsError("a cell is set as COLUMN=VALUE", hint="Write --set 'value=120'.")
    return column, value
