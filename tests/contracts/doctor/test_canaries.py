"""Canaries on each database: planted once, seen by nobody, found where they must not be."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert, select

from node.cache import CachedAnswer, InProcessCache
from node.doctor.canaries import Canaries, Sighting, marks_in
from node.records.canaries import BEYOND, MARK, START, is_canary, mint_canary
from node.storage.tables import REPLICATED
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    stored_files,
)

THREE = b"\x0a\x0b\x0c"


def canaries(node: NodeStore, cache: InProcessCache | None = None) -> Canaries:
    """As the node's own room has them, without a columnar replica."""
    return Canaries(
        node.storage,
        cache or InProcessCache(0),
        lambda _low, _high: {},
        node.tree.subtree(node.node_id),
        lambda count: THREE[:count],
    )


def places(seen: Sighting) -> set[tuple[str, str]]:
    """Where strays are, and of which home."""
    return {(each.place, each.home) for each in seen.strays}


def copied(of: NodeStore, to: NodeStore) -> None:
    """A leak: rows of one node in another's tables, as a wrong copy would leave them."""
    with of.engine.connect() as here, to.engine.begin() as there:
        for t in REPLICATED.values():
            for row in here.execute(select(t)).mappings().all():
                there.execute(insert(t).values(**row))


def test_is_planted_once(village: NodeStore) -> None:
    """Asking again gives the same one; a restarted node knows it."""
    mine = canaries(village)
    assert mine.own() is None
    first, planted = mine.plant(village.caller())
    assert planted
    assert is_canary(first)
    assert canaries(village).plant(village.caller()) == (first, False)


def test_is_seen_by_nobody(village: NodeStore) -> None:
    """No read, no count and no question finds it, by any key."""
    before = village.storage.counts()
    made, _ = canaries(village).plant(village.caller())
    caller, storage = village.caller(), village.storage

    assert storage.resident(caller, made) is None
    assert storage.find_resident(caller, "local", f"{MARK} {made[-6:]}") is None
    assert storage.timeline(caller, made).records == ()
    [record_id] = [c.row_id for c in village.changes() if c.table == "encounters"]
    assert storage.record(caller, record_id) is None
    assert storage.residents_by_home(caller) == {}
    assert storage.counts() == before
    changes = storage.columnar_changes(0, 1000)
    assert (changes.rows, changes.deleted) == ({}, {})
    assert storage.columnar_rows("residents", "", 100).rows == {"residents": ()}


def test_goes_up_in_full_and_no_further(region: Region) -> None:
    """Township and county hold it; the city, which gets people without names, gets none of it."""
    village = region.node(VILLAGE)
    canaries(village).plant(village.caller())
    region.ship_up(VILLAGE, TOWNSHIP, COUNTY, CITY)

    for code in (VILLAGE, TOWNSHIP, COUNTY):
        seen = canaries(region.node(code)).look({})
        assert (seen.strays, seen.at_home) == ([], 1), code
    city = region.node(CITY)
    assert city.changes() == []
    assert canaries(city).look({}).at_home == 0


def test_is_found_among_the_rows_of_a_sibling(region: Region) -> None:
    """A copy that went the wrong way shows, with the home that it is of."""
    village, sibling = region.node(VILLAGE), region.node(VILLAGE_2)
    canaries(village).plant(village.caller())
    copied(village, sibling)

    seen = canaries(sibling).look({})
    assert places(seen) == {("rows", VILLAGE)}
    assert {each.detail for each in seen.strays} == {"residents", "identifiers", "encounters"}


def test_is_found_in_the_log(village: NodeStore) -> None:
    """Even where the rows are gone: here a node that may hold nothing of that home."""
    canaries(village).plant(village.caller())
    with village.engine.begin() as connection:
        for t in REPLICATED.values():
            connection.execute(t.delete())
    nobody = Canaries(
        village.storage, InProcessCache(0), lambda _low, _high: {}, frozenset(), lambda n: THREE[:n]
    )
    assert places(nobody.look({})) == {("log", VILLAGE)}


def test_is_found_in_the_cache_and_the_columnar_replica(village: NodeStore) -> None:
    """Nothing ever puts one there, not even the node's own."""
    made = mint_canary(VILLAGE, THREE)
    cache = InProcessCache(1 << 20)
    cache.start_over(0)
    assert cache.put({made: CachedAnswer(VILLAGE, VILLAGE, b"?")}, 0)
    asked: list[tuple[str, str]] = []

    def columnar(low: str, high: str) -> dict[str, tuple[str, ...]]:
        asked.append((low, high))
        return {"conditions": (made,)}

    here = village.tree.subtree(village.node_id)
    seen = Canaries(village.storage, cache, columnar, here, lambda n: THREE[:n]).look({})
    assert places(seen) == {("cache", VILLAGE), ("columnar", VILLAGE)}
    assert asked == [(START, BEYOND)]


def test_its_mark_is_nowhere_in_clear(village: NodeStore) -> None:
    """Name, phone, address, number and department are sealed in every file of the database."""
    canaries(village).plant(village.caller())
    for path in stored_files(village):
        assert MARK.encode() not in path.read_bytes(), path


def test_a_clear_mark_in_a_file_is_found(village: NodeStore, tmp_path: Path) -> None:
    """In any file but the keys; a file without one is none."""
    folder = tmp_path / "data"
    (folder / "keys").mkdir(parents=True)
    (folder / "keys" / "node.key").write_text(MARK)
    (folder / "empty").touch()
    (folder / "sound.log").write_bytes(b"x" * (1 << 20))
    (folder / "torn.log").write_bytes(b"\xff" * 5000 + MARK.encode() + b"tail")
    seen = canaries(village).look({"data": folder})
    assert [each.detail for each in seen.strays] == ["data: torn.log"]
    assert marks_in(folder) == (3, ["torn.log"])


@pytest.mark.parametrize("first", [True, False])
def test_a_look_finds_nothing_where_nothing_is_wrong(village: NodeStore, first: bool) -> None:
    """No false alarm, with and without a canary of its own."""
    if first:
        canaries(village).plant(village.caller())
    assert canaries(village).look({}).strays == []
