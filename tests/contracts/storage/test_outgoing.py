"""What leaves a node: who is sent what, in which form, and that nothing identifying goes along."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlalchemy import select

from node.records.model import NewIdentifier, NewRecord
from node.security.blind_index import RegionalIndex
from node.storage.tables import REPLICATED
from replication.changelog import read_transaction
from replication.core.codec import decode_changes
from replication.core.config import PeerRole
from replication.core.model import Form, Lane, LogEntry, RowChange, Value
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    NOW_MS,
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
    stored_files,
)

RESIDENT = "00000000-0000-7000-8000-00000000000a"
ENCOUNTER = "00000000-0000-7000-8000-00000000000e"
NUMBER = "14260119800101001X"
# Everything of the resident below that could lead to him.
MARKERS = (
    NUMBER,
    "赵钱孙李",
    "13912345678",
    "尧都区某村某号",
    "1980-01-01",
    "CARD-777",
    "服药后头晕",
    "赵医生诊室",
)


def _fill(node: NodeStore) -> None:
    """One resident with everything, one visit with everything."""
    who = person(
        NUMBER,
        "赵钱孙李",
        resident_id=RESIDENT,
        phone="13912345678",
        address="尧都区某村某号",
        deceased_on="2026-02-17",
    )
    cards = (*who.identifiers, NewIdentifier("health_card", "CARD-777"))
    visited: dict[str, Value] = {
        "class": "ambulatory",
        "started_on": "2026-01-05",
        "department": "赵医生诊室",
    }
    visit = NewRecord(ENCOUNTER, "encounters", RESIDENT, visited)
    took: dict[str, Value] = {
        "encounter_id": ENCOUNTER,
        "code": "C09AA02",
        "display": "赵钱孙李",
        "dosage": "服药后头晕",
    }
    taken = NewRecord(None, "medications", RESIDENT, took)
    measured = observation(RESIDENT)
    measured = replace(measured, values={**measured.values, "encounter_id": ENCOUNTER})
    node.storage.put_bundle(
        node.caller(),
        bundle("request-1", replace(who, identifiers=cards), visit, taken, measured),
    )


@pytest.fixture
def sent_to_city(region: Region) -> tuple[NodeStore, list[LogEntry]]:
    """A county with the resident above, and what it sends to the city."""
    county = region.node(COUNTY)
    _fill(county)
    return county, region.ship(county, region.node(CITY))


def _rows(entries: list[LogEntry], form: Form | None = None) -> list[RowChange]:
    return [
        row
        for entry in entries
        if form is None or entry.form is form
        for row in decode_changes(entry.codec, entry.rows)
    ]


def test_nothing_identifying_leaves_the_county(
    sent_to_city: tuple[NodeStore, list[LogEntry]],
) -> None:
    """Not a name, number, phone, address, birth date, nor free text, in any byte sent."""
    _, sent = sent_to_city

    everything = b"".join(entry.rows for entry in sent).decode()
    assert everything
    for marker in MARKERS:
        assert marker not in everything
        assert json.dumps(marker).strip('"') not in everything


def test_deidentified_rows_keep_what_questions_need(
    sent_to_city: tuple[NodeStore, list[LogEntry]],
) -> None:
    """Sex, birth year, codes, values and dates of care; the day of death to the month."""
    _, sent = sent_to_city

    rows = {row.table: row for row in _rows(sent, Form.DEIDENTIFIED)}

    assert sorted(rows) == ["encounters", "medications", "observations", "residents"]
    assert rows["residents"].values == {
        "sex": "female",
        "birth_year": 1980,
        "deceased_on": "2026-02-01",
    }
    assert rows["encounters"].values == {"class": "ambulatory", "started_on": "2026-01-05"}
    assert rows["medications"].values["code"] == "C09AA02"
    assert set(rows["medications"].values) == {"code", "encounter_id"}
    assert rows["observations"].values["value"] == 128.0
    assert {row.recorded_at[4:] for row in rows.values()} == {"-01-01T00:00:00.000Z"}
    assert {row.author_node for row in rows.values()} == {COUNTY}


def test_pseudonyms_meet_each_other_and_nothing_else(
    sent_to_city: tuple[NodeStore, list[LogEntry]],
) -> None:
    """A resident's rows still belong together, a record still has its visit; no true id is told."""
    county, sent = sent_to_city

    rows = {row.table: row for row in _rows(sent, Form.DEIDENTIFIED)}

    assert len({row.resident_id for row in rows.values()}) == 1
    assert rows["residents"].row_id == rows["residents"].resident_id
    visit = rows["encounters"].row_id
    assert {rows[name].values["encounter_id"] for name in ("observations", "medications")} == {
        visit
    }
    told = {row.row_id for row in rows.values()} | {row.resident_id for row in rows.values()}
    assert not told & ({row.row_id for row in county.changes()} | {RESIDENT})


