"""fenhe query: ask many nodes one question."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import typer

import protos.fenhe.federation.v1.federation_pb2 as pb
from federation.core.model import Answer
from federation.wire import answer_in
from hierarchy_config.errors import Fault
from node.cli.client import CredentialsOption, connected, find_credentials
from node.cli.output import (
    EXIT_PARTIAL,
    command,
    errors,
    out,
    print_csv,
    print_json,
    print_table,
    printable,
)
from node.clock import format_ms
from node.errors import NodeError
from protos.fenhe.federation.v1 import federation_pb2_grpc

__all__ = ["AnswerMissingError", "add_to", "answer_as_json", "ask"]


class FreshnessOption(StrEnum):
    """Who may answer for a site."""

    LIVE = "live"
    REPLICA = "replica"
    BEST = "best"


class ExecutorOption(StrEnum):
    """What runs the question at the asking node."""

    DIRECT = "direct"
    RAY = "ray"


class BasisOption(StrEnum):
    """Whose site a row counts at."""

    RESIDENCE = "residence"
    PROVIDER = "provider"


class OutputOption(StrEnum):
    """How the answer is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


_FRESHNESS: Final = {
    FreshnessOption.LIVE: pb.FRESHNESS_LIVE,
    FreshnessOption.REPLICA: pb.FRESHNESS_REPLICA,
    FreshnessOption.BEST: pb.FRESHNESS_BEST,
}
_EXECUTOR: Final = {ExecutorOption.DIRECT: pb.EXECUTOR_DIRECT, ExecutorOption.RAY: pb.EXECUTOR_RAY}

_BASIS: Final = {
    BasisOption.RESIDENCE: pb.BASIS_RESIDENCE,
    BasisOption.PROVIDER: pb.BASIS_PROVIDER,
}


class AnswerMissingError(NodeError):
    """The node ended the question without an answer and without an error."""

    code = "ANSWER_MISSING"
    fault = Fault.PEER
    retryable = True
    default_hint = "Ask again; if it comes back, look at the log of the node that was asked."


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(name="query")(command(query))


def query(  # noqa: PLR0917 -- the options of a command
    sql: Annotated[str, typer.Argument(help="An aggregate question over one dataset.")],
    credentials: CredentialsOption = None,
    scope: Annotated[str, typer.Option(help="Division code; default: the node's subtree.")] = "",
    freshness: Annotated[FreshnessOption, typer.Option()] = FreshnessOption.BEST,
    basis: Annotated[
        BasisOption,
        typer.Option(help="Count a row at the resident's home, or where it was written."),
    ] = BasisOption.RESIDENCE,
    executor: Annotated[ExecutorOption | None, typer.Option(show_default=False)] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the plan; ask nobody.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Same as -o json.")] = False,
    output: Annotated[OutputOption, typer.Option("-o", "--output")] = OutputOption.TABLE,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds.", min=0.1)] = 30.0,
) -> None:
    """Ask a question of a node and all below it. Exit code 5: a partial answer."""
    request = pb.QueryRequest(
        sql=sql,
        scope=scope,
        freshness=_FRESHNESS[freshness],
        basis=_BASIS[basis],
        executor=_EXECUTOR[executor] if executor is not None else pb.EXECUTOR_UNSPECIFIED,
        timeout_ms=round(timeout_s * 1000),
    )
    who = find_credentials(credentials)
    with connected(who) as channel:
        stub = federation_pb2_grpc.QueryServiceStub(channel)
        if explain:
            _print_explanation(stub.Explain(request, timeout=timeout_s))
            return
        answer = ask(stub, request, timeout_s)
    match OutputOption.JSON if as_json else output:
        case OutputOption.JSON:
            print_json(answer_as_json(sql, answer))
        case OutputOption.CSV:
            print_csv(answer.table.names, _rows(answer, None))
            _say_coverage(answer)
        case OutputOption.TABLE:
            shown = f"<{answer.coverage.cell_count_min}"
            print_table(answer.table.names, _rows(answer, shown))
            _say_coverage(answer)
    if not answer.complete:
        raise typer.Exit(EXIT_PARTIAL)


