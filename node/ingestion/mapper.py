"""Tables: a row of cells becomes a Draft, as a mapping says. Pure; made for one file's header."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

from node.ingestion.dates import excel_day, iso_day
from node.ingestion.elements import SUBJECTS, Element, Kind, element_of
from node.ingestion.errors import MappingColumnsError
from node.ingestion.mapping import ColumnModel, MappingModel
from node.ingestion.model import Draft, DraftRecord, Person, Trouble, Unit
from node.ingestion.normalising import (
    code_text,
    icd10_text,
    identifier_text,
    name_text,
    number_of,
    phone_text,
    plain_text,
    sex_of,
)
from node.ingestion.units import normal_unit
from node.records.observation_codes import observation_codes
from replication.core.model import Value

__all__ = ["TableMapper", "cells_of"]

_MAIN: Final = {
    "encounter": "started_on",
    "condition": "code",
    "observation": "value",
    "medication": "code",
    "procedure": "code",
    "immunization": "code",
}
"""The part without which a row holds no record of that subject."""
_DAY: Final = {
    "observation": "observed_on",
    "procedure": "performed_on",
    "immunization": "given_on",
}
"""The day of a record, which is that of the row's visit where the row has no other."""
_IDENTIFIERS: Final = (
    "identity_number",
    "health_card",
    "health_record",
    "passport",
)
_ROUNDED: Final = frozenset("eE")
_REMEMBERED: Final = 4096

Read = Callable[[str], Value | Trouble]


@dataclass(frozen=True, slots=True)
class _Column:
    """One used column: where it stands, what it feeds, how its cells are read."""

    index: int
    names: tuple[str, ...]
    reads: tuple[tuple[str, Read], ...]
    empty: frozenset[str]
    is_personal: bool


