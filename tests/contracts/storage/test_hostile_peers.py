"""Peers with a good certificate and bad intentions: they reach no further than what is theirs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlalchemy import select

from hierarchy_config.model import NodeId
from node.records.model import NewIdentifier
from node.storage import CHANGELOG
from node.storage.pieces import PIECE_BYTES_MAX
from replication.changelog import read_transaction
from replication.core.config import PeerRole
from replication.core.model import Lane, LogEntry, RowChange, Version
from tests.contracts.storage.region import (
    COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    bundle,
    change,
    count,
    log_entry,
    observation,
    person,
    send,
)
from tests.contracts.storage.seeding import drain, held, prune_all

NUMBER = "14260119900101003X"


def _causes(node: NodeStore) -> list[str]:
    quarantine = CHANGELOG.quarantine
    with read_transaction(node.engine) as connection:
        return list(connection.execute(select(quarantine.c.cause)).scalars())


def _registered(village: NodeStore) -> tuple[str, str]:
    """A resident with one record, both written at the village; their ids."""
    caller = village.caller()
    [resident] = village.storage.put_bundle(caller, bundle("first-one", person())).resident_ids
    put = village.storage.put_bundle(caller, bundle("second-one", observation(resident, 128.0)))
    return resident, put.record_ids[0]


def _identifier(resident: str, author: NodeId, row: int = 1) -> LogEntry:
    """An identity number for somebody, by an author who says he is of his home."""
    row_change = replace(
        change(
            "identifiers",
            row=row,
            author=author,
            home=author,
            values={"system": "identity_number", "value": NUMBER},
        ),
        resident_id=resident,
    )
    return log_entry(row_change, lane=Lane.IDENTITY, origin=author, sequence=row)


def test_a_parent_cannot_amend_what_a_village_wrote(village: NodeStore) -> None:
    """Not even by a greater version under the village's own name."""
    resident, record = _registered(village)
    forged = replace(
        change(version=(1, 50), values={"code": "8480-6", "value": 999.0}),
        row_id=record,
        resident_id=resident,
    )

    send(village, TOWNSHIP, PeerRole.PARENT, log_entry(forged, origin=TOWNSHIP))

    held = village.storage.record(village.caller(), record)
    assert held is not None
    assert (held.version, held.values["value"]) == (Version(1, 1), 128.0)
    assert _causes(village) == ["AUTHOR_NOT_ABOVE"]


def test_a_parent_cannot_take_numbers_of_a_villages_log(village: NodeStore) -> None:
    """Under the village's name and its next number, an entry would stop the numbering for good."""
    _registered(village)
    row = change(row=9, author=TOWNSHIP)

    for sequence in range(1, 6):
        send(village, TOWNSHIP, PeerRole.PARENT, log_entry(row, sequence=sequence))

    assert set(_causes(village)) == {"ORIGIN_NOT_ABOVE"}
    assert village.durable_head() == 2


def test_a_village_cannot_give_a_siblings_resident_an_identifier(region: Region) -> None:
    """Whoever looked for that number would be shown the sibling's resident."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    resident, _ = _registered(village)
    region.ship(village, township)

    entry = _identifier(resident, VILLAGE_2)
    send(township, VILLAGE_2, PeerRole.CHILD, entry, lane=Lane.IDENTITY)

    assert _causes(township) == ["RESIDENT_OF_ANOTHER"]
    caller = township.caller()
    assert township.storage.find_resident(caller, "identity_number", NUMBER) is None
    held = township.storage.resident(caller, resident)
    assert held is not None
    assert held.identifiers == (NewIdentifier("identity_number", "14260119800101001X"),)


def test_a_home_gives_its_own_residents_identifiers(region: Region) -> None:
    """The rule leaves the home itself alone."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    resident, _ = _registered(village)
    region.ship(village, township)

    entry = _identifier(resident, VILLAGE, row=7)
    send(township, VILLAGE, PeerRole.CHILD, replace(entry, origin_sequence=99), lane=Lane.IDENTITY)

    found = township.storage.find_resident(township.caller(), "identity_number", NUMBER)
    assert found is not None
    assert found.resident_id == resident


@pytest.mark.parametrize(
    "row",
    [
        change(values={"code": "8480-6", "value": 10**300}),
        change(values={"code": "8480-6", "value": -(10**18)}),
        change(values={"note": "x" * 300_000}),
        change(values={f"unknown_{n}": 1.0 for n in range(10_000)}),
        replace(change("residents", values={}), row_id=change().row_id),
    ],
)
def test_what_one_database_takes_and_another_does_not_goes_no_further(
    region: Region, row: RowChange
) -> None:
    """The first node judges what every node above must be able to hold."""
    township = region.node(TOWNSHIP)
    lane = Lane.IDENTITY if row.table == "residents" else Lane.BULK

    send(township, VILLAGE, PeerRole.CHILD, log_entry(row, lane=lane), lane=lane)

    assert _causes(township) == ["ROW_MALFORMED"]
    assert township.entries() == ()


