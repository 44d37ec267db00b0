"""A city, which cannot say whose row it holds, follows those who move below it."""

from __future__ import annotations

from sqlalchemy import RowMapping, select

from node.storage.tables import REPLICATED
from replication.core.residence import KnownHome
from tests.contracts.residence.region import (
    CITY,
    COUNTY,
    FAR_VILLAGE,
    TOWNSHIP_2,
    VILLAGE_3,
    MovingNode,
    MovingRegion,
)
from tests.contracts.residence.test_moves import settle


def test_who_moved_inside_his_county_and_then_left_it_is_known_to_the_city(
    region: MovingRegion,
) -> None:
    """His rows there have no name, and it has heard neither of the first move nor of its home."""
    resident_id = settle(region)
    city, county, township = region.nodes(CITY, COUNTY, TOWNSHIP_2)
    county.grant(resident_id, VILLAGE_3)
    county.work_off()
    region.ship(county, township)
    region.ship(township, region.node(VILLAGE_3))
    assert region.node(VILLAGE_3).state(resident_id) == "granted"
    city.grant(resident_id, FAR_VILLAGE, present=KnownHome(VILLAGE_3, 2))
    region.flow()
    assert region.node(FAR_VILLAGE).home(resident_id) == (FAR_VILLAGE, 3)
    held = {(row["home_node"], row["home_epoch"]) for row in unnamed(city)}
    assert (held, city.waiting()) == ({(FAR_VILLAGE, 3)}, 0)


def unnamed(node: MovingNode) -> list[RowMapping]:
    """The observations of a node that has them without a name."""
    t = REPLICATED["observations"]
    rows: list[RowMapping] = node.read(lambda c: list(c.execute(select(t)).mappings()))
    assert {row["form"] for row in rows} == {"deidentified"}
    return rows
