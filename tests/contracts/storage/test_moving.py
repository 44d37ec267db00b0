"""Rows of homes that come to another branch: logged again, deleted, in steps that may repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import select

from hierarchy_config import HierarchyChange, NodeId
from node.region.errors import RegionNotNextError
from node.region.store import EpochState, EpochStore
from node.storage.moving import START, Position
from node.storage.tables import CHANGELOG, REPLICATED
from replication.changelog import LinkState, read_transaction, write_transaction
from replication.core.codec import decode_changes
from replication.core.config import PeerRole
from replication.core.model import Audience, Cursor, Lane, StreamEpoch
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
    count,
    hierarchy,
    observation,
    person,
)

ALL = frozenset({TOWNSHIP, VILLAGE, VILLAGE_2})


def finish(step: Callable[[Position], Position | None]) -> int:
    """Take every step, each of them twice, as after a death before the place was noted."""
    after: Position | None = START
    taken = 0
    while after is not None:
        step(after)
        after = step(after)
        taken += 1
    return taken


def settle(node: NodeStore, home: NodeStore, *numbers: str) -> list[str]:
    """Register people at a village; their ids."""
    made: list[str] = []
    for number in numbers:
        put = home.storage.put_bundle(home.caller(), bundle(f"person-{number}", person(number)))
        made.extend(put.resident_ids)
        home.storage.put_bundle(
            home.caller(), bundle(f"record-{number}", observation(put.resident_ids[0]))
        )
    return made


def ids(node: NodeStore, table: str) -> set[str]:
    """Row ids held."""
    t = REPLICATED[table]
    with read_transaction(node.engine) as connection:
        return set(connection.execute(select(t.c.row_id)).scalars())


NUMBERS = ("14260119800101001X", "142601198001010028", "142601198001010036")


def moved_region(region: Region) -> tuple[NodeStore, NodeStore, list[str]]:
    """A village's people and records, up to the county, which wrote one of them itself."""
    village, county = region.node(VILLAGE), region.node(COUNTY)
    residents = settle(village, village, *NUMBERS)
    region.ship_up(VILLAGE, TOWNSHIP, COUNTY)
    county.storage.put_bundle(
        county.caller(), bundle("by-the-county", observation(residents[0], 150))
    )
    return village, county, residents


def test_purging_leaves_what_the_node_wrote_and_what_stays(region: Region) -> None:
    """In bounded steps, each of which may be taken again."""
    _, county, residents = moved_region(region)
    own = county.storage.put_bundle(
        county.caller(), bundle("of-the-county", person("142601198001010044"))
    )
    moving = county.storage.moving
    assert moving.counts(ALL).residents == 3

    steps = finish(lambda after: moving.purge(ALL, after, 2))

    assert steps >= len(REPLICATED)
    assert ids(county, "residents") == set(own.resident_ids)
    assert count(county, "observations") == 1
    assert county.storage.resident(county.caller(), residents[0]) is None
    assert moving.counts(ALL).residents == 0


def test_a_purge_is_told_to_readers_here_and_to_no_peer(region: Region) -> None:
    """The columnar replica drops the rows; neither neighbour is sent a word."""
    _, county, residents = moved_region(region)
    region.ship_up(COUNTY, CITY)
    before = county.durable_head()

    finish(lambda after: county.storage.moving.purge(ALL, after, 100))

    head = county.durable_head()
    changes = county.storage.columnar_changes(before, 1000, up_to=head)
    assert set(residents) <= set(changes.deleted["residents"])
    assert len(changes.deleted["observations"]) == 3
    for peer, role in ((CITY, PeerRole.PARENT), (TOWNSHIP, PeerRole.CHILD)):
        for lane in Lane:
            assert county.storage.outgoing(peer, role, lane, before, 1 << 20)[0] == ()
    told = [entry for entry in county.entries() if entry.sequence > before]
    assert {entry.audience for entry in told} == {Audience.HERE}
    assert all(not row.values for entry in told for row in decode_changes(entry.codec, entry.rows))


