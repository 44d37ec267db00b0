"""A store that was lost or put back gets back what it owned, and does nothing rash meanwhile."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from hierarchy_config.model import NodeId
from node.records.model import NewRecord, NewResident
from node.storage.errors import RecoveringError
from node.storage.tables import CHANGELOG, REPLICATED
from replication.changelog import StoreState, read_transaction, write_transaction
from replication.core.config import PeerRole
from replication.core.effects import SEED
from replication.core.greeting import RECOVERING, seed_feature
from replication.core.model import Audience, Lane, Version
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
from tests.contracts.storage.seeding import drain, held, parts, prune_all, recover, take
from tests.contracts.storage.test_snapshots import BY_LETTER, fill

ALL = tuple(Lane)


def audiences(node: NodeStore) -> set[int]:
    """Whom the entries of the log are for."""
    with read_transaction(node.engine) as connection:
        return set(connection.execute(select(CHANGELOG.change_log.c.audience)).scalars())


def end_if_done(node: NodeStore) -> bool:
    """What the node's keeper does."""
    recovery = node.storage.recovery
    with write_transaction(node.engine) as connection:
        if not recovery.standing(connection).is_done:
            return False
        recovery.end(connection)
    recovery.ended()
    return True


def test_a_lost_village_gets_all_its_rows_back(region: Region) -> None:
    """Residents, identifiers, records, versions, tombstones; then it amends where it left off."""
    tree = fill(region)
    lost = held(tree[VILLAGE])
    lost = {key: row for key, row in lost.items() if row.home_node == VILLAGE}
    village = region.another(VILLAGE)
    recover(village)

    drain(tree[TOWNSHIP], village, lanes=ALL, seed=True, bytes_max=900)

    got = held(village)
    assert got.pop(BY_LETTER).author_node == OTHER_COUNTY
    assert got == lost
    assert village.storage.quarantined() == 0
    assert end_if_done(village)
    resident = next(key[1] for key in sorted(lost) if key[0] == "residents")
    before = lost["residents", resident].version.number
    village.storage.put_bundle(
        village.caller(), bundle("after-1", person("", "新名", resident_id=resident))
    )
    assert held(village)["residents", resident].version.number == before + 1
    drain(village, tree[TOWNSHIP])
    assert held(tree[TOWNSHIP])["residents", resident].values["name"] == "新名"


def test_nothing_given_back_goes_up_again(region: Region) -> None:
    """The parent has what came from it and is sent none; readers inside see it."""
    tree = fill(region)
    village = region.another(VILLAGE)
    recover(village)
    drain(tree[TOWNSHIP], village, lanes=ALL, seed=True)

    assert drain(village, tree[TOWNSHIP]) == []
    assert Audience.BELOW.value in audiences(village)
    changes = village.storage.columnar_changes(0, 10_000)
    assert len(changes.rows["residents"]) == 6


def test_a_lost_township_passes_on_what_it_gets_back(region: Region) -> None:
    """What it wrote for a village that never had it goes down from its parent's copy."""
    tree = fill(region)
    township = tree[TOWNSHIP]
    resident = next(
        row.row_id
        for row in held(township).values()
        if row.table == "residents" and row.home_node == VILLAGE
    )
    put = township.storage.put_bundle(township.caller(), bundle("late-1", observation(resident)))
    region.ship(township, tree[COUNTY])
    fresh = region.another(TOWNSHIP)
    recover(fresh)

    drain(tree[COUNTY], fresh, lanes=ALL, seed=True)
    for child in (VILLAGE, VILLAGE_2):
        drain(tree[child], fresh, lanes=ALL, seed=True)

    assert end_if_done(fresh)
    assert held(fresh) == held(township)
    back = region.another(VILLAGE)
    drain(fresh, back)
    assert ("observations", put.record_ids[0]) in held(back)
    assert fresh.storage.quarantined() == 0


