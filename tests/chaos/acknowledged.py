"""The log of what was acknowledged, kept outside the nodes by whoever was told so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

__all__ = ["Acknowledged", "note", "read_all"]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One row version that a node said was stored. `at_ms`: when the call had returned."""

    table: str
    row_id: str
    number: int
    author: str
    home: str
    at_ms: int


def note(file: IO[str], rows: list[Acknowledged]) -> None:
    """Write lines that survive this process."""
    for row in rows:
        file.write(json.dumps(list(asdict(row).values())) + "\n")
    file.flush()


def read_all(folder: Path) -> Iterator[Acknowledged]:
    """Every line of every writer; a line that its writer could not finish was not told to him."""
    for path in sorted(folder.glob("*.log")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield Acknowledged(*json.loads(line))
            except ValueError:
                continue
