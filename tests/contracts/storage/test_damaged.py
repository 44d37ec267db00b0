"""A row that does not open is set aside and said; what stands behind it goes on; it is found."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
from sqlalchemy import func, select, update

from hierarchy_config import NodeId
from node.links.hub import LinkHub
from node.security.caller import CallerKind
from node.storage.moving import START, Position
from node.storage.snapshot_place import Kind
from node.storage.specs import TABLES
from node.storage.stored import look_again
from node.storage.tables import CHANGELOG, REPLICATED
from node.watch.tending import QuarantineKeeper
from replication.changelog import (
    LinkState,
    LogPrunedError,
    LogTail,
    read_transaction,
    write_transaction,
)
from replication.core.codec import decode_changes
from replication.core.config import PeerRole
from replication.core.model import Cursor, Lane, StreamEpoch
from tests.contracts.reconcile.links import compare
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    TOWNSHIP,
    VILLAGE,
    NodeStore,
    Region,
    bundle,
    change,
    log_entry,
    observation,
    person,
    send,
)
from tests.contracts.storage.seeding import drain, prune_all, recover

NUMBERS = [f"14260119{number:010d}" for number in range(6)]


def fill(node: NodeStore) -> list[str]:
    """Residents with a record each; their ids."""
    people = [person(number, phone="139") for number in NUMBERS]
    residents = node.storage.put_bundle(node.caller(), bundle("people", *people)).resident_ids
    seen = [observation(each) for each in residents]
    node.storage.put_bundle(node.caller(), bundle("seen", *seen))
    return list(residents)


def flip(node: NodeStore, row_id: str, table: str = "residents", cell: str = "name") -> None:
    """One bit of a sealed cell; again: as it was."""
    t = REPLICATED[table]
    with write_transaction(node.engine) as connection:
        sealed = connection.execute(select(t.c[cell]).where(t.c.row_id == row_id)).scalar_one()
        data = bytearray(sealed)
        data[-1] ^= 1
        connection.execute(update(t).where(t.c.row_id == row_id).values({cell: bytes(data)}))


def held(node: NodeStore, table: str = "residents") -> set[str]:
    """Row ids."""
    with read_transaction(node.engine) as connection:
        return set(connection.execute(select(REPLICATED[table].c.row_id)).scalars())


def confirmed(node: NodeStore, peer: NodeId) -> None:
    """The peer's receipts cover all that is logged here."""
    head = node.durable_head()
    with write_transaction(node.engine) as connection:
        for lane in Lane:
            cursor = Cursor(lane, StreamEpoch(1, 1), 1, head)
            LinkState(CHANGELOG).save_outbound(connection, peer, cursor)


async def test_a_snapshot_leaves_the_row_out_and_the_comparison_brings_it(region: Region) -> None:
    """All others arrive; it is an alarm's figure; it is reported, and mended once it opens."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    residents = fill(village)
    prune_all(village)
    bad = sorted(residents)[2]
    flip(village, bad)

    gone = drain(village, township, bytes_max=700)

    assert gone[-1].position == ""
    assert held(township) == set(residents) - {bad}
    assert len(held(township, "observations")) == len(residents)
    assert dict(village.storage.context.aside.counts()) == {"residents": 1}
    for one, other in ((village, TOWNSHIP), (township, VILLAGE)):
        confirmed(one, other)
    found = await compare(region, village, township, repair=True)
    assert found.causes["OWNER_BROKEN"] == 1
    assert [(part.table, row_id) for part, row_id, _ in found.undecided] == [("residents", bad)]

    look_again(village.storage.context)
    assert dict(village.storage.context.aside.counts()) == {"residents": 1}
    flip(village, bad)
    look_again(village.storage.context)
    assert dict(village.storage.context.aside.counts()) == {}
    mended = await compare(region, village, township, repair=True)
    assert (mended.causes["MISSING"], mended.undecided_count) == (1, 0)
    assert held(township) == set(residents)
    assert (await compare(region, village, township, repair=False)).differing == 0


async def test_a_peer_that_recovers_gets_everything_else(region: Region) -> None:
    """What the parent holds of its child's, without the row that does not open there."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    residents = fill(village)
    region.ship_up(VILLAGE, TOWNSHIP)
    bad = min(residents)
    flip(township, bad)
    lost = region.another(VILLAGE)
    recover(lost)

    parts = drain(township, lost, seed=True)

    assert any(Kind.RECOVERY.value in part.position for part in parts)
    assert parts[-1].position == ""
    assert held(lost) == set(residents) - {bad}
    assert dict(township.storage.context.aside.counts()) == {"residents": 1}


