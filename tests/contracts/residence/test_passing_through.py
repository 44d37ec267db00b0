"""A home that a resident passes through before his history comes there, and has records of him."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from replication.core.residence import KnownHome
from tests.contracts.residence.region import (
    CITY,
    COUNTY,
    FAR_TOWNSHIP,
    FAR_VILLAGE,
    OTHER_COUNTY,
    TOWNSHIP_2,
    VILLAGE,
    VILLAGE_3,
    MovingNode,
    MovingRegion,
)
from tests.contracts.residence.test_moves import settle
from tests.contracts.residence.test_partitions import listed
from tests.contracts.storage.region import observation


def test_what_a_home_he_passed_through_wrote_is_not_his_history(region: MovingRegion) -> None:
    """It ships all that it holds; the next home waits for a set that says who he is."""
    resident_id = settle(region)
    through, new = region.node(VILLAGE_3), region.node(FAR_VILLAGE)
    down = region.nodes(CITY, COUNTY, TOWNSHIP_2, VILLAGE_3)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    _carry(region, down)
    written = through.put("visit-there", observation(resident_id, 144.0)).record_ids[0]
    region.node(CITY).grant(resident_id, FAR_VILLAGE, present=KnownHome(VILLAGE_3, 2))
    _carry(region, down)
    _carry(region, [*down[::-1], *region.nodes(OTHER_COUNTY, FAR_TOWNSHIP, FAR_VILLAGE)])
    assert (new.state(resident_id), new.rows(resident_id)) == ("granted", [])

    region.flow()
    assert new.home(resident_id) == (FAR_VILLAGE, 3)
    (row,) = new.rows(resident_id, "residents")
    assert (row.author_node, listed(new, resident_id)) == (FAR_VILLAGE, [])
    assert len(new.rows(resident_id)) == 4
    assert written in {each.row_id for each in new.rows(resident_id)}
    assert region.node(VILLAGE).rows(resident_id, "residents") == []


def _carry(region: MovingRegion, way: Sequence[MovingNode]) -> None:
    """What lies before each node of the way goes to the next; to nobody else."""
    for one, other in itertools.pairwise(way):
        one.work_off()
        region.ship(one, other)
