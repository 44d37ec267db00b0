"""How the command speaks: tables for people, JSON and CSV for programs, faults for both."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

import grpc
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hierarchy_config.errors import FenheError

__all__ = [
    "EXIT_FAILED",
    "EXIT_PARTIAL",
    "command",
    "errors",
    "faults_shown",
    "format_age",
    "format_bytes",
    "out",
    "print_csv",
    "print_json",
    "print_table",
    "printable",
]

EXIT_FAILED: Final = 1
EXIT_PARTIAL: Final = 5

out: Final = Console(soft_wrap=False, highlight=False)
errors: Final = Console(stderr=True, soft_wrap=True, highlight=False)

_UNREACHABLE: Final = (
    "See that the node runs, that the address in the credentials is right, and that the node and "
    "the credentials are of one region."
)

P = ParamSpec("P")
R = TypeVar("R")


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    title: str = "",
    *,
    right: Sequence[str] = (),
) -> None:
    """A plain table; numbers to the right, and so are the columns named, of sizes with units."""
    numeric = [
        header in right
        or (
            bool(rows)
            and all(isinstance(row[i], int | float) for row in rows if row[i] is not None)
        )
        for i, header in enumerate(headers)
    ]
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for header, is_number in zip(headers, numeric, strict=True):
        table.add_column(header, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        # Text, not markup: a cell comes from somewhere, and may hold brackets.
        table.add_row(*(Text(_cell(value)) for value in row))
    out.print(table)


def printable(text: str) -> str:
    """The text without what moves a terminal's cursor, colours it or turns it round.

    Codes, reasons and errors come from other nodes, any of which may be hostile.
    """
    return "".join(each if each.isprintable() or each == "\n" else "\ufffd" for each in text)


def format_age(seconds: int) -> str:
    """A span in its largest unit, to be read at a glance: 45s, 12m, 3h, 2d."""
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= unit:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"


def format_bytes(count: int) -> str:
    """A size in its largest unit: 512, 64K, 3M, 2G."""
    for unit, name in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if count >= unit:
            return f"{count // unit}{name}"
    return str(count)


def print_csv(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """RFC 4180, UTF-8, nulls empty."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows(["" if value is None else value for value in row] for row in rows)


def print_json(value: Any) -> None:
    """One JSON document."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


@contextmanager
def faults_shown() -> Iterator[None]:
    """Turn the faults we know into one sentence on stderr and exit code 1."""
    try:
        yield
    except FenheError as error:
        _show(error.code, error.message, error.hint)
    except grpc.RpcError as error:
        _show(*_told(error))


def _told(error: grpc.RpcError) -> tuple[str, str, str]:
    """Code, message and next step of a failed call.

    A node names its code in the trailing metadata; a call without one did not reach a node's own
    code, and its status says how.
    """
    status = getattr(error, "code", lambda: None)()
    detail = getattr(error, "details", lambda: "")() or ""
    trailing = getattr(error, "trailing_metadata", lambda: ())() or ()
    code = next((str(value) for key, value in trailing if key == "fenhe-code"), "")
    if code:
        message, _, hint = detail.removeprefix(f"{code}: ").partition(" Next: ")
        return code, message, hint
    if status is grpc.StatusCode.UNAVAILABLE:
        return "NODE_UNREACHABLE", detail.split("\n", 1)[0], _UNREACHABLE
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return (
            "DEADLINE_EXCEEDED",
            detail,
            "Give it more time (--timeout), or look at the node's load.",
        )
    return status.name if status is not None else "RPC_FAILED", detail, ""


def command(function: Callable[P, R]) -> Callable[P, R]:
    """A command whose faults are shown, not raised."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with faults_shown():
            return function(*args, **kwargs)
        raise AssertionError("faults_shown exits")

    return wrapped


def _show(code: str, message: str, hint: str) -> None:
    errors.print(f"[bold red]{code}[/]: ", end="")
    errors.print(printable(message), markup=False)
    if hint:
        errors.print("Next: ", end="", style="bold")
        errors.print(printable(hint), markup=False)
    raise typer.Exit(EXIT_FAILED)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    return printable(str(value))
