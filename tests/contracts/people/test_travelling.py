"""Where rows of staff go: up to the county, down to the home; not aside, not to the city."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlalchemy import select

from hierarchy_config.model import NodeId
from node.people.errors import NotYourDivisionError
from node.people.model import NewAccount, NewQualification
from node.security.roles import Role
from node.storage.specs import PEOPLE_NAMES
from node.storage.tables import CHANGELOG, REPLICATED
from replication.changelog import read_transaction
from replication.core.config import PeerRole
from replication.core.model import Form, Lane
from tests.contracts.people.place import FIRST, PASSWORD, Office
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    bundle,
    change,
    log_entry,
    observation,
    person,
    send,
)
from tests.contracts.storage.seeding import drain, prune_all

ORG = "00000000-0000-7000-9000-000000000001"


def people_rows(node: NodeStore) -> dict[str, int]:
    """How many rows of the people's tables a node holds, those it has any of."""
    with read_transaction(node.engine) as connection:
        counts = {
            name: len(connection.execute(select(REPLICATED[name].c.row_id)).all())
            for name in sorted(PEOPLE_NAMES)
        }
    return {name: count for name, count in counts.items() if count}


def causes(node: NodeStore) -> list[str]:
    """Of what waits in the quarantine."""
    with read_transaction(node.engine) as connection:
        return list(connection.execute(select(CHANGELOG.quarantine.c.cause)).scalars())


def fill(office: Office) -> str:
    """One row of every table, at the office's own node; the id of its staff."""
    here = office.organization(name="村卫生室")
    office.parts.registry.add_department(office.operator, here, "全科", "")
    staff = office.member(here)
    office.give(staff, Role.NURSE)
    given = office.give(staff, Role.REGISTRAR)
    office.parts.registry.end(office.operator, "assignments", given, "", "")
    new = NewQualification(staff, "nurse-licence", "2026-1234")
    office.parts.registry.add_qualification(office.operator, new, "")
    return staff


FILLED = {
    "organizations": 1,
    "departments": 1,
    "staff": 1,
    "assignments": 2,
    "endings": 1,
    "qualifications": 1,
}


def test_rows_of_a_village_go_up_to_the_county_and_no_further(region: Region) -> None:
    """Nor to the sibling, nor to another county; the city gets neither them nor a trace."""
    village = region.node(VILLAGE)
    staff = fill(Office(village))
    region.ship_up(VILLAGE, TOWNSHIP, COUNTY, CITY)
    for receiver in (TOWNSHIP, VILLAGE_2), (CITY, OTHER_COUNTY):
        region.ship(region.node(receiver[0]), region.node(receiver[1]))

    for node in (VILLAGE, TOWNSHIP, COUNTY):
        assert people_rows(region.node(node)) == FILLED
    for node in (VILLAGE_2, CITY, OTHER_COUNTY):
        assert people_rows(region.node(node)) == {}
        assert region.node(node).entries() == ()
        assert causes(region.node(node)) == []
    seen = Office(region.node(COUNTY))
    record = seen.parts.registry.staff_record(seen.operator, staff)
    assert (record.member.name, record.member.home) == ("李四", VILLAGE)
    assert [each.number for each in record.qualifications] == ["2026-1234"]
    assert sorted(each.today for each in record.assignments) == [False, True]


def test_rows_written_above_come_down_to_the_home_alone(region: Region) -> None:
    """What the county says of a village's staff counts there with the next call."""
    county, village = Office(region.node(COUNTY)), Office(region.node(VILLAGE))
    clinic = county.organization(VILLAGE, name="村卫生室")
    staff = county.member(clinic)
    given = county.give(staff, Role.NURSE)
    path = (COUNTY, TOWNSHIP, VILLAGE)
    region.ship_up(*path)
    region.ship(region.node(TOWNSHIP), region.node(VILLAGE_2))
    assert people_rows(region.node(VILLAGE_2)) == {}

    village.parts.accounts.add(village.operator, NewAccount("li", staff, FIRST), "")
    session = village.sign_in("li", FIRST, new_password=PASSWORD)
    assert village.caller(session).roles == {Role.NURSE}
    county.parts.registry.end(county.operator, "assignments", given, "", "")
    other = county.give(staff, Role.REGISTRAR)
    region.ship_up(*path)
    village.parts.generation.rise()
    assert village.caller(session).roles == {Role.REGISTRAR}
    # And the village ends what the county gave, and the county sees it.
    village.parts.registry.end(village.operator, "assignments", other, "", "")
    region.ship_up(*reversed(path))
    shown = county.parts.registry.assignments(county.operator, "", 10, staff)
    assert [each.today for each in shown] == [False, False]


def test_two_nodes_that_end_the_same_at_once_agree(region: Region) -> None:
    """Neither changes the other's row: there are two endings, and one would do."""
    county, village = Office(region.node(COUNTY)), Office(region.node(VILLAGE))
    staff = fill(village)
    path = (VILLAGE, TOWNSHIP, COUNTY)
    region.ship_up(*path)
    for office in (county, village):
        office.parts.registry.end(office.operator, "staff", staff, "", "")
    region.ship_up(*path)
    region.ship_up(*reversed(path))
    for office in (county, village):
        record = office.parts.registry.staff_record(office.operator, staff)
        assert record.member.ended
        assert people_rows(office.node)["endings"] == 3
        assert causes(office.node) == []


