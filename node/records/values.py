"""Checks of single values: dates, ids, texts, codes, numbers. Each adds at most one fault."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import date
from typing import Final, TypeGuard

from node.records.canaries import is_canary
from node.records.faults import FaultReport
from node.records.icd10 import who_code
from replication.core.model import Value

__all__ = [
    "check_choice",
    "check_code",
    "check_date",
    "check_icd10",
    "check_id",
    "check_number",
    "check_text",
    "is_number",
    "is_plain_text",
]

EARLIEST: Final = date(1850, 1, 1)

_ISO_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What the code lists of medicines, procedures and vaccines are written in. Codes leave the county
# and are keys of groups: words, which may name somebody, must not pass for one.
_CODE: Final = re.compile(r"[A-Za-z0-9._/-]{1,32}")
# Control, format (which holds the bidirectional marks), surrogate, line and paragraph separator.
# Unassigned and private characters pass: rare surnames were written with both.
_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def is_plain_text(text: str, length_max: int) -> bool:
    """Whether text has 1 to `length_max` characters, none of them a control character."""
    return 1 <= len(text) <= length_max and not any(
        unicodedata.category(character) in _REFUSED_CATEGORIES for character in text
    )


def check_date(field: str, value: Value, today: date, report: FaultReport) -> date | None:
    """Return the date, or None after reporting why it is none that may stand here."""
    if isinstance(value, str) and _ISO_DATE.fullmatch(value):
        try:
            found = date.fromisoformat(value)
        except ValueError:
            found = date.min
        if found >= EARLIEST:
            if found <= today:
                return found
            report.add(field, "DATE_IN_FUTURE", "a date of today or earlier")
            return None
    report.add(field, "DATE_INVALID", f"YYYY-MM-DD, not before {EARLIEST}")
    return None


def check_id(field: str, value: Value, report: FaultReport) -> None:
    """A UUID as text: 36 characters, lower case."""
    if not (isinstance(value, str) and _UUID.fullmatch(value)):
        report.add(field, "ID_INVALID", "a UUID of 36 characters in lower case")
    elif is_canary(value):
        report.add(field, "ID_RESERVED", "an id that does not begin as canaries' ids do")


def check_text(field: str, value: Value, report: FaultReport, *, length_max: int) -> None:
    """Text for people."""
    if not (isinstance(value, str) and is_plain_text(value, length_max)):
        expected = f"at most {length_max} characters, no control characters"
        report.add(field, "TEXT_INVALID", expected)


def check_code(field: str, value: Value, report: FaultReport) -> None:
    """A code of a list that is not shipped here."""
    if not (isinstance(value, str) and _CODE.fullmatch(value)):
        report.add(field, "CODE_INVALID", "1 to 32 of A-Z a-z 0-9 . _ / -, as in a list of codes")


def check_choice(field: str, value: Value, report: FaultReport, *, words: tuple[str, ...]) -> None:
    """One of the field's own words."""
    if value not in words:
        report.add(field, "CHOICE_UNKNOWN", "one of " + ", ".join(words))


def check_icd10(field: str, value: Value, report: FaultReport) -> None:
    """A diagnosis as icd10.normal_icd10 writes it."""
    if not (isinstance(value, str) and who_code(value)):
        expected = "ICD-10, WHO or its national extension of up to six characters"
        report.add(field, "ICD10_UNKNOWN", expected)


def is_number(value: Value) -> TypeGuard[int | float]:
    """Whether a value is a finite number; truth values are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def check_number(field: str, value: Value, report: FaultReport) -> None:
    """A finite number."""
    if not is_number(value):
        report.add(field, "NUMBER_INVALID", "a finite number")
