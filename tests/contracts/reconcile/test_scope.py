"""What a neighbour may ask in a comparison, and what he may not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from node.reconcile import messages as m
from node.reconcile.ends import METHODS
from node.reconcile.errors import ReconcileScopeError
from node.reconcile.model import Cause, Current, Direction, Open, Slice, key_of
from node.storage.tables import REPLICATED
from replication.changelog import read_transaction, write_transaction
from replication.channel import AskRefusedError
from replication.core.model import Request, RowChange, Version
from replication.errors import RemoteProtocolError
from tests.contracts.reconcile.links import compare, desk_of, settled, side_of
from tests.contracts.storage.region import (
    COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    bundle,
    change,
    observation,
    person,
)


def request(word: str, said: dict[str, object]) -> Request:
    """A question as it arrives."""
    return Request(1, (), f"reconcile.{word}", 1000, b"", m.packed(said))


def of_slice(home: str, direction: Direction = Direction.UP) -> list[str]:
    """A slice of observations."""
    return m.slice_out(Slice(direction, "observations", home))


def settled_region(region: Region) -> tuple[NodeStore, NodeStore, str]:
    """A village with a resident and a record, both at its township; the record's id."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    made = village.storage.put_bundle(village.caller(), bundle("one", person()))
    row = observation(made.resident_ids[0])
    record = village.storage.put_bundle(village.caller(), bundle("two", row)).record_ids[0]
    settled(region, village, township)
    return village, township, record


@pytest.mark.parametrize("word", ["digests", "pages", "current", "settle", "give", "take", "end"])
async def test_a_child_asks_about_its_own_subtree_only(region: Region, word: str) -> None:
    """A sibling's home, the parent's own, a home that is nowhere."""
    village, township, _ = settled_region(region)
    desk = desk_of(region, township, village)
    for home in (VILLAGE_2, TOWNSHIP, "nowhere"):
        with pytest.raises(ReconcileScopeError):
            await desk.answer(VILLAGE, request(word, {"slice": of_slice(home)}))


async def test_a_child_hears_only_of_its_own_homes(region: Region) -> None:
    """The list of slices holds no sibling's home."""
    village, township, _ = settled_region(region)
    other = region.node(VILLAGE_2)
    other.storage.put_bundle(other.caller(), bundle("other", person("142601199001011234")))
    settled(region, other, township)
    desk = desk_of(region, township, village)
    answer = await desk.answer(VILLAGE, request("slices", {"tables": ["residents"]}))
    homes = {m.slice_in(each).home for each in m.unpacked(answer)["slices"]}
    assert homes == {VILLAGE}


async def test_only_the_owner_judges_and_only_a_parent_gives_back(region: Region) -> None:
    """Asked at the wrong end, or the wrong way, it is refused."""
    village, township, _ = settled_region(region)
    up, down = of_slice(VILLAGE), of_slice(VILLAGE, Direction.DOWN)
    at_parent, at_child = desk_of(region, township, village), desk_of(region, village, township)
    for desk, peer, word, part in (
        (at_parent, VILLAGE, "settle", up),
        (at_parent, VILLAGE, "give", down),
        (at_parent, VILLAGE, "take", down),
        (at_child, TOWNSHIP, "settle", down),
        (at_child, TOWNSHIP, "give", up),
    ):
        with pytest.raises(ReconcileScopeError):
            await desk.answer(peer, request(word, {"slice": part}))


