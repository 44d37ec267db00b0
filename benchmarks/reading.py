"""Starts the process that reads (reading_client.py), and takes what it reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.places import ended

__all__ = ["CALLS", "read_for"]

CALLS: Final = 16
"""Calls under way at a time."""


def read_for(
    credentials: Path,
    address: str,
    method: str,
    seconds: int,
    ids: Path,
    *,
    token: Path | None = None,
) -> dict[str, Any]:
    """Read for some seconds; calls a second and milliseconds a call.

    Args:
        credentials: Folder of who asks.
        address: Where he asks.
        method: "get" or "echo".
        seconds: For so long.
        ids: File with one resident id a line.
        token: File with the token of one who has signed in.
    """
    arguments = (credentials, address, method, seconds, CALLS, ids, *([token] if token else []))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reading_client", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ended("benchmarks.reading_client", done.returncode)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
