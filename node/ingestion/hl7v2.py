"""HL7 v2: a message becomes a Draft, and gets its acknowledgement (AA, AE, AR; HL7 v2.5 §2.9).

Of ADT A01, A03, A04, A08, A40 the PID and PV1 segments are read, of ORU R01 the OBX of each OBR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from node.ingestion.dates import iso_day
from node.ingestion.errors import IntakeExtraMissingError
from node.ingestion.mapping import MappingModel
from node.ingestion.model import Draft, DraftRecord, Person, Trouble, Unit
from node.ingestion.normalising import (
    code_text,
    identifier_text,
    name_text,
    number_of,
    phone_text,
    plain_text,
    sex_of,
)
from node.ingestion.units import normal_unit
from replication.core.model import Value

__all__ = ["ACK_STATES", "Hl7Mapper", "acknowledgement", "parse_message"]

ACK_STATES: Final = ("AA", "AE", "AR")
"""Taken; taken into the quarantine or not stored now; no message that is handled here."""

_CLASSES: Final = {
    "I": "inpatient",
    "O": "ambulatory",
    "E": "emergency",
    "R": "ambulatory",
    "P": "ambulatory",
    "B": "inpatient",
}
_EVENTS: Final = frozenset({"A01", "A03", "A04", "A08", "A40"})
_IDENTITY_TYPES: Final = frozenset({"NI", "NNCHN", "SS"})
_CARD_TYPES: Final = {"HC": "health_card", "JHN": "health_card", "PPN": "passport"}
_FINAL: Final = frozenset({"F", "C", "U", "R", "P", ""})
"""OBX-11: results that stand or are corrected. X and D say that there is none."""
_LOINC: Final = frozenset({"LN", "LOINC"})


def _library() -> Any:
    try:
        import hl7
    except ImportError as error:
        raise IntakeExtraMissingError("HL7 v2 is read by the library hl7") from error
    return hl7


def parse_message(text: str) -> Any:
    """The message of a text; None if it is none, or has no MSH.

    Raises:
        IntakeExtraMissingError: The library is not installed.
    """
    hl7 = _library()
    text = text.replace("\r\n", "\r").replace("\n", "\r").strip("\r\x0b\x1c ")
    if not text.startswith("MSH") or len(text) < 9:
        return None
    try:
        return hl7.parse(text)
    except (
        # The library asserts where a header has fewer fields than a message needs.
        AssertionError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        hl7.HL7Exception,
    ):
        return None


class Hl7Mapper:
    """Maps the messages of one source."""

    fields: Mapping[str, str] = MappingProxyType({})

    def __init__(self, mapping: MappingModel) -> None:
        self._source = mapping.source
        self._codes = mapping.codes

    def draft(self, unit: Unit) -> tuple[Draft, list[Trouble]]:
        """What the message says; with errors among the troubles the draft is not to be stored."""
        empty = Draft(Person())
        message = parse_message(unit.raw)
        if message is None:
            return empty, [Trouble("MESSAGE_INVALID", "MSH")]
        kind, event = _part(message, "MSH", 9, 1), _part(message, "MSH", 9, 2)
        if kind == "ADT" and event in _EVENTS:
            return self._admission(message, event)
        if kind == "ORU" and event == "R01":
            return self._results(message)
        return empty, [Trouble("MESSAGE_NOT_TAKEN", "MSH-9", f"{kind}^{event}"[:20])]

    # -------------------------------------------------------------------- ADT

    def _admission(self, message: Any, event: str) -> tuple[Draft, list[Trouble]]:
        troubles: list[Trouble] = []
        draft = Draft(self._person(message, troubles), updates=event == "A08")
        if event == "A40":
            former = next(self._numbers(message, "MRG", 1), None)
            if former is None:
                troubles.append(Trouble("VALUE_REQUIRED", "MRG-1"))
            draft.former = former
            return draft, troubles
        encounter = self._encounter(message, troubles)
        if encounter is not None:
            draft.records.append(encounter)
        return draft, troubles

    def _encounter(self, message: Any, troubles: list[Trouble]) -> DraftRecord | None:
        if not _has(message, "PV1"):
            return None
        number = _part(message, "PV1", 19, 1)
        start = _day(_part(message, "PV1", 44, 1), "PV1-44", troubles)
        if not start:
            start = _day(_part(message, "EVN", 2, 1), "EVN-2", troubles)
        code = _part(message, "PV1", 2, 1)
        values: dict[str, Value] = {
            "class": _CLASSES.get(code),
            "started_on": start,
            "ended_on": _day(_part(message, "PV1", 45, 1), "PV1-45", troubles),
            "department": plain_text(_part(message, "PV1", 3, 1))[:100] or None,
        }
        if values["class"] is None:
            troubles.append(Trouble("CODE_UNMAPPED", "PV1-2", code[:20]))
        return DraftRecord("encounters", values, number)

    def _person(self, message: Any, troubles: list[Trouble]) -> Person:
        if not _has(message, "PID"):
            troubles.append(Trouble("PERSON_UNKNOWN", "PID"))
            return Person()
        family, given = _part(message, "PID", 5, 1), _part(message, "PID", 5, 2)
        whole = f"{given} {family}" if (family + given).isascii() else f"{family} {given}"
        sex = _part(message, "PID", 8, 1)
        address = [_part(message, "PID", 11, part) for part in (4, 3, 2, 1)]
        return Person(
            name=name_text(whole),
            sex=sex_of(sex) or "unknown" if sex else "unknown",
            birth_date=_day(_part(message, "PID", 7, 1), "PID-7", troubles) or "",
            identifiers=tuple(self._numbers(message, "PID", 3)),
            phone=phone_text(_part(message, "PID", 13, 1))[:32],
            address=plain_text(" ".join(filter(None, address)))[:200],
            deceased_on=_day(_part(message, "PID", 29, 1), "PID-29", troubles) or "",
        )

    def _numbers(self, message: Any, segment: str, field: int) -> Iterator[tuple[str, str]]:
        """Identifiers of a CX field, each repetition one."""
        for repetition in _repetitions(message, segment, field):
            value, kind = _component(repetition, 1), _component(repetition, 5).upper()
            if not value:
                continue
            if kind in _IDENTITY_TYPES:
                yield "identity_number", identifier_text(value)
            elif kind in _CARD_TYPES:
                yield _CARD_TYPES[kind], identifier_text(value)
            else:
                yield "local", f"{self._source}:{code_text(value)}"

    # -------------------------------------------------------------------- ORU

    def _results(self, message: Any) -> tuple[Draft, list[Trouble]]:
        troubles: list[Trouble] = []
        draft = Draft(self._person(message, troubles))
        visit = _part(message, "PV1", 19, 1) if _has(message, "PV1") else ""
        order, taken_on, number = "", None, 0
        for segment in message:
            name = str(segment[0])
            if name == "OBR":
                number += 1
                order = _field(segment, 3, 1) or _field(segment, 2, 1)
                taken_on = _day(_field(segment, 7, 1), "OBR-7", troubles)
            elif name == "OBX" and _field(segment, 11, 1) in _FINAL:
                record = self._result(segment, taken_on, troubles)
                if record is None:
                    continue
                code = record.values.get("code")
                record.key = f"{order}#{number}#{code}#{_field(segment, 4, 1)}" if order else ""
                record.encounter = visit
                draft.records.append(record)
        if not draft.records and not troubles:
            troubles.append(Trouble("NOTHING_TO_STORE", "OBX"))
        return draft, troubles

    def _result(
        self, segment: Any, taken_on: str | None, troubles: list[Trouble]
    ) -> DraftRecord | None:
        if _field(segment, 2, 1) not in {"NM", "SN"}:
            troubles.append(Trouble("RESOURCE_NOT_TAKEN", "OBX-2", _field(segment, 2, 1)[:20]))
            return None
        text = _field(segment, 5, 1)
        value = number_of(text)
        if value is None:
            troubles.append(Trouble("NUMBER_INVALID", "OBX-5", text[:60]))
            return None
        code = self._code(segment)
        day = _day(_field(segment, 14, 1), "OBX-14", troubles) or taken_on
        unit = normal_unit(_field(segment, 6, 1)) or None
        return DraftRecord(
            "observations", {"code": code, "value": value, "unit": unit, "observed_on": day}
        )

    def _code(self, segment: Any) -> str:
        """LOINC, from either coding of the field, or what the mapping translates to it."""
        first, second = _field(segment, 3, 1), _field(segment, 3, 4)
        chosen = second if _field(segment, 3, 6).upper() in _LOINC and second else first
        return self._codes.get(chosen, code_text(chosen))


def acknowledgement(text: str, state: str, reason: str = "", *, at: str = "") -> str:
    """The ACK of a message: AA, AE or AR, with MSA-2 as it came; ERR says the rule, never a value.

    A text without MSH is answered as well: whoever sent it waits for something. `at`: a moment in
    digits, YYYYMMDDHHMMSS.
    """
    # The first segment alone: the rest is parsed by whoever maps it.
    message = parse_message(text.lstrip("\x0b\r\n ").split("\r", 1)[0].split("\n", 1)[0])
    if message is None:
        return f"MSH|^~\\&|FENHE||||{at}||ACK|0|P|2.5\rMSA|AR||{reason}\r"
    control = _part(message, "MSH", 10, 1)
    sender = [_raw(message, "MSH", field) for field in (3, 4, 5, 6)]
    version = _part(message, "MSH", 12, 1) or "2.5"
    event = _part(message, "MSH", 9, 2)
    parties = "|".join((sender[2], sender[3], sender[0], sender[1]))
    lines = [
        f"MSH|^~\\&|{parties}|{at}||ACK^{event}^ACK|{control}|P|{version}",
        f"MSA|{state}|{control}" + (f"|{reason}" if reason else ""),
    ]
    if reason and state != "AA":
        lines.append(f"ERR||||E||||{reason}")
    return "\r".join(lines) + "\r"


def _has(message: Any, name: str) -> bool:
    return any(str(segment[0]) == name for segment in message)


def _segment(message: Any, name: str) -> Any:
    return next((each for each in message if str(each[0]) == name), None)


def _part(message: Any, name: str, field: int, component: int) -> str:
    return _field(_segment(message, name), field, component)


def _raw(message: Any, name: str, field: int) -> str:
    segment = _segment(message, name)
    try:
        return str(segment[field])
    except (IndexError, TypeError):
        return ""


def _field(segment: Any, field: int, component: int) -> str:
    """A component of a field's first repetition; "" where there is none."""
    try:
        held = segment[field]
    except (IndexError, TypeError):
        return ""
    try:
        return _component(held[0], component) if len(held) else ""
    except (IndexError, TypeError):
        return ""


def _repetitions(message: Any, name: str, field: int) -> Iterator[Any]:
    segment = _segment(message, name)
    try:
        yield from segment[field]
    except (IndexError, TypeError):
        return


def _component(repetition: Any, component: int) -> str:
    if isinstance(repetition, str):
        return repetition.strip() if component == 1 else ""
    try:
        return str(repetition[component - 1]).strip()
    except (IndexError, TypeError):
        return ""


def _day(text: str, field: str, troubles: list[Trouble]) -> str | None:
    """The day of a TS: YYYYMMDD and on. A month alone is no day."""
    text = text.strip('"')
    if not text:
        return None
    found = iso_day(text, ("%Y%m%d",))
    if found is None:
        troubles.append(Trouble("DATE_INVALID", field, text[:40]))
    return found
