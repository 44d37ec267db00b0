"""What each replicated table is, said once: columns, lane, what is sealed, what may leave.

Everything else follows from these declarations: the database schema (tables.py), the sealing of
cells (sealing.py), de-identification on the way up (transforms.py) and what the columnar replica
may see (columnar_source.py). A column that says nothing about de-identification is dropped by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from replication.core.model import Lane

__all__ = [
    "ACCESS_GRANTS",
    "ACCESS_REVIEWS",
    "ACCESS_TABLES",
    "AUTHOR_ORGANIZATION",
    "CARE_RELATIONS",
    "CONSENTS",
    "IDENTIFIERS",
    "IDENTITY_LINKS",
    "IDENTITY_NUMBER",
    "PEOPLE_NAMES",
    "PEOPLE_TABLES",
    "RECORD_TABLES",
    "RESIDENTS",
    "RESIDENT_INDEX",
    "TABLES",
    "ColumnKind",
    "ColumnSpec",
    "Leaving",
    "TableSpec",
]

IDENTITY_NUMBER: Final = "identity_number"
"""The identifier system (GB 11643) that is unique at a node and indexed for the region."""

AUTHOR_ORGANIZATION: Final = "author_organization"
"""The organization for which a row was written: the caller's, never the bundle's to say."""


class ColumnKind(StrEnum):
    """What a cell holds."""

    TEXT = "text"
    CODE = "code"
    DATE = "date"
    INTEGER = "integer"
    NUMBER = "number"
    REFERENCE = "reference"
    KEYED_INDEX = "keyed_index"


class Leaving(StrEnum):
    """What de-identification does with a column."""

    DROP = "drop"
    KEEP = "keep"
    MONTH = "month"
    PSEUDONYM = "pseudonym"


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column. `length` counts characters; `sealed` cells are encrypted at rest.

    `references` names the table whose row ids a REFERENCE holds: its pseudonyms are taken from
    that table's domain, so that references still meet their rows after de-identification.
    """

    name: str
    kind: ColumnKind = ColumnKind.TEXT
    length: int = 64
    sealed: bool = False
    leaving: Leaving = Leaving.DROP
    references: str = ""


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One replicated table. `care_date` orders a timeline; only records have one."""

    name: str
    lane: Lane
    columns: tuple[ColumnSpec, ...]
    care_date: str = ""
    names: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset(column.name for column in self.columns))

    @property
    def given(self) -> frozenset[str]:
        """Columns that whoever writes the row says himself."""
        return self.names - {AUTHOR_ORGANIZATION}

    @property
    def sealed(self) -> tuple[ColumnSpec, ...]:
        """Columns encrypted at rest."""
        return tuple(column for column in self.columns if column.sealed)

    @property
    def open_columns(self) -> tuple[ColumnSpec, ...]:
        """Columns that carry no direct identifier: what an analysis may see."""
        return tuple(column for column in self.columns if column.leaving is not Leaving.DROP)


def _code(name: str, length: int = 64) -> ColumnSpec:
    return ColumnSpec(name, ColumnKind.CODE, length, leaving=Leaving.KEEP)


def _date(name: str, leaving: Leaving = Leaving.KEEP) -> ColumnSpec:
    return ColumnSpec(name, ColumnKind.DATE, 10, leaving=leaving)


def _free_text(name: str) -> ColumnSpec:
    # Free text may hold a name: sealed like one, and never sent on in de-identified form.
    return ColumnSpec(name, sealed=True)


def _sealed(name: str) -> ColumnSpec:
    return ColumnSpec(name, sealed=True)


def _plain(name: str, length: int = 64) -> ColumnSpec:
    return ColumnSpec(name, ColumnKind.CODE, length)


def _day(name: str) -> ColumnSpec:
    return ColumnSpec(name, ColumnKind.DATE, 10)


def _moment(name: str) -> ColumnSpec:
    return ColumnSpec(name, ColumnKind.DATE, 24)


_ORGANIZATION: Final = ColumnSpec(AUTHOR_ORGANIZATION, ColumnKind.REFERENCE, 64)
"""Dropped on the way up where rows are de-identified: a clinic of three people names them."""

_ENCOUNTER: Final = ColumnSpec(
    "encounter_id",
    ColumnKind.REFERENCE,
    36,
    leaving=Leaving.PSEUDONYM,
    references="encounters",
)

RESIDENTS: Final = TableSpec(
    "residents",
    Lane.IDENTITY,
    (
        _sealed("name"),
        _sealed("birth_date"),
        _code("sex", 16),
        ColumnSpec("birth_year", ColumnKind.INTEGER, leaving=Leaving.KEEP),
        _sealed("phone"),
        _sealed("address"),
        _date("deceased_on", Leaving.MONTH),
        _ORGANIZATION,
    ),
)

IDENTIFIERS: Final = TableSpec(
    "identifiers",
    Lane.IDENTITY,
    (ColumnSpec("system", ColumnKind.CODE, 64), _sealed("value")),
)

RESIDENT_INDEX: Final = TableSpec(
    "resident_index",
    Lane.IDENTITY,
    (ColumnSpec("identity_index", ColumnKind.KEYED_INDEX, 64),),
)

RECORD_TABLES: Final[tuple[TableSpec, ...]] = (
    TableSpec(
        "encounters",
        Lane.BULK,
        (
            _code("class", 32),
            _date("started_on"),
            _date("ended_on"),
            _code("reason_code"),
            _free_text("department"),
            _ORGANIZATION,
        ),
        care_date="started_on",
    ),
    TableSpec(
        "conditions",
        Lane.BULK,
        (
            _ENCOUNTER,
            _code("code"),
            _date("onset_on"),
            _code("clinical_status", 32),
            _ORGANIZATION,
        ),
        care_date="onset_on",
    ),
    TableSpec(
        "observations",
        Lane.BULK,
        (
            _ENCOUNTER,
            _code("code"),
            ColumnSpec("value", ColumnKind.NUMBER, leaving=Leaving.KEEP),
            _code("unit", 32),
            _date("observed_on"),
            _ORGANIZATION,
        ),
        care_date="observed_on",
    ),
    TableSpec(
        "medications",
        Lane.BULK,
        (
            _ENCOUNTER,
            _code("code"),
            _free_text("display"),
            _date("started_on"),
            _date("ended_on"),
            _free_text("dosage"),
            _ORGANIZATION,
        ),
        care_date="started_on",
    ),
    TableSpec(
        "procedures",
        Lane.BULK,
        (
            _ENCOUNTER,
            _code("code"),
            _free_text("display"),
            _date("performed_on"),
            _ORGANIZATION,
        ),
        care_date="performed_on",
    ),
    TableSpec(
        "immunizations",
        Lane.BULK,
        (
            _ENCOUNTER,
            _code("code"),
            _free_text("display"),
            _date("given_on"),
            ColumnSpec("dose_number", ColumnKind.INTEGER, leaving=Leaving.KEEP),
            _ORGANIZATION,
        ),
        care_date="given_on",
    ),
)

CONSENTS: Final = TableSpec(
    "consents",
    Lane.IDENTITY,
    (
        _code("purpose", 32),
        _code("recipient", 128),
        _code("decision", 16),
        _date("from_on"),
        _date("until_on"),
        _free_text("note"),
        _plain("given_to", 200),
        ColumnSpec("revoked_at", ColumnKind.DATE, 24, leaving=Leaving.MONTH),
        _plain("revoked_by", 200),
    ),
)
"""What a resident allows and forbids: amended at his home alone, like who he is.