async def test_rows_that_replication_would_refuse_are_refused(region: Region) -> None:
    """Another home, an author above, an older version, a table of another slice."""
    village, township, record = settled_region(region)
    desk = desk_of(region, township, village)
    t = REPLICATED["observations"]
    with read_transaction(township.engine) as connection:
        before = connection.execute(select(t)).mappings().all()
        resident = connection.execute(select(t.c.resident_id)).scalar_one()
    number = int(resident[-4:], 16)
    rows = [
        change(row=1, home=VILLAGE_2),
        change(row=2, author=TOWNSHIP),
        change(row=3, author=COUNTY),
        change("conditions", row=4),
        change("residents", resident=number % 1000),
    ]
    said: dict[str, object] = {"slice": of_slice(VILLAGE), "rows": m.rows_out(rows)}
    answer = await desk.answer(VILLAGE, request("take", said))
    taken = m.taken_in(m.unpacked(answer)["taken"])
    assert [each.cause for each in taken] == [Cause.REFUSED] * len(rows)
    with read_transaction(township.engine) as connection:
        assert connection.execute(select(t)).mappings().all() == before
    assert before[0]["row_id"] == record


async def test_a_row_of_a_sibling_is_not_replaced(region: Region) -> None:
    """Named by its id, with its very version, by a child that is not its own; nor a parent's."""
    _, township, record = settled_region(region)
    other = region.node(VILLAGE_2)
    made = other.storage.put_bundle(other.caller(), bundle("other", person("142601199001011234")))
    settled(region, other, township)
    above = township.storage.put_bundle(
        township.caller(), bundle("above", observation(made.resident_ids[0], 1.0))
    ).record_ids[0]
    desk = desk_of(region, township, other)
    resident = made.resident_ids[0]
    theft = [
        replace(
            change(home=VILLAGE_2, author=VILLAGE_2, values={"value": 6.0, "code": "8480-6"}),
            row_id=row_id,
            resident_id=resident,
        )
        for row_id in (record, above)
    ]
    before = contents_of(township)
    said: dict[str, object] = {"slice": of_slice(VILLAGE_2), "rows": m.rows_out(theft)}
    answer = await desk.answer(VILLAGE_2, request("take", said))
    taken = m.taken_in(m.unpacked(answer)["taken"])
    assert [each.cause for each in taken] == [Cause.REFUSED] * 2
    assert contents_of(township) == before


async def test_no_version_is_ever_lowered(region: Region) -> None:
    """An older version of a row that is held is not written."""
    village, township, record = settled_region(region)
    row = observation(_resident(village), 77.0, record_id=record)
    village.storage.put_bundle(village.caller(), bundle("amended", row))
    settled(region, village, township)
    desk = desk_of(region, village, township)
    part = Slice(Direction.UP, "observations", VILLAGE)
    said: dict[str, object] = {
        "slice": m.slice_out(part),
        "delivered": m.opened_out(Open({4: 1000})),
        "keys": m.keys_out([key_of(record)]),
        "rows": m.current_out([Current(bytes(16), Version(1, 1))]),
        "repair": True,
    }
    answer = await desk.answer(TOWNSHIP, request("settle", said))
    (verdict,) = m.verdicts_in(m.unpacked(answer))
    assert (verdict.cause, verdict.row and verdict.row.version) == (Cause.STALE, Version(1, 2))
    old: dict[str, object] = {
        "slice": m.slice_out(part),
        "rows": m.rows_out([_older(verdict.row)]),
    }
    answer = await desk_of(region, township, village).answer(VILLAGE, request("take", old))
    (taken,) = m.taken_in(m.unpacked(answer)["taken"])
    assert taken.cause is Cause.OWNER_BEHIND


