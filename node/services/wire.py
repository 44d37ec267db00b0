"""Messages of empi and care to the node's own words, and back.

Only shapes are translated here; whether a value is right is node/records/checks.py's affair. A
proto3 empty string is "not given" and becomes None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.common.v1.common_pb2 as common
import protos.fenhe.empi.v1.empi_pb2 as empi
from node.merging.fold import Group
from node.records.faults import Fault
from node.records.model import Bundle, NewIdentifier, NewRecord, NewResident
from node.storage.model import StoredRecord, StoredResident
from replication.core.model import Value

__all__ = [
    "bundle_in",
    "faults_out",
    "joined_wire",
    "record_out",
    "resident_in",
    "resident_out",
    "resident_wire",
]

_FAULTS_BYTES_MAX: Final = 6 * 1024
"""Of the faults of one answer: they travel in its trailer, which is bounded (security/tls.py)."""

_SEX_IN: Final = {
    empi.SEX_UNSPECIFIED: "",
    empi.SEX_MALE: "male",
    empi.SEX_FEMALE: "female",
    empi.SEX_UNSTATED: "unstated",
    empi.SEX_UNKNOWN: "unknown",
}
_SEX_OUT: Final = {word: number for number, word in _SEX_IN.items()}

_FIELDS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "encounter": (
        "encounters",
        ("class", "started_on", "ended_on", "reason_code", "department"),
    ),
    "condition": ("conditions", ("code", "onset_on", "clinical_status")),
    "observation": ("observations", ("code", "value", "unit", "observed_on")),
    "medication": ("medications", ("code", "display", "started_on", "ended_on", "dosage")),
    "procedure": ("procedures", ("code", "display", "performed_on")),
    "immunization": ("immunizations", ("code", "display", "given_on", "dose_number")),
}
_BODY_OF_TABLE: Final = {table: body for body, (table, _) in _FIELDS.items()}
_MESSAGES: Final[Mapping[str, Callable[..., Any]]] = {
    "encounter": care.Encounter,
    "condition": care.Condition,
    "observation": care.Observation,
    "medication": care.Medication,
    "procedure": care.Procedure,
    "immunization": care.Immunization,
}


def bundle_in(request: care.PutBundleRequest) -> Bundle:
    """The bundle of a request. A record without a body gets the table "", which checks refuse."""
    return Bundle(
        request.request_id,
        tuple(resident_in(resident) for resident in request.residents),
        tuple(_record_in(record) for record in request.records),
    )


def faults_out(faults: Iterable[Fault]) -> care.BundleFaults:
    """The first faults of a bundle, as many as an answer's trailer holds."""
    shown = care.BundleFaults()
    size = 0
    for fault in faults:
        message = care.Fault(field=fault.field, code=fault.code, expected=fault.expected)
        size += message.ByteSize()
        if shown.faults and size > _FAULTS_BYTES_MAX:
            break
        shown.faults.append(message)
    return shown


def resident_in(message: empi.Resident) -> NewResident:
    """A resident to register."""
    return NewResident(
        resident_id=message.resident_id or None,
        name=message.name,
        sex=_SEX_IN.get(message.sex, ""),
        birth_date=message.birth_date,
        identifiers=tuple(NewIdentifier(i.system, i.value) for i in message.identifiers),
        phone=message.phone or None,
        address=message.address or None,
        home_node=message.home_node or None,
        deceased_on=message.deceased_on or None,
    )


def resident_out(resident: StoredResident) -> empi.Resident:
    """A stored resident as the caller sees him."""
    return empi.Resident(
        resident_id=resident.resident_id,
        name=resident.name or "",
        sex=empi.Sex.ValueType(_SEX_OUT.get(resident.sex or "", empi.SEX_UNSPECIFIED)),
        birth_date=resident.birth_date or "",
        identifiers=[
            empi.Identifier(system=identifier.system, value=identifier.value)
            for identifier in resident.identifiers
        ],
        phone=resident.phone or "",
        address=resident.address or "",
        home_node=resident.home_node,
        home_epoch=resident.home_epoch,
        deceased_on=resident.deceased_on or "",
        **_joined(resident.resident_id, resident.group),
    )


def joined_wire(resident_id: str, group: Group) -> bytes:
    """What a group adds to a resident's bytes: a message may be continued by its fields."""
    return empi.Resident(**_joined(resident_id, group)).SerializeToString()


def _joined(resident_id: str, group: Group | None) -> dict[str, Any]:
    if group is None:
        return {}
    if resident_id != group.survivor:
        return {"merged_into": group.survivor}
    return {"merged_ids": sorted(group.others_of(resident_id))}


def resident_wire(resident: StoredResident) -> bytes:
    """The same, as the bytes of the message."""
    return resident_out(resident).SerializeToString()


def record_out(record: StoredRecord) -> care.Record:
    """A stored record as the caller sees it."""
    body = _BODY_OF_TABLE[record.table]
    values = {
        name: record.values[name]
        for name in _FIELDS[body][1]
        if record.values.get(name) is not None
    }
    return care.Record(
        record_id=record.record_id,
        resident_id=record.resident_id,
        encounter_id=str(record.values.get("encounter_id") or ""),
        version=common.Version(
            author_epoch=record.version.author_epoch, number=record.version.number
        ),
        author_node=record.author_node,
        home_node=record.home_node,
        home_epoch=record.home_epoch,
        recorded_at=record.recorded_at,
        deleted=record.deleted,
        **{body: _MESSAGES[body](**values)},
    )


def _record_in(message: care.Record) -> NewRecord:
    if message.deleted:
        # As it was read, or by its ids alone: what it said does not matter any more.
        return NewRecord(
            message.record_id or None,
            "",
            message.resident_id,
            {},
            retracted=True,
            home_node=message.home_node or None,
            home_epoch=message.home_epoch,
        )
    body = message.WhichOneof("body")
    if body is None:
        return NewRecord(message.record_id or None, "", message.resident_id, {})
    table, names = _FIELDS[body]
    part = getattr(message, body)
    values: dict[str, Value] = {}
    for name in names:
        value = getattr(part, name)
        values[name] = value if isinstance(value, float) else value or None
    if body != "encounter":
        values["encounter_id"] = message.encounter_id or None
    return NewRecord(
        message.record_id or None,
        table,
        message.resident_id,
        values,
        home_node=message.home_node or None,
        home_epoch=message.home_epoch,
    )
