"""Checks of the records of a bundle: what each kind of record holds, and whether it is sound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from types import MappingProxyType
from typing import Final

from node.records.faults import FaultReport
from node.records.model import NewRecord
from node.records.observation_codes import observation_codes
from node.records.values import (
    check_choice,
    check_code,
    check_date,
    check_icd10,
    check_id,
    check_number,
    check_text,
    is_number,
)
from replication.core.model import Value

__all__ = ["CLINICAL_STATUSES", "ENCOUNTER_CLASSES", "RECORD_KINDS", "RecordChecks"]

ENCOUNTER_CLASSES: Final = ("ambulatory", "inpatient", "emergency", "home", "virtual")
CLINICAL_STATUSES: Final = ("active", "recurrence", "remission", "resolved", "unknown")

_DOSE_NUMBER_MAX: Final = 99
_HOME_EPOCH_MAX: Final = 2**31 - 1


ValueCheck = Callable[[str, Value, FaultReport], object]
"""Adds a fault if the value alone shows one: (field, value, report)."""


def _later(field: str, value: Value, report: FaultReport) -> None:
    """Nothing: dates, references and units are judged with the rest of the row or bundle."""


def _dose(field: str, value: Value, report: FaultReport) -> None:
    if type(value) is not int or not 1 <= value <= _DOSE_NUMBER_MAX:
        report.add(field, "NUMBER_INVALID", f"a whole number from 1 to {_DOSE_NUMBER_MAX}")


def _observation_code(field: str, value: Value, report: FaultReport) -> None:
    if value not in observation_codes():
        expected = "a LOINC code of node/records/codes/observations.yaml"
        report.add(field, "OBSERVATION_CODE_UNKNOWN", expected)


def _text(length_max: int) -> _Column:
    return _Column(partial(check_text, length_max=length_max))


def _choice(words: tuple[str, ...], *, required: bool = False) -> _Column:
    return _Column(partial(check_choice, words=words), required=required)


@dataclass(frozen=True, slots=True)
class _Column:
    check: ValueCheck
    required: bool = False
    is_date: bool = False


@dataclass(frozen=True, slots=True)
class _RecordKind:
    """`body` is the field's name in care.proto; `span` the columns of a start and its end."""

    body: str
    columns: Mapping[str, _Column]
    span: tuple[str, str] | None = None


_DATE: Final = _Column(_later, is_date=True)
_DATE_REQUIRED: Final = _Column(_later, required=True, is_date=True)
_CODE_REQUIRED: Final = _Column(check_code, required=True)
_TEXT: Final = _text(200)
_ENCOUNTER: Final = _Column(_later)
_SPAN: Final = ("started_on", "ended_on")

RECORD_KINDS: Final[Mapping[str, _RecordKind]] = MappingProxyType(
    {
        "encounters": _RecordKind(
            "encounter",
            {
                "class": _choice(ENCOUNTER_CLASSES, required=True),
                "started_on": _DATE_REQUIRED,
                "ended_on": _DATE,
                "reason_code": _Column(check_icd10),
                "department": _text(100),
            },
            _SPAN,
        ),
        "conditions": _RecordKind(
            "condition",
            {
                "encounter_id": _ENCOUNTER,
                "code": _Column(check_icd10, required=True),
                "onset_on": _DATE,
                "clinical_status": _choice(CLINICAL_STATUSES),
            },
        ),
        "observations": _RecordKind(
            "observation",
            {
                "encounter_id": _ENCOUNTER,
                "code": _Column(_observation_code, required=True),
                "value": _Column(check_number, required=True),
                "unit": _Column(_later, required=True),
                "observed_on": _DATE_REQUIRED,
            },
        ),
        "medications": _RecordKind(
            "medication",
            {
                "encounter_id": _ENCOUNTER,
                "code": _CODE_REQUIRED,
                "display": _TEXT,
                "started_on": _DATE,
                "ended_on": _DATE,
                "dosage": _TEXT,
            },
            _SPAN,
        ),
        "procedures": _RecordKind(
            "procedure",
            {
                "encounter_id": _ENCOUNTER,
                "code": _CODE_REQUIRED,
                "display": _TEXT,
                "performed_on": _DATE_REQUIRED,
            },
        ),
        "immunizations": _RecordKind(
            "immunization",
            {
                "encounter_id": _ENCOUNTER,
                "code": _CODE_REQUIRED,
                "display": _TEXT,
                "given_on": _DATE_REQUIRED,
                "dose_number": _Column(_dose),
            },
        ),
    }
)
"""The kinds of record by their table."""


