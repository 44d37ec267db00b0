"""Rows corrupted at rest in every way are found and mended, at either end, and no others."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import Connection, RowMapping, Table, delete, insert, select, update

from node.reconcile.model import Direction
from node.storage.storage import Storage
from node.storage.tables import AUDIT, REPLICATED
from replication.changelog import read_transaction, write_transaction
from replication.core.codec import decode_changes
from replication.core.model import Audience
from tests.contracts.reconcile.links import compare, settled
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    bundle,
    observation,
    person,
)

Rows = dict[tuple[str, str], tuple[object, ...]]


def fill(node: NodeStore, people: int, records: int) -> None:
    """Residents with records, and a third of the records amended."""
    for number in range(people):
        made = node.storage.put_bundle(
            node.caller(), bundle(f"p{number}", person(f"14260119{number:010d}", phone="139"))
        )
        resident = made.resident_ids[0]
        rows = [observation(resident, 100.0 + n) for n in range(records)]
        ids = node.storage.put_bundle(node.caller(), bundle(f"q{number}", *rows)).record_ids
        node.storage.put_bundle(
            node.caller(), bundle(f"r{number}", observation(resident, 99.0, record_id=ids[0]))
        )


def contents(node: NodeStore) -> Rows:
    """What a node holds, clear: seals differ each time something is written."""
    store = node.storage.context
    found: Rows = {}
    with read_transaction(node.engine) as connection:
        for name, t in REPLICATED.items():
            for row in connection.execute(select(t)).mappings():
                opened = opened_cells(store.cells, name, row)
                plain = {k: v for k, v in row.items() if not isinstance(v, bytes | memoryview)}
                found[name, row["row_id"]] = (sorted(plain.items(), key=str), opened)
    return found


def opened_cells(cells: object, name: str, row: RowMapping) -> object:
    """The sealed cells, or that one does not open."""
    from node.security.errors import SecurityError
    from node.storage.sealing import CellSealer
    from node.storage.specs import TABLES

    assert isinstance(cells, CellSealer)
    try:
        return sorted(cells.open(TABLES[name], row).items(), key=str)
    except SecurityError:
        return "broken"


@dataclass(frozen=True)
class Harm:
    """A way in which a row at rest goes wrong."""

    name: str
    table: str
    do: Callable[[Connection, Table, str], None]


def _set(**values: object) -> Callable[[Connection, Table, str], None]:
    def do(connection: Connection, t: Table, row_id: str) -> None:
        connection.execute(update(t).where(t.c.row_id == row_id).values(values))

    return do


def _gone(connection: Connection, t: Table, row_id: str) -> None:
    connection.execute(delete(t).where(t.c.row_id == row_id))


def _stale(connection: Connection, t: Table, row_id: str) -> None:
    connection.execute(
        update(t).where(t.c.row_id == row_id).values(version_epoch=0, version_number=1)
    )


def _flipped(connection: Connection, t: Table, row_id: str) -> None:
    held = connection.execute(select(t.c.name).where(t.c.row_id == row_id)).scalar_one()
    data = bytearray(held)
    data[-1] ^= 1
    connection.execute(update(t).where(t.c.row_id == row_id).values(name=bytes(data)))


HARMS = (
    Harm("a sealed cell is flipped", "residents", _flipped),
    Harm("a sealed cell is cut", "identifiers", _set(value=b"\x01short")),
    Harm("a sealed cell is emptied", "residents", _set(phone=None)),
    Harm("an open cell is changed", "observations", _set(value=250.0)),
    Harm("a code is changed", "observations", _set(code="wrong")),
    Harm("an index is changed", "identifiers", _set(value_index="0" * 64)),
    Harm("a date is moved", "observations", _set(recorded_at="1999-01-01T00:00:00.000Z")),
    Harm("it is marked deleted", "observations", _set(deleted=True)),
    Harm("it is gone", "observations", _gone),
    Harm("a resident is gone", "residents", _gone),
    Harm("it is an older version", "observations", _stale),
    Harm("its author is another", "observations", _set(author_node=VILLAGE_2)),
    Harm("its home is another", "observations", _set(home_node=VILLAGE_2)),
    Harm("its form is none", "observations", _set(form="nonsense")),
)


def harm(node: NodeStore, what: Harm, source: random.Random, spared: set[str] | None = None) -> str:
    """Do it to a row of the village's, chosen at random beside those spared; its id."""
    t = REPLICATED[what.table]
    with write_transaction(node.engine) as connection:
        ids = connection.execute(
            select(t.c.row_id).where(t.c.home_node == VILLAGE).order_by(t.c.row_id)
        ).scalars()
        chosen = source.choice([each for each in ids if each not in (spared or ())])
        what.do(connection, t, chosen)
    return str(chosen)