def test_rows_of_a_moved_home_are_logged_again_without_it(region: Region) -> None:
    """The steps come to their end, and the rows behind it are in the log."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    residents = fill(village)
    region.ship_up(VILLAGE, TOWNSHIP)
    bad = sorted(residents)[1]
    flip(township, bad)
    before, moving = township.durable_head(), township.storage.moving

    after: Position | None = START
    while after is not None:
        after = moving.log_again({VILLAGE}, {VILLAGE}, after, 2)

    township.durable_head()
    logged = {
        row.row_id
        for entry in township.entries()
        if entry.sequence > before
        for row in decode_changes(entry.codec, entry.rows)
        if row.table == "residents"
    }
    assert logged == set(residents) - {bad}
    assert dict(township.storage.context.aside.counts()) == {"residents": 1}


def test_a_closed_homes_rows_are_given_without_it(region: Region) -> None:
    """Its successor gets all that can be read."""
    village, county = region.node(VILLAGE), region.node(COUNTY)
    residents = fill(village)
    region.ship_up(VILLAGE, TOWNSHIP, COUNTY)
    bad = sorted(residents)[3]
    flip(county, bad)

    given: set[str] = set()
    after: Position | None = START
    while after is not None:
        rows, after = county.storage.moving.of_home(VILLAGE, after, 4)
        given |= {row.row_id for row in rows if row.table == "residents"}

    assert given == set(residents) - {bad}
    assert dict(county.storage.context.aside.counts()) == {"residents": 1}


def _unknown_table(node: NodeStore, number: int) -> None:
    """A row in a table that the node's release does not have yet."""
    older = {name: spec for name, spec in TABLES.items() if name != "observations"}
    with pytest.MonkeyPatch.context() as release:
        release.setattr("node.storage.apply.TABLES", older)
        row = change(row=number, resident=number)
        send(node, VILLAGE, PeerRole.CHILD, log_entry(row, sequence=number))


def test_an_item_of_the_quarantine_that_does_not_open_holds_no_other_back(region: Region) -> None:
    """It waits for its next turn; the other leaves."""
    township = region.node(TOWNSHIP)
    for number in (1, 2):
        _unknown_table(township, number)
    q = CHANGELOG.quarantine
    with write_transaction(township.engine) as connection:
        first = connection.execute(select(func.min(q.c.item_id))).scalar_one()
        data = connection.execute(select(q.c.payload).where(q.c.item_id == first)).scalar_one()
        bad = bytearray(data)
        bad[-1] ^= 1
        connection.execute(update(q).where(q.c.item_id == first).values(payload=bytes(bad)))
    keeper = QuarantineKeeper(
        TOWNSHIP,
        region.tree,
        township.storage,
        cast(LinkHub, None),
        threads=ThreadPoolExecutor(1),
        clock=township.clock,
        notify=lambda: None,
    )
    township.clock.ms += 120_000

    assert keeper.tend() == 1

    assert len(held(township, "observations")) == 1
    assert dict(township.storage.context.aside.counts()) == {"quarantine": 1}
    assert township.storage.desk.due(township.clock.ms, 10) == []
    assert keeper.tend() == 0
    operator = township.caller(CallerKind.OPERATOR)
    township.storage.desk.skip(operator, first, "cannot be read")
    assert keeper.tend() == 0
    assert dict(township.storage.context.aside.counts()) == {}


def _flip_entry(node: NodeStore, sequence: int) -> None:
    """One bit of an entry of the log."""
    log = CHANGELOG.change_log
    with write_transaction(node.engine) as connection:
        which = log.c.sequence == sequence
        data = bytearray(connection.execute(select(log.c.payload).where(which)).scalar_one())
        data[-1] ^= 1
        connection.execute(update(log).where(which).values(payload=bytes(data)))


def test_an_entry_of_the_log_that_does_not_open_is_replaced_by_the_tables(region: Region) -> None:
    """The parent gets every row by a snapshot; what comes later comes from the log again."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    residents = fill(village)
    village.durable_head()
    sequences = {entry.lane: entry.sequence for entry in village.entries()}
    _flip_entry(village, sequences[Lane.BULK])
    later = village.storage.put_bundle(village.caller(), bundle("more", observation(residents[0])))
    village.log._tail = LogTail()  # noqa: SLF001 - as after a start
    with pytest.raises(LogPrunedError):
        village.storage.columnar_changes(0, 1000, up_to=village.durable_head())

    parts = drain(village, township)

    assert held(township) == set(residents)
    assert held(township, "observations") == held(village, "observations")
    assert later.record_ids[0] in held(township, "observations")
    assert any(part.position for part in parts)
    village.storage.put_bundle(village.caller(), bundle("last", observation(residents[1])))
    assert not any(part.position for part in drain(village, township))
    assert held(township, "observations") == held(village, "observations")
    _flip_entry(village, sequences[Lane.IDENTITY])
    with pytest.raises(LogPrunedError):
        village.storage.changed_residents(0, up_to=village.durable_head())


def test_an_identity_number_that_does_not_open_does_not_stop_the_index(region: Region) -> None:
    """Everybody's entry climbs, his without the key to it; he is set aside until it opens."""
    village, county, city = region.node(VILLAGE), region.node(COUNTY), region.node(CITY)
    residents = fill(village)
    region.ship_up(VILLAGE, TOWNSHIP, COUNTY)
    bad = min(held(county, "identifiers"))
    flip(county, bad, "identifiers", "value")

    region.ship_up(COUNTY, CITY)

    t = REPLICATED["resident_index"]
    with read_transaction(city.engine) as connection:
        keys = connection.execute(select(t.c.identity_index)).scalars().all()
    assert (len(keys), keys.count(None)) == (len(residents), 1)
    assert dict(county.storage.context.aside.counts()) == {"identifiers": 1}
    flip(county, bad, "identifiers", "value")
    look_again(county.storage.context)
    assert dict(county.storage.context.aside.counts()) == {}
