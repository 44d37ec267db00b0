"""What the columnar replica is fed: current rows, joined, complete, and naming nobody."""

from __future__ import annotations

from collections.abc import Mapping

from federation.core.datasets import DATASETS
from node.records.model import NewRecord
from node.storage.specs import RECORD_TABLES
from replication.core.config import PeerRole
from replication.core.model import Lane, Operation, Value
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
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

RESIDENT = "00000000-0000-7000-8000-00000000000a"


def _replica(node: NodeStore, limit: int) -> dict[str, dict[str, Mapping[str, Value]]]:
    """The rows by dataset and id that a replica would end up with, fed from 0 in small steps."""
    node.durable_head()
    held: dict[str, dict[str, Mapping[str, Value]]] = {}
    after = 0
    while True:
        part = node.storage.columnar_changes(after, limit)
        for dataset, rows in part.rows.items():
            held.setdefault(dataset, {}).update({str(row["row_id"]): row for row in rows})
        for dataset, gone in part.deleted.items():
            for row_id in gone:
                held.get(dataset, {}).pop(row_id, None)
        after = part.up_to
        if after >= part.head:
            return held


def test_rows_carry_what_questions_group_by(village: NodeStore) -> None:
    """Home, author, sex and birth year beside the dataset's own columns."""
    village.storage.put_bundle(
        village.caller(), bundle("request-1", person(resident_id=RESIDENT), observation(RESIDENT))
    )

    held = _replica(village, 100)

    [measured] = held["observations"].values()
    assert measured["resident_id"] == RESIDENT
    assert {name: measured[name] for name in ("home", "author", "sex", "birth_year", "form")} == {
        "home": VILLAGE,
        "author": VILLAGE,
        "sex": "female",
        "birth_year": 1980,
        "form": "full",
    }
    assert (measured["code"], measured["value"], measured["observed_on"]) == (
        "8480-6",
        128.0,
        "2026-03-01",
    )
    assert list(held["residents"]) == [RESIDENT]


def test_every_column_of_the_dictionary_is_there_and_no_identifier(village: NodeStore) -> None:
    """The analysts' dictionary and the rows agree; a name or number is in none of them."""
    rows = [
        NewRecord(None, spec.name, RESIDENT, {"code": "x"} if "code" in spec.names else {})
        for spec in RECORD_TABLES
    ]
    village.storage.put_bundle(
        village.caller(), bundle("request-1", person(resident_id=RESIDENT), *rows)
    )

    held = _replica(village, 100)

    for name, dataset in DATASETS.items():
        [row] = held[name].values()
        stored = {column.name for column in dataset.columns if not column.derived}
        assert stored <= set(row)
        assert not {"name", "birth_date", "phone", "address", "display", "dosage"} & set(row)


def test_small_steps_and_one_step_end_alike(village: NodeStore) -> None:
    """The feed can be bounded to any number of log entries."""
    caller = village.caller()
    village.storage.put_bundle(caller, bundle("request-0", person(resident_id=RESIDENT)))
    for n in range(1, 8):
        village.storage.put_bundle(caller, bundle(f"request-{n}", observation(RESIDENT, float(n))))

    assert _replica(village, 1) == _replica(village, 1000)
    assert len(_replica(village, 1)["observations"]) == 7


def test_a_step_looks_at_no_more_entries_than_asked(village: NodeStore) -> None:
    """Each answer says how far it went and where the log ends."""
    caller = village.caller()
    village.storage.put_bundle(caller, bundle("request-0", person(resident_id=RESIDENT)))
    village.storage.put_bundle(caller, bundle("request-1", observation(RESIDENT)))
    village.durable_head()

    part = village.storage.columnar_changes(0, 1)

    assert (part.up_to, part.head) == (1, 2)
    assert list(part.rows) == ["residents", "observations"]
    rest = village.storage.columnar_changes(2, 1)
    assert (rest.up_to, dict(rest.rows), dict(rest.deleted)) == (2, {}, {})