@pytest.mark.parametrize("at", [TOWNSHIP, VILLAGE], ids=["copy", "owner"])
async def test_every_harm_is_found_and_mended(region: Region, at: str) -> None:
    """At the copy from the owner; at the owner from its log, or from the copy held in full."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    fill(village, 12, 6)
    settled(region, village, township)
    clean = await compare(region, township, village, repair=False)
    assert (clean.differing, clean.young, clean.fault) == (0, 0, "")
    before = contents(village), contents(township)
    harmed = region.node(TOWNSHIP if at == TOWNSHIP else VILLAGE)
    source = random.Random(3)
    spared: set[str] = set()
    for what in HARMS:
        spared.add(harm(harmed, what, source, spared))
    found = await compare(region, village, township, repair=False)
    assert found.differing == len(HARMS)
    assert found.repaired == 0
    mended = await compare(region, township, village, repair=True)
    assert (mended.undecided, mended.fault) == ([], "")
    again = await compare(region, township, village, repair=True)
    assert (again.differing, again.fault) == (0, "")
    assert (contents(village), contents(township)) == before


async def test_without_the_log_a_copy_in_full_mends_the_owner(region: Region) -> None:
    """A cell that does not open, a row that is gone, one that is behind; and it says so."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    fill(village, 6, 3)
    settled(region, village, township)
    before = contents(village)
    head = village.durable_head()
    with write_transaction(village.engine) as connection:
        village.log.prune(connection, head)
    source = random.Random(5)
    for place in (0, 8, 10):
        harm(village, HARMS[place], source)
    report = await compare(region, village, township, repair=True)
    assert set(report.causes) == {"OWNER_BROKEN", "OWNER_MISSING", "OWNER_BEHIND"}
    assert (report.repaired, report.undecided_count) == (3, 0)
    assert contents(village) == before


async def test_a_reduced_copy_is_compared_as_what_it_should_be(region: Region) -> None:
    """County and city: pseudonyms and index entries equal; harm at the city is mended."""
    county, city = region.node(COUNTY), region.node(CITY)
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    fill(village, 5, 3)
    settled(region, village, township, county, city)
    clean = await compare(region, city, county, repair=False)
    assert (clean.differing, clean.fault) == (0, "")
    assert clean.rows > 20
    before = contents(city)
    source = random.Random(2)
    for name, values in (
        ("observations", {"value": 1.0}),
        ("residents", {"birth_year": 1900}),
        ("resident_index", {"identity_index": "f" * 64}),
    ):
        t = REPLICATED[name]
        with write_transaction(city.engine) as connection:
            ids = select(t.c.row_id)
            if name == "observations":
                ids = ids.where(t.c.value != 102.0)
            chosen = source.choice(sorted(connection.execute(ids).scalars()))
            connection.execute(update(t).where(t.c.row_id == chosen).values(values))
    with write_transaction(city.engine) as connection:
        t = REPLICATED["observations"]
        connection.execute(delete(t).where(t.c.value == 102.0))
    report = await compare(region, city, county, repair=True)
    assert (report.differing, report.repaired) == (8, 8)
    assert contents(city) == before


async def test_an_extra_row_of_a_reduced_copy_is_left_to_people(region: Region) -> None:
    """Nobody can make the owner's row of it, and nobody deletes it unasked."""
    county, city = region.node(COUNTY), region.node(CITY)
    fill(county, 2, 2)
    settled(region, county, city)
    t = REPLICATED["observations"]
    with write_transaction(city.engine) as connection:
        row = dict(connection.execute(select(t)).mappings().first() or {})
        row["row_id"] = "00000000-0000-8000-8000-00000000abcd"
        connection.execute(insert(t).values(row))
    before = contents(city)
    report = await compare(region, county, city, repair=True)
    assert [(row_id, cause) for _, row_id, cause in report.undecided] == [
        ("00000000-0000-8000-8000-00000000abcd", "OWNER_MISSING")
    ]
    assert contents(city) == before