def test_the_index_entry_finds_by_the_regional_key_alone(
    sent_to_city: tuple[NodeStore, list[LogEntry]],
) -> None:
    """The identity number lies in another row of the transaction and travels only as its hash."""
    _, sent = sent_to_city

    [entry] = _rows(sent, Form.INDEX)

    keyed = RegionalIndex(b"r" * 32).index("identity_number", NUMBER)
    assert (entry.table, entry.row_id, entry.values) == (
        "resident_index",
        RESIDENT,
        {"identity_index": keyed},
    )


def test_nothing_sent_joins_index_entries_to_deidentified_rows(region: Region) -> None:
    """Not an entry, an order, a number or an hour: many residents leave mixed."""
    county = region.node(COUNTY)
    for n in range(12):
        region.clock.ms = NOW_MS + n * 61_000
        number = f"1426011980010100{n:02d}"
        county.storage.put_bundle(county.caller(), bundle(f"request-{n}", person(number)))

    sent = region.ship(county, region.node(CITY))

    assert sorted(entry.form for entry in sent) == [Form.DEIDENTIFIED, Form.INDEX]
    for entry in sent:
        rows = decode_changes(entry.codec, entry.rows)
        assert len(rows) == 12
        assert [row.row_id for row in rows] == sorted(row.row_id for row in rows)
        assert entry.origin_sequence == 0
        assert entry.committed_at_ms % 86_400_000 == 0
        assert {row.recorded_at[4:] for row in rows} == {"-01-01T00:00:00.000Z"}


def test_an_index_entry_follows_the_identity_number(region: Region) -> None:
    """A resident registered without a number gets one later: his entry is sent again with it."""
    county, city = region.node(COUNTY), region.node(CITY)
    county.storage.put_bundle(
        county.caller(), bundle("request-1", person("", resident_id=RESIDENT))
    )
    [first] = _rows(region.ship(county, city), Form.INDEX)
    county.storage.put_bundle(
        county.caller(), bundle("request-2", person(NUMBER, resident_id=RESIDENT))
    )
    [second] = _rows(region.ship(county, city), Form.INDEX)

    assert first.values == {}
    assert list(second.values) == ["identity_index"]
    assert second.version > first.version
    t = REPLICATED["resident_index"]
    with read_transaction(city.engine) as connection:
        assert connection.execute(select(t.c.identity_index)).scalars().all() == [
            second.values["identity_index"]
        ]


def test_below_the_county_everything_goes_up_as_it_is(region: Region) -> None:
    """Village and township send the very bytes that were logged."""
    village, township, county = (region.node(each) for each in (VILLAGE, TOWNSHIP, COUNTY))
    _fill(village)

    to_township = region.ship(village, township)
    to_county = region.ship(township, county)

    written = [entry.rows for entry in village.entries()]
    assert [entry.rows for entry in to_township] == written
    assert [entry.rows for entry in to_county] == written
    found = county.storage.find_resident(county.caller(), "identity_number", NUMBER)
    assert found is not None
    assert (found.name, found.phone, found.home_node) == ("赵钱孙李", "13912345678", VILLAGE)