def test_the_log_forgets_homes_that_left(region: Region) -> None:
    """Entries from below go; what the node itself wrote stays, and the log can still be read."""
    _, county, _ = moved_region(region)
    head = county.durable_head()

    while county.storage.moving.purge_log(ALL, 2):
        pass

    entries = county.entries()
    assert {entry.origin_node for entry in entries} == {COUNTY}
    assert county.durable_head() == head


def test_rows_logged_again_reach_a_parent_that_never_had_them(region: Region) -> None:
    """Those that a former ancestor wrote climb under this node's name, at their own version."""
    _, county, residents = moved_region(region)
    region.ship(county, region.node(TOWNSHIP))
    township = region.node(TOWNSHIP)
    before = township.durable_head()

    finish(lambda after: township.storage.moving.log_again(ALL, {COUNTY}, after, 2))

    again = [entry for entry in township.entries() if entry.sequence > before]
    assert {entry.origin_node for entry in again} == {TOWNSHIP}
    rows = [row for entry in again for row in decode_changes(entry.codec, entry.rows)]
    assert {(row.author_node, row.resident_id) for row in rows} == {(COUNTY, residents[0])}
    assert {row.values["value"] for row in rows} == {150}


def epochs_of(node: NodeStore) -> EpochStore:
    """The node's table of epochs."""
    return EpochStore(node.storage.transactions, lambda: 1_795_000_000_000)


def test_the_table_follows_the_region_file(region: Region) -> None:
    """Once an epoch; streams with lost neighbours begin anew, others go on."""
    node = region.node(TOWNSHIP)
    old = hierarchy()
    entry = replace(old.entry(TOWNSHIP), parent=OTHER_COUNTY)
    new = replace(old, epoch=2, nodes={**old.nodes, TOWNSHIP: entry})
    epochs = epochs_of(node)
    links = LinkState(CHANGELOG)
    cursor = Cursor(Lane.BULK, StreamEpoch(1, 1), 3, 30, b"x" * 32)
    with write_transaction(node.engine) as connection:
        for peer in (COUNTY, VILLAGE):
            links.save_inbound(connection, peer, cursor)
            links.save_outbound(connection, peer, cursor)

    def lost(before: object) -> frozenset[NodeId]:
        assert before == old
        return HierarchyChange(old, new).neighbours_lost(TOWNSHIP)

    assert epochs.settle(old, lambda _: frozenset()) is True
    assert epochs.settle(old, lambda _: frozenset()) is False
    assert epochs.settle(new, lost) is True
    assert epochs.settle(new, lost) is False

    with read_transaction(node.engine) as connection:
        assert links.load_inbound(connection, COUNTY) == {}
        assert links.load_outbound(connection, COUNTY) == {}
        assert links.load_inbound(connection, VILLAGE) == {Lane.BULK: cursor}
    first, second = epochs.all()
    assert (first.state, second.state) == (EpochState.SUPERSEDED, EpochState.ACTIVE)
    assert second.progress == {"from": 1}
    assert second.hierarchy.parent(TOWNSHIP) == OTHER_COUNTY


def test_facts_of_an_epoch_are_added_up(region: Region) -> None:
    """And the first decision and the first order stand."""
    epochs = epochs_of(region.node(VILLAGE))
    epochs.settle(hierarchy(), lambda _: frozenset())

    epochs.note(1, {"a": 1})
    epochs.note(1, {"b": [2, "x"]})
    [held] = epochs.all()
    with pytest.raises(RegionNotNextError):
        epochs.keep_decision(1, b"forged", "another content")
    assert epochs.keep_decision(1, b"first", held.text) == b"first"
    assert epochs.keep_decision(1, b"second", held.text) == b"first"
    epochs.keep_purge_order(1, b"first")
    epochs.keep_purge_order(1, b"second")

    (row,) = epochs.all()
    assert row.progress == {"a": 1, "b": [2, "x"]}
    assert (row.decision, row.purge_order) == (b"first", b"first")
