"""A snapshot of the tables in place of a stretch of the log: the same rows, from any position."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hierarchy_config.model import NodeId
from node.records.model import NewIdentifier
from node.storage import outgoing
from node.storage.outgoing import PeerAbility
from node.storage.snapshot_place import Kind, Place
from replication.changelog import LogPrunedError
from replication.core.config import PeerRole
from replication.core.model import Form, Lane
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
from tests.contracts.storage.seeding import drain, held, parts, prune_all, take

PEOPLE = 6
BY_LETTER = ("observations", "00000000-0000-7000-8000-000000000077")


def fill(region: Region) -> dict[NodeId, NodeStore]:
    """Two villages' residents, records of all of them and from above, versions and tombstones.

    Everything has reached everybody by the log.
    """
    tree = {n: region.node(n) for n in (CITY, COUNTY, OTHER_COUNTY, TOWNSHIP, VILLAGE, VILLAGE_2)}
    ids: dict[NodeId, list[str]] = {}
    for village in (VILLAGE, VILLAGE_2):
        node = tree[village]
        people = [person(f"1426011980{int(village[-1])}1010{n:02d}") for n in range(PEOPLE)]
        put = node.storage.put_bundle(node.caller(), bundle("people-1", *people))
        ids[village] = list(put.resident_ids)
        seen = [observation(each, 100.0 + n) for n, each in enumerate(put.resident_ids)]
        seen_ids = node.storage.put_bundle(node.caller(), bundle("seen-1", *seen)).record_ids
        again = [
            replace(observation(each, 150.0), record_id=row)
            for each, row in zip(put.resident_ids[:2], seen_ids, strict=False)
        ]
        node.storage.put_bundle(node.caller(), bundle("again-1", *again))
        gone = replace(
            observation(put.resident_ids[2]), record_id=seen_ids[2], values={}, retracted=True
        )
        node.storage.put_bundle(node.caller(), bundle("gone-1", gone))
    amended = person(
        "142601198011010100", "改名", resident_id=ids[VILLAGE][0], deceased_on="2026-02-17"
    )
    card = (*amended.identifiers, NewIdentifier("health_card", "CARD-1"))
    tree[VILLAGE].storage.put_bundle(
        tree[VILLAGE].caller(), bundle("amended-1", replace(amended, identifiers=card))
    )
    by_letter = change(row=77, resident=77, author=OTHER_COUNTY, home=VILLAGE)
    send(tree[TOWNSHIP], VILLAGE, PeerRole.CHILD, log_entry(by_letter, sequence=900))
    _ship_everywhere(region)
    for above in (TOWNSHIP, COUNTY):
        node = tree[above]
        rows = [observation(ids[VILLAGE][1], 99.0), observation(ids[VILLAGE_2][1], 98.0)]
        node.storage.put_bundle(node.caller(), bundle(f"above-{above}", *rows))
    _ship_everywhere(region)
    return tree


def _ship_everywhere(region: Region) -> None:
    for village in (VILLAGE, VILLAGE_2):
        region.ship_up(village, TOWNSHIP)
    region.ship_up(TOWNSHIP, COUNTY, CITY)
    region.ship_up(COUNTY, TOWNSHIP)
    for village in (VILLAGE, VILLAGE_2):
        region.ship_up(TOWNSHIP, village)


PAIRS = [
    (VILLAGE, TOWNSHIP),
    (TOWNSHIP, COUNTY),
    (COUNTY, CITY),
    (COUNTY, TOWNSHIP),
    (TOWNSHIP, VILLAGE),
]


@pytest.mark.parametrize(("sender", "receiver"), PAIRS)
def test_a_snapshot_brings_what_the_log_would_have_brought(
    region: Region, sender: NodeId, receiver: NodeId
) -> None:
    """Full and reduced forms, up and down, versions and tombstones; nothing in the quarantine."""
    tree = fill(region)
    by_log, by_rows = region.another(receiver), region.another(receiver)
    drain(tree[sender], by_log)
    prune_all(tree[sender])

    drain(tree[sender], by_rows, bytes_max=900)

    got = held(by_rows)
    if receiver in (TOWNSHIP, VILLAGE) and sender != VILLAGE:
        # Down it tells the home once more what the home had by letter: the home holds that already.
        del got[BY_LETTER]
    assert got == held(by_log)
    assert by_rows.storage.quarantined() == 0
    assert len(held(by_log)) >= 2


def test_the_city_gets_reduced_rows_alone(region: Region) -> None:
    """A snapshot leaves the county as the log does: pseudonyms, months, an index."""
    tree = fill(region)
    prune_all(tree[COUNTY])

    gone = drain(tree[COUNTY], region.another(CITY))

    forms = {entry.form for part in gone for entry in part.entries}
    assert forms == {Form.DEIDENTIFIED, Form.INDEX}
    assert all(entry.origin_sequence == 0 for part in gone for entry in part.entries)
    told = b"".join(entry.rows for part in gone for entry in part.entries).decode()
    assert "改名" not in told
    assert "14260119801101" not in told


def test_a_snapshot_goes_on_at_every_position(region: Region) -> None:
    """The link breaks after each part, and the sender restarts: the next part is the one after."""
    tree = fill(region)
    prune_all(tree[VILLAGE])
    whole = held(tree[TOWNSHIP])
    whole = {key: row for key, row in whole.items() if row.author_node == VILLAGE}
    positions = 0
    receiver = region.another(TOWNSHIP)
    for lane in (Lane.IDENTITY, Lane.BULK):
        while True:
            tree[VILLAGE].storage = tree[VILLAGE].open_storage_again()
            part = next(parts(tree[VILLAGE], receiver, lane, bytes_max=300), None)
            if part is None:
                break
            take(tree[VILLAGE], receiver, lane, part)
            positions += 1
        assert receiver.cursor(VILLAGE, lane).position == ""
        assert receiver.cursor(VILLAGE, lane).covers_to == tree[VILLAGE].durable_head()

    assert positions > 10
    got = {key: row for key, row in held(receiver).items() if row.author_node == VILLAGE}
    assert got == whole


def test_what_changes_meanwhile_comes_from_the_log_behind_it(region: Region) -> None:
    """Rows written, amended and retracted between the parts, before and behind the position."""
    tree = fill(region)
    village = tree[VILLAGE]
    prune_all(village)
    receiver = region.another(TOWNSHIP)
    records = sorted(
        key[1]
        for key, row in held(village).items()
        if key[0] == "observations" and row.author_node == VILLAGE and row.values
    )
    residents = sorted(key[1] for key in held(village) if key[0] == "residents")
    for lane in (Lane.IDENTITY, Lane.BULK):
        for n, part in enumerate(parts(village, receiver, lane, bytes_max=300)):
            take(village, receiver, lane, part)
            if n >= len(records):
                continue
            row = observation(residents[0], 200.0 + n)
            fresh = person(f"142601197{lane.value}0101{n:04d}")
            village.storage.put_bundle(
                village.caller(), bundle(f"meanwhile-{lane}-{n}", row, fresh)
            )
            owner = held(village)["observations", records[n]].resident_id
            village.storage.put_bundle(
                village.caller(),
                bundle(f"amended-{lane}-{n}", observation(owner, 7.0, record_id=records[n])),
            )
    drain(village, receiver)

    mine = {key: row for key, row in held(village).items() if row.author_node == VILLAGE}
    got = {key: row for key, row in held(receiver).items() if row.author_node == VILLAGE}
    assert got == mine


def test_a_peer_that_takes_no_snapshots_is_told_that_the_log_is_gone(region: Region) -> None:
    """An older release: the link ends with the reason; nothing is left out in silence."""
    tree = fill(region)
    prune_all(tree[VILLAGE])

    with pytest.raises(LogPrunedError):
        tree[VILLAGE].storage.outgoing_part(
            TOWNSHIP, PeerRole.PARENT, Lane.BULK, 0, 1000, ability=PeerAbility(1)
        )


def test_a_position_of_another_program_begins_the_snapshot_anew(region: Region) -> None:
    """What a peer's cursor says is not believed blindly."""
    tree = fill(region)
    head = prune_all(tree[VILLAGE])

    part = tree[VILLAGE].storage.outgoing_part(
        TOWNSHIP, PeerRole.PARENT, Lane.BULK, 0, 1000, position="v9/anything"
    )

    place = Place.parse(part.position)
    assert place is not None
    assert (place.kind, place.head) == (Kind.ENTITLED, head)


