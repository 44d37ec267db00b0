"""What can be wrong with a row of a bundle: the codes, each with its meaning, and one fault.

A fault says where, what kind, and what was expected. It never holds the value: faults are logged
and travel to whoever sent the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["FAULT_CODES", "Fault", "FaultReport"]

FAULT_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BUNDLE_EMPTY": "The bundle holds neither a resident nor a record.",
        "BUNDLE_TOO_LARGE": "The bundle is over 1,000 rows or 1 MiB.",
        "REQUEST_ID_INVALID": "The request id is not 8 to 64 printable characters.",
        "ID_INVALID": "An id is not a UUID in its canonical form.",
        "ID_RESERVED": "An id is of the kind that only canaries of this platform have.",
        "ID_REPEATED": "The same id stands twice in the bundle.",
        "VALUE_REQUIRED": "A required value is missing.",
        "COLUMN_UNKNOWN": "The kind of record has no such field.",
        "RECORD_KIND_UNKNOWN": "The record is of no known kind.",
        "NAME_INVALID": "A name is empty, longer than 100 characters, or holds control characters.",
        "TEXT_INVALID": "A text is too long or holds control characters.",
        "CODE_INVALID": "A code is not 1 to 32 of the characters A-Z a-z 0-9 . _ / -.",
        "CHOICE_UNKNOWN": "A value is none of the words that the field knows.",
        "DATE_INVALID": "A date is not an ISO date (YYYY-MM-DD) of 1850 or later.",
        "DATE_IN_FUTURE": "A date lies after today.",
        "DATE_BEFORE_BIRTH": "A date lies before the resident's birth.",
        "DATES_REVERSED": "An end lies before its start.",
        "IDENTIFIER_SYSTEM_UNKNOWN": "An identifier is of no known system.",
        "IDENTIFIER_INVALID": "An identifier's value is not 1 to 64 printable characters.",
        "IDENTIFIER_REPEATED": "The same identifier stands twice in the bundle.",
        "IDENTITY_NUMBER_INVALID": "A resident identity number is not one of GB 11643.",
        "IDENTITY_NUMBERS_SEVERAL": "A resident has more than one identity number.",
        "IDENTITY_BIRTH_DATE_DIFFERS": "The identity number and the birth date disagree.",
        "IDENTITY_SEX_DIFFERS": "The identity number and the sex disagree.",
        "HOME_UNKNOWN": "The home place is no node of the hierarchy.",
        "NOT_HOME_NODE": "The home place is another node: residents are registered at their home.",
        "ICD10_UNKNOWN": "A diagnosis is no code of ICD-10 or of its national extension.",
        "OBSERVATION_CODE_UNKNOWN": "An observation's code is not in the shipped list.",
        "UNIT_WRONG": "An observation is not in the canonical unit of its code.",
        "NUMBER_INVALID": "A value is not a finite number, or not a whole one where one is due.",
        "VALUE_IMPLAUSIBLE": "An observation lies outside the plausible range of its code.",
        "ENCOUNTER_WRONG": "The encounter named is another kind of record, or another resident's.",
    }
)
"""Every code that a Fault may carry, with its meaning."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong: `field` as in care.proto's Fault, such as "residents[3].birth_date"."""

    field: str
    code: str
    expected: str


class FaultReport:
    """Gathers faults in the order they are found."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, field: str, code: str, expected: str) -> None:
        """Add a fault. The code must be one of FAULT_CODES (KeyError: a defect here)."""
        FAULT_CODES[code]
        self._faults.append(Fault(field, code, expected))

    def all(self) -> list[Fault]:
        """Return what was found so far."""
        return list(self._faults)