class RecordChecks:
    """Checks the records of one bundle. `births` is what ResidentChecks learnt."""

    def __init__(self, births: Mapping[str, date], today: date, report: FaultReport) -> None:
        self._births = births
        self._today = today
        self._report = report
        self._by_id: dict[str, NewRecord] = {}

    def check_all(self, records: Sequence[NewRecord]) -> None:
        """Check every record."""
        self._check_ids(records)
        for position, record in enumerate(records):
            field = f"records[{position}]"
            check_id(f"{field}.resident_id", record.resident_id, self._report)
            if not 0 <= record.home_epoch <= _HOME_EPOCH_MAX:
                expected = f"a whole number up to {_HOME_EPOCH_MAX}"
                self._report.add(f"{field}.home_epoch", "NUMBER_INVALID", expected)
            if record.retracted:
                self._check_retraction(field, record)
                continue
            kind = RECORD_KINDS.get(record.table)
            if kind is None:
                expected = "a body: " + ", ".join(each.body for each in RECORD_KINDS.values())
                self._report.add(field, "RECORD_KIND_UNKNOWN", expected)
            else:
                self._check_values(field, kind, record)

    def _check_ids(self, records: Sequence[NewRecord]) -> None:
        for position, record in enumerate(records):
            if record.record_id is None:
                continue
            field = f"records[{position}].record_id"
            check_id(field, record.record_id, self._report)
            if record.record_id in self._by_id:
                self._report.add(field, "ID_REPEATED", "an id that stands once")
            self._by_id[record.record_id] = record

    def _check_retraction(self, field: str, record: NewRecord) -> None:
        """What is retracted is named by its id alone."""
        if record.record_id is None:
            self._report.add(f"{field}.record_id", "VALUE_REQUIRED", "the id of what is retracted")
        if record.table or record.values:
            self._report.add(field, "COLUMN_UNKNOWN", "no body and no encounter_id")

    def _check_values(self, field: str, kind: _RecordKind, record: NewRecord) -> None:
        values, body = record.values, f"{field}.{kind.body}"
        dates: dict[str, date] = {}
        for name, column in kind.columns.items():
            value = values.get(name)
            if value is None:
                if column.required:
                    self._report.add(f"{body}.{name}", "VALUE_REQUIRED", "a value")
                continue
            column.check(f"{body}.{name}", value, self._report)
            if column.is_date:
                found = self._check_date(f"{body}.{name}", value, record.resident_id)
                dates |= {name: found} if found else {}
        if not values.keys() <= kind.columns.keys():
            # The name is the caller's own words, so it is not repeated.
            self._report.add(body, "COLUMN_UNKNOWN", "only " + ", ".join(kind.columns))
        self._check_encounter(f"{field}.encounter_id", record)
        if record.table == "observations":
            self._check_observation(body, values)
        if kind.span is not None:
            start, end = (dates.get(name) for name in kind.span)
            if start and end and end < start:
                expected = f"{kind.span[0]} or later"
                self._report.add(f"{body}.{kind.span[1]}", "DATES_REVERSED", expected)

    def _check_date(self, field: str, value: Value, resident_id: str) -> date | None:
        found = check_date(field, value, self._today, self._report)
        birth = self._births.get(resident_id)
        if found and birth and found < birth:
            self._report.add(field, "DATE_BEFORE_BIRTH", "the resident's birth date or later")
        return found

    def _check_encounter(self, field: str, record: NewRecord) -> None:
        value = record.values.get("encounter_id")
        if value is None:
            return
        check_id(field, value, self._report)
        named = self._by_id.get(str(value))
        if named is None:
            return
        if named.table != "encounters" or named.resident_id != record.resident_id:
            self._report.add(field, "ENCOUNTER_WRONG", "an encounter of the same resident")

    def _check_observation(self, field: str, values: Mapping[str, Value]) -> None:
        """Unit and range, as far as the code is known."""
        code = observation_codes().get(str(values.get("code")))
        unit, value = values.get("unit"), values.get("value")
        if code is None:
            return
        if unit is not None and unit != code.unit:
            self._report.add(f"{field}.unit", "UNIT_WRONG", code.unit)
        elif is_number(value) and not code.plausible_min <= value <= code.plausible_max:
            expected = f"{code.plausible_min:g} to {code.plausible_max:g} {code.unit}"
            self._report.add(f"{field}.value", "VALUE_IMPLAUSIBLE", expected)