def ask(
    stub: federation_pb2_grpc.QueryServiceStub, request: pb.QueryRequest, timeout_s: float
) -> Answer:
    """Ask and wait for the answer; progress is left to those who show it.

    Raises:
        AnswerMissingError: The stream ended and held none.
    """
    for event in stub.Ask(request, timeout=timeout_s + 5):
        if event.WhichOneof("event") == "answer":
            return answer_in(event.answer)
    raise AnswerMissingError("the node ended the question without an answer")


def answer_as_json(sql: str, answer: Answer) -> dict[str, Any]:
    """The answer as the JSON that `--json` prints."""
    return {
        "sql": sql,
        "columns": list(answer.table.names),
        "rows": [list(row) for row in answer.table.rows()],
        "suppressed_rows": list(answer.suppressed_rows),
        "coverage": {
            "sites": [
                {
                    "node_id": site.node_id,
                    "state": site.state.value,
                    "answered_by": site.answered_by,
                    "as_of": format_ms(site.as_of_ms) if site.as_of_ms is not None else None,
                    "residents_covered": site.residents_covered,
                    "residents_known": site.residents_known,
                    "reason": site.reason,
                }
                for site in answer.coverage.sites
            ],
            "residents_covered": answer.coverage.residents_covered,
            "residents_known": answer.coverage.residents_known,
            "cells_suppressed": answer.coverage.cells_suppressed,
            "cell_count_min": answer.coverage.cell_count_min,
        },
        "complete": answer.complete,
        "executor": answer.executor.value,
        "tasks": list(answer.tasks),
        "elapsed_s": answer.elapsed_ms / 1000,
    }


def _rows(answer: Answer, shown: str | None) -> list[list[object]]:
    """Rows to print; what is withheld reads `<k` in a table and is empty in CSV."""
    withheld = set(answer.suppressed_rows)
    rows: list[list[object]] = []
    for number, row in enumerate(answer.table.rows()):
        if number in withheld and shown is not None:
            rows.append([shown if value is None else value for value in row])
        else:
            rows.append(list(row))
    return rows


def _say_coverage(answer: Answer) -> None:
    coverage = answer.coverage
    known = coverage.residents_known
    total = "unknown" if known is None else str(known)
    errors.print(
        f"Covers {coverage.residents_covered} of {total} residents at "
        f"{len(coverage.sites) - len(coverage.missing)} of {len(coverage.sites)} nodes, "
        f"by {answer.executor.value}, in {answer.elapsed_ms} ms."
    )
    for site in coverage.sites:
        if site.state.value == "replica" and site.as_of_ms is not None:
            errors.print(
                f"  {site.node_id}: replica at {site.answered_by} as of {format_ms(site.as_of_ms)}"
            )
        elif not site.is_counted:
            line = f"  {site.node_id}: {site.state.value}: {site.reason}"
            errors.print(printable(line), markup=False)
    if coverage.cells_suppressed:
        errors.print(
            f"  {coverage.cells_suppressed} cell(s) withheld: fewer than "
            f"{coverage.cell_count_min} residents."
        )
    if not answer.complete:
        errors.print("This answer is partial.", style="yellow")


def _print_explanation(explanation: pb.Explanation) -> None:
    out.print("Each node runs, over its own columnar replica:", style="bold")
    out.print(explanation.node_sql, markup=False)
    for title, lines in (
        ("Merged by:", explanation.merge_steps),
        ("Sites:", explanation.sites),
        ("Privacy:", explanation.privacy),
    ):
        out.print(title, style="bold")
        for line in lines:
            out.print(f"  {line}", markup=False)
    out.print(f"Plan {explanation.plan_digest}", style="dim")