def test_an_administrator_of_a_county_manages_a_village_through_the_link(region: Region) -> None:
    """And one of the village, nothing above it, though it can name what it does not hold."""
    county, village = Office(region.node(COUNTY)), Office(region.node(VILLAGE))
    head = county.worker(county.organization(), Role.ADMINISTRATOR, Role.NURSE)
    boss = county.acting(head)
    clinic = county.organization(VILLAGE, by=boss)
    nurse = county.member(clinic, by=boss)
    county.give(nurse, Role.NURSE, by=boss)
    region.ship_up(COUNTY, TOWNSHIP, VILLAGE)
    assert people_rows(region.node(VILLAGE)) == {"organizations": 1, "staff": 1, "assignments": 1}
    local = village.worker(clinic, Role.ADMINISTRATOR)
    acting = village.acting(local)
    village.member(clinic, by=acting)
    with pytest.raises(NotYourDivisionError):
        village.organization(TOWNSHIP, by=acting)


@pytest.mark.parametrize("home", [COUNTY, VILLAGE_2, TOWNSHIP, OTHER_COUNTY])
def test_a_child_does_not_say_who_works_elsewhere(region: Region, home: str) -> None:
    """A village that makes itself, or a friend, an administrator of its township or its sibling."""
    township = region.node(TOWNSHIP)
    row = change(
        "assignments",
        author=VILLAGE,
        home=home,
        values={"role": "administrator", "division": home, "staff_id": ORG},
    )
    outcome = send(
        township, VILLAGE, PeerRole.CHILD, log_entry(row, lane=Lane.CARE), lane=Lane.CARE
    )
    assert (outcome.applied, outcome.quarantined) == (0, 1)
    assert causes(township) == ["AUTHOR_NOT_OVER_HOME"]
    assert people_rows(township) == {}


def test_a_village_cannot_end_or_replace_what_is_of_the_county(region: Region) -> None:
    """An ending that names a row of another home ends nothing; a row keeps its author."""
    county = Office(region.node(COUNTY))
    nurse = county.worker(county.organization(), Role.NURSE)
    session = county.sign_in(nurse.account)
    ending = change(
        "endings",
        row=3,
        values={"ended_table": "assignments", "ended_id": nurse.assignments[0]},
    )
    usurped = change("staff", row=4, values={"name": "王五"})
    township = region.node(TOWNSHIP)
    send(township, VILLAGE, PeerRole.CHILD, log_entry(ending, lane=Lane.CARE), lane=Lane.CARE)
    region.ship_up(TOWNSHIP, COUNTY)
    assert people_rows(region.node(COUNTY))["endings"] == 1
    assert county.caller(session).roles == {Role.NURSE}
    usurped = replace(usurped, row_id=nurse.staff_id)
    entry = log_entry(usurped, lane=Lane.CARE, origin=VILLAGE, sequence=2)
    send(region.node(COUNTY), TOWNSHIP, PeerRole.CHILD, entry, lane=Lane.CARE)
    record = county.parts.registry.staff_record(county.operator, nurse.staff_id)
    assert record.member.name == "李四"


def test_the_city_refuses_what_a_county_must_not_send(region: Region) -> None:
    """A county that sends its staff up, in full or reduced, is refused."""
    city = region.node(CITY)
    for number, form in enumerate((Form.FULL, Form.DEIDENTIFIED), start=1):
        row = change("staff", row=number, author=COUNTY, home=COUNTY, form=form, values={})
        entry = log_entry(row, lane=Lane.CARE, origin=COUNTY, sequence=number)
        send(city, COUNTY, PeerRole.CHILD, entry, lane=Lane.CARE)
    assert causes(city) == ["FORM_NOT_IN_POLICY", "FORM_NOT_IN_POLICY"]
    assert people_rows(city) == {}


def test_staff_are_counted_as_nobodys_records_and_reach_no_columns(region: Region) -> None:
    """Figures and questions are of residents: nothing of staff gets into them."""
    village = region.node(VILLAGE)
    who = "00000000-0000-7000-8000-00000000000a"
    village.storage.put_bundle(
        village.caller(), bundle("one", person(resident_id=who), observation(who))
    )
    fill(Office(village))
    assert village.storage.counts().records == 1
    changes = village.storage.columnar_changes(0, 1000)
    said = json.dumps([changes.rows, changes.deleted], default=str)
    assert "李四" not in said
    assert PEOPLE_NAMES & {*changes.rows, *changes.deleted} == set()


@pytest.mark.parametrize("sender", [VILLAGE, COUNTY])
def test_where_the_log_was_pruned_they_come_from_the_tables(region: Region, sender: NodeId) -> None:
    """Up from the village, down from the county; the city gets none by that way either."""
    office = Office(region.node(sender))
    fill(office)
    if sender == COUNTY:
        office.member(office.organization(VILLAGE))
    prune_all(office.node)
    drain(office.node, region.node(TOWNSHIP), lanes=(Lane.CARE,))
    below = {"organizations": 1, "staff": 1}
    assert people_rows(region.node(TOWNSHIP)) == (FILLED if sender == VILLAGE else below)
    if sender == COUNTY:
        drain(office.node, region.node(CITY), lanes=(Lane.CARE,))
        assert people_rows(region.node(CITY)) == {}
        assert causes(region.node(CITY)) == []
