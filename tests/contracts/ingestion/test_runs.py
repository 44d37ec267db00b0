"""Runs on both databases: once, whole, in any order, and on after a kill."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from sqlalchemy import select

from node.ingestion import pipeline as steps
from node.ingestion.errors import MappingColumnsError, MappingInvalidError, RunStateError
from node.ingestion.mapping import read_mapping
from node.ingestion.model import Counts, Person, RunState
from node.ingestion.pipeline import Pipeline
from node.ingestion.quality import quality_of
from node.records.model import Bundle, NewIdentifier
from node.storage.tables import INTAKE
from tests.contracts.ingestion.place import OBSERVATIONS, Intake, identity, observation_lines
from tests.contracts.storage.region import observation, person

KEYED = OBSERVATIONS.replace("name: results", "name: keyed") + "keys: {observation: [number]}\n"
WIDE = """\
name: wide
source: wide
columns:
  号: person.local_id
  姓名: person.name
  性别: person.sex
  生日: person.birth_date
  日期: encounter.started_on
  收缩压: observation.8480-6
  舒张压: observation.8462-4
  诊断: condition.code
constants: {encounter.class: ambulatory}
"""
HL7 = "name: feed\nsource: his\nformat: hl7\n"
FHIR = "name: fhir\nsource: fhir\nformat: ndjson\n"
SUBJECT = {"reference": "Patient/p1"}
RESOURCES = (
    {
        "resourceType": "Observation",
        "id": "o1",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
        "subject": SUBJECT,
        "encounter": {"reference": "Encounter/e1"},
        "effectiveDateTime": "2026-03-01",
        "valueQuantity": {"value": 128, "unit": "mmHg", "code": "mm[Hg]"},
    },
    {
        "resourceType": "Encounter",
        "id": "e1",
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": SUBJECT,
        "period": {"start": "2026-03-01"},
    },
    {
        "resourceType": "Patient",
        "id": "p1",
        "name": [{"text": "张三"}],
        "gender": "male",
        "birthDate": "1990-03-07",
    },
    {"resourceType": "Patient", "id": "p2", "gender": "m", "birthDate": "1990-03-07"},
    {"resourceType": "Device", "id": "d1"},
)


def sums(counts: Counts) -> bool:
    """The invariant."""
    return counts.read == counts.accepted + counts.quarantined


def test_the_same_content_adds_nothing(intake: Intake) -> None:
    """Neither as a file again, nor within a longer one, nor in another order."""
    lines = observation_lines(4, 6)
    first = intake.load("\n".join(lines))
    assert first.counts == Counts(24, 24, 0, 0, 4, 24, 0, 0)
    head = intake.node.durable_head()

    assert intake.load("\n".join(lines)).run_id == first.run_id
    again = intake.load("\n".join([lines[0], *reversed(lines[1:])]))

    assert (again.counts.unchanged, again.counts.records) == (24, 0)
    assert intake.node.durable_head() == head
    longer = intake.load("\n".join([*lines, *observation_lines(1, 1, first=90)[1:]]))
    assert (longer.counts.unchanged, longer.counts.records) == (24, 1)
    assert (intake.rows("residents"), intake.rows("observations")) == (5, 25)


def test_order_does_not_matter(intake: Intake) -> None:
    """Who is named before he is introduced waits, in this window or a later one."""
    lines = observation_lines(3, 4)
    header, rows = lines[0], lines[1:]
    bare = [f"P{i % 3},,,,,8867-4,{60 + i},/min,2026-02-{i + 1:02d}" for i in range(9)]
    everything = [*bare, *rows]
    random.Random(5).shuffle(bare)

    run = intake.load("\n".join([header, *bare, *rows]))

    assert run.counts.accepted == len(everything)
    assert intake.rules(run) == {}
    assert (intake.rows("residents"), intake.rows("observations")) == (3, 21)
    shuffled = intake.load("\n".join([header, *reversed(rows), *bare]))
    assert shuffled.counts.unchanged == len(everything)


def test_a_run_goes_on_after_a_kill(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two windows nothing is lost and nothing is counted twice."""
    monkeypatch.setattr(steps, "WINDOW_UNITS", 7)
    lines = observation_lines(5, 8)
    lines.insert(10, "P1,,,,,8480-6,abc,mmHg,2026-01-01")
    run = intake.offer("\n".join(lines).encode())
    for _ in range(100):
        pipeline = Pipeline(intake.workshop, intake.workshop.runs.load(run.run_id))
        goes_on = pipeline.step()
        held = intake.workshop.runs.load(run.run_id)
        assert sums(held.counts)
        # What a start finds: the database, and nothing that was in memory.
        intake.open(intake.node.open_storage_again())
        if held.state is RunState.DONE or not goes_on:
            break
        if held.counts.read == 41:
            while pipeline.step():
                pass

    done = intake.workshop.runs.load(run.run_id)
    assert done.counts == Counts(41, 40, 1, 0, 5, 40, 0, 0)
    assert done.state is RunState.DONE
    assert (intake.rows("residents"), intake.rows("observations")) == (5, 40)


