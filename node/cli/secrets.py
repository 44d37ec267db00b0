"""Secrets that a command is given: by a file or at the terminal, never on the command line.

Every user of a machine reads everybody's command lines (`ps`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from hierarchy_config.errors import Fault
from node.errors import NodeError
from node.security.key_files import read_secret

__all__ = ["SecretOnCommandLineError", "database_of", "spoken"]

_FILE = "@"
_ASK = "-"


class SecretOnCommandLineError(NodeError):
    """A password was given where every user of the machine can read it."""

    code = "SECRET_ON_COMMAND_LINE"
    fault = Fault.CALLER
    default_hint = (
        "Write the URL into a file of mode 600 and give @FILE in its place; change the password if "
        "others use this machine."
    )


def database_of(said: str) -> str:
    """The database URL of an option: itself, or with @FILE the line in a file of mode 600.

    Raises:
        SecretOnCommandLineError: The URL itself holds a password.
        KeyFileExposedError: Others may read the file.
    """
    if said.startswith(_FILE):
        return read_secret(Path(said[1:])).decode("utf-8", "replace").strip()
    # No other command needs the database's packages, which take longer to load than all else.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        password = make_url(said).password
    except ArgumentError:
        # What it is instead is for whoever opens it to say.
        return said
    if password:
        raise SecretOnCommandLineError("the database URL on the command line holds a password")
    return said


def spoken(said: str) -> str:
    """A code that somebody reads out: itself, or with - what is typed when asked."""
    if said != _ASK:
        return said
    if sys.stdin.isatty():
        return str(typer.prompt("Code", err=True))
    return sys.stdin.readline().strip()
