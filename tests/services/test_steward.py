"""One person registered in two villages: found, merged and taken apart between real nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
from hierarchy_config import NodeId
from tests.services.command import fenhe
from tests.services.people import Person, observation
from tests.services.region import Region, nodes
from tests.services.waiting import until

COUNTY, TOWNSHIP, VILLAGE, SISTER = NODES = nodes(
    "141002", "141002100", "141002100200", "141002100203"
)
REASON = ("--reason", "the same card was shown twice")


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """Two villages, their township and their county."""
    with Region(tmp_path_factory.mktemp("steward") / "region", NODES, matching=True) as region:
        region.start()
        region.linked()
        yield region


def command(region: Region, node: NodeId, *words: str, code: int = 0) -> Any:
    """What a command prints, as JSON where it does."""
    folder = region.place.credentials_dir(f"operator-{node}")
    done = fenhe(*words, "--as", str(folder))
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if "--json" in words else done.stdout + done.stderr


def register(region: Region, node: NodeId, resident_id: str, value: float) -> None:
    """The one person, under an id of this village, with a record."""
    person = Person(61, node)
    message = person.message()
    message.resident_id = resident_id
    record = observation(person, "systolic", value)
    record.resident_id = resident_id
    record.record_id = ""
    region.put(
        node,
        care.PutBundleRequest(request_id=f"twice-{node}", residents=[message], records=[record]),
    )


def days(region: Region, node: NodeId, resident_id: str) -> list[str]:
    """Under which ids a node shows somebody's records."""
    page = command(region, node, "resident", "timeline", resident_id, "--json")
    return sorted(record["resident_id"] for record in page["records"])


def test_one_person_of_two_villages_is_found_merged_and_taken_apart(region: Region) -> None:
    """Found where both are held, decided there, read so at every level, and undone."""
    one, other = Person(62, VILLAGE).resident_id, Person(63, SISTER).resident_id
    register(region, VILLAGE, one, 121.0)
    register(region, SISTER, other, 131.0)
    somebody_else = empi.Resident(name="王小梅", sex=empi.SEX_FEMALE, birth_date="1956-03-08")
    region.put(
        VILLAGE, care.PutBundleRequest(request_id="somebody-else", residents=[somebody_else])
    )

    def waiting(node: NodeId) -> list[Any]:
        return list(command(region, node, "empi", "review", "--json")["pairs"])

    until("the township found the pair", lambda: len(waiting(TOWNSHIP)) == 1, 60)
    until("the county found it too", lambda: len(waiting(COUNTY)) == 1, 60)
    (pair,) = waiting(TOWNSHIP)
    assert {pair["first"]["resident_id"], pair["second"]["resident_id"]} == {one, other}
    assert {each["field"] for each in pair["evidence"]} >= {"name", "identity_number"}
    shown = command(region, TOWNSHIP, "empi", "review")
    assert max(map(len, shown.splitlines())) <= 100
    assert one in shown
    assert other in shown
    person = Person(61, VILLAGE)
    little = command(region, TOWNSHIP, "empi", "candidates", "--sex", "male", code=1)
    assert "too little is known" in little
    asked = ("--name", person.name, "--birth-date", person.birth_date.isoformat())
    found = command(region, TOWNSHIP, "empi", "candidates", *asked, "--json")
    assert {each["resident"]["resident_id"] for each in found["candidates"]} == {one, other}
    assert command(region, VILLAGE, "empi", "review", "--json")["pairs"] == []

    wrong = command(region, VILLAGE, "resident", "merge", one, other, *REASON, code=1)
    assert "NOT_FOUND" in wrong
    command(region, TOWNSHIP, "resident", "merge", one, other, *REASON)
    assert days(region, TOWNSHIP, other) == sorted([one, other])
    until("the county reads so", lambda: days(region, COUNTY, one) == sorted([one, other]))
    assert waiting(TOWNSHIP) == waiting(COUNTY) == []

    def shows(node: NodeId, resident_id: str) -> Any:
        return command(region, node, "resident", "show", resident_id, "--json")

    until("a home is told", lambda: shows(SISTER, other)["merged_into"] == one)
    until("the other too", lambda: shows(VILLAGE, one)["merged_ids"] == [other])
    assert days(region, VILLAGE, one) == [one]
    number = person.identity_number
    carrier = command(region, TOWNSHIP, "resident", "find", number, "--json")["resident"]
    assert carrier["resident_id"] in {one, other}

    command(region, TOWNSHIP, "resident", "unmerge", one, other, *REASON)
    until("the county has them apart", lambda: days(region, COUNTY, one) == [one])
    until("their homes too", lambda: not shows(SISTER, other)["merged_into"])
    assert waiting(TOWNSHIP) == waiting(COUNTY) == []
    again = command(region, TOWNSHIP, "resident", "merge", one, other, *REASON, code=1)
    assert "MERGE_TOLD_APART" in again
    events = command(region, TOWNSHIP, "resident", "links", one, "--json")["events"]
    assert [event["in_force"] for event in events] == [False, True]
    assert {each["field"] for each in events[0]["evidence"]} >= {"name", "identity_number"}