def test_children_give_back_what_their_parent_wrote(region: Region) -> None:
    """The root has nobody above it; what it wrote for a county's residents lies at the county."""
    tree = fill(region)
    city, county = tree[CITY], tree[COUNTY]
    written = change(row=5, resident=5, author=CITY, home=COUNTY)
    from_city = log_entry(written, sequence=3, origin=CITY)
    send(county, CITY, PeerRole.PARENT, from_city)
    fresh = region.another(CITY)
    recover(fresh)

    drain(county, fresh, lanes=ALL, seed=True)
    assert not end_if_done(fresh)
    drain(tree[OTHER_COUNTY], fresh, lanes=ALL, seed=True)

    assert end_if_done(fresh)
    got = held(fresh)
    assert got.pop(("observations", written.row_id)) == held(county)["observations", written.row_id]
    assert got == held(city)
    assert fresh.storage.quarantined() == 0


def test_a_restored_village_gets_only_what_it_lost_again(region: Region) -> None:
    """Its log and its parent's go on from the backup; its own rows come beside them."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    first = village.storage.put_bundle(village.caller(), bundle("old-1", person()))
    drain(village, township)
    restored = region.another(VILLAGE)
    for entry in village.entries():
        send(restored, VILLAGE_2, PeerRole.CHILD, lane=entry.lane)
    lost = village.storage.put_bundle(
        village.caller(), bundle("lost-1", observation(first.resident_ids[0]))
    )
    drain(village, township)
    written = township.storage.put_bundle(
        township.caller(), bundle("above-1", observation(first.resident_ids[0]))
    )
    drain(township, restored)
    recover(restored)

    gone = drain(township, restored, lanes=ALL, seed=True)

    assert held(restored).keys() >= {
        ("observations", lost.record_ids[0]),
        ("observations", written.record_ids[0]),
        ("residents", first.resident_ids[0]),
    }
    assert all(part.scanned_to <= township.durable_head() for part in gone)
    assert end_if_done(restored) is True


@pytest.mark.parametrize("what", ["resident", "record", "retraction"])
def test_a_recovering_node_writes_new_rows_and_amends_none(region: Region, what: str) -> None:
    """No version of a row that it lost is ever used twice; not even for an id it does not know."""
    village = region.node(VILLAGE)
    put = village.storage.put_bundle(village.caller(), bundle("before-1", person()))
    [resident] = put.resident_ids
    seen = village.storage.put_bundle(village.caller(), bundle("seen-1", observation(resident)))
    recover(village)
    unknown = "00000000-0000-7000-8000-00000000000f"
    rows: dict[str, NewResident | NewRecord] = {
        "resident": person("", resident_id=resident),
        "record": observation(resident, record_id=unknown),
        "retraction": observation(resident, record_id=seen.record_ids[0]),
    }

    with pytest.raises(RecoveringError) as refused:
        village.storage.put_bundle(village.caller(), bundle("amend-1", rows[what]))

    assert refused.value.code == "RECOVERING"
    assert "recover --status" in refused.value.hint
    fresh = village.storage.put_bundle(village.caller(), bundle("new-1", observation(resident)))
    assert fresh.acknowledged == 1


def test_a_later_life_writes_an_id_that_it_does_not_know_above_all_former_versions(
    region: Region,
) -> None:
    """What was written for a home elsewhere does not come back; who amends it has its id still."""
    village = region.node(VILLAGE)
    put = village.storage.put_bundle(village.caller(), bundle("home-1", person()))
    [resident] = put.resident_ids
    lost = "00000000-0000-7000-8000-00000000000f"
    first = village.storage.put_bundle(
        village.caller(), bundle("away-1", observation(resident, 120.0, record_id=lost))
    )
    assert first.record_ids == (lost,)
    before = held(village)["observations", lost].version
    village.store_epoch = 2
    storage = village.open_storage_again()
    t = REPLICATED["observations"]
    with village.engine.begin() as connection:
        connection.execute(t.delete().where(t.c.row_id == lost))
    storage.put_bundle(
        village.caller(), bundle("again-1", observation(resident, 121.0, record_id=lost))
    )
    assert before == Version(1, 1) < held(village)["observations", lost].version


def test_a_recovering_node_asks_lane_by_lane(region: Region) -> None:
    """Its Hello names what it still lacks; a death in the midst of a snapshot changes nothing."""
    tree = fill(region)
    village = region.another(VILLAGE)
    recover(village)

    def features() -> tuple[str, ...]:
        with read_transaction(village.engine) as connection:
            return village.storage.recovery.features(connection, TOWNSHIP)

    assert features() == (RECOVERING, *(seed_feature(lane) for lane in Lane))
    drain(tree[TOWNSHIP], village, lanes=(Lane.IDENTITY,), seed=True)
    bulk = parts(tree[TOWNSHIP], village, Lane.BULK, seed=True, bytes_max=300)
    take(tree[TOWNSHIP], village, Lane.BULK, next(bulk))
    village.storage = village.open_storage_again()
    with read_transaction(village.engine) as connection:
        village.storage.recovery.load(connection)
    assert seed_feature(Lane.BULK) in features()
    assert seed_feature(Lane.IDENTITY) not in features()
    drain(tree[TOWNSHIP], village, lanes=(Lane.CONTROL, Lane.CARE, Lane.BULK), seed=True)

    assert features() == (RECOVERING,)
    assert end_if_done(village)
    assert features() == ()


def test_a_node_that_recovers_itself_puts_its_neighbours_off(region: Region) -> None:
    """What it lacks they would lack: each is served once all its other neighbours served it."""
    tree = fill(region)
    township = tree[TOWNSHIP]
    recover(township)

    def answer(role: PeerRole, peer: NodeId) -> str:
        return township.storage.outgoing_part(
            peer, role, Lane.BULK, 0, 1000, position=SEED
        ).position

    assert answer(PeerRole.CHILD, VILLAGE) == ""
    assert answer(PeerRole.PARENT, COUNTY) == ""


def test_a_whole_node_takes_nothing_of_its_own_from_others(region: Region) -> None:
    """The rules are relaxed for a recovering node alone, and for rows without a number alone."""
    tree = fill(region)
    mine = change(row=9, resident=9, author=VILLAGE, home=VILLAGE, version=(1, 9))
    returned = log_entry(mine, sequence=0, origin=VILLAGE)
    send(tree[VILLAGE], TOWNSHIP, PeerRole.PARENT, returned)
    assert tree[VILLAGE].storage.quarantined() == 1
    recover(tree[VILLAGE])
    numbered = log_entry(
        change(row=10, resident=9, author=VILLAGE, home=VILLAGE), sequence=4000, origin=VILLAGE
    )
    send(tree[VILLAGE], TOWNSHIP, PeerRole.PARENT, numbered)
    assert tree[VILLAGE].storage.quarantined() == 2
    send(tree[VILLAGE], TOWNSHIP, PeerRole.PARENT, returned)
    assert ("observations", mine.row_id) in held(tree[VILLAGE])


def test_a_neighbour_that_was_given_up_is_not_waited_for(region: Region) -> None:
    """In this life of the store; a later recovery asks it again."""
    village = region.node(VILLAGE)
    recover(village)
    assert not end_if_done(village)
    with write_transaction(village.engine) as connection:
        village.storage.recovery.give_up(connection, [TOWNSHIP])
        standing = village.storage.recovery.standing(connection)
    assert (standing.without, standing.is_done) == ((TOWNSHIP,), True)
    assert end_if_done(village)
    with read_transaction(village.engine) as connection:
        assert StoreState(CHANGELOG).load(connection)["recovering"] == "0"


def test_no_mark_speaks_for_a_home_that_is_recovered(region: Region) -> None:
    """Freshness of its own home comes back with the end."""
    village = region.node(VILLAGE)
    assert VILLAGE in village.storage.marks()
    recover(village)
    assert VILLAGE not in village.storage.marks()


def test_pruned_logs_give_back_as_well(region: Region) -> None:
    """The parent's log is gone: its tables give everything."""
    tree = fill(region)
    prune_all(tree[TOWNSHIP])
    village = region.another(VILLAGE)
    recover(village)
    drain(tree[TOWNSHIP], village, lanes=ALL, seed=True)
    assert held(village).keys() - {BY_LETTER} == held(tree[VILLAGE]).keys()