def test_the_rest_of_an_entry_that_grows_goes_on_in_pieces(region: Region) -> None:
    """1e15 is four times as long once it is written anew: the township's lane must not end."""
    township = region.node(TOWNSHIP)
    good = [change(row=n, values={}) for n in range(1, 101)]
    foreign = change(row=999, author=COUNTY)
    entry = log_entry(*good, foreign)
    rows = json.loads(entry.rows)
    short = "{" + ",".join(f'"u{n}":1e15' for n in range(2_000)) + "}"
    raw = json.dumps(rows, separators=(",", ":")).replace("{}", short).encode()
    assert len(raw) < 3 << 20

    send(township, VILLAGE, PeerRole.CHILD, replace(entry, rows=raw))

    relayed = township.entries()
    assert sum(each.row_count for each in relayed) == len(good)
    assert max(len(each.rows) for each in relayed) <= PIECE_BYTES_MAX
    assert [each.origin_sequence for each in relayed] == [1] + [0] * (len(relayed) - 1)


def test_an_entry_that_could_not_be_passed_on_is_not_taken_in(region: Region) -> None:
    """It waits whole; it never gets into this node's log, and the lane goes on."""
    township = region.node(TOWNSHIP)
    many = [change(row=n, values={"note": "x" * 200_000}) for n in range(16)]

    send(township, VILLAGE, PeerRole.CHILD, log_entry(*many))

    assert count(township, "observations") == 0
    assert township.entries() == ()
    assert _causes(township) == ["ENTRY_TOO_LARGE"]


def test_a_bundle_of_very_many_rows_can_be_sent(village: NodeStore) -> None:
    """Its entries are as small as a batch needs them, and together they are the bundle."""
    many = tuple(NewIdentifier("passport", f"A{n:08d}") for n in range(5_000))
    crowd = replace(person(number=""), identifiers=many)

    village.storage.put_bundle(village.caller(), bundle("very-many", crowd))

    entries = village.entries(Lane.IDENTITY)
    assert sum(entry.row_count for entry in entries) == len(many) + 1
    assert max(len(entry.rows) for entry in entries) <= PIECE_BYTES_MAX


def test_a_child_takes_no_record_from_the_resident_of_its_sibling(region: Region) -> None:
    """Under the sibling's name as author, for a resident of its own, by a greater version."""
    sibling, township, village = region.node(VILLAGE_2), region.node(TOWNSHIP), region.node(VILLAGE)
    caller = sibling.caller()
    [theirs] = sibling.storage.put_bundle(caller, bundle("first-one", person())).resident_ids
    put = sibling.storage.put_bundle(caller, bundle("second-one", observation(theirs, 128.0)))
    [record] = put.record_ids
    mine = person("142601197003032222")
    [own] = village.storage.put_bundle(village.caller(), bundle("first-one", mine)).resident_ids
    region.ship(sibling, township)
    region.ship(village, township)
    forged = replace(
        change(author=VILLAGE_2, version=(1, 1000), values={"code": "8480-6", "value": 1.0}),
        row_id=record,
        resident_id=own,
    )

    send(township, VILLAGE, PeerRole.CHILD, log_entry(forged, sequence=77))

    amended = observation(theirs, 140.0, record_id=record)
    sibling.storage.put_bundle(caller, bundle("third-one", amended))
    region.ship(sibling, township)
    held = township.storage.record(township.caller(), record)
    assert held is not None
    assert (held.resident_id, held.values["value"]) == (theirs, 140.0)
    assert _causes(township) == ["AUTHOR_CHANGED"]


def _wide(rows: int, base: int, number: str) -> LogEntry:
    """An entry whose rows have thousands of columns that this release does not know."""
    entry = log_entry(*(change(row=base + n, values={}) for n in range(rows)), sequence=base)
    columns = "{" + ",".join(f'"{n:x}":{number}' for n in range(8_800)) + "}"
    text = json.dumps(json.loads(entry.rows), separators=(",", ":")).replace("{}", columns)
    return replace(entry, rows=text.encode())


def test_no_part_of_a_snapshot_outgrows_a_batch(region: Region) -> None:
    """Numbers and names of columns weigh too: a child could stop its parent's snapshots."""
    township = region.node(TOWNSHIP)
    for n in range(3):
        send(township, VILLAGE, PeerRole.CHILD, _wide(8, 1000 + 8 * n, "0.1234567890123456"))
    assert _causes(township) == []
    taken = region.another(COUNTY)

    sizes = [
        sum(len(entry.rows) for entry in part.entries)
        for part in drain(township, taken, lanes=(Lane.BULK,), seed=True, bytes_max=65_536)
    ]

    assert 0 < max(sizes) <= PIECE_BYTES_MAX
    assert len(held_rows_of(taken)) == 24


def held_rows_of(node: NodeStore) -> list[RowChange]:
    """Observations held."""
    return [row for (table, _), row in held(node).items() if table == "observations"]


def test_a_number_that_comes_twice_stops_no_lane_above(region: Region) -> None:
    """The node above has the first still, which the node between has pruned."""
    township, county = region.node(TOWNSHIP), region.node(COUNTY)
    send(township, VILLAGE, PeerRole.CHILD, log_entry(change(row=1), sequence=7))
    region.ship(township, county)
    prune_all(township)
    send(township, VILLAGE, PeerRole.CHILD, log_entry(change(row=2), sequence=7))
    send(township, VILLAGE, PeerRole.CHILD, log_entry(change(row=3), sequence=8))

    drain(township, county, lanes=(Lane.BULK,))

    assert len(held_rows_of(county)) == 3
    assert [entry.origin_sequence for entry in county.entries()] == [7, 0, 8]
    assert _causes(county) == []
