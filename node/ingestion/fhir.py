"""FHIR R4: a resource becomes a Draft. Valid against the schema first, then what Fenhe can hold.

References between resources are by type and id (`Patient/123`); they are unique to a source, so
they become its local identifiers and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from node.ingestion.dates import iso_day
from node.ingestion.fhir_validation import TAKEN, schema_fault
from node.ingestion.mapping import MappingModel
from node.ingestion.model import Draft, DraftRecord, Person, Trouble, Unit
from node.ingestion.normalising import (
    code_text,
    icd10_text,
    identifier_text,
    name_text,
    phone_text,
    plain_text,
)
from node.records.record_checks import ENCOUNTER_CLASSES
from replication.core.model import Value

__all__ = ["FhirMapper"]

_IDENTIFIER_SYSTEMS: Final = {
    "urn:oid:2.16.156.10011.1.3": "identity_number",
    "2.16.156.10011.1.3": "identity_number",
    "urn:oid:2.16.156.10011.1.2": "health_record",
    "urn:oid:2.16.156.10011.1.19": "health_card",
}
_GENDERS: Final = {
    "male": "male",
    "female": "female",
    "other": "unstated",
    "unknown": "unknown",
}
_CLASSES: Final = {
    "AMB": "ambulatory",
    "IMP": "inpatient",
    "ACUTE": "inpatient",
    "NONAC": "inpatient",
    "SS": "inpatient",
    "EMER": "emergency",
    "HH": "home",
    "FLD": "home",
    "VR": "virtual",
}
_STATUSES: Final = {
    "active": "active",
    "recurrence": "recurrence",
    "relapse": "recurrence",
    "remission": "remission",
    "inactive": "remission",
    "resolved": "resolved",
}
_RETRACTED: Final = frozenset({"entered-in-error", "cancelled", "not-done", "nullified"})
_LOINC: Final = "http://loinc.org"
_ICD10: Final = ("icd-10", "icd10", "14396")

Resource = Mapping[str, Any]
Made = tuple[Draft | None, list[Trouble]]


class FhirMapper:
    """Maps the resources of one source."""

    fields: Mapping[str, str] = MappingProxyType({})

    def __init__(self, mapping: MappingModel) -> None:
        self._source = mapping.source
        self._codes = mapping.codes
        self._makers: dict[str, Callable[[Resource, str], Made]] = {
            "Patient": self._patient,
            "Encounter": self._encounter,
            "Condition": self._condition,
            "Observation": self._observation,
            "MedicationRequest": self._medication,
            "MedicationStatement": self._medication,
            "Procedure": self._procedure,
            "Immunization": self._immunization,
        }

    def draft(self, unit: Unit) -> tuple[Draft, list[Trouble]]:
        """What the resource says; with errors among the troubles the draft is not to be stored."""
        resource: Resource = unit.whole or {}
        kind = str(resource.get("resourceType", ""))
        empty = Draft(Person())
        if kind not in TAKEN:
            return empty, [Trouble("RESOURCE_NOT_TAKEN", "resourceType", kind[:60])]
        fault = schema_fault(kind, resource)
        if fault is not None:
            return empty, [Trouble("RESOURCE_INVALID", fault)]
        if resource.get("status") in _RETRACTED:
            return empty, [Trouble("RESOURCE_NOT_TAKEN", "status", str(resource["status"]))]
        made, troubles = self._makers[kind](resource, f"{kind}/{resource.get('id', '')}")
        return made or empty, troubles

    # -------------------------------------------------------------------- whom it is about

    def _patient(self, resource: Resource, key: str) -> Made:
        troubles: list[Trouble] = []
        identifiers = list(self._identifiers(resource))
        if resource.get("id"):
            identifiers.append(("local", f"{self._source}:{key}"))
        birth = _day(resource.get("birthDate"), "birthDate", troubles)
        deceased = _day(resource.get("deceasedDateTime"), "deceasedDateTime", troubles)
        person = Person(
            name=_name(resource.get("name", ())),
            sex=_GENDERS.get(str(resource.get("gender", "unknown")), ""),
            birth_date=birth or "",
            identifiers=tuple(identifiers),
            phone=_phone(resource.get("telecom", ())),
            address=_address(resource.get("address", ())),
            deceased_on=deceased or "",
        )
        for part in ("name", "birth_date"):
            if not getattr(person, part) and not troubles:
                troubles.append(Trouble("VALUE_REQUIRED", f"person.{part}"))
        return Draft(person), troubles

    def _identifiers(self, resource: Resource) -> Iterator[tuple[str, str]]:
        for each in resource.get("identifier", ()):
            system, value = str(each.get("system", "")), each.get("value")
            if not isinstance(value, str) or not value.strip():
                continue
            known = _IDENTIFIER_SYSTEMS.get(system)
            if known:
                yield known, identifier_text(value)

    def _subject(self, resource: Resource, troubles: list[Trouble]) -> Person:
        held = resource.get("subject") or resource.get("patient") or {}
        reference = str(held.get("reference", ""))
        tail = "/".join(reference.split("/")[-2:])
        if reference.startswith("urn:uuid:"):
            tail = f"Patient/{reference.removeprefix('urn:uuid:')}"
        found = list(self._identifiers({"identifier": [held.get("identifier") or {}]}))
        if tail.startswith("Patient/"):
            found.append(("local", f"{self._source}:{tail}"))
        if not found:
            troubles.append(Trouble("PERSON_UNKNOWN", "subject", reference[:80]))
        return Person(identifiers=tuple(found))

    # -------------------------------------------------------------------- records

    def _encounter(self, resource: Resource, key: str) -> Made:
        troubles: list[Trouble] = []
        person = self._subject(resource, troubles)
        code = str(resource.get("class", {}).get("code", ""))
        period = resource.get("period", {})
        reasons = resource.get("reasonCode", ())
        values: dict[str, Value] = {
            "class": _CLASSES.get(code) or (code if code in ENCOUNTER_CLASSES else None),
            "started_on": _day(period.get("start"), "period.start", troubles),
            "ended_on": _day(period.get("end"), "period.end", troubles),
            "reason_code": _icd10(reasons[0]) if reasons else None,
            "department": plain_text(str(resource.get("serviceType", {}).get("text", ""))) or None,
        }
        if values["class"] is None:
            troubles.append(Trouble("CODE_UNMAPPED", "class", code[:40]))
        return self._one(resource, person, DraftRecord("encounters", values, key), troubles)

    def _condition(self, resource: Resource, key: str) -> Made:
        troubles: list[Trouble] = []
        person = self._subject(resource, troubles)
        status = _coding(resource.get("clinicalStatus", {}), "")
        onset = resource.get("onsetDateTime") or resource.get("onsetPeriod", {}).get("start")
        values: dict[str, Value] = {
            "code": self._translated(_icd10(resource.get("code", {}))),
            "onset_on": _day(onset, "onset", troubles),
            "clinical_status": _STATUSES.get(status, "unknown") if status else None,
        }
        if not values["code"]:
            troubles.append(Trouble("ICD10_UNKNOWN", "code", _text(resource.get("code", {}))))
        return self._one(resource, person, DraftRecord("conditions", values, key), troubles)

    def _observation(self, resource: Resource, key: str) -> Made:
        troubles: list[Trouble] = []
        person = self._subject(resource, troubles)
        when = resource.get("effectiveDateTime") or resource.get("effectiveInstant")
        when = when or resource.get("effectivePeriod", {}).get("start") or resource.get("issued")
        day = _day(when, "effective", troubles)
        parts = [each for each in resource.get("component", ()) if "valueQuantity" in each]
        holders: Sequence[Resource] = parts or (resource,)
        draft = Draft(person)
        for holder in holders:
            record = self._measured(holder, day, troubles)
            if record is None:
                continue
            record.encounter = _reference(resource.get("encounter"))
            code = record.values.get("code")
            record.key = (f"{key}#{code}" if parts else key) if resource.get("id") else ""
            draft.records.append(record)
        return draft, troubles

    def _measured(
        self, holder: Resource, day: str | None, troubles: list[Trouble]
    ) -> DraftRecord | None:
        quantity = holder.get("valueQuantity")
        if not isinstance(quantity, Mapping) or "value" not in quantity:
            troubles.append(Trouble("RESOURCE_NOT_TAKEN", "value"))
            return None
        if quantity.get("comparator"):
            troubles.append(Trouble("NUMBER_INVALID", "valueQuantity.comparator"))
            return None
        concept = holder.get("code", {})
        code = self._translated(_coding(concept, _LOINC)) or self._translated(_coding(concept, ""))
        return DraftRecord(
            "observations",
            {
                "code": code or _text(concept)[:32] or None,
                "value": float(quantity["value"]),
                "unit": str(quantity.get("code") or quantity.get("unit") or "") or None,
                "observed_on": day,
            },
        )

    def _medication(self, resource: Resource, key: str) -> Made:
        troubles: list[Trouble] = []
        person = self._subject(resource, troubles)
        concept = resource.get("medicationCodeableConcept", {})
        start = resource.get("authoredOn") or resource.get("effectiveDateTime")
        period = resource.get("effectivePeriod", {})
        dosages: Any = resource.get("dosageInstruction") or resource.get("dosage") or ({},)
        values: dict[str, Value] = {
            "code": self._translated(_coding(concept, "")) or None,
            "display": _text(concept)[:200] or None,
            "started_on": _day(start or period.get("start"), "started", troubles),
            "ended_on": _day(period.get("end"), "ended", troubles),
            "dosage": plain_text(str(dosages[0].get("text", "")))[:200] or None,
        }
        return self._one(resource, person, DraftRecord("medications", values, key), troubles)

    def _procedure(self, resource: Resource, key: str) -> Made:
        troubles: list[Trouble] = []
        person = self._subject(resource, troubles)
        concept = resource.get("code", {})
        when = resource.get("performedDateTime") or resource.get("performedPeriod", {}).get("start")
        values: dict[str, Value] = {
            "code": self._translated(_coding(concept, "")) or None,
            "display": _text(concept)[:200] or None,
            "performed_on": _day(when, "performed", troubles),
        }
        return self._one(resource, person, DraftRecord("procedures", values, key), troubles)

    def _immunization(self, resource: Resource, key: str) -> Made:
        troubles: list[Trouble] = []
        person = self._subject(resource, troubles)
        concept = resource.get("vaccineCode", {})
        protocols = resource.get("protocolApplied", ())
        dose = protocols[0].get("doseNumberPositiveInt") if protocols else None
        values: dict[str, Value] = {
            "code": self._translated(_coding(concept, "")) or None,
            "display": _text(concept)[:200] or None,
            "given_on": _day(resource.get("occurrenceDateTime"), "occurrence", troubles),
            "dose_number": dose,
        }
        return self._one(resource, person, DraftRecord("immunizations", values, key), troubles)

    def _one(
        self, resource: Resource, person: Person, record: DraftRecord, troubles: list[Trouble]
    ) -> Made:
        if not resource.get("id"):
            record.key = ""
        if record.table != "encounters":
            record.encounter = _reference(resource.get("encounter") or resource.get("context"))
        return Draft(person, [record]), troubles

    def _translated(self, code: str) -> str:
        return self._codes.get(code, code)


def _name(names: Sequence[Resource]) -> str:
    """The official name, or the first; family before given where it is Chinese."""
    if not names:
        return ""
    chosen = next((each for each in names if each.get("use") == "official"), names[0])
    if chosen.get("text"):
        return name_text(str(chosen["text"]))
    family, given = str(chosen.get("family", "")), " ".join(map(str, chosen.get("given", ())))
    parts = (given, family) if (family + given).isascii() else (family, given)
    return name_text(" ".join(filter(None, parts)))


def _phone(telecoms: Sequence[Resource]) -> str:
    for each in telecoms:
        if each.get("system") == "phone" and each.get("value"):
            return phone_text(str(each["value"]))
    return ""


def _address(addresses: Sequence[Resource]) -> str:
    if not addresses:
        return ""
    first = addresses[0]
    if first.get("text"):
        return plain_text(str(first["text"]))[:200]
    parts = [first.get("state"), first.get("city"), first.get("district"), *first.get("line", ())]
    return plain_text(" ".join(str(each) for each in parts if each))[:200]


def _day(value: object, field: str, troubles: list[Trouble]) -> str | None:
    """The day of a FHIR date or moment; a year or month alone is no day."""
    if not isinstance(value, str):
        return None
    found = iso_day(value, ("%Y-%m-%d",))
    if found is None:
        troubles.append(Trouble("DATE_INVALID", field, value[:40]))
    return found


def _coding(concept: Resource, system: str) -> str:
    """The first code of a system; "": of any."""
    for each in concept.get("coding", ()):
        if each.get("code") and (not system or each.get("system") == system):
            return code_text(str(each["code"]))
    return ""


def _icd10(concept: Resource) -> str:
    for each in concept.get("coding", ()):
        if any(word in str(each.get("system", "")).lower() for word in _ICD10) and each.get("code"):
            return icd10_text(str(each["code"]))
    return ""


def _text(concept: Resource) -> str:
    displays = [str(each["display"]) for each in concept.get("coding", ()) if each.get("display")]
    return plain_text(str(concept.get("text") or (displays[0] if displays else "")))


def _reference(held: Resource | None) -> str:
    if not held:
        return ""
    reference = str(held.get("reference", ""))
    if reference.startswith("urn:uuid:"):
        return f"Encounter/{reference.removeprefix('urn:uuid:')}"
    return "/".join(reference.split("/")[-2:]) if "/" in reference else ""
