"""A bundle is refused whole, with each fault in its place and no value in any fault."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from node.records import FAULT_CODES, Bundle, NewIdentifier, NewRecord, make_identity_number
from replication.core.model import Value
from tests.unit.records.bundles import (
    BIRTH,
    ENCOUNTER_ID,
    RESIDENT,
    RESIDENT_ID,
    VALUES,
    bundle,
    faults_of,
    found,
    record,
    resident,
)


def test_a_sound_bundle_has_no_fault() -> None:
    """A resident with one record of each kind passes."""
    assert found(bundle(*(record(table) for table in VALUES))) == []


def test_a_bundle_of_records_alone_is_sound() -> None:
    """Records of a resident who is not in the bundle pass: the storage knows whether he exists."""
    assert found(Bundle("request-0001", (), (record("observations"),))) == []


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"resident_id": "17"}, "resident_id", "ID_INVALID"),
        ({"resident_id": RESIDENT_ID.upper()}, "resident_id", "ID_INVALID"),
        ({"name": "  "}, "name", "NAME_INVALID"),
        ({"name": "王" * 101}, "name", "NAME_INVALID"),
        ({"name": "王\x07英"}, "name", "NAME_INVALID"),
        ({"name": "王\u202e英"}, "name", "NAME_INVALID"),
        ({"sex": "f"}, "sex", "CHOICE_UNKNOWN"),
        ({"sex": "male"}, "identifiers[0].value", "IDENTITY_SEX_DIFFERS"),
        ({"birth_date": "1950-03-10"}, "identifiers[0].value", "IDENTITY_BIRTH_DATE_DIFFERS"),
        ({"birth_date": "09.03.1950"}, "birth_date", "DATE_INVALID"),
        ({"birth_date": "19500309"}, "birth_date", "DATE_INVALID"),
        ({"birth_date": "1950-02-30"}, "birth_date", "DATE_INVALID"),
        ({"birth_date": "0050-03-09"}, "birth_date", "DATE_INVALID"),
        ({"birth_date": "2026-11-24"}, "birth_date", "DATE_IN_FUTURE"),
        ({"deceased_on": "2026-11-24"}, "deceased_on", "DATE_IN_FUTURE"),
        ({"deceased_on": "1950-03-08"}, "deceased_on", "DATE_BEFORE_BIRTH"),
        ({"phone": "1" * 33}, "phone", "TEXT_INVALID"),
        ({"address": "a\nb"}, "address", "TEXT_INVALID"),
        ({"home_node": "141002001002"}, "home_node", "NOT_HOME_NODE"),
        ({"home_node": "141024001001"}, "home_node", "HOME_UNKNOWN"),
        ({"home_node": "Beijing"}, "home_node", "HOME_UNKNOWN"),
    ],
)
def test_finds_each_fault_of_a_resident(changes: dict[str, object], field: str, code: str) -> None:
    """One thing is wrong, and it is named in its place."""
    assert (f"residents[0].{field}", code) in found(bundle(resident=resident(**changes)))


def test_a_resident_has_few_identifiers() -> None:
    """They count as no row of the bundle, so each resident's are bounded by themselves."""
    few = tuple(NewIdentifier("passport", f"A{n:08d}") for n in range(20))
    assert found(bundle(resident=resident(identifiers=few))) == []
    many = (*few, NewIdentifier("passport", "B00000001"))
    assert found(bundle(resident=resident(identifiers=many))) == [
        ("residents[0].identifiers", "BUNDLE_TOO_LARGE")
    ]


