"""Two villages, their township and their county, with three residents, and a steward's desk."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from node.merging.desk import MergeDesk, Wanted
from node.merging.fold import Group
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

__all__ = [
    "REASON",
    "A",
    "B",
    "C",
    "desk_of",
    "fill",
    "group_at",
    "number_of",
    "spread",
    "timeline",
    "wanted",
]

A, B, C = (f"00000000-0000-7000-9000-00000000000{number}" for number in (1, 2, 3))
REASON = "the same number on both cards"


def fill(region: Region) -> None:
    """A and C live in one village, B in the other; the county holds all three."""
    for node_id, people in ((VILLAGE, (A, C)), (VILLAGE_2, (B,))):
        node = region.node(node_id)
        for number, each in enumerate(people):
            rows = (person(resident_id=each, number=number_of(each)), observation(each, 100.0))
            node.storage.put_bundle(node.caller(), bundle(f"r-{number}", *rows))
        region.ship_up(node_id, TOWNSHIP, COUNTY, CITY)


def number_of(resident_id: str) -> str:
    """His identity number."""
    return {A: "14260119800101001X", B: "142601198001010036", C: "142601198001010052"}[resident_id]


def desk_of(node: NodeStore) -> MergeDesk:
    """The desk of a node."""
    return MergeDesk(node.storage.context, lambda: None)


_REQUESTS = itertools.count()


def wanted(survivor: str = A, merged: str = B, **more: Any) -> Wanted:
    """A new request over two residents."""
    return replace(Wanted(f"request-{next(_REQUESTS)}", survivor, merged, REASON), **more)


def spread(region: Region) -> None:
    """What the township wrote goes up and down."""
    township = region.node(TOWNSHIP)
    for other in (COUNTY, VILLAGE, VILLAGE_2):
        region.ship(township, region.node(other))


def group_at(node: NodeStore, resident_id: str) -> Group:
    """Under which ids a node knows somebody."""
    return desk_of(node).look(node.caller(), resident_id)[0]


def timeline(node: NodeStore, resident_id: str) -> list[str]:
    """Under which ids the records stand that a node shows of somebody."""
    page = node.storage.timeline(node.caller(), resident_id)
    return sorted(record.resident_id for record in page.records)
