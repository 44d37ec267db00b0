"""Validates drafts against rules.py: the person, each record, and the record against the person.

Pure. Works on values in normal form; adds a Trouble for each rule that is broken and converts units
(a warning says so). What it lets pass, node/records/checks.py lets pass: a test compares them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Final

from node.ingestion.elements import SUBJECTS
from node.ingestion.model import Draft, DraftRecord, Person, Trouble
from node.ingestion.units import convert, normal_unit
from node.ingestion.usual import usual_range
from node.records.icd10 import who_code
from node.records.identity import IdentityNumber, IdentityNumberError, parse_identity_number
from node.records.observation_codes import observation_codes
from node.records.record_checks import CLINICAL_STATUSES, ENCOUNTER_CLASSES
from node.records.resident_checks import SEXES
from node.records.values import EARLIEST, is_plain_text
from replication.core.model import Value

__all__ = ["KnownPerson", "check_draft", "check_life"]

_EARLIEST: Final = EARLIEST.isoformat()
_CODE_CHARACTERS: Final = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-"
)
_UUID_LENGTH: Final = 36
_AGE_MAX: Final = 116
_STAY_DAYS_MAX: Final = 731
_FEMALE_ONLY: Final = ("O", "C51", "C52", "C53", "C54", "C55", "C56", "N70", "N71", "N72", "N80")
_MALE_ONLY: Final = ("C60", "C61", "C62", "C63", "N40", "N41", "N42", "N43", "N44", "N45", "N47")
_DAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "encounters": ("started_on", "ended_on"),
    "conditions": ("onset_on",),
    "observations": ("observed_on",),
    "medications": ("started_on", "ended_on"),
    "procedures": ("performed_on",),
    "immunizations": ("given_on",),
}
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "encounters": ("class", "started_on"),
    "conditions": ("code",),
    "observations": ("code", "value", "unit", "observed_on"),
    "medications": ("code",),
    "procedures": ("code", "performed_on"),
    "immunizations": ("code", "given_on"),
}
_SUBJECT_OF: Final = {table: subject for subject, table in SUBJECTS.items()}
_MEASURED: Final = frozenset({"code", "value", "unit"})
_TEXTS: Final = {"department": 100, "display": 200, "dosage": 200}
_DOSES_MAX: Final = 99


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """What is held in clear of a resident: enough to judge his records by his life."""

    resident_id: str
    sex: str = ""
    birth_year: int = 0
    deceased_on: str = ""
    author_node: str = ""


def check_draft(draft: Draft, today: str) -> list[Trouble]:
    """Every rule that the draft breaks by itself; `today` is an ISO date."""
    person = draft.person
    if person.troubles is None:
        person.troubles = []
        _check_person(person, today, person.troubles)
    troubles = person.troubles.copy()
    for record in draft.records:
        found: list[Trouble] = []
        _check_record(record, today, found)
        if draft.person.birth_date or draft.person.deceased_on:
            _check_span(record, draft.person, found)
        if found:
            troubles += _named(record, found)
    return troubles


def check_life(record: DraftRecord, known: KnownPerson) -> list[Trouble]:
    """Rules that need who the person is, as he is held."""
    troubles: list[Trouble] = []
    for name in _DAYS[record.table]:
        day = record.values.get(name)
        if not isinstance(day, str):
            continue
        if known.birth_year and int(day[:4]) < known.birth_year:
            troubles.append(Trouble("DATE_BEFORE_BIRTH", name, day))
        if known.deceased_on and day > known.deceased_on and name != "ended_on":
            troubles.append(Trouble("DATE_AFTER_DEATH", name, day))
    if record.table == "observations" and known.birth_year:
        _check_usual(record.values, known, troubles)
    elif record.table == "conditions":
        _check_sex(record.values, known.sex, troubles)
    return _named(record, troubles)


def _named(record: DraftRecord, found: Sequence[Trouble]) -> list[Trouble]:
    """The same with elements for fields; of a value in a wide column that column's element."""
    subject, wide = _SUBJECT_OF[record.table], record.element
    return [
        each._replace(field=wide if wide and each.field in _MEASURED else f"{subject}.{each.field}")
        for each in found
    ]


# ------------------------------------------------------------------------ the person


