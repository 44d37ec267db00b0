"""Two real nodes find who was registered twice, each for itself, through a kill of both."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

import protos.fenhe.care.v1.care_pb2 as care
from hierarchy_config import NodeId
from node.matching.model import PairState, key_of
from node.storage.tables import MATCHING
from tests.services.people import Person
from tests.services.region import Region, nodes
from tests.services.stores import opened
from tests.services.waiting import until

TOWNSHIP, VILLAGE = NODES = nodes("141002104", "141002104200")


def register(region: Region, number: int) -> tuple[str, str]:
    """Somebody with his number, and again without it; the pair that he is."""
    person, again = Person(number, VILLAGE), Person(number + 9_000, VILLAGE)
    other = person.message()
    other.resident_id, other.phone = again.resident_id, again.phone
    del other.identifiers[:]
    residents = [person.message(), other]
    request = care.PutBundleRequest(request_id=f"registered-twice-{number}", residents=residents)
    region.put(VILLAGE, request)
    return key_of(person.resident_id, again.resident_id)


def waiting(region: Region, node: NodeId) -> dict[tuple[str, str], int]:
    """Pairs that wait at a node, with when they were found."""
    with opened(region.place, node) as store:
        pairs = store.connection.execute(select(MATCHING.pairs)).all()
    return {
        (each.first_id, each.second_id): each.found_at
        for each in pairs
        if each.state == PairState.WAITING
    }


def test_two_nodes_find_who_was_registered_twice(tmp_path: Path) -> None:
    """The village, and the township that holds its residents in full; nothing is found anew."""
    with Region(tmp_path / "region", NODES, matching=True) as region:
        region.start()
        region.linked(VILLAGE)
        first = register(region, 1)
        for node in NODES:
            until(f"{node} has found it", lambda node=node: first in waiting(region, node))  # type: ignore[misc]
        before = [waiting(region, node) for node in NODES]

        for node in NODES:
            region.fleet.kill(node)
        region.start()
        second = register(region, 7_777)

        for node, held in zip(NODES, before, strict=True):
            until(f"{node} has found it", lambda node=node: second in waiting(region, node))  # type: ignore[misc]
            assert waiting(region, node).items() >= held.items()
            assert waiting(region, node).keys() == {first, second}
