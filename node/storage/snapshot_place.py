"""Where a snapshot stands: its kind, when it was begun, the last row that was sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from node.storage.specs import TABLES

__all__ = ["END", "LETTERS", "START", "Kind", "Place"]

START: Final = "^"
LETTERS: Final = "@"
END: Final = "$"
_PLACE: Final = re.compile(r"([SRO])(\d{1,19}):([@^$]|[a-z_]{1,64}):([0-9a-f-]{0,36})")


class Kind(StrEnum):
    """What a snapshot holds."""

    ENTITLED = "S"
    """What the log would have brought: for a peer that stands before what is left of the log."""
    RECOVERY = "R"
    """That, and what the peer itself owned: for one that is recovering."""
    OWNED = "O"
    """Only what it owned: the rest comes from the log. The sequence stays where it is."""

    @property
    def is_recovery(self) -> bool:
        """Whether a recovering peer gets back by it what it lost."""
        return self is not Kind.ENTITLED


@dataclass(frozen=True, slots=True)
class Place:
    """How far a snapshot has come: `head` when it was begun, the last row sent of a table.

    As text it is Cursor.position. Before the tables stands the start, "^"; behind them the letters,
    "@", with the sequence of the last one; then the end, "$", which is told by itself.
    """

    kind: Kind
    head: int
    table: str
    row_id: str

    @classmethod
    def begin(cls, kind: Kind, head: int) -> Place:
        """Before the first row."""
        return cls(kind, head, START, "")

    @classmethod
    def parse(cls, position: str) -> Place | None:
        """The place that a peer's cursor names; None if it is not one of this program's."""
        found = _PLACE.fullmatch(position)
        if found is None or found[3] not in {START, LETTERS, END, *TABLES}:
            return None
        return cls(Kind(found[1]), int(found[2]), found[3], found[4])

    def __str__(self) -> str:
        return f"{self.kind.value}{self.head}:{self.table}:{self.row_id}"

    @property
    def is_end(self) -> bool:
        """Whether all has been sent."""
        return self.table == END