class TableMapper:
    """Maps the rows of one file.

    Raises:
        MappingColumnsError: The header lacks columns that the mapping names as not optional.
    """

    def __init__(self, mapping: MappingModel, header: Sequence[str]) -> None:
        self._source = mapping.source
        self.header = tuple(header)
        places = {name: i for i, name in enumerate(header)}
        missing = [
            name
            for name, column in mapping.mapped.items()
            if name not in places and not column.optional
        ]
        named = {name for names in mapping.keys.values() for name in names}
        missing += sorted(named - places.keys() - set(missing))
        if missing:
            raise MappingColumnsError("the file lacks: " + ", ".join(missing[:20]))
        used = {n: c for n, c in mapping.mapped.items() if n in places}
        columns = [_column(mapping, n, c, places[n]) for n, c in used.items()]
        self._columns = tuple(each for each in columns if not each.is_personal)
        self._personal = tuple(each for each in columns if each.is_personal)
        self._people: dict[tuple[str, ...], tuple[Person, list[Trouble]]] = {}
        self._constants = _constants(mapping)
        self._keys = {s: tuple(places[n] for n in names) for s, names in mapping.keys.items()}
        self._units = {
            element.measures: normal_unit(column.unit) if column.unit else ""
            for column in used.values()
            for element in map(element_of, column.names)
            if element and element.measures
        }
        self._unit = next((c.unit for c in used.values() if c.unit and _is_value(c)), "")
        fed = {name for column in columns for name in column.names}
        self.fields = _fields(columns, self.header)
        subjects = {name.partition(".")[0] for name in fed}
        self._subjects = tuple(each for each in SUBJECTS if each in subjects)
        self._measures = tuple(
            (f"observation.{code}", code) for code in self._units if f"observation.{code}" in fed
        )

    def draft(self, unit: Unit) -> tuple[Draft, list[Trouble]]:
        """What the row says. With troubles that are errors the draft is not to be stored."""
        cells = unit.cells
        person, found = self._whom(cells)
        troubles = found.copy()
        values: dict[str, Value] = dict(self._constants)
        _read(self._columns, cells, values, troubles)
        draft = Draft(person)
        for subject in self._subjects:
            self._record(draft, subject, values, cells)
        if self._measures:
            self._measured(draft, values, cells)
        if not draft.records and not person.introduces and not troubles:
            troubles.append(Trouble("NOTHING_TO_STORE", ""))
        return draft, troubles

    def _whom(self, cells: Sequence[str]) -> tuple[Person, list[Trouble]]:
        """The person of a row. Rows of one person mostly stand together, so he is remembered."""
        said = tuple(cells[each.index] for each in self._personal)
        known = self._people.get(said)
        if known is None:
            values: dict[str, Value] = dict(self._constants)
            troubles: list[Trouble] = []
            _read(self._personal, cells, values, troubles)
            known = self._person(values), troubles
            if len(self._people) >= _REMEMBERED:
                self._people.clear()
            self._people[said] = known
        return known

    def _person(self, values: Mapping[str, Value]) -> Person:
        get = values.get
        found = [
            (system, str(value)) for system in _IDENTIFIERS if (value := get(f"person.{system}"))
        ]
        local = get("person.local_id")
        if local:
            found.append(("local", f"{self._source}:{local}"))
        return Person(
            name=str(get("person.name") or ""),
            sex=str(get("person.sex") or ""),
            birth_date=str(get("person.birth_date") or ""),
            identifiers=tuple(found),
            phone=str(get("person.phone") or ""),
            address=str(get("person.address") or ""),
            deceased_on=str(get("person.deceased_on") or ""),
            resident_id=str(get("person.resident_id") or ""),
        )

    def _record(
        self, draft: Draft, subject: str, values: Mapping[str, Value], cells: Sequence[str]
    ) -> None:
        if values.get(f"{subject}.{_MAIN[subject]}") is None:
            return
        own: dict[str, Value] = {part: values.get(f"{subject}.{part}") for part in _PARTS[subject]}
        if subject == "observation" and not own["unit"]:
            own["unit"] = normal_unit(self._unit) if self._unit else _canonical(own["code"])
        if (day := _DAY.get(subject)) and not own[day]:
            own[day] = values.get("encounter.started_on")
        if subject == "immunization" and own["dose_number"] is not None:
            own["dose_number"] = _whole(own["dose_number"])
        key = self._key(subject, values, cells)
        number = values.get("encounter.number")
        encounter = str(number or "") if subject != "encounter" else ""
        draft.records.append(DraftRecord(SUBJECTS[subject], own, key, encounter))

    def _measured(self, draft: Draft, values: Mapping[str, Value], cells: Sequence[str]) -> None:
        """Wide columns, each of one kind of value."""
        day = values.get("observation.observed_on") or values.get("encounter.started_on")
        key = self._key("observation", values, cells)
        encounter = str(values.get("encounter.number") or "")
        for name, code in self._measures:
            value = values.get(name)
            if value is None:
                continue
            unit = self._units[code] or _canonical(code)
            own: dict[str, Value] = {"code": code, "value": value, "unit": unit, "observed_on": day}
            named = f"{key}#{code}" if key else ""
            draft.records.append(DraftRecord("observations", own, named, encounter, name))

    def _key(self, subject: str, values: Mapping[str, Value], cells: Sequence[str]) -> str:
        columns = self._keys.get(subject)
        if columns:
            parts = [cells[index].strip() for index in columns]
            return "\x1f".join(parts) if any(parts) else ""
        return str(values.get(f"{subject}.number") or "")


_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "encounter": ("class", "started_on", "ended_on", "reason_code", "department"),
    "condition": ("code", "onset_on", "clinical_status"),
    "observation": ("code", "value", "unit", "observed_on"),
    "medication": ("code", "display", "started_on", "ended_on", "dosage"),
    "procedure": ("code", "display", "performed_on"),
    "immunization": ("code", "display", "given_on", "dose_number"),
}


def _fields(columns: Sequence[_Column], header: Sequence[str]) -> dict[str, str]:
    """The column of each element; a record without a day of its own has that of the visit."""
    fields = {name: header[each.index] for each in columns for name in each.names}
    if visit := fields.get("encounter.started_on"):
        for subject, day in _DAY.items():
            fields.setdefault(f"{subject}.{day}", visit)
    return fields


def _read(
    columns: Sequence[_Column],
    cells: Sequence[str],
    values: dict[str, Value],
    troubles: list[Trouble],
) -> None:
    """Read the cells of some columns into values by element."""
    for column in columns:
        text = cells[column.index]
        if not text or text in column.empty or text.isspace():
            continue
        for name, read in column.reads:
            value = read(text)
            if not isinstance(value, Trouble):
                values[name] = value
                continue
            troubles.append(value)
            if value.rule == "EXCEL_DAY":
                values[name] = excel_day(text.strip())


