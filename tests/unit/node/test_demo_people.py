"""The demo's people: real measurements, invented and well-formed identities."""

from __future__ import annotations

from datetime import date

from hierarchy_config import NodeId
from node.demo.people import mean_systolic_pooled, people_of, read_input
from node.demo.place import DemoPlace
from node.records.checks import check_bundle
from node.records.model import Bundle

HIERARCHY = DemoPlace.slice()
VILLAGES = tuple(code for code in HIERARCHY.nodes if len(code) == 12)


def test_everybody_lives_in_one_village() -> None:
    """Each person of the input stands at exactly one village, with a number of his own."""
    people = [person for village in VILLAGES for person in people_of(village, VILLAGES)]
    numbers = {person.resident.identifiers[0].value for person in people}
    assert len(people) == len(numbers) == len(read_input())


def test_bundles_of_the_demo_pass_the_checks() -> None:
    """Nothing of the input is refused: measurements are plausible, identities well formed."""
    for village in VILLAGES:
        for person in people_of(village, VILLAGES):
            bundle = Bundle("demo-check", (person.resident,), person.records)
            faults = check_bundle(
                bundle, hierarchy=HIERARCHY, node_id=NodeId(village), today=date(2026, 1, 1)
            )
            assert faults == []


def test_a_missing_measurement_makes_no_observation() -> None:
    """77 people have no blood pressure; the pooled answer leaves them out."""
    measured = sum(1 for row in read_input() if row["sbp"])
    assert measured == len(read_input()) - 77
    assert sum(cell.people for cell in mean_systolic_pooled(VILLAGES)) == measured
    sent = [
        record
        for village in VILLAGES
        for person in people_of(village, VILLAGES)
        for record in person.records
        if record.values.get("code") == "8480-6"
    ]
    assert len(sent) == measured
