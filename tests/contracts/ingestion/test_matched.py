"""Somebody who comes under a number that nobody carries: taken for whom he certainly is, or new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

import pytest
from sqlalchemy import select

from node.empi.defaults import shipped_model
from node.ingestion.matched import MatchedPersons
from node.ingestion.model import Person
from node.ingestion.persons import IdentifierIndex
from node.ingestion.pipeline import Pipeline
from node.ingestion.runs import Run
from node.matching.finder import Finder
from node.matching.model import certain_of
from node.merging.desk import MergeDesk, Wanted
from node.records.identity import make_identity_number
from node.storage.tables import REPLICATED
from replication.changelog import read_transaction
from tests.contracts.ingestion.place import Intake
from tests.contracts.storage.region import bundle, person

MAPPING = """\
name: ward
source: ward
columns:
  number: person.local_id
  identity_number: {to: person.identity_number, optional: true}
  name: person.name
  sex: person.sex
  birth_date: person.birth_date
  phone: {to: person.phone, optional: true}
  value: observation.8480-6
  observed_on: observation.observed_on
"""
HEADER = "number,identity_number,name,sex,birth_date,phone,value,observed_on"
NUMBER, OTHER_NUMBER = (
    make_identity_number("142601", date(1956, 3, 8), sequence) for sequence in (2, 4)
)


class Matched:
    """Matching of the node, up to date whenever it is asked."""

    def __init__(self, intake: Intake) -> None:
        self.finder = Finder(intake.node.storage, shipped_model())
        self._node = intake.node
        self.asked = 0

    def certain(self, people: Sequence[Mapping[str, str]]) -> list[str]:
        """As the room answers."""
        self.asked += len(people)
        while self.finder.step(self._node.durable_head()):
            pass
        return [certain_of(self.finder.query(values)) for values in people]


@pytest.fixture
def matched(intake: Intake) -> Matched:
    """王小梅 is known here under her identity number."""
    found = Matched(intake)
    persons = MatchedPersons(IdentifierIndex(intake.node.storage.context), found, intake.node.clock)
    intake.workshop = replace(intake.workshop, persons=persons)
    register(intake, NUMBER)
    return found


def register(intake: Intake, number: str, request: str = "known-1") -> None:
    """王小梅, as a clinic's system registers her."""
    known = person(number, "王小梅", sex="female", birth_date="1956-03-08", phone="13903570011")
    intake.node.storage.put_bundle(intake.caller, bundle(request, known))


def load(intake: Intake, *rows: str) -> Run:
    """A table of the ward's."""
    return intake.load("\n".join([HEADER, *rows]), MAPPING)


def test_who_is_certainly_known_is_not_registered_again(intake: Intake, matched: Matched) -> None:
    """Her record is hers, she gets the number, and it is noted; from then on the number says it."""
    first = load(intake, "A1,,王小梅,female,1956-03-08,13903570011,131,2026-03-01")
    assert (first.counts.accepted, first.counts.residents) == (1, 0)
    assert intake.rows("residents") == 1
    assert list(intake.warned()) == ["PERSON_MATCHED"]
    with read_transaction(intake.node.engine) as connection:
        t = REPLICATED["identifiers"]
        systems = connection.execute(select(t.c.system).order_by(t.c.system)).scalars().all()
    assert systems == ["identity_number", "local"]
    asked = matched.asked

    second = load(intake, "A1,,王小梅,female,1956-03-08,13903570011,133,2026-03-02")
    assert (second.counts.accepted, second.counts.warnings) == (1, 0)
    assert matched.asked == asked
    assert (intake.rows("residents"), intake.rows("observations")) == (1, 2)


@pytest.mark.parametrize(
    "row",
    [
        # Another number that is sound, another day, another sex; nothing besides name and day.
        f"A2,{OTHER_NUMBER},王小梅,female,1956-03-08,13903570011,131,2026-03-01",
        "A2,,王小梅,female,1956-03-09,13903570011,131,2026-03-01",
        "A2,,王小梅,male,1956-03-08,13903570011,131,2026-03-01",
        "A2,,王晓梅,female,1956-03-08,13903570011,131,2026-03-01",
        "A2,,王小梅,female,1956-03-08,,131,2026-03-01",
    ],
)
def test_who_is_merely_like_somebody_is_registered(
    intake: Intake, matched: Matched, row: str
) -> None:
    """A steward sees the pair; the record is stored meanwhile."""
    run = load(intake, row)
    assert matched.asked == 1
    assert (run.counts.accepted, run.counts.residents) == (1, 1)
    assert "PERSON_MATCHED" not in intake.warned()
    assert intake.rows("residents") == 2


def test_of_two_who_are_certain_neither_is_taken(intake: Intake, matched: Matched) -> None:
    """They are a pair themselves."""
    register(intake, OTHER_NUMBER, "known-2")
    run = load(intake, "A3,,王小梅,female,1956-03-08,13903570011,131,2026-03-01")
    assert (run.counts.residents, intake.rows("residents")) == (1, 3)
    assert matched.asked == 1


def test_a_number_of_two_who_were_merged_names_the_survivor(intake: Intake) -> None:
    """What says that two numbers are one person passes then, and their rows find him."""
    of_hospital = MAPPING.replace("source: ward", "source: his")
    rows = [
        f"{number},,王小梅,female,1956-03-08,,{120 + place},2026-03-0{place + 1}"
        for place, number in enumerate(("P1", "P2"))
    ]
    intake.load("\n".join([HEADER, *rows]), of_hospital)
    segments = ("EVN||20260301", "PID|1||P1^^^H^MR", "MRG|P2^^^H^MR")
    head = "MSH|^~\\&|HIS|H|F|N|20260301101500||ADT^A40|1|P|2.5"
    run = intake.load("\r".join((head, *segments)), "name: feed\nsource: his\nformat: hl7\n")
    assert intake.rules(run) == {"PERSONS_TO_MERGE": 1}

    t = REPLICATED["residents"]
    with read_transaction(intake.node.engine) as connection:
        ids = sorted(connection.execute(select(t.c.row_id)).scalars())
    assert len(ids) == 2
    desk = MergeDesk(intake.node.storage.context, lambda: None)
    desk.merge(intake.caller, Wanted("merge-them", ids[1], ids[0], "said by the hospital"))
    items = intake.workshop.runs.items(run_id=run.run_id, after=0, limit=10)
    opened = intake.workshop.runs.opened([each.item_id for each in items])
    written = Pipeline(intake.workshop, run, reads=False).retry(opened)
    assert [list(each) for each in written.troubles] == [[]]
    assert intake.rules(run) == {}

    persons = IdentifierIndex(intake.node.storage.context)
    both = (("local", "his:P1"), ("local", "his:P2"))
    (answer,) = persons.resolve([Person(identifiers=both)])
    assert answer.known is not None
    assert (answer.known.resident_id, answer.rule, answer.adds) == (ids[1], "", ())
    desk.unmerge(intake.caller, Wanted("part-them", ids[1], ids[0], "it was wrong"))
    (answer,) = persons.resolve([Person(identifiers=both)])
    assert answer.rule == "PERSON_AMBIGUOUS"
