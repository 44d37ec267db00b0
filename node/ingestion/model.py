"""What travels through the steps of a run, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from replication.core.model import Value

__all__ = [
    "Counts",
    "Draft",
    "DraftRecord",
    "Format",
    "Person",
    "RunState",
    "Severity",
    "Trouble",
    "Unit",
]


class Format(StrEnum):
    """How a content is read."""

    CSV = "csv"
    XLSX = "xlsx"
    ROWS = "rows"
    NDJSON = "ndjson"
    BUNDLE = "bundle"
    HL7 = "hl7"


class RunState(StrEnum):
    """Where a run stands. `arriving` → `running` → `done` or `failed`; `feeding` → `done`."""

    ARRIVING = "arriving"
    RUNNING = "running"
    FEEDING = "feeding"
    """Messages of today come in one by one."""
    DONE = "done"
    FAILED = "failed"


class Severity(StrEnum):
    """What a trouble does: an error quarantines the unit, a warning is kept with the record."""

    ERROR = "error"
    WARNING = "warning"


class Trouble(NamedTuple):
    """One rule that a unit broke. `value` is sealed wherever it is kept."""

    rule: str
    field: str
    value: str = ""


def placed(troubles: Sequence[Trouble], fields: Mapping[str, str]) -> list[Trouble]:
    """The same, each once, with columns where their elements are named."""
    if not troubles:
        return []
    return list(
        dict.fromkeys(each._replace(field=fields.get(each.field, each.field)) for each in troubles)
    )


@dataclass(slots=True)
class Unit:
    """What a reader gives: one row, resource or message.

    `number` counts from 1 without a gap; `line` is where it begins in the file (0: it has no
    lines). `cells` of tables are in the order of the header; `whole` of everything else is the
    parsed resource or message. `troubles`: it could not be read as a unit of its format, and
    `raw` is what stands there, cut.
    """

    number: int
    line: int = 0
    cells: Sequence[str] = ()
    whole: Mapping[str, object] | None = None
    raw: str = ""
    troubles: tuple[Trouble, ...] = ()


@dataclass(slots=True)
class Person:
    """Whom a unit is about, as far as it says. Identifiers are (system, value)."""

    name: str = ""
    sex: str = ""
    birth_date: str = ""
    identifiers: tuple[tuple[str, str], ...] = ()
    phone: str = ""
    address: str = ""
    deceased_on: str = ""
    resident_id: str = ""
    troubles: list[Trouble] | None = None
    """What is wrong with him, once it was looked at: rows of one person share it."""

    @property
    def introduces(self) -> bool:
        """Whether it says enough to register somebody."""
        return bool(self.name and self.sex and self.birth_date and self.identifiers)


@dataclass(slots=True)
class DraftRecord:
    """A record before it has an id. `key` "": its values are its key.

    `encounter` is the key of the encounter that it belongs to; `element` is that of the wide column
    whose cell it is, "" if it is none.
    """

    table: str
    values: dict[str, Value]
    key: str = ""
    encounter: str = ""
    element: str = ""


@dataclass(slots=True)
class Draft:
    """What a unit becomes. `updates`: the person's data replace those held (HL7 A08).

    `former`: an identifier that turned out to be of the same person (HL7 A40).
    """

    person: Person
    records: list[DraftRecord] = field(default_factory=list)
    updates: bool = False
    former: tuple[str, str] | None = None


@dataclass(slots=True)
class Counts:
    """Of a run. accepted + quarantined = read; the rest counts rows, not units.

    `unchanged`: accepted units that brought nothing new.
    """

    read: int = 0
    accepted: int = 0
    quarantined: int = 0
    unchanged: int = 0
    residents: int = 0
    records: int = 0
    amended: int = 0
    warnings: int = 0
