"""A grant that comes after the hierarchy has changed is judged under the one it was made in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hierarchy_config.hierarchy import Hierarchy
from node.region.store import EpochStore
from node.residence.errors import GrantEarlyError, GrantInvalidError
from node.residence.former import BELIEVED_MS, FormerHierarchies
from node.residence.homes import SignedGrant
from node.residence.papers import GRANT, grant_in, grant_out, statement_of
from replication.core.model import Lane
from replication.core.residence import Grant
from tests.contracts.residence.region import (
    CITY,
    COUNTY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_3,
    MovingNode,
    MovingRegion,
    moving_hierarchy,
)
from tests.contracts.residence.test_moves import NUMBER
from tests.contracts.storage.region import person


def _changed() -> Hierarchy:
    """The township of the old home lies in the other county by now."""
    before = moving_hierarchy()
    moved = replace(before.nodes[TOWNSHIP], parent=OTHER_COUNTY)
    return Hierarchy("linfen", 2, {**before.nodes, TOWNSHIP: moved})


def _granted(region: MovingRegion, resident_id: str, region_epoch: int) -> SignedGrant:
    """By the county, which was above both homes, for the village that it is above still."""
    grant = Grant(resident_id, 2, VILLAGE_3, VILLAGE, COUNTY, region.clock.ms, region_epoch)
    statement = statement_of(grant)
    signature, chain = region.node(COUNTY).residence._seal.sign(statement)  # noqa: SLF001
    return SignedGrant(grant, statement, signature, chain)


@pytest.fixture
def old_home(region: MovingRegion) -> MovingNode:
    """The old home in the changed hierarchy; a resident of it is registered as `register-1`."""
    region.tree = _changed()
    node = region.node(VILLAGE)
    node.former[1] = moving_hierarchy()
    return node


def _register(node: MovingNode) -> str:
    (resident_id,) = node.put("register-1", person(NUMBER)).resident_ids
    return str(resident_id)


def test_a_grant_from_before_the_change_is_believed(
    region: MovingRegion, old_home: MovingNode
) -> None:
    """Though the granter is not above this node any more: it fences, and knows the new home."""
    resident_id = _register(old_home)
    signed = grant_in(grant_out(_granted(region, resident_id, 1)))
    assert old_home.write(lambda c: old_home.residence.learn(c, signed))
    assert old_home.home(resident_id) == (VILLAGE_3, 2)
    assert old_home.state(resident_id) == "shipping"


@pytest.mark.parametrize("region_epoch", [0, 2])
def test_a_former_ancestor_grants_nothing_after_the_change(
    region: MovingRegion, old_home: MovingNode, region_epoch: int
) -> None:
    """Nor does it if it does not say when."""
    resident_id = _register(old_home)
    signed = _granted(region, resident_id, region_epoch)
    with pytest.raises(GrantInvalidError):
        old_home.write(lambda c: old_home.residence.learn(c, signed))
    assert old_home.home(resident_id) == (VILLAGE, 1)


def test_an_epoch_that_is_past_belief_is_judged_under_the_one_in_force(
    region: MovingRegion, old_home: MovingNode
) -> None:
    """The same grant, when the former hierarchy is not given any more."""
    resident_id = _register(old_home)
    old_home.former.clear()
    signed = _granted(region, resident_id, 1)
    with pytest.raises(GrantInvalidError):
        old_home.write(lambda c: old_home.residence.learn(c, signed))


def test_a_grant_of_a_later_epoch_waits_for_it(region: MovingRegion, old_home: MovingNode) -> None:
    """It is refused for now, by a code that has the author send it again."""
    resident_id = _register(old_home)
    signed = _granted(region, resident_id, 3)
    with pytest.raises(GrantEarlyError):
        old_home.write(lambda c: old_home.residence.learn(c, signed))
    new_home, county = region.node(VILLAGE_3), region.node(COUNTY)
    letter = county.write(
        lambda c: county.post.send(
            c,
            to=VILLAGE_3,
            kind=GRANT,
            body=grant_out(signed),
            lane=Lane.CONTROL,
            open_letter=True,
        )
    )
    region.flow()
    assert new_home.state(resident_id) == ""
    kept = county.read(lambda c: county.post.outbox.get(c, letter))
    assert (kept.parcel.state.value, kept.parcel.code) == ("sent", "GRANT_EARLY")


def test_what_was_in_force_is_believed_for_thirty_days(region: MovingRegion) -> None:
    """What was only offered never was in force; after the time an epoch is past."""
    city = region.node(CITY)
    now_ms = region.clock.ms
    epochs = EpochStore(city.storage.context.transactions, lambda: now_ms)
    epochs.settle(moving_hierarchy(), lambda _: frozenset())
    epochs.settle(_changed(), lambda _: frozenset())

    def former(later_ms: int, epoch: int) -> Hierarchy | None:
        reads = FormerHierarchies(lambda: now_ms + later_ms)
        found: Hierarchy | None = city.read(lambda c: reads(c, epoch))
        return found

    believed = former(BELIEVED_MS, 1)
    assert believed is not None
    assert believed.parent(TOWNSHIP) == COUNTY
    assert former(BELIEVED_MS + 1, 1) is None
    assert former(0, 2) is None
    assert former(0, 7) is None


def test_of_an_epoch_that_is_past_the_first_one_that_is_believed_counts(
    region: MovingRegion,
) -> None:
    """An epoch elsewhere came between: who was above both homes when it ended is believed still."""
    city = region.node(CITY)
    now_ms = [region.clock.ms]
    epochs = EpochStore(city.storage.context.transactions, lambda: now_ms[0])
    epochs.settle(moving_hierarchy(), lambda _: frozenset())
    epochs.settle(moving_hierarchy(epoch=2), lambda _: frozenset())
    now_ms[0] += BELIEVED_MS + 1
    epochs.settle(replace(_changed(), epoch=3), lambda _: frozenset())
    reads = FormerHierarchies(lambda: now_ms[0])
    found = city.read(lambda c: reads(c, 1))
    assert (found.epoch, found.parent(TOWNSHIP)) == (2, COUNTY)