De-identified, so that whoever counts de-identified rows leaves out whom he has to; only what
concerns counts leaves (transforms.py).
"""

CARE_RELATIONS: Final = TableSpec(
    "care_relations",
    Lane.CARE,
    (
        _plain("organization_id", 64),
        _plain("kind", 32),
        _day("from_on"),
        _day("until_on"),
        _plain("opened_by", 200),
        _moment("ended_at"),
        _plain("ended_by", 200),
    ),
)
"""Who cares for him: written where the contract or the encounter is."""

ACCESS_GRANTS: Final = TableSpec(
    "access_grants",
    Lane.CARE,
    (
        _plain("grantee", 240),
        _plain("kind", 32),
        _moment("from_at"),
        _moment("until_at"),
        _free_text("reason"),
        _plain("granted_by", 200),
        _plain("granted_for", 64),
        _moment("revoked_at"),
        _plain("revoked_by", 200),
    ),
)
"""Access for a while and for a reason, broken glass among it: written where it is used."""

ACCESS_REVIEWS: Final = TableSpec(
    "access_reviews",
    Lane.IDENTITY,
    (_plain("finding", 32), _free_text("note"), _moment("closed_at"), _plain("closed_by", 200)),
)
"""What his home found of a broken glass; under the grant's own id."""

