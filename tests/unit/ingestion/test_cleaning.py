"""Normalising says what it does, validating says why it refuses."""

from __future__ import annotations

from datetime import date

import pytest

from hierarchy_config.hierarchy import Hierarchy
from node.ingestion.checking import KnownPerson, check_draft, check_life
from node.ingestion.dates import iso_day
from node.ingestion.elements import SUBJECTS
from node.ingestion.errors import MappingColumnsError, MappingInvalidError
from node.ingestion.mapper import TableMapper
from node.ingestion.mapping import load_mapping, mapping_text, read_mapping, shipped_mappings
from node.ingestion.model import Draft, DraftRecord, Person, Unit
from node.ingestion.normalising import name_text, number_of, phone_text
from node.ingestion.rules import RULES
from node.records.checks import check_bundle
from node.records.identity import make_identity_number
from node.records.model import Bundle, NewIdentifier, NewRecord, NewResident
from tests.contracts.storage.region import VILLAGE, hierarchy

TODAY = "2026-11-30"
MAPPING = """\
name: clinic
source: clinic
columns:
  病历号: {to: person.local_id, length: 5}
  身份证: {to: DE02.01.030.00, optional: true}
  姓名: DE02.01.039.00
  性别: {to: person.sex, codes: {男: male, 女: female}}
  生日: person.birth_date
  就诊号: encounter.number
  就诊日: encounter.started_on
  收缩压: {to: DE04.10.174.00, unit: mmHg}
  血糖: {to: observation.14771-0, unit: mg/dL}
  诊断: condition.code
  备注: null
constants: {encounter.class: ambulatory}
"""
HEADER = (
    "病历号",
    "身份证",
    "姓名",
    "性别",
    "生日",
    "就诊号",
    "就诊日",
    "收缩压",
    "血糖",
    "诊断",
    "备注",
)
ROW = (
    "00001",
    "",
    "张　三",
    "男",
    "1990/3/7",
    "V1",
    "2026-03-01 09:30",
    "１２８",
    "99",
    "i10.x00",
    "?",
)


def mapped(**changed: str) -> tuple[Draft, list[str]]:
    """The draft of a row, and the rules it breaks."""
    row = [changed.get(name, cell) for name, cell in zip(HEADER, ROW, strict=True)]
    draft, troubles = TableMapper(read_mapping(MAPPING), HEADER).draft(Unit(1, cells=row))
    troubles += check_draft(draft, TODAY)
    return draft, sorted({each.rule for each in troubles})


def test_maps_a_wide_row() -> None:
    """Names or DE codes, full-width digits, a folded diagnosis, a converted unit, a constant."""
    draft, rules = mapped()

    assert rules == ["UNIT_CONVERTED"]
    assert draft.person.name == "张三"
    assert draft.person.identifiers == (("local", "clinic:00001"),)
    found = {each.table: each.values for each in draft.records if each.table != "observations"}
    assert found["encounters"]["started_on"] == "2026-03-01"
    assert found["encounters"]["class"] == "ambulatory"
    assert found["conditions"]["code"] == "I10.X00"
    values = {e.values["code"]: e.values for e in draft.records if e.table == "observations"}
    assert values["8480-6"]["value"] == 128.0
    assert values["14771-0"]["unit"] == "mmol/L"
    assert values["14771-0"]["value"] == pytest.approx(99 / 18.016)
    assert {e.encounter for e in draft.records if e.table != "encounters"} == {"V1"}


@pytest.mark.parametrize(
    ("column", "cell", "rule"),
    [
        ("病历号", "1", "LENGTH_WRONG"),
        ("身份证", "110101199003074611", "IDENTITY_NUMBER_INVALID"),
        ("身份证", "1.10101E+17", "NUMBER_ROUNDED"),
        ("身份证", make_identity_number("142601", date(1980, 1, 1), 2), "IDENTITY_SEX_DIFFERS"),
        ("性别", "x", "CODE_UNMAPPED"),
        ("生日", "03/04/1990", "DATE_INVALID"),
        ("生日", "2026-02-30", "DATE_INVALID"),
        ("生日", "2026-12-31", "DATE_IN_FUTURE"),
        ("生日", "32939", "EXCEL_DAY"),
        ("就诊日", "1989-01-01", "DATE_BEFORE_BIRTH"),
        ("收缩压", "NaN", "NUMBER_INVALID"),
        ("收缩压", "1e999", "NUMBER_INVALID"),
        ("收缩压", "<90", "NUMBER_INVALID"),
        ("收缩压", "1_0", "NUMBER_INVALID"),
        ("收缩压", "1280", "VALUE_IMPLAUSIBLE"),
        ("诊断", "ZZZ", "ICD10_UNKNOWN"),
        ("姓名", "张\u202e三", "NAME_INVALID"),
    ],
)
def test_names_the_rule_that_a_cell_breaks(column: str, cell: str, rule: str) -> None:
    """Each fault has its own."""
    assert rule in mapped(**{column: cell})[1]


