"""fenhe demo: the whole river once, on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from node.cli.output import command, errors, print_json
from node.clock import SystemClock

__all__ = ["add_to"]


class DatabaseOption(StrEnum):
    """What each node of the demo stores in."""

    SQLITE = "sqlite"
    MYSQL = "mysql"


def add_to(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command(name="demo")(command(demo))


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the last step.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --once: print the facts as JSON on stdout.")
    ] = False,
    database: Annotated[
        DatabaseOption, typer.Option(help="sqlite, or mysql: one private MariaDB a node.")
    ] = DatabaseOption.SQLITE,
    data: Annotated[Path, typer.Option(help="Folder for the demo's data.")] = Path("demo-data"),
) -> None:
    """Run a slice of Linfen: load, replicate, ask, kill, ask again."""
    from node.demo.story import DemoStory

    os.umask(0o077)
    stop = threading.Event()

    def ask_to_stop(_number: int, _frame: object) -> None:
        stop.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, ask_to_stop)
    story = DemoStory(data, database.value, SystemClock(), _own_name())
    try:
        with story.running():
            if as_json:
                print_json(story.report())
            if once:
                return
            story.last_words()
            stop.wait()
    except KeyboardInterrupt:
        errors.print("\nStopping every process.")


def _own_name() -> str:
    """How this program was called, so that printed commands can be pasted."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "fenhe" else f"{sys.executable} -m node"