async def test_rows_from_above_are_the_parents_to_judge(region: Region) -> None:
    """The township wrote for the village's resident: harm at the village is mended from there."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    fill(village, 1, 1)
    settled(region, village, township)
    with read_transaction(village.engine) as connection:
        resident = connection.execute(select(REPLICATED["residents"].c.row_id)).scalar_one()
    row = township.storage.put_bundle(
        township.caller(), bundle("above", observation(resident, 140.0))
    ).record_ids[0]
    settled(region, village, township)
    before = contents(village)
    t = REPLICATED["observations"]
    for wrong in ({"value": 1.0}, {"code": "x"}):
        with write_transaction(village.engine) as connection:
            connection.execute(update(t).where(t.c.row_id == row).values(wrong))
        report = await compare(region, village, township, repair=True)
        assert (report.causes, report.repaired) == ({"CONTENT": 1}, 1)
        assert contents(village) == before


async def test_a_child_gives_its_parent_no_rows_of_the_parents(region: Region) -> None:
    """The parent lost its own row, and its log too: it is told, and nothing is written."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    fill(village, 1, 1)
    settled(region, village, township)
    with read_transaction(village.engine) as connection:
        resident = connection.execute(select(REPLICATED["residents"].c.row_id)).scalar_one()
    row = township.storage.put_bundle(
        township.caller(), bundle("above", observation(resident, 140.0))
    ).record_ids[0]
    settled(region, village, township)
    head = township.durable_head()
    with write_transaction(township.engine) as connection:
        township.log.prune(connection, head)
        _gone(connection, REPLICATED["observations"], row)
    report = await compare(region, township, village, repair=True)
    assert [(part.direction, cause) for part, _, cause in report.undecided] == [
        (Direction.DOWN, "NOT_FROM_BELOW")
    ]


async def test_what_is_on_its_way_is_no_difference(region: Region) -> None:
    """New and amended rows without a receipt are young, and left alone."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    fill(village, 3, 2)
    settled(region, village, township)
    made = village.storage.put_bundle(
        village.caller(), bundle("late", person("142601199901011234"))
    )
    village.storage.put_bundle(
        village.caller(), bundle("later", observation(made.resident_ids[0], 1.0))
    )
    report = await compare(region, township, village, repair=True)
    assert (report.differing, report.young) == (0, 3)
    assert region.node(TOWNSHIP).storage.counts().residents == 3


async def test_siblings_are_not_touched(region: Region) -> None:
    """Another village's rows stay byte for byte what they are, harmed or not."""
    village, other = region.node(VILLAGE), region.node(VILLAGE_2)
    township = region.node(TOWNSHIP)
    fill(village, 3, 2)
    other.storage.put_bundle(other.caller(), bundle("o", person("142601199001011234")))
    settled(region, village, township)
    settled(region, other, township)
    t = REPLICATED["residents"]
    of_other = select(t).where(t.c.home_node == VILLAGE_2)
    with write_transaction(township.engine) as connection:
        connection.execute(update(t).where(t.c.home_node == VILLAGE_2).values(phone=b"broken"))
        before = connection.execute(of_other).mappings().all()
    _gone_at = harm(township, HARMS[8], random.Random(1))
    report = await compare(region, village, township, repair=True)
    assert (report.differing, report.repaired) == (1, 1)
    with read_transaction(township.engine) as connection:
        assert connection.execute(of_other).mappings().all() == before
    assert _gone_at


async def test_every_repair_is_audited_and_seen_by_readers(region: Region) -> None:
    """An audit row for each, and a log entry that travels no further."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    fill(village, 2, 2)
    settled(region, village, township)
    chosen = harm(township, replace(HARMS[3]), random.Random(1))
    head = township.durable_head()
    await compare(region, township, village, repair=True)
    with read_transaction(township.engine) as connection:
        deeds = connection.execute(select(AUDIT).where(AUDIT.c.action == "repair")).all()
        township.durable_head()
    assert [(deed.object_id, deed.purpose) for deed in deeds] == [
        (chosen, f"mended from {VILLAGE}")
    ]
    entries = [entry for entry in township.entries() if entry.sequence > head]
    assert [entry.audience for entry in entries] == [Audience.HERE]
    assert decode_changes(entries[0].codec, entries[0].rows)[0].row_id == chosen
    assert isinstance(township.storage, Storage)
