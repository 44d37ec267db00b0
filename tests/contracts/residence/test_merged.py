"""Somebody who was merged moves: his halves go along, and where both are held it holds."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from hierarchy_config.model import NodeId
from node.merging.desk import MergeDesk, Wanted
from node.storage.tables import CHANGELOG
from replication.changelog import read_transaction
from tests.contracts.residence.region import (
    ABOVE,
    CITY,
    COUNTY,
    FAR_VILLAGE,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    VILLAGE_3,
    MovingNode,
    MovingRegion,
)
from tests.contracts.storage.region import person


def _causes(node: MovingNode) -> list[str]:
    with read_transaction(node.engine) as connection:
        return list(connection.execute(select(CHANGELOG.quarantine.c.cause)).scalars().all())


@pytest.mark.parametrize("author", [VILLAGE, TOWNSHIP])
@pytest.mark.parametrize(
    ("to", "granter"), [(VILLAGE_2, TOWNSHIP), (VILLAGE_3, COUNTY), (FAR_VILLAGE, CITY)]
)
def test_a_merge_holds_where_both_are_held(
    region: MovingRegion, to: NodeId, granter: NodeId, author: NodeId
) -> None:
    """Wherever it was decided, and wherever he moves; nothing of it waits in a quarantine."""
    home = region.node(VILLAGE)
    (one,) = home.put("r-1-aaaa", person("14260119800101001X")).resident_ids
    (other,) = home.put("r-2-bbbb", person("142601198001010036", name="李四")).resident_ids
    region.flow()
    at = region.node(author)
    desk = MergeDesk(at.storage.context, lambda: None)
    desk.merge(at.caller(), Wanted("m1-request", one, other, "the same number"))
    region.flow()
    region.node(granter).grant(other, to)
    region.flow()
    for node in region.nodes(*ABOVE):
        assert _causes(node) == [], node.node_id

    def group(node_id: NodeId, resident_id: str) -> tuple[frozenset[str], frozenset[str]]:
        node = region.node(node_id)
        found, _ = MergeDesk(node.storage.context, lambda: None).look(node.caller(), resident_id)
        return found.members, found.away

    both = frozenset({one, other})
    if to != FAR_VILLAGE:
        assert group(COUNTY, one) == (both, frozenset())
    assert group(VILLAGE, one) == (frozenset({one}), frozenset({other}))
    assert group(to, other) == (frozenset({other}), frozenset({one}))