def test_a_window_that_fails_leaves_nothing(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, quarantine, counts: one transaction."""
    lines = [*observation_lines(2, 2), "P1,,,,,8480-6,abc,mmHg,2026-01-01"]
    run = intake.offer("\n".join(lines).encode())
    pipeline = Pipeline(intake.workshop, run)
    log = intake.node.storage.context.changelog

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(type(log), "append", full)
        with pytest.raises(OSError, match="no space"):
            pipeline.step()

    assert intake.workshop.runs.load(run.run_id).counts == Counts()
    assert (intake.rows("residents"), intake.rows("observations")) == (0, 0)
    assert intake.rules(run) == {}
    assert intake.load("\n".join(lines)).counts.accepted == 4


def test_a_key_is_amended_by_a_later_content_and_contradicted_within_one(intake: Intake) -> None:
    """What a source corrects becomes a next version."""
    header = "patient_id,identity_number,name,sex,birth_date,code,value,unit,observed_on,number"
    who = f"P1,{identity(1)},李,2,1980-01-01,8480-6"
    one = [header, f"{who},120,mmHg,2026-01-01,R1", f"{who},121,mmHg,2026-01-01,R2"]
    intake.load("\n".join(one), KEYED)
    intake.node.clock.ms += 1000

    corrected = intake.load("\n".join([header, f"{who},125,mmHg,2026-01-02,R1"]), KEYED)
    assert (corrected.counts.amended, intake.rows("observations")) == (1, 2)

    intake.node.clock.ms += 1000
    twice = [header, f"{who},130,mmHg,2026-01-03,R9", f"{who},131,mmHg,2026-01-03,R9"]
    contradicted = intake.load("\n".join(twice), KEYED)
    assert intake.rules(contradicted) == {"KEY_CONFLICT": 1}
    assert contradicted.counts.accepted == 1


def test_a_retracted_record_does_not_come_back(intake: Intake) -> None:
    """Its author took it back; the file is only read again."""
    lines = observation_lines(1, 1)
    intake.load("\n".join(lines))
    (change,) = [each for each in intake.node.changes() if each.table == "observations"]
    retraction = observation(change.resident_id, record_id=change.row_id)
    retraction = type(retraction)(change.row_id, "", change.resident_id, {}, retracted=True)
    intake.node.storage.put_bundle(intake.caller, Bundle("retract-1", (), (retraction,)))

    again = intake.load("\n".join([*lines, "P0,,,,,8867-4,70,/min,2026-01-01"]))

    assert again.counts.unchanged == 1
    assert intake.rows("observations") == 1


def test_people_are_found_by_any_identifier_and_get_the_others(intake: Intake) -> None:
    """A clinic registered him by his identity number; the file calls him by its own."""
    number = identity(3)
    known = intake.node.storage.put_bundle(
        intake.caller, Bundle("register-1", (person(number, "王五", sex="female"),))
    )
    lines = observation_lines(4, 1)
    run = intake.load("\n".join(lines))

    assert run.counts.residents == 3
    assert intake.rows("residents") == 4
    named = intake.residents()
    assert named["local:lab:P3"] == "王五"
    assert len(known.resident_ids) == 1


def test_identifiers_of_two_people_are_quarantined(intake: Intake) -> None:
    """Two people's data in one record harm both."""
    intake.load("\n".join(observation_lines(2, 1)))
    header = observation_lines(0, 0)[0]
    run = intake.load(f"{header}\nP0,{identity(1)},李,2,1980-01-01,8480-6,120,mmHg,2026-01-09")

    assert intake.rules(run) == {"PERSON_AMBIGUOUS": 1}


def test_an_identifier_of_two_people_names_nobody_however_often_it_is_asked(
    intake: Intake,
) -> None:
    """What was found ambiguous once is not remembered as the first one's."""
    shared = NewIdentifier("local", "lab:P1")
    pair = [person(identity(number)) for number in (1, 2)]
    pair = [replace(each, identifiers=(*each.identifiers, shared)) for each in pair]
    intake.node.storage.put_bundle(intake.caller, Bundle("register-1", tuple(pair)))
    persons = intake.workshop.persons

    for _ in range(3):
        (answer,) = persons.resolve([Person(identifiers=(("local", "lab:P1"),))])
        assert (answer.known, answer.rule) == (None, "PERSON_AMBIGUOUS")


def test_who_somebody_is_is_asked_again_after_a_minute(intake: Intake) -> None:
    """He may have died, or have become two, at another place."""
    number = identity(1)
    asked = Person(identifiers=(("identity_number", number),))
    put = intake.node.storage.put_bundle
    (resident_id,) = put(intake.caller, Bundle("register-1", (person(number),))).resident_ids
    (before,) = intake.workshop.persons.resolve([asked])
    died = person(number, resident_id=resident_id, deceased_on="2026-03-01")
    put(intake.caller, Bundle("register-2", (died,)))

    intake.node.clock.ms += 61_000

    (after,) = intake.workshop.persons.resolve([asked])
    assert before.known is not None
    assert after.known is not None
    assert (before.known.deceased_on, after.known.deceased_on) == ("", "2026-03-01")


def test_quarantined_units_are_sealed_and_fixed(intake: Intake) -> None:
    """A corrected cell gets the unit in; the counts follow."""
    lines = [*observation_lines(1, 1), "P0,,,,,8480-6,一百二,mmHg,2026-01-01"]
    run = intake.load("\n".join(lines))
    runs = intake.workshop.runs
    (item,) = runs.items(run_id=run.run_id)
    assert (item.rule, item.field, item.line) == ("NUMBER_INVALID", "value", 3)
    with intake.node.engine.connect() as connection:
        (body,) = connection.execute(select(INTAKE.quarantine.c.body)).scalars()
    assert "一百二".encode() not in body
    opened = runs.item(item.item_id)
    assert opened.troubles[0].value == "一百二"
    assert opened.unit is not None

    opened.unit.cells = tuple("120" if cell == "一百二" else cell for cell in opened.unit.cells)
    Pipeline(intake.workshop, runs.load(run.run_id)).retry([opened])

    assert runs.items(run_id=run.run_id) == []
    counts = runs.load(run.run_id).counts
    assert (counts.read, counts.accepted, counts.quarantined) == (2, 2, 0)
    assert intake.rules(run) == {}
    assert intake.rows("observations") == 2


def test_warnings_are_kept_with_the_record(intake: Intake) -> None:
    """A converted unit, an unusual value."""
    lines = observation_lines(1, 1)
    run = intake.load("\n".join([*lines, "P0,,,,,8480-6,33.3,kPa,2026-01-02"]))

    assert run.counts.warnings == 2
    assert sorted(intake.warned()) == ["UNIT_CONVERTED", "VALUE_UNUSUAL"]


def test_messages_follow_each_other(intake: Intake) -> None:
    """Registered, admitted, updated, discharged, renumbered; and a merge that is not ours."""

    def message(event: str, *segments: str) -> str:
        head = f"MSH|^~\\&|HIS|H|F|N|20260301101500||{event}|{event}|P|2.5"
        return "\r".join((head, "EVN||20260301", *segments))

    who = "PID|1||P1^^^H^MR||{}||19900307|M"
    text = "\r".join(
        (
            message("ADT^A01", who.format("张^三"), "PV1|1|I|内科" + "|" * 16 + "V1"),
            message("ADT^A08", who.format("张^四")),
            message(
                "ADT^A03",
                who.format("张^四"),
                "PV1|1|I|内科" + "|" * 16 + "V1" + "|" * 25 + "20260301|20260309",
            ),
            message("ADT^A40", "PID|1||P1^^^H^MR", "MRG|P2^^^H^MR"),
            message("ADT^A04", "PID|1||P9^^^H^MR||李^九||19910101|F"),
            message("ADT^A40", "PID|1||P1^^^H^MR", "MRG|P9^^^H^MR"),
            message("ADT^A99", who.format("张^三")),
        )
    )
    run = intake.load(text, HL7)

    assert intake.rules(run) == {"PERSONS_TO_MERGE": 1, "MESSAGE_NOT_TAKEN": 1}
    named = intake.residents()
    assert named["local:his:P1"] == named["local:his:P2"] == "张四"
    assert intake.rows("encounters") == 1
    ended = [each.values.get("ended_on") for each in intake.node.changes()]
    assert "2026-03-09" in ended


def test_resources_refer_to_each_other_in_any_order(intake: Intake) -> None:
    """An Observation may stand before its Patient and its Encounter."""
    lines = [json.dumps(each) for each in RESOURCES]
    run = intake.load("\n".join(lines), FHIR)

    assert run.counts.accepted == 3
    assert intake.rules(run) == {"RESOURCE_INVALID": 1, "RESOURCE_NOT_TAKEN": 1}
    changes = {each.table: each for each in intake.node.changes()}
    assert changes["observations"].values["encounter_id"] == changes["encounters"].row_id


def test_a_missing_column_fails_the_run_before_anything_is_read(intake: Intake) -> None:
    """And says which."""
    run = intake.offer(b"patient_id,code\nP1,8480-6\n")
    with pytest.raises(MappingColumnsError, match="observed_on"):
        Pipeline(intake.workshop, run)


def test_a_content_arrives_in_pieces_and_goes_on(intake: Intake) -> None:
    """What is announced again is found; what is not the content is not read."""
    shop = intake.workshop
    data = b"x" * (1 << 20) + b"y"
    content = shop.contents.announce("a" * 64, len(data), "f.csv")
    content = shop.contents.put_piece(content, 0, data[: 1 << 20])
    found = shop.contents.announce("a" * 64, len(data), "f.csv")
    assert (found.arrived, found.pieces, found.is_whole) == (1, 2, False)
    content = shop.contents.put_piece(found, 1, data[1 << 20 :])
    stream = shop.contents.open(content)
    stream.seek((1 << 20) - 2)
    assert stream.read() == b"xxy"
    with pytest.raises(RunStateError):
        shop.runs.load("no such run")


def test_every_rule_names_its_column_and_is_counted_once_a_unit(intake: Intake) -> None:
    """The day of a row that stands for three records; a wide column; a rule of a known life."""
    lines = (
        "号,姓名,性别,生日,日期,收缩压,舒张压,诊断",
        "P1,张三,男,1990-03-07,2999-01-01,128,82,I10",
        "P2,李四,男,1990-03-07,2026-03-01,128,9999,O80",
    )
    run = intake.load("\n".join(lines), WIDE)

    items = intake.workshop.runs.items(run_id=run.run_id)
    assert [(each.rule, each.field) for each in items] == [
        ("DATE_IN_FUTURE", "日期"),
        ("VALUE_IMPLAUSIBLE", "舒张压"),
    ]
    quality = quality_of(run)
    assert {each["rule"]: each["units"] for each in quality["rules"]} == {
        "DATE_IN_FUTURE": 1,
        "VALUE_IMPLAUSIBLE": 1,
    }
    invalid = {each["column"] for each in quality["columns"] if each["validity"] == 0.5}
    assert invalid == {"日期", "舒张压"}


def test_a_mapping_whose_records_would_lack_something_is_refused(intake: Intake) -> None:
    """At once, and not row by row; that of a run which was taken is read as it is."""
    bare = WIDE.replace("constants: {encounter.class: ambulatory}\n", "")
    with pytest.raises(MappingInvalidError) as refused:
        intake.offer(b"x", bare)
    assert "encounter.class" in refused.value.message
    assert read_mapping(bare, is_kept=True).source == "wide"