def _check_person(person: Person, today: str, troubles: list[Trouble]) -> None:
    if person.resident_id and not _is_uuid(person.resident_id):
        troubles.append(Trouble("ID_INVALID", "person.resident_id", person.resident_id))
    _check_words(person, troubles)
    for name, day in (("birth_date", person.birth_date), ("deceased_on", person.deceased_on)):
        if day:
            _check_day(f"person.{name}", day, today, troubles)
    if person.deceased_on and person.birth_date > person.deceased_on:
        troubles.append(Trouble("DATE_BEFORE_BIRTH", "person.deceased_on", person.deceased_on))
    if person.birth_date and int(today[:4]) - int(person.birth_date[:4]) > _AGE_MAX:
        troubles.append(Trouble("AGE_UNUSUAL", "person.birth_date", person.birth_date))
    for system, value in person.identifiers:
        _check_identifier(system, value, person, troubles)


def _check_words(person: Person, troubles: list[Trouble]) -> None:
    if person.name and not _is_plain(person.name, 100):
        troubles.append(Trouble("NAME_INVALID", "person.name", person.name))
    if person.sex and person.sex not in SEXES:
        troubles.append(Trouble("CHOICE_UNKNOWN", "person.sex", person.sex))
    if person.address and not _is_plain(person.address, 200):
        troubles.append(Trouble("TEXT_INVALID", "person.address", person.address))
    if person.phone:
        _check_phone(person.phone, troubles)


def _check_phone(phone: str, troubles: list[Trouble]) -> None:
    if not _is_plain(phone, 32):
        troubles.append(Trouble("TEXT_INVALID", "person.phone", phone))
    elif not (phone.isdigit() and 7 <= len(phone) <= 15):
        troubles.append(Trouble("PHONE_ODD", "person.phone", phone))


def _check_identifier(system: str, value: str, person: Person, troubles: list[Trouble]) -> None:
    field = "person.local_id" if system == "local" else f"person.{system}"
    if system != "identity_number":
        if not _is_plain(value, 64):
            troubles.append(Trouble("IDENTIFIER_INVALID", field, value))
        return
    number = _identity(value)
    if number is None:
        troubles.append(Trouble("IDENTITY_NUMBER_INVALID", field, value))
        return
    if person.birth_date and number.birth_date.isoformat() != person.birth_date:
        troubles.append(Trouble("IDENTITY_BIRTH_DATE_DIFFERS", field, value))
    if person.sex in ("male", "female") and number.sex != person.sex:
        troubles.append(Trouble("IDENTITY_SEX_DIFFERS", field, value))


@lru_cache(maxsize=16_384)
def _identity(value: str) -> IdentityNumber | None:
    try:
        return parse_identity_number(value)
    except IdentityNumberError:
        return None


# ------------------------------------------------------------------------ a record


def _check_record(record: DraftRecord, today: str, troubles: list[Trouble]) -> None:
    values = record.values
    get = values.get
    troubles += [
        Trouble("VALUE_REQUIRED", name)
        for name in _REQUIRED[record.table]
        if get(name) in (None, "")
    ]
    for name in _DAYS[record.table]:
        if day := get(name):
            _check_day(name, str(day), today, troubles)
    for name, length in _TEXTS.items():
        text = values.get(name)
        if text and not _is_plain(str(text), length):
            troubles.append(Trouble("TEXT_INVALID", name, str(text)))
    start, end = values.get("started_on"), values.get("ended_on")
    if start and end:
        _check_period(str(start), str(end), record.table, troubles)
    _CHECKS[record.table](values, troubles)


def _check_observation(values: dict[str, Value], troubles: list[Trouble]) -> None:
    code, value = values.get("code"), values.get("value")
    known = observation_codes().get(str(code))
    if known is None:
        if code:
            troubles.append(Trouble("OBSERVATION_CODE_UNKNOWN", "code", str(code)))
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        if value is not None:
            troubles.append(Trouble("NUMBER_INVALID", "value", str(value)))
        return
    unit = str(values.get("unit") or "")
    if unit and unit != known.unit:
        unit = normal_unit(unit)
        changed = convert(known.code, float(value), unit, known.unit)
        if changed is None:
            troubles.append(Trouble("UNIT_WRONG", "unit", unit))
            return
        if unit != known.unit:
            troubles.append(Trouble("UNIT_CONVERTED", "value", f"{value:g} {unit}"))
        values["value"], values["unit"] = changed, known.unit
        value = changed
    if not known.plausible_min <= value <= known.plausible_max:
        troubles.append(Trouble("VALUE_IMPLAUSIBLE", "value", f"{value:g}"))