def test_judges_values_by_a_life() -> None:
    """Birth and death refuse, age and sex warn."""
    known = KnownPerson("r", "male", 2020, "2026-05-01")

    def rules(table: str, **values: object) -> list[str]:
        record = DraftRecord(table, dict(values))  # type: ignore[arg-type]
        return [each.rule for each in check_life(record, known)]

    day = "2026-03-01"
    assert rules("observations", code="29463-7", value=20.0, observed_on=day) == []
    assert rules("observations", code="29463-7", value=120.0, observed_on=day) == ["VALUE_UNUSUAL"]
    assert rules("conditions", code="O80", onset_on=day) == ["SEX_UNUSUAL"]
    assert rules("procedures", code="1", performed_on="2019-12-31") == ["DATE_BEFORE_BIRTH"]
    assert rules("procedures", code="1", performed_on="2026-06-01") == ["DATE_AFTER_DEATH"]


def test_what_passes_here_passes_at_the_door_of_bundles() -> None:
    """The rules are no laxer than those of RecordService."""
    tree: Hierarchy = hierarchy()
    identity = make_identity_number("142601", date(1990, 3, 7), 3)
    draft, rules = mapped(身份证=identity, 血糖="100")
    assert rules == ["UNIT_CONVERTED"]
    person = draft.person
    resident = NewResident(
        "00000000-0000-7000-9000-000000000001",
        person.name,
        person.sex,
        person.birth_date,
        tuple(NewIdentifier(*each) for each in person.identifiers),
    )
    records = tuple(
        NewRecord(None, each.table, str(resident.resident_id), each.values)
        for each in draft.records
    )
    bundle = Bundle("a-request", (resident,), records)

    assert check_bundle(bundle, hierarchy=tree, node_id=VILLAGE, today=date(2026, 11, 30)) == []


def test_normal_forms() -> None:
    """Layout goes, what is said stays."""
    assert name_text(" 欧阳　小 明 ") == "欧阳小明"
    assert name_text("Mary  Ann Lee") == "Mary Ann Lee"
    assert phone_text("＋86 138-0000-0000") == "13800000000"
    assert number_of("１２．５") == 12.5
    assert iso_day("20260301123000") == iso_day("2026年3月1日") == "2026-03-01"


def test_faults_of_a_mapping_are_shown_together() -> None:
    """Key, value and what was expected."""
    text = (
        "name: x\nsource: y z\ncolumns:\n  a: person.nme\n  b: {to: person.sex, dates: ['%Y']}\n"
        "  c: person.sex\nkeys: {visit: [a]}\nsurprise: 1\n"
    )
    with pytest.raises(MappingInvalidError) as raised:
        read_mapping(text)
    assert {fault.key for fault in raised.value.faults} >= {"source", "surprise"}
    with pytest.raises(MappingInvalidError) as raised:
        read_mapping(text.replace("y z", "y").replace("surprise: 1\n", ""))
    keys = {fault.key for fault in raised.value.faults}
    assert keys == {"columns.a.to", "columns.b.dates", "columns.c.to", "keys.visit", "columns"}


def test_a_missing_column_is_said_before_anything_is_read() -> None:
    """Unless it is optional."""
    with pytest.raises(MappingColumnsError, match="诊断"):
        TableMapper(read_mapping(MAPPING), [name for name in HEADER if name != "诊断"])
    TableMapper(read_mapping(MAPPING), [name for name in HEADER if name not in {"身份证", "备注"}])


def test_shipped_mappings_read_and_write_alike() -> None:
    """As text and back."""
    for name in shipped_mappings():
        model, _ = load_mapping(name)
        assert read_mapping(mapping_text(model)) == model


def test_a_mapping_that_is_nowhere_is_said_with_those_that_are() -> None:
    """Neither a file nor a name."""
    with pytest.raises(MappingInvalidError, match="comes with Fenhe: fhir-bundle, fhir-ndjson"):
        load_mapping("no-such-mapping")


def test_rules_have_a_reason_each() -> None:
    """One line of what is asked, one of why."""
    for rule in RULES.values():
        assert rule.asks
        assert rule.reason.endswith(".")
        assert len(rule.code) <= 32
    assert set(SUBJECTS.values()) == {
        "encounters",
        "conditions",
        "observations",
        "medications",
        "procedures",
        "immunizations",
    }


def test_an_empty_row_is_said() -> None:
    """It would be lost in silence."""
    row = ["00001", *[""] * (len(HEADER) - 1)]
    _, troubles = TableMapper(read_mapping(MAPPING), HEADER).draft(Unit(1, cells=row))

    assert [each.rule for each in troubles] == ["NOTHING_TO_STORE"]
    assert Person().introduces is False