async def test_an_owner_takes_only_what_it_asked_for(region: Region) -> None:
    """A sound row is not replaced by the parent's say-so; one that was lost is, and once."""
    village, township, record = settled_region(region)
    desk = desk_of(region, village, township)
    part = Slice(Direction.UP, "observations", VILLAGE)
    key = key_of(record)
    above = side_of(region, township, village)
    row = above.give(part, [key])[0].row
    assert row is not None
    forged = replace(row, values={**row.values, "value": 1.0})

    async def ask(word: str, **said: object) -> dict[str, Any]:
        said = {"slice": m.slice_out(part), **said}
        return m.unpacked(await desk.answer(TOWNSHIP, request(word, said)))

    async def take(change: RowChange) -> Cause | None:
        return m.taken_in((await ask("take", rows=m.rows_out([change])))["taken"])[0].cause

    async def settle() -> None:
        theirs = above.current(part, [key])
        said = await ask(
            "settle",
            delivered=m.opened_out(Open({4: 1000})),
            keys=m.keys_out([key]),
            rows=m.current_out(theirs),
            repair=True,
        )
        assert [each.wants for each in m.verdicts_in(said)] == [is_lost]

    is_lost = False
    before = contents_of(village)
    assert await take(forged) is Cause.REFUSED
    await settle()
    assert await take(forged) is Cause.REFUSED
    assert contents_of(village) == before
    is_lost = True
    _lose(village)
    await settle()
    assert await take(row) is None
    assert await take(forged) is Cause.REFUSED
    assert [each["row_id"] for each in contents_of(village)] == [record]


async def test_of_who_has_moved_away_a_child_hears_no_content(region: Region) -> None:
    """It knows the record's id; what the record holds at his new home is not its business."""
    village, township, record = settled_region(region)
    part, key = Slice(Direction.UP, "observations", VILLAGE), key_of(record)
    side = side_of(region, township, village)
    (before,) = side.current(part, [key])
    t = REPLICATED["observations"]
    for value in (1, 2):
        with write_transaction(township.engine) as connection:
            moved = {"home_node": VILLAGE_2, "home_epoch": 2, "schema_version": value}
            connection.execute(update(t).where(t.c.row_id == record).values(moved))
        (after,) = side.current(part, [key])
        assert (after.digest, after.home_epoch) == (bytes(16), 2)
    assert before.digest not in (None, bytes(16))


async def test_nonsense_ends_the_question(region: Region) -> None:
    """Bytes that are no message, a message of another shape, a list of another size."""
    village, township, _ = settled_region(region)
    desk = desk_of(region, township, village)
    whole = {"slice": of_slice(VILLAGE)}
    for body in (
        b"nonsense",
        m.packed({}),
        m.packed({"slice": ["sideways", "x", "y"]}),
        m.packed({**whole, "spans": "AAAA", "fresh": True}),
        m.packed({**whole, "spans": 7, "fresh": True}),
    ):
        for method in METHODS:
            if method.endswith(("opened", "end")):
                continue
            with pytest.raises((RemoteProtocolError, ReconcileScopeError)):
                await desk.answer(VILLAGE, Request(1, (), method, 1000, b"", body))


async def test_a_fault_of_the_other_end_stands_in_the_report(region: Region) -> None:
    """A release without this room, or a link that breaks: told, and nothing is claimed."""
    village, township, _ = settled_region(region)
    report = await compare(region, village, township, repair=False)
    assert report.equal
    refused = AskRefusedError("UNKNOWN_METHOD", "not known here")
    report = await compare(region, village, township, repair=False, refuse=refused)
    assert (report.fault, report.equal) == ("UNKNOWN_METHOD", False)


def contents_of(node: NodeStore) -> list[dict[str, Any]]:
    """Its observations as they are stored."""
    t = REPLICATED["observations"]
    with read_transaction(node.engine) as connection:
        return [dict(row) for row in connection.execute(select(t).order_by(t.c.row_id)).mappings()]


def _lose(node: NodeStore) -> None:
    """Its observations, and what its log said of them."""
    head = node.durable_head()
    with write_transaction(node.engine) as connection:
        connection.execute(delete(REPLICATED["observations"]))
        node.log.prune(connection, head)


def _resident(node: NodeStore) -> str:
    with read_transaction(node.engine) as connection:
        return str(connection.execute(select(REPLICATED["residents"].c.row_id)).scalar_one())


def _older(row: RowChange | None) -> RowChange:
    assert row is not None
    return replace(row, version=Version(1, 1))
