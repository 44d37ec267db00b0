"""The log of what was acknowledged, kept outside the nodes by whoever was told so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

__all__ = ["AT_HOME", "AWAY", "Acknowledged", "lines_of", "note", "read_all"]

AT_HOME: Final = "home"
"""Written at the resident's home, or above it."""
AWAY: Final = "away"
"""Written where his home is neither the author nor below it: it goes there by letter."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One row version that a node said was stored. `at_ms`: when the call had returned.

    `home`: as the writer knew it; the resident may have moved. `load`: AT_HOME or AWAY, as the
    writer meant it.
    """

    table: str
    row_id: str
    number: int
    author: str
    home: str
    at_ms: int
    resident_id: str = ""
    load: str = AT_HOME


def note(file: IO[str], rows: list[Acknowledged]) -> None:
    """Write lines that survive this process."""
    for row in rows:
        file.write(json.dumps(list(asdict(row).values())) + "\n")
    file.flush()


def read_all(folder: Path) -> Iterator[Acknowledged]:
    """Every line of every writer."""
    for path in sorted(folder.glob("*.log")):
        yield from lines_of(path.read_text(encoding="utf-8"))


def lines_of(text: str) -> Iterator[Acknowledged]:
    """Each line of a log; a line that its writer could not finish was not told to him."""
    for line in text.splitlines():
        try:
            yield Acknowledged(*json.loads(line))
        except ValueError:
            continue