@pytest.mark.parametrize(
    ("identifier", "field", "code"),
    [
        (
            NewIdentifier("identity_number", "1" * 18),
            "value",
            "IDENTITY_NUMBER_INVALID",
        ),
        (NewIdentifier("identity_number", ""), "value", "IDENTITY_NUMBER_INVALID"),
        (NewIdentifier("health_card", ""), "value", "IDENTIFIER_INVALID"),
        (NewIdentifier("health_card", "1" * 65), "value", "IDENTIFIER_INVALID"),
        (NewIdentifier("library_card", "1"), "system", "IDENTIFIER_SYSTEM_UNKNOWN"),
    ],
)
def test_finds_each_fault_of_an_identifier(
    identifier: NewIdentifier, field: str, code: str
) -> None:
    """The fault names the identifier by its position."""
    checked = bundle(resident=resident(identifiers=(identifier,)))
    assert found(checked) == [(f"residents[0].identifiers[0].{field}", code)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"record_id": None}, [("records[0].record_id", "VALUE_REQUIRED")]),
        ({"record_id": "7"}, [("records[0].record_id", "ID_INVALID")]),
        ({"resident_id": ""}, [("records[0].resident_id", "ID_INVALID")]),
        ({"table": "observations"}, [("records[0]", "COLUMN_UNKNOWN")]),
    ],
)
def test_a_retraction_names_a_record_and_no_more(
    changes: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    """Its ids say all; a body would be taken for an amendment by whoever wrote it."""
    gone = NewRecord(ENCOUNTER_ID, "", RESIDENT_ID, {}, retracted=True)
    gone = replace(gone, **changes)  # type: ignore[arg-type]
    assert found(Bundle("request-0001", (), (gone,))) == expected


def test_an_unstated_sex_agrees_with_every_identity_number() -> None:
    """Only a sex that is stated can disagree."""
    assert found(bundle(resident=resident(sex="unstated"))) == []


def test_an_identity_number_may_be_typed_in_full_width_and_small_x() -> None:
    """Width and case are brought to normal form before the check."""
    numbers = (make_identity_number("142601", BIRTH, sequence) for sequence in range(0, 999, 2))
    with_x = next(number for number in numbers if number.endswith("X"))
    typed = "".join(chr(ord(character) + 0xFEE0) for character in with_x.lower())
    checked = bundle(resident=resident(identifiers=(NewIdentifier("identity_number", typed),)))
    assert found(checked) == []


def test_a_resident_has_one_identity_number() -> None:
    """A second number of the same person is a fault, even a sound one."""
    second = NewIdentifier("identity_number", make_identity_number("141002", BIRTH, 24))
    checked = bundle(resident=resident(identifiers=(*RESIDENT.identifiers, second)))
    assert found(checked) == [("residents[0].identifiers[1].value", "IDENTITY_NUMBERS_SEVERAL")]


def test_ids_and_identity_numbers_stand_once_in_a_bundle() -> None:
    """The second resident with the same id and number is at fault."""
    checked = replace(bundle(), residents=(RESIDENT, RESIDENT))
    assert found(checked) == [
        ("residents[1].resident_id", "ID_REPEATED"),
        ("residents[1].identifiers[0].value", "IDENTIFIER_REPEATED"),
    ]
    twice = bundle(record("encounters"), record("encounters"))
    assert found(twice) == [("records[1].record_id", "ID_REPEATED")]


@pytest.mark.parametrize(
    ("table", "changes", "field", "code"),
    [
        ("encounters", {"class": "visit"}, "encounter.class", "CHOICE_UNKNOWN"),
        ("encounters", {"class": None}, "encounter.class", "VALUE_REQUIRED"),
        ("encounters", {"started_on": ""}, "encounter.started_on", "VALUE_REQUIRED"),
        ("encounters", {"ended_on": "2026-11-19"}, "encounter.ended_on", "DATES_REVERSED"),
        ("encounters", {"reason_code": "Z99.5"}, "encounter.reason_code", "ICD10_UNKNOWN"),
        ("encounters", {"department": "x" * 101}, "encounter.department", "TEXT_INVALID"),
        ("conditions", {"code": "QQQ"}, "condition.code", "ICD10_UNKNOWN"),
        ("conditions", {"code": None}, "condition.code", "VALUE_REQUIRED"),
        ("conditions", {"onset_on": "1950-03-08"}, "condition.onset_on", "DATE_BEFORE_BIRTH"),
        ("conditions", {"clinical_status": "ill"}, "condition.clinical_status", "CHOICE_UNKNOWN"),
        ("observations", {"code": "1-8"}, "observation.code", "OBSERVATION_CODE_UNKNOWN"),
        ("observations", {"unit": "kPa"}, "observation.unit", "UNIT_WRONG"),
        ("observations", {"unit": None}, "observation.unit", "VALUE_REQUIRED"),
        ("observations", {"value": math.nan}, "observation.value", "NUMBER_INVALID"),
        ("observations", {"value": math.inf}, "observation.value", "NUMBER_INVALID"),
        ("observations", {"value": "142"}, "observation.value", "NUMBER_INVALID"),
        ("observations", {"value": True}, "observation.value", "NUMBER_INVALID"),
        ("observations", {"value": 1420.0}, "observation.value", "VALUE_IMPLAUSIBLE"),
        (
            "observations",
            {"observed_on": "2026-11-24"},
            "observation.observed_on",
            "DATE_IN_FUTURE",
        ),
        ("medications", {"code": "a b"}, "medication.code", "CODE_INVALID"),
        ("medications", {"code": "阿司匹林"}, "medication.code", "CODE_INVALID"),
        ("procedures", {"code": "x" * 33}, "procedure.code", "CODE_INVALID"),
        ("procedures", {"code": 47}, "procedure.code", "CODE_INVALID"),
        ("immunizations", {"code": "OPV*"}, "immunization.code", "CODE_INVALID"),
        ("medications", {"ended_on": "2026-11-19"}, "medication.ended_on", "DATES_REVERSED"),
        ("medications", {"dosage": "x" * 201}, "medication.dosage", "TEXT_INVALID"),
        ("procedures", {"performed_on": None}, "procedure.performed_on", "VALUE_REQUIRED"),
        ("immunizations", {"dose_number": 0}, "immunization.dose_number", "NUMBER_INVALID"),
        ("immunizations", {"dose_number": 1.5}, "immunization.dose_number", "NUMBER_INVALID"),
        ("procedures", {"colour": "red"}, "procedure", "COLUMN_UNKNOWN"),
    ],
)
def test_finds_each_fault_of_a_record(
    table: str, changes: dict[str, Value], field: str, code: str
) -> None:
    """One value is wrong, and nothing else is reported."""
    assert found(bundle(record(table, **changes))) == [(f"records[0].{field}", code)]


@pytest.mark.parametrize("code", ["C09AA02", "36.1500x001", "XA10BAE013A001010104843", "a-b_c/1"])
def test_codes_of_national_lists_pass(code: str) -> None:
    """ATC, the ICD-9-CM-3 and medical-insurance codes are written in these characters."""
    records = [record(kind, code=code) for kind in ("medications", "procedures", "immunizations")]
    for each in records:
        assert found(bundle(each)) == []


def test_a_record_needs_a_kind_and_canonical_ids() -> None:
    """No body, no resident's UUID, no record's UUID: one fault each."""
    assert found(bundle(NewRecord("x", "", "y", {}))) == [
        ("records[0].record_id", "ID_INVALID"),
        ("records[0].resident_id", "ID_INVALID"),
        ("records[0]", "RECORD_KIND_UNKNOWN"),
    ]


def test_an_encounter_in_the_bundle_must_be_one_of_the_same_resident() -> None:
    """The encounter may stand after what refers to it, but must be this resident's."""
    assert found(bundle(record("observations"), record("encounters"))) == []
    other = replace(record("encounters"), resident_id="018f3c1e-7a00-7000-8000-000000000009")
    wrong = [("records[0].encounter_id", "ENCOUNTER_WRONG")]
    assert found(bundle(record("observations"), other)) == wrong
    no_encounter = replace(record("procedures"), record_id=ENCOUNTER_ID)
    assert found(bundle(record("observations"), no_encounter)) == wrong
    bad_id = bundle(record("observations", encounter_id="7"))
    assert found(bad_id) == [("records[0].encounter_id", "ID_INVALID")]


def test_reports_every_fault_and_not_only_the_first() -> None:
    """Faults of several rows come together, in the order of the rows."""
    checked = replace(
        bundle(record("conditions", code="?"), record("observations", unit="kPa", value=math.nan)),
        request_id="short",
        residents=(resident(name="", sex="", home_node="1"),),
    )
    assert found(checked) == [
        ("request_id", "REQUEST_ID_INVALID"),
        ("residents[0].name", "NAME_INVALID"),
        ("residents[0].sex", "CHOICE_UNKNOWN"),
        ("residents[0].home_node", "HOME_UNKNOWN"),
        ("records[0].condition.code", "ICD10_UNKNOWN"),
        ("records[1].observation.value", "NUMBER_INVALID"),
        ("records[1].observation.unit", "UNIT_WRONG"),
    ]


@pytest.mark.parametrize("request_id", ["", "1234567", "x" * 65, "request\x000001"])
def test_refuses_a_request_id_that_is_none(request_id: str) -> None:
    """8 to 64 printable characters."""
    checked = replace(bundle(), request_id=request_id)
    assert found(checked) == [("request_id", "REQUEST_ID_INVALID")]


def test_a_bundle_holds_one_to_a_thousand_rows() -> None:
    """Nothing, and one row too many, are refused; a thousand pass."""
    assert found(Bundle("request-0001")) == [("bundle", "BUNDLE_EMPTY")]
    records = tuple(record("observations") for _ in range(1000))
    assert found(Bundle("request-0001", (), records)) == []
    assert found(bundle(*records)) == [("bundle", "BUNDLE_TOO_LARGE")]


def test_no_fault_repeats_what_was_sent() -> None:
    """A fault is logged and sent around: it says what was expected, never what stood there."""
    secret = "9f8e7d-secret"
    spoilt = resident(
        resident_id=secret,
        name=secret + "\x00",
        sex=secret,
        birth_date=secret,
        identifiers=(
            NewIdentifier("identity_number", secret),
            NewIdentifier(secret, secret + "\x00"),
        ),
        phone=secret + "\x00",
        address=secret + "\x00",
        home_node=secret,
        deceased_on=secret,
    )
    records = [
        NewRecord(secret, table, secret, dict.fromkeys([*values, secret], secret + " \x00"))
        for table, values in VALUES.items()
    ]
    faults = faults_of(bundle(*records, NewRecord(None, secret, secret, {}), resident=spoilt))
    assert len(faults) > 30
    assert not [fault for fault in faults if secret in f"{fault.field} {fault.expected}"]
    assert {fault.code for fault in faults} <= FAULT_CODES.keys()