@pytest.mark.parametrize("text", ["", "S1:nowhere:", "X1:residents:", "S-1:residents:", "S1:@:x'"])
def test_only_places_of_this_program_are_read(text: str) -> None:
    """Everything else is none."""
    assert Place.parse(text) is None


def amend_often(node: NodeStore, times: int) -> tuple[str, str]:
    """One resident with one record of so many versions."""
    [resident] = node.storage.put_bundle(node.caller(), bundle("one-1", person())).resident_ids
    [record] = node.storage.put_bundle(
        node.caller(), bundle("row-1", observation(resident))
    ).record_ids
    for n in range(times):
        node.storage.put_bundle(
            node.caller(),
            bundle(f"version-{n}", observation(resident, float(n), record_id=record)),
        )
    return resident, record


def test_a_long_backlog_is_collapsed_to_the_newest_versions(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far behind the head slices are gathered and older versions left out; at the head none is."""
    monkeypatch.setattr(outgoing, "_MUCH_BEHIND", 5)
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    _, record = amend_often(village, 60)

    gone = drain(village, township, bytes_max=2000)

    assert any(part.coalesced for part in gone)
    sent = sum(entry.row_count for part in gone for entry in part.entries)
    assert sent < 40
    assert held(township) == held(village)
    assert held(township)["observations", record].version.number == 61


@pytest.mark.parametrize(("times", "snapshot"), [(60, True), (3, False)])
def test_the_cheaper_way_is_taken(
    region: Region, monkeypatch: pytest.MonkeyPatch, times: int, snapshot: bool
) -> None:
    """Many versions of few rows: the rows; few versions: the log."""
    monkeypatch.setattr(outgoing, "SNAPSHOT_ENTRIES_MIN", 5)
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    amend_often(village, times)

    gone = drain(village, township)

    assert any(part.position for part in gone) is snapshot
    assert held(township) == held(village)