def cells_of(header: Sequence[str], row: Mapping[str, object]) -> tuple[str, ...]:
    """The cells of a row that came as an object, in the order of a header."""
    return tuple(_cell(row.get(name)) for name in header)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    # 17 significant digits: a number reads back as it was.
    return repr(value)


def _is_value(column: ColumnModel) -> bool:
    return "observation.value" in {e.name for e in map(element_of, column.names) if e}


@lru_cache(maxsize=1024)
def _canonical(code: Value) -> str:
    known = observation_codes().get(str(code))
    return known.unit if known else ""


def _whole(value: Value) -> Value:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _constants(mapping: MappingModel) -> dict[str, Value]:
    """Constants are written as values, so they are not translated but read."""
    made: dict[str, Value] = {}
    formats = tuple(mapping.dates)
    for name, text in mapping.constants.items():
        element = element_of(name)
        if element is None:
            continue
        value = _reader(element, ColumnModel(to=name), formats, mapping.codes)(text)
        if not isinstance(value, Trouble):
            made[element.name] = value
    return made


def _column(mapping: MappingModel, name: str, column: ColumnModel, index: int) -> _Column:
    formats = tuple(column.dates or mapping.dates)
    elements = [each for each in map(element_of, column.names) if each]
    names = tuple(each.name for each in elements)
    readers = (_reader(each, column, formats, mapping.codes, name) for each in elements)
    return _Column(
        index,
        names,
        tuple(zip(names, readers, strict=True)),
        frozenset((*mapping.empty, *column.empty)),
        all(each.subject == "person" for each in elements),
    )


def _reader(
    element: Element,
    column: ColumnModel,
    formats: tuple[str, ...],
    codes: Mapping[str, str],
    name: str = "",
) -> Read:
    """What turns a cell of this element into a value."""
    shown = name or element.name
    plain = _plain_reader(element, formats, column, codes, shown)
    if not column.codes:
        return plain
    table = {code_text(key): value for key, value in column.codes.items()}

    def translated(text: str) -> Value | Trouble:
        found = table.get(code_text(text), column.other)
        return Trouble("CODE_UNMAPPED", shown, text) if found is None else plain(found)

    return translated


def _plain_reader(
    element: Element,
    formats: tuple[str, ...],
    column: ColumnModel,
    codes: Mapping[str, str],
    shown: str,
) -> Read:
    if element.name == "observation.code" and codes:
        return lambda text: codes.get(code_text(text), code_text(text))
    if element.kind in _WORDS:
        return _WORDS[element.kind]
    match element.kind:
        case Kind.DATE:
            return partial(_read_day, formats=formats, shown=shown)
        case Kind.NUMBER:
            return partial(_read_number, shown=shown)
        case Kind.SEX:
            return partial(_read_sex, shown=shown)
        case Kind.IDENTIFIER:
            return partial(_read_identifier, length=column.length, shown=shown)
        case _:
            return code_text


_WORDS: Final[Mapping[Kind, Read]] = {
    Kind.NAME: name_text,
    Kind.TEXT: plain_text,
    Kind.PHONE: phone_text,
    Kind.UNIT: normal_unit,
    Kind.ICD10: icd10_text,
}
"""What is read without anything of the mapping's."""


def _read_day(text: str, *, formats: tuple[str, ...], shown: str) -> Value | Trouble:
    found = iso_day(text, formats)
    if found is not None:
        return found
    rule = "EXCEL_DAY" if excel_day(text.strip()) else "DATE_INVALID"
    return Trouble(rule, shown, text)


def _read_number(text: str, *, shown: str) -> Value | Trouble:
    found = number_of(text)
    return Trouble("NUMBER_INVALID", shown, text) if found is None else found


def _read_sex(text: str, *, shown: str) -> Value | Trouble:
    found = sex_of(text)
    return Trouble("CODE_UNMAPPED", shown, text) if found is None else found


def _read_identifier(text: str, *, length: int | None, shown: str) -> Value | Trouble:
    found = identifier_text(text)
    if length is not None and len(found) < length:
        return Trouble("LENGTH_WRONG", shown, text)
    if "+" in found and not _ROUNDED.isdisjoint(found) and number_of(found) is not None:
        return Trouble("NUMBER_ROUNDED", shown, text)
    return found
