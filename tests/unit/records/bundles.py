"""A sound bundle and the world it is sound in; tests spoil one thing at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Final

from hierarchy_config import Hierarchy, NodeId, parse_region
from node.records import (
    Bundle,
    Fault,
    NewIdentifier,
    NewRecord,
    NewResident,
    check_bundle,
    make_identity_number,
    normalise_bundle,
)
from replication.core.model import Value

TODAY: Final = date(2026, 11, 23)
VILLAGE: Final = NodeId("141002001001")
RESIDENT_ID: Final = "018f3c1e-7a00-7000-8000-000000000001"
ENCOUNTER_ID: Final = "018f3c1e-7a00-7000-8000-000000000002"
BIRTH: Final = date(1950, 3, 9)

REGION: Final[Hierarchy] = parse_region(
    """
    region: linfen
    epoch: 1
    nodes: [{id: 1410}, {id: 141002}, {id: 141002001}, {id: 141002001001}, {id: 141002001002}]
    """
)

RESIDENT: Final = NewResident(
    resident_id=RESIDENT_ID,
    name="王秀英",
    sex="female",
    birth_date=BIRTH.isoformat(),
    identifiers=(NewIdentifier("identity_number", make_identity_number("142601", BIRTH, 24)),),
    phone="0357-2012345",
    address="尧都区解放路（东）1号",
    home_node=VILLAGE,
)

VALUES: Final[dict[str, dict[str, Value]]] = {
    "encounters": {
        "class": "ambulatory",
        "started_on": "2026-11-20",
        "ended_on": "2026-11-20",
        "reason_code": "I10",
        "department": "全科",
    },
    "conditions": {
        "encounter_id": ENCOUNTER_ID,
        "code": "E11.9",
        "onset_on": "2020-05-01",
        "clinical_status": "active",
    },
    "observations": {
        "encounter_id": ENCOUNTER_ID,
        "code": "8480-6",
        "value": 142.0,
        "unit": "mm[Hg]",
        "observed_on": "2026-11-20",
    },
    "medications": {
        "code": "C08CA01",
        "display": "氨氯地平",
        "started_on": "2026-11-20",
        "ended_on": None,
        "dosage": "5 mg, 1½ 片",
    },
    "procedures": {"code": "89.52", "display": "ECG", "performed_on": "2026-11-20"},
    "immunizations": {"code": "2801", "given_on": "2026-10-01", "dose_number": 1},
}


def record(table: str, **changes: Value) -> NewRecord:
    """A sound record of `table` with some values changed."""
    record_id = ENCOUNTER_ID if table == "encounters" else None
    return NewRecord(record_id, table, RESIDENT_ID, {**VALUES[table], **changes})


def bundle(*records: NewRecord, resident: NewResident = RESIDENT) -> Bundle:
    """A bundle of one resident and some records."""
    return Bundle("request-0001", (resident,), records)


def resident(**changes: object) -> NewResident:
    """The sound resident with some values changed."""
    return replace(RESIDENT, **changes)  # type: ignore[arg-type]


def faults_of(checked: Bundle) -> list[Fault]:
    """The faults of a bundle at the village, as a node finds them."""
    return check_bundle(normalise_bundle(checked), hierarchy=REGION, node_id=VILLAGE, today=TODAY)


def found(checked: Bundle) -> list[tuple[str, str]]:
    """Field and code of each fault."""
    return [(fault.field, fault.code) for fault in faults_of(checked)]