ACCESS_TABLES: Final[tuple[TableSpec, ...]] = (
    CONSENTS,
    CARE_RELATIONS,
    ACCESS_GRANTS,
    ACCESS_REVIEWS,
)
"""Who may read a resident's rows (node/consent): in full or, but for consents, not at all."""


def _reference(name: str, to: str) -> ColumnSpec:
    return ColumnSpec(name, ColumnKind.REFERENCE, 36, references=to)


# Of organizations and those who work in them (node/people). The subject of a row, its resident_id,
# is the organization; its home the node where they work; its author whoever wrote it, there or
# above: so they travel as records do, in the lane that nothing large stands in the way of. No
# column says that it may leave de-identified: none of them ever does.
PEOPLE_TABLES: Final[tuple[TableSpec, ...]] = (
    TableSpec(
        "organizations",
        Lane.CARE,
        (
            _plain("kind", 32),
            ColumnSpec("name", length=200),
            _reference("parent_id", "organizations"),
        ),
    ),
    TableSpec("departments", Lane.CARE, (ColumnSpec("name", length=200),)),
    TableSpec(
        "staff",
        Lane.CARE,
        (_sealed("name"), _sealed("phone"), ColumnSpec("title", length=100)),
    ),
    TableSpec(
        "qualifications",
        Lane.CARE,
        (
            _reference("staff_id", "staff"),
            _plain("kind", 64),
            _sealed("number"),
            _day("issued_on"),
            _day("expires_on"),
        ),
    ),
    TableSpec(
        "assignments",
        Lane.CARE,
        (
            _reference("staff_id", "staff"),
            _reference("department_id", "departments"),
            _plain("role", 32),
            _plain("division", 16),
            _day("from_on"),
            _day("until_on"),
        ),
    ),
    # That something of the tables above is over. A row of its own, because what a node wrote no
    # other may change, and several may end it.
    TableSpec(
        "endings",
        Lane.CARE,
        (
            _plain("ended_table", 32),
            ColumnSpec("ended_id", ColumnKind.REFERENCE, 36),
            _day("ended_on"),
        ),
    ),
)

IDENTITY_LINKS: Final = TableSpec(
    "identity_links",
    Lane.CARE,
    (
        ColumnSpec("event_id", ColumnKind.REFERENCE, 36),
        _plain("decision", 16),
        _plain("part", 16),
        _reference("other_id", "residents"),
        # Ids of earlier events over the same pair, with blanks between.
        _plain("ends", 400),
        _plain("decided_by", 200),
        _free_text("reason"),
        _free_text("evidence"),
        _plain("model", 64),
    ),
)
"""Halves of what was decided over two residents (node/merging): written at a node over the home.

In full or not at all: which ids are one person is as telling as a name.
"""

PEOPLE_NAMES: Final = frozenset(spec.name for spec in PEOPLE_TABLES)

TABLES: Final = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            RESIDENTS,
            IDENTIFIERS,
            RESIDENT_INDEX,
            *RECORD_TABLES,
            *ACCESS_TABLES,
            *PEOPLE_TABLES,
            IDENTITY_LINKS,
        )
    }
)
"""Every replicated table by name. Their order is that of a move: new ones stand at the end."""
