"""The words of a comparison: slices, leaves, verdicts, what a run found."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hierarchy_config.model import NodeId
from replication.core.model import RowChange, Version

__all__ = [
    "Cause",
    "Current",
    "Direction",
    "LinkReport",
    "Offer",
    "Open",
    "Pair",
    "Slice",
    "Taken",
    "Verdict",
    "key_named",
    "key_of",
    "row_id_of",
]


class Direction(StrEnum):
    """Whose rows they are: UP the child's side wrote them, DOWN the parent's side."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Pair:
    """The two ends of a link."""

    child: NodeId
    parent: NodeId

    def owner(self, direction: Direction) -> NodeId:
        """Whose word counts."""
        return self.child if direction is Direction.UP else self.parent


@dataclass(frozen=True, slots=True, order=True)
class Slice:
    """What is compared at one time: the rows of one home in one table, one way.

    `table` and row ids are those of the copy: index entries and pseudonyms where policy says so.
    """

    direction: Direction
    table: str
    home: str


class Cause(StrEnum):
    """Why a row differs, or why it stays as it is."""

    MISSING = "MISSING"
    """The copy lacks it."""
    STALE = "STALE"
    """The copy has an older version."""
    CONTENT = "CONTENT"
    """The copy has the same version with another content."""
    SEAL_BROKEN = "SEAL_BROKEN"
    """The copy holds a cell that does not open, or a value that cannot be."""
    OWNER_MISSING = "OWNER_MISSING"
    """The owner lacks it."""
    OWNER_BEHIND = "OWNER_BEHIND"
    """The owner has an older version."""
    OWNER_BROKEN = "OWNER_BROKEN"
    """The owner's own row does not open."""
    OWNER_ALTERED = "OWNER_ALTERED"
    """The owner's own row is not what its log says of that version."""
    BOTH_BROKEN = "BOTH_BROKEN"
    NOT_IN_FULL = "NOT_IN_FULL"
    """The copy is reduced: the owner's row cannot be made of it."""
    NOT_FROM_BELOW = "NOT_FROM_BELOW"
    """A child's word about its parent's rows counts for nothing."""
    HOME_MISMATCH = "HOME_MISMATCH"
    """The row names another home than its resident's row."""
    REFUSED = "REFUSED"
    """The end to be mended does not admit the row."""


@dataclass(frozen=True, slots=True)
class Current:
    """A row as it is now at one end. `digest` None: not there. `version` as far as it is told."""

    digest: bytes | None
    version: Version | None = None
    broken: bool = False
    home_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Open:
    """How far the other end has confirmed this one's log, by lane; everything below is there."""

    delivered: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the owner says of a key.

    `cause` None: equal by now, or too young to tell (`young`). `row`: what the copy should be;
    `wants`: the owner needs the copy's row. `decided` False: nobody can say.
    """

    key: bytes
    cause: Cause | None = None
    young: bool = False
    row: RowChange | None = None
    wants: bool = False
    decided: bool = True


@dataclass(frozen=True, slots=True)
class Offer:
    """What the copy's end says when the owner wants its row back."""

    key: bytes
    row: RowChange | None
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a row that was handed over. `cause` None: it is mended."""

    key: bytes
    cause: Cause | None = None


@dataclass(slots=True)
class LinkReport:
    """What a comparison with one peer found."""

    peer: NodeId
    slices: int = 0
    rows: int = 0
    differing: int = 0
    young: int = 0
    repaired: int = 0
    questions: int = 0
    bytes: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    undecided: list[tuple[Slice, str, Cause]] = field(default_factory=list)
    """Slice, row id as the copy has it, cause; at most UNDECIDED_MAX of them."""
    undecided_count: int = 0
    fault: str = ""
    """Code of the error that ended it early; "" if it is complete."""
    fault_message: str = ""

    @property
    def equal(self) -> bool:
        """Whether the two ends hold the same, now."""
        return not self.fault and self.differing == self.repaired


def key_of(row_id: str) -> bytes:
    """A row id as 16 bytes, in the same order. Raises ValueError: it is no UUID."""
    return uuid.UUID(row_id).bytes


def key_named(change: RowChange) -> bytes:
    """The key that a row which is handed over names; b"" if that is no UUID."""
    try:
        return key_of(change.row_id)
    except ValueError:
        return b""


def row_id_of(key: bytes) -> str:
    """The inverse of key_of."""
    return str(uuid.UUID(bytes=key))