def _check_encounter(values: dict[str, Value], troubles: list[Trouble]) -> None:
    if values.get("class") and values["class"] not in ENCOUNTER_CLASSES:
        troubles.append(Trouble("CHOICE_UNKNOWN", "class", str(values["class"])))
    reason = values.get("reason_code")
    if reason and who_code(str(reason)) is None:
        troubles.append(Trouble("ICD10_UNKNOWN", "reason_code", str(reason)))


def _check_condition(values: dict[str, Value], troubles: list[Trouble]) -> None:
    code, status = values.get("code"), values.get("clinical_status")
    if code and who_code(str(code)) is None:
        troubles.append(Trouble("ICD10_UNKNOWN", "code", str(code)))
    if status and status not in CLINICAL_STATUSES:
        troubles.append(Trouble("CHOICE_UNKNOWN", "clinical_status", str(status)))


def _check_listed(values: dict[str, Value], troubles: list[Trouble]) -> None:
    """A code of a list that is not shipped: medicines, procedures, vaccines."""
    code = values.get("code")
    if code and not (len(str(code)) <= 32 and _CODE_CHARACTERS.issuperset(str(code))):
        troubles.append(Trouble("CODE_INVALID", "code", str(code)))
    dose = values.get("dose_number")
    if dose is not None and not (type(dose) is int and 1 <= dose <= _DOSES_MAX):
        troubles.append(Trouble("NUMBER_INVALID", "dose_number", str(dose)))


_CHECKS: Final = {
    "encounters": _check_encounter,
    "conditions": _check_condition,
    "observations": _check_observation,
    "medications": _check_listed,
    "procedures": _check_listed,
    "immunizations": _check_listed,
}


def _check_day(name: str, day: str, today: str, troubles: list[Trouble]) -> None:
    if day > today:
        troubles.append(Trouble("DATE_IN_FUTURE", name, day))
    elif day < _EARLIEST:
        troubles.append(Trouble("DATE_INVALID", name, day))


def _check_period(start: str, end: str, table: str, troubles: list[Trouble]) -> None:
    if end < start:
        troubles.append(Trouble("DATES_REVERSED", "ended_on", end))
    elif table == "encounters" and end[:4] != start[:4]:
        days = (date.fromisoformat(end) - date.fromisoformat(start)).days
        if days > _STAY_DAYS_MAX:
            troubles.append(Trouble("PERIOD_LONG", "ended_on", end))


def _check_span(record: DraftRecord, person: Person, troubles: list[Trouble]) -> None:
    """Against what the same unit says of the person."""
    for name in _DAYS[record.table]:
        day = record.values.get(name)
        if not isinstance(day, str):
            continue
        if day < person.birth_date:
            troubles.append(Trouble("DATE_BEFORE_BIRTH", name, day))
        if person.deceased_on and day > person.deceased_on and name != "ended_on":
            troubles.append(Trouble("DATE_AFTER_DEATH", name, day))


# ------------------------------------------------------------------------ against a life


def _check_usual(values: Mapping[str, Value], known: KnownPerson, troubles: list[Trouble]) -> None:
    value, day = values.get("value"), values.get("observed_on")
    if not isinstance(value, int | float) or not isinstance(day, str):
        return
    age = int(day[:4]) - known.birth_year
    found = usual_range(str(values.get("code")), age, known.sex)
    if found is not None and not found[0] <= value <= found[1]:
        troubles.append(Trouble("VALUE_UNUSUAL", "value", f"{value:g}"))


def _check_sex(values: Mapping[str, Value], sex: str, troubles: list[Trouble]) -> None:
    code = str(values.get("code") or "")
    wrong = _FEMALE_ONLY if sex == "male" else _MALE_ONLY if sex == "female" else ()
    if wrong and code.startswith(wrong):
        troubles.append(Trouble("SEX_UNUSUAL", "code", code))


def _is_plain(text: str, length: int) -> bool:
    """As is_plain_text, at once where the text is ASCII."""
    if text.isascii():
        return 1 <= len(text) <= length and text.isprintable()
    return is_plain_text(text, length)


def _is_uuid(text: str) -> bool:
    return (
        len(text) == _UUID_LENGTH
        and text.count("-") == 4
        and not set(text) - set("0123456789abcdef-")
    )