def test_a_changed_resident_brings_his_records_again(village: NodeStore) -> None:
    """They carry his sex, so a correction of it must reach them."""
    caller = village.caller()
    village.storage.put_bundle(
        caller, bundle("request-1", person(resident_id=RESIDENT), observation(RESIDENT))
    )
    head = village.durable_head()
    village.storage.put_bundle(
        caller, bundle("request-2", person(resident_id=RESIDENT, sex="male"))
    )
    village.durable_head()

    part = village.storage.columnar_changes(head, 100)

    assert [row["sex"] for row in part.rows["observations"]] == ["male"]
    assert [row["sex"] for row in part.rows["residents"]] == ["male"]


def test_a_row_touched_often_comes_once_and_current(village: NodeStore) -> None:
    """The feed is of states, not of history."""
    caller = village.caller()
    record_id = "00000000-0000-7000-8000-00000000000b"
    village.storage.put_bundle(caller, bundle("request-0", person(resident_id=RESIDENT)))
    for n in range(1, 5):
        row = observation(RESIDENT, float(n), record_id=record_id)
        village.storage.put_bundle(caller, bundle(f"request-{n}", row))
    village.durable_head()

    part = village.storage.columnar_changes(0, 100)

    assert [row["value"] for row in part.rows["observations"]] == [4.0]


def test_retracted_rows_are_named_for_removal(region: Region) -> None:
    """The replica has to forget them."""
    township = region.node(TOWNSHIP)
    gone = change(version=(1, 2), operation=Operation.DELETE, values={})
    send(township, VILLAGE, PeerRole.CHILD, log_entry(change()))
    send(township, VILLAGE, PeerRole.CHILD, log_entry(gone, sequence=2))
    township.durable_head()

    part = township.storage.columnar_changes(0, 100)

    assert (dict(part.rows), dict(part.deleted)) == ({}, {"observations": (gone.row_id,)})


def test_a_record_that_came_before_its_resident_is_completed(region: Region) -> None:
    """Lanes do not wait for each other: without sex first, with it later, counted at its home."""
    township = region.node(TOWNSHIP)
    send(township, VILLAGE, PeerRole.CHILD, log_entry(change()))
    early = _replica(township, 100)["observations"]
    resident = change("residents", home_epoch=2, home=VILLAGE, values={"sex": "male"})
    send(
        township,
        VILLAGE,
        PeerRole.CHILD,
        log_entry(resident, lane=Lane.IDENTITY, sequence=2),
        lane=Lane.IDENTITY,
    )
    late = _replica(township, 100)["observations"]

    assert [(row["sex"], row["home"]) for row in early.values()] == [(None, VILLAGE)]
    assert [(row["sex"], row["home"]) for row in late.values()] == [("male", VILLAGE)]


def test_the_city_is_fed_pseudonyms(region: Region) -> None:
    """De-identified rows join among themselves, so the city's replica has sex and birth year."""
    village, other = region.node(VILLAGE), region.node(VILLAGE_2)
    village.storage.put_bundle(
        village.caller(), bundle("request-1", person(resident_id=RESIDENT), observation(RESIDENT))
    )
    for node_id in (TOWNSHIP, COUNTY, CITY, other.node_id):
        region.node(node_id)
    region.ship_up(VILLAGE, TOWNSHIP, COUNTY, CITY)

    [measured] = _replica(region.node(CITY), 100)["observations"].values()

    assert (measured["sex"], measured["birth_year"]) == ("female", 1980)
    assert (measured["home"], measured["form"]) == (VILLAGE, "deidentified")
    assert measured["resident_id"] != RESIDENT


def test_the_day_of_death_is_a_month_at_every_level(region: Region) -> None:
    """A question over it has one answer, whether counties count or the city's copy does."""
    village = region.node(VILLAGE)
    dead = person(resident_id=RESIDENT, deceased_on="2026-02-17")
    village.storage.put_bundle(village.caller(), bundle("request-1", dead))
    for node_id in (TOWNSHIP, COUNTY, CITY):
        region.node(node_id)
    region.ship_up(VILLAGE, TOWNSHIP, COUNTY, CITY)

    months = {
        node_id: [
            row["deceased_on"] for row in _replica(region.node(node_id), 9)["residents"].values()
        ]
        for node_id in (VILLAGE, TOWNSHIP, COUNTY, CITY)
    }

    assert months == {node_id: ["2026-02-01"] for node_id in months}
    stored = village.storage.resident(village.caller(), RESIDENT)
    assert stored is not None
    assert stored.deceased_on == "2026-02-17"
