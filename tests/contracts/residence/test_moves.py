"""A move, from the grant to the last row let go: within a township, between townships, counties."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from hierarchy_config.model import NodeId
from node.residence.errors import (
    MoveNotNeededError,
    ResidentInTransferError,
    ResidentMovedError,
)
from node.storage.tables import CHANGELOG, REPLICATED, RESIDENCE
from replication.changelog import read_transaction
from replication.core.model import Audience, Form
from tests.contracts.residence.region import (
    ABOVE,
    CITY,
    COUNTY,
    FAR_TOWNSHIP,
    FAR_VILLAGE,
    OTHER_COUNTY,
    TOWNSHIP,
    TOWNSHIP_2,
    VILLAGE,
    VILLAGE_2,
    VILLAGE_3,
    MovingRegion,
)
from tests.contracts.storage.region import observation, person

NUMBER = "14260119800101001X"


def settle(region: MovingRegion, home: NodeId = VILLAGE, records: int = 3) -> str:
    """A resident with records, copied up as policy says."""
    node = region.node(home)
    (resident_id,) = node.put("register-1", person(NUMBER)).resident_ids
    node.put("visit-0001", *(observation(resident_id, 100.0 + n) for n in range(records)))
    region.flow()
    return resident_id


@pytest.mark.parametrize(
    ("to", "granter"),
    [(VILLAGE_2, TOWNSHIP), (VILLAGE_3, COUNTY), (FAR_VILLAGE, CITY), (TOWNSHIP, TOWNSHIP)],
)
def test_a_resident_moves_with_his_history(
    region: MovingRegion, to: NodeId, granter: NodeId
) -> None:
    """The new home and the nodes above it hold him, those that are not above it nothing."""
    resident_id = settle(region)
    region.node(granter).grant(resident_id, to)
    region.flow()
    new = region.node(to)
    assert new.home(resident_id) == (to, 2)
    assert (len(new.rows(resident_id)), len(new.rows(resident_id, "identifiers"))) == (3, 1)
    (owned,) = new.rows(resident_id, "residents")
    assert (owned.author_node, owned.version_epoch, owned.version_number) == (to, 2, 1)
    assert {row.author_node for row in new.rows(resident_id)} == {VILLAGE}
    tree = region.tree
    for node in region.nodes(*ABOVE):
        above_new = node.node_id in tree.path_to_root(to)
        if node.node_id == CITY:
            assert node.home(resident_id) == (to, 2)
        elif above_new:
            assert node.home(resident_id) == (to, 2), node.node_id
            assert {row.home_node for row in node.rows(resident_id)} == {to}
            assert node.count(resident_id) == new.count(resident_id)
        elif node.node_id == VILLAGE:
            # What it authored stays, under the name of where he lives.
            assert node.rows(resident_id, "residents") == []
            assert {row.home_node for row in node.rows(resident_id)} == {to}
        else:
            assert node.count(resident_id) == 0, node.node_id
        assert node.waiting() == 0, node.node_id
    assert {node.state(resident_id) for node in region.nodes(VILLAGE, to, granter)} == {"settled"}


def test_the_city_counts_him_once_and_without_a_name(region: MovingRegion) -> None:
    """Index entry and de-identified rows follow; pseudonyms stay."""
    resident_id = settle(region)
    city = region.node(CITY)
    before = _reduced(region)
    assert {row.home_node for rows in before.values() for row in rows} == {VILLAGE}
    city.grant(resident_id, FAR_VILLAGE)
    region.flow()
    after = _reduced(region)
    assert {row.home_node for rows in after.values() for row in rows} == {FAR_VILLAGE}
    for table, rows in before.items():
        assert [row.row_id for row in rows] == [row.row_id for row in after[table]], table
    (entry,) = city.rows(resident_id, "resident_index")
    assert entry.identity_index is not None


def _reduced(region: MovingRegion) -> dict[str, list[Any]]:
    city = region.node(CITY)
    found = {}
    for name, t in REPLICATED.items():
        query = select(t).where(t.c.form != Form.FULL.value).order_by(t.c.row_id)
        with read_transaction(city.engine) as connection:
            found[name] = list(connection.execute(query).all())
    return found


def test_the_old_home_is_read_only_and_says_where_he_is(region: MovingRegion) -> None:
    """From the grant on no identity edit; afterwards a read names the new home."""
    resident_id = settle(region)
    old = region.node(VILLAGE)
    region.node(TOWNSHIP).grant(resident_id, VILLAGE_2)
    region.ship(region.node(TOWNSHIP), old)
    with pytest.raises(ResidentMovedError) as refused:
        old.put("edit-00001", person(NUMBER, resident_id=resident_id, phone="13800000000"))
    assert refused.value.home_node == VILLAGE_2
    assert refused.value.code == "RESIDENT_MOVED"
    assert VILLAGE_2 in refused.value.hint
    region.flow()
    for node in region.nodes(VILLAGE):
        assert node.storage.resident(node.caller(), resident_id) is None
        with pytest.raises(ResidentMovedError):
            node.storage.refuse_if_moved(node.caller(), resident_id)
    stranger = region.node(VILLAGE_3)
    stranger.storage.refuse_if_moved(stranger.caller(), resident_id)
    new = region.node(VILLAGE_2)
    new.storage.refuse_if_moved(new.caller(), resident_id)
    assert new.storage.resident(new.caller(), resident_id) is not None


def test_a_new_home_waits_for_the_history_before_it_says_who_he_is(region: MovingRegion) -> None:
    """Records may be written at once: care does not wait."""
    resident_id = settle(region)
    new, county = region.node(VILLAGE_3), region.node(COUNTY)
    county.grant(resident_id, VILLAGE_3)
    region.ship(county, region.node(TOWNSHIP_2))
    region.ship(region.node(TOWNSHIP_2), new)
    with pytest.raises(ResidentInTransferError):
        new.put("edit-00001", person(NUMBER, resident_id=resident_id))
    with pytest.raises(ResidentInTransferError):
        new.storage.refuse_if_moved(new.caller(), resident_id)
    (early,) = new.put("visit-early", observation(resident_id, 140.0)).record_ids
    region.flow()
    assert len(new.rows(resident_id)) == 4
    assert len(county.rows(resident_id)) == 4
    new.put("edit-00002", person(NUMBER, resident_id=resident_id, phone="13811112222"))
    region.flow()
    (owned,) = county.rows(resident_id, "residents")
    assert (owned.author_node, owned.version_epoch, owned.version_number) == (VILLAGE_3, 2, 2)
    assert early in {row.row_id for row in county.rows(resident_id)}


def test_records_written_at_the_old_home_afterwards_reach_the_new_one(
    region: MovingRegion,
) -> None:
    """They are away-from-home records from then on; amendments of the old ones too."""
    resident_id = settle(region)
    old, new = region.node(VILLAGE), region.node(FAR_VILLAGE)
    region.node(CITY).grant(resident_id, FAR_VILLAGE)
    region.flow()
    (late,) = old.put("visit-late", observation(resident_id, 150.0)).record_ids
    (first, *_) = old.rows(resident_id)
    old.put("amend-0001", observation(resident_id, 155.0, record_id=first.row_id))
    region.flow()
    held = {row.row_id: row for row in new.rows(resident_id)}
    assert late in held
    assert (held[first.row_id].value, held[first.row_id].version_number) == (155.0, 2)
    above = {row.row_id: row for row in region.node(FAR_TOWNSHIP).rows(resident_id)}
    assert above[first.row_id].value == 155.0
    assert {row.home_node for row in held.values()} == {FAR_VILLAGE}


def test_of_two_moves_at_once_one_is_granted(region: MovingRegion) -> None:
    """The other is told where he lives by then; the same asked again gets the same grant."""
    resident_id = settle(region)
    county = region.node(COUNTY)
    known = county.read(lambda c: county.residence.known(c, resident_id))
    first = county.grant(resident_id, VILLAGE_3)
    with pytest.raises(ResidentMovedError):
        county.grant(resident_id, TOWNSHIP_2, present=known)
    assert county.grant(resident_id, VILLAGE_3, present=known) == first
    assert county.grant(resident_id, VILLAGE_3) == first
    region.flow()
    with pytest.raises(MoveNotNeededError):
        region.node(VILLAGE_2).grant(settle_another(region), VILLAGE_2)


def settle_another(region: MovingRegion) -> str:
    """Somebody whose home is the second village."""
    node = region.node(VILLAGE_2)
    (resident_id,) = node.put("register-2", person("142601198001010028")).resident_ids
    return resident_id


def test_he_may_come_back(region: MovingRegion) -> None:
    """Each move is an epoch; the old home takes him as any home does."""
    resident_id = settle(region)
    county = region.node(COUNTY)
    county.grant(resident_id, VILLAGE_3)
    region.flow()
    region.node(VILLAGE_3).put("visit-there", observation(resident_id, 133.0))
    region.flow()
    county.grant(resident_id, VILLAGE)
    region.flow()
    home = region.node(VILLAGE)
    assert home.home(resident_id) == (VILLAGE, 3)
    assert len(home.rows(resident_id)) == 4
    (owned,) = home.rows(resident_id, "residents")
    assert (owned.author_node, owned.version_epoch) == (VILLAGE, 3)
    assert region.node(TOWNSHIP_2).count(resident_id) == 0
    assert len(region.node(VILLAGE_3).rows(resident_id)) == 1
    home.put("edit-00009", person(NUMBER, resident_id=resident_id, phone="13811110000"))
    region.flow()
    assert county.home(resident_id) == (VILLAGE, 3)
    assert all(node.waiting() == 0 for node in region.nodes(*ABOVE))


def test_what_a_county_wrote_of_him_moves_with_him(region: MovingRegion) -> None:
    """Its record went down to the old home; it comes up under the new one and is its own still."""
    resident_id = settle(region)
    county = region.node(COUNTY)
    (record_id,) = county.put("county-001", observation(resident_id, 170.0)).record_ids
    region.flow()
    county.grant(resident_id, VILLAGE_3)
    region.flow()
    for node in region.nodes(COUNTY, TOWNSHIP_2, VILLAGE_3):
        (row,) = [row for row in node.rows(resident_id) if row.row_id == record_id]
        assert (row.home_node, row.author_node) == (VILLAGE_3, COUNTY), node.node_id
        assert node.waiting() == 0
    county.put("county-002", observation(resident_id, 171.0, record_id=record_id))
    region.flow()
    (row,) = [r for r in region.node(VILLAGE_3).rows(resident_id) if r.row_id == record_id]
    assert (row.value, row.version_number) == (171.0, 2)
    assert all(node.waiting() == 0 for node in region.nodes(*ABOVE))


def test_readers_inside_the_old_nodes_are_told_and_no_peer_is(region: MovingRegion) -> None:
    """The columnar replicas of the old branch let go of him; their parents hear nothing of it."""
    resident_id = settle(region)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    for code in (VILLAGE, TOWNSHIP):
        node = region.node(code)
        homes: Counter[str] = Counter()
        after = 0
        while True:
            changes = node.storage.columnar_changes(after, 500)
            for row in changes.rows.get("residents", ()):
                homes[str(row["home"])] += 1
            after = changes.up_to
            if after >= changes.head:
                break
        assert VILLAGE not in homes
    log = CHANGELOG.change_log
    quiet = select(log.c.home_node).where(log.c.audience == Audience.HERE.value)
    assert region.node(TOWNSHIP).read(lambda c: c.execute(quiet).all())


def test_a_move_is_audited_wherever_it_does_something(region: MovingRegion) -> None:
    """Who let him go, who took him, who forgot him."""
    resident_id = settle(region)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    done = {
        code: {
            entry.action
            for entry in region.node(code).storage.audit_entries(limit=1000)
            if entry.resident_id == resident_id
        }
        for code in (COUNTY, TOWNSHIP, VILLAGE, VILLAGE_3)
    }
    assert {"grant", "learn"} <= done[COUNTY]
    assert {"learn", "purge"} <= done[TOWNSHIP]
    assert {"learn", "ship", "purge"} <= done[VILLAGE]
    assert {"learn", "take_over"} <= done[VILLAGE_3]


def test_a_large_history_comes_in_pieces_and_is_taken_whole(region: MovingRegion) -> None:
    """Nothing of it shows before the last piece has come."""
    node = region.node(VILLAGE)
    (resident_id,) = node.put("register-1", person(NUMBER)).resident_ids
    for n in range(4):
        rows = [observation(resident_id, float(value)) for value in range(800)]
        node.put(f"visits-{n:04d}", *rows)
    region.flow()
    region.node(TOWNSHIP).grant(resident_id, VILLAGE_2)
    region.flow()
    new = region.node(VILLAGE_2)
    letters = RESIDENCE.letters
    sent = node.read(lambda c: c.execute(select(letters.c.state)).scalars().all())
    assert len(sent) > 2
    assert set(sent) == {"confirmed"}
    assert len(new.rows(resident_id)) == 3200
    assert region.node(TOWNSHIP).home(resident_id) == (VILLAGE_2, 2)
    pieces = RESIDENCE.pieces
    assert new.read(lambda c: c.execute(select(pieces.c.number)).all()) == []


def test_a_row_that_only_a_former_ancestor_holds_is_sent_before_it_goes(
    region: MovingRegion,
) -> None:
    """Nothing is let go that the new home did not say it has."""
    resident_id = settle(region)
    township = region.node(TOWNSHIP)
    old = region.node(VILLAGE)
    (lost, *_) = old.rows(resident_id)
    # As if the old home had been put back from before it wrote this.
    t = REPLICATED["observations"]
    old.write(lambda c: c.execute(delete(t).where(t.c.row_id == lost.row_id)))
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    assert lost.row_id in {row.row_id for row in region.node(VILLAGE_3).rows(resident_id)}
    assert township.count(resident_id) == 0


def test_his_quarantine_is_closed_where_he_is_let_go(region: MovingRegion) -> None:
    """What waited under the former home waits for nobody."""
    resident_id = settle(region)
    township = region.node(TOWNSHIP)
    township.storage.context.homes.redirect = None
    region.cut.add(VILLAGE)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    q = CHANGELOG.quarantine
    waits = update(q).values(closed_as=None)
    township.write(lambda c: c.execute(waits))
    region.cut.clear()
    region.flow()
    assert township.waiting() == 0
    assert region.node(OTHER_COUNTY).count(resident_id) == 0
