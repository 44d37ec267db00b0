"""A damaged cell in the middle of a move: nothing is done by halves, all of it once mended."""

from __future__ import annotations

from sqlalchemy import select, update

from node.storage.tables import REPLICATED
from replication.core.residence import KnownHome
from tests.contracts.residence.region import (
    ABOVE,
    COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_3,
    MovingNode,
    MovingRegion,
)
from tests.contracts.residence.test_moves import settle

RESIDENTS = REPLICATED["residents"]


def damage(node: MovingNode, resident_id: str) -> bytes:
    """Flip a bit of his name; what stood there."""
    his = RESIDENTS.c.row_id == resident_id
    sealed = bytes(node.read(lambda c: c.execute(select(RESIDENTS.c.name).where(his)).scalar_one()))
    mend(node, resident_id, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    return sealed


def mend(node: MovingNode, resident_id: str, sealed: bytes) -> None:
    """Put his name back."""
    his = RESIDENTS.c.row_id == resident_id
    node.write(lambda c: c.execute(update(RESIDENTS).where(his).values(name=sealed)))


def retry(region: MovingRegion, node: MovingNode) -> None:
    """What the quarantine's task does, six hours later."""
    region.clock.ms += 6 * 3_600_000
    for item_id in node.storage.desk.due(region.clock.ms, 100):
        node.storage.desk.retry(item_id)


def test_an_old_home_that_cannot_read_him_has_not_begun(region: MovingRegion) -> None:
    """Neither grant nor move is noted; once the row is mended, it ships as if nothing had been."""
    resident_id = settle(region)
    old, new = region.node(VILLAGE), region.node(VILLAGE_3)
    sealed = damage(old, resident_id)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    assert old.read(lambda c: old.residence.homes.of_resident(c, resident_id)) == []
    assert old.read(lambda c: old.residence.moves.of_resident(c, resident_id)) == []
    assert old.home(resident_id) == (VILLAGE, 1)
    retry(region, old)
    assert old.waiting() == 1
    mend(old, resident_id, sealed)
    retry(region, old)
    region.flow()
    assert new.home(resident_id) == (VILLAGE_3, 2)
    assert old.rows(resident_id, "residents") == []
    assert {node.state(resident_id) for node in region.nodes(VILLAGE, VILLAGE_3)} == {"settled"}
    assert all(node.waiting() == 0 for node in region.nodes(*ABOVE))


def test_a_move_that_went_on_without_him_is_caught_up_with(region: MovingRegion) -> None:
    """The township shipped in his place: the new home's word came before the old one could act."""
    resident_id = settle(region)
    old, new, township = region.node(VILLAGE), region.node(VILLAGE_3), region.node(TOWNSHIP)
    sealed = damage(old, resident_id)
    region.node(COUNTY).grant(resident_id, VILLAGE_3)
    region.flow()
    region.clock.ms += 3_600_000
    region.flow()
    assert new.home(resident_id) == (VILLAGE_3, 2)
    assert township.count(resident_id) == 0
    assert old.waiting() > 0
    mend(old, resident_id, sealed)
    for _ in range(2):
        retry(region, old)
        region.flow()
    known = old.read(lambda c: old.residence.known(c, resident_id))
    assert known == KnownHome(VILLAGE_3, 2)
    assert old.rows(resident_id, "residents") == []
    assert all(node.waiting() == 0 for node in region.nodes(*ABOVE))