def test_a_village_record_reaches_the_city_without_names(region: Region) -> None:
    """All the way: full to the county, reduced to the city, counted there, never shown."""
    for node_id in (CITY, COUNTY, TOWNSHIP, VILLAGE):
        region.node(node_id)
    _fill(region.node(VILLAGE))
    region.ship_up(VILLAGE, TOWNSHIP, COUNTY, CITY)
    city = region.node(CITY)

    assert city.storage.counts().residents == 1
    assert city.storage.counts().rows["observations"] == 1
    assert city.storage.residents_by_home(city.caller()) == {VILLAGE: 1}
    assert city.storage.resident(city.caller(), RESIDENT) is None
    assert city.storage.find_resident(city.caller(), "identity_number", NUMBER) is None
    assert city.storage.quarantined() == 0


def test_a_record_written_above_goes_down_to_its_home_only(region: Region) -> None:
    """To the village it belongs to, not to its neighbour, and not up again from there."""
    village, township, county = (region.node(each) for each in (VILLAGE, TOWNSHIP, COUNTY))
    neighbour = region.node(VILLAGE_2)
    village.storage.put_bundle(village.caller(), bundle("request-1", person(resident_id=RESIDENT)))
    region.ship_up(VILLAGE, TOWNSHIP, COUNTY)
    written = county.storage.put_bundle(county.caller(), bundle("request-1", observation(RESIDENT)))
    [record_id] = written.record_ids

    assert len(region.ship(county, township)) == 1
    assert region.ship(township, neighbour) == []
    assert len(region.ship(township, village)) == 1
    assert village.storage.record(village.caller(), record_id) is not None
    assert region.ship(village, township) == []
    assert region.ship(township, county) == []


def test_deidentified_rows_never_go_down(region: Region) -> None:
    """A county keeps its residents in full; the city's copy of them is for the city."""
    county, city, other = (region.node(each) for each in (COUNTY, CITY, OTHER_COUNTY))
    _fill(county)
    region.ship(county, city)

    assert region.ship(city, county) == []
    assert region.ship(city, other) == []


def test_scanning_goes_past_what_is_not_for_the_peer(region: Region) -> None:
    """A reader with nothing to send still moves on, so a link does not ask for it again."""
    township = region.node(TOWNSHIP)
    for n in range(1, 30):
        row = change(row=n, author=VILLAGE_2, home=VILLAGE_2)
        send(township, VILLAGE_2, PeerRole.CHILD, log_entry(row, sequence=n, origin=VILLAGE_2))
    head = township.durable_head()

    entries, scanned_to = township.storage.outgoing(VILLAGE, PeerRole.CHILD, Lane.BULK, 0, 1 << 20)

    assert (entries, scanned_to) == ((), head)


def test_reads_no_further_than_the_durable_head(region: Region) -> None:
    """`up_to` holds back what a power cut might still take."""
    village = region.node(VILLAGE)
    _fill(village)
    village.durable_head()

    def read(up_to: int) -> int:
        entries, scanned_to = village.storage.outgoing(
            TOWNSHIP, PeerRole.PARENT, Lane.BULK, 0, 1 << 20, up_to=up_to
        )
        assert scanned_to <= up_to
        return len(entries)

    assert (read(1), read(2)) == (0, 1)


def test_the_database_files_hold_no_clear_identifier(region: Region) -> None:
    """Tables, log, indexes, quarantine, write-ahead and redo logs: a stolen disk names nobody."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    _fill(village)
    region.ship(village, township)
    named = change("residents", home=VILLAGE_2, values={"name": "赵钱孙李", "phone": "13912345678"})
    entry = log_entry(named, lane=Lane.IDENTITY, sequence=50)
    send(township, VILLAGE, PeerRole.CHILD, entry, lane=Lane.IDENTITY)
    assert township.storage.quarantined() == 1

    content = b"".join(path.read_bytes() for path in stored_files(village, township))

    # The search sees what is there: codes are stored clear.
    assert b"C09AA02" in content
    for marker in MARKERS:
        assert marker.encode() not in content
        assert marker.encode("utf-16-le") not in content
        assert json.dumps(marker).strip('"').encode() not in content
