"""The words of the hierarchy: levels, divisions, nodes, what is copied up, thresholds.

Plain frozen values. This module knows no file format and asks nothing of the world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NewType

__all__ = [
    "CELL_COUNT_MIN_DEFAULT",
    "CONSENTS_TABLE",
    "FULL_ONLY_TABLES",
    "PEOPLE_TABLES",
    "REPLICATED_TABLES",
    "CareLevel",
    "CopyForm",
    "CopyRule",
    "Division",
    "NodeEntry",
    "NodeId",
    "Thresholds",
    "prefixes_of_code",
]

NodeId = NewType("NodeId", str)
"""A statistical division code cut to its level: 4, 6, 9 or 12 digits."""

CELL_COUNT_MIN_DEFAULT: Final = 10

PEOPLE_TABLES: Final = frozenset(
    {
        "organizations",
        "departments",
        "staff",
        "qualifications",
        "assignments",
        "endings",
    }
)
"""Tables of those who work here, not of residents: copied up in full, or not at all."""

# A copy rule that names a table nobody has would leave the default in force without a word, and
# the default may send more than was meant. So the names are fixed here and checked.
REPLICATED_TABLES: Final = frozenset(
    {
        "residents",
        "identifiers",
        "resident_index",
        "encounters",
        "conditions",
        "observations",
        "medications",
        "procedures",
        "immunizations",
        "consents",
        "care_relations",
        "access_grants",
        "access_reviews",
        "identity_links",
        *PEOPLE_TABLES,
    }
)

CONSENTS_TABLE: Final = "consents"
"""Goes wherever a row of its resident goes, whatever a rule says: nobody may hold what somebody
said about his record for less than the record."""

# Who may read a person's rows: a reduced form of that would be of no use to anybody but one who
# wants to know whose rows they are. And nobody who works here is a case among many.
FULL_ONLY_TABLES: Final = frozenset(
    {"care_relations", "access_grants", "access_reviews", "identity_links", *PEOPLE_TABLES}
)


class CareLevel(StrEnum):
    """The level of care a node serves, from the root downward."""

    CITY = "city"
    COUNTY = "county"
    TOWNSHIP = "township"
    VILLAGE = "village"

    @property
    def depth(self) -> int:
        """0 for the city to 3 for a village."""
        return _DEPTHS[self]

    @classmethod
    def of_code(cls, code: str) -> CareLevel:
        """Return the level a division code is of by its length. Raises ValueError if it is none."""
        if not (code.isascii() and code.isdigit() and len(code) in _LEVELS_BY_DIGITS):
            raise ValueError("a division code of 4, 6, 9 or 12 digits")
        return _LEVELS_BY_DIGITS[len(code)]


_DEPTHS: Final = {level: depth for depth, level in enumerate(CareLevel)}
_LEVELS_BY_DIGITS: Final = dict(zip((4, 6, 9, 12), CareLevel, strict=True))


def prefixes_of_code(code: str) -> tuple[NodeId, ...]:
    """Return the codes that contain this one by the numbering, nearest first."""
    return tuple(
        NodeId(code[:digits])
        for digits in sorted(_LEVELS_BY_DIGITS, reverse=True)
        if digits < len(code)
    )


@dataclass(frozen=True, slots=True)
class Division:
    """One row of a shipped division table: a place, whether or not a node serves it."""

    code: NodeId
    name_zh: str
    pinyin: str
    level: CareLevel
    parent: NodeId | None
    succeeds: NodeId | None = None


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One node of a region.

    `endpoint` is host:port where this node's children dial it; None: none is published here.
    `profile` is a hardware profile's name or the path of a profile file. `succeeds` is the
    division code that this node's code replaced.
    """

    node_id: NodeId
    level: CareLevel
    name_zh: str
    pinyin: str
    parent: NodeId | None
    endpoint: str | None
    profile: str
    succeeds: NodeId | None = None


class CopyForm(StrEnum):
    """In which form a row is copied to the node above."""

    FULL = "full"
    DEIDENTIFIED = "deidentified"
    INDEX = "index"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class CopyRule:
    """What a child of `level` sends to its parent of `table`; "*" is every table not named."""

    level: CareLevel
    table: str
    forms: tuple[CopyForm, ...]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Smallest number of distinct residents a released cell may stand for.

    `overrides` makes single nodes stricter. 1 suppresses nothing and is for tests.
    """

    cell_count_min: int = CELL_COUNT_MIN_DEFAULT
    overrides: Mapping[NodeId, int] = field(default_factory=dict)
