"""A root that was put back from a backup: what it signed since is taken back, and none other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hierarchy_config import Hierarchy, NodeId, load_region, region_text
from node.region.coordinator import Coordinator, Step, Wish
from node.region.errors import RegionBlockedError, RegionNotHeldError, RegionRollbackError
from node.region.jobs import Jobs
from node.region.keeper import EPOCHS, Keeper
from node.region.store import EpochState
from replication.core.model import Hello, Request
from tests.unit.node.region_place import Place, laid_out, moved, switch, take
from tests.unit.security.region import CITY, COUNTY, HIERARCHY, OTHER_COUNTY, SIBLING, VILLAGE


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Every node's keys, certificates and region file."""
    with laid_out(tmp_path) as made:
        yield made


@dataclass
class Wire:
    """The root's links: questions go to the keepers of the nodes named, at any depth."""

    keepers: dict[NodeId, Keeper]
    made_up: dict[tuple[NodeId, str], bytes] = field(default_factory=dict)

    @property
    def states(self) -> Mapping[NodeId, Any]:
        return {
            node: SimpleNamespace(peer=node, role="child", connected=True)
            for node in HIERARCHY.children(CITY)
            if node in self.keepers or any(node == each for each, _ in self.made_up)
        }

    async def ask(self, to: NodeId, method: str, body: bytes, *, remaining_ms: int) -> bytes:
        if (to, method) in self.made_up:
            return self.made_up[to, method]
        request = Request(1, (), method, remaining_ms, body=body)
        return await self.keepers[to].handlers[method](CITY, request)


def linked_root(place: Place, wire: Wire) -> Keeper:
    """The root's keeper on these links."""
    context = place.context(CITY)
    return Keeper(replace(context, hub=cast(Any, wire)))


def apply(keeper: Keeper, text: str, **more: Any) -> list[Step]:
    """Apply at the root; the switch that follows is waited for."""
    coordinator = Coordinator(keeper._c, keeper, Jobs(keeper._c))  # noqa: SLF001

    async def run() -> list[Step]:
        try:
            wish = Wish("operator", "", **more)
            return [step async for step in coordinator.apply(text, wish)]
        finally:
            while keeper._tasks:  # noqa: SLF001 - waits instead of sleeping
                await asyncio.gather(*keeper._tasks)  # noqa: SLF001

    return asyncio.run(run())


def other_threshold(tree: Hierarchy = HIERARCHY) -> Hierarchy:
    """The next epoch with a change that moves and closes nobody."""
    return replace(
        tree, epoch=tree.epoch + 1, thresholds=replace(tree.thresholds, cell_count_min=77)
    )


def holding_keeper(place: Place, node: NodeId, tree: Hierarchy, *, in_force: bool) -> Keeper:
    """A node that was told the decision for a hierarchy before the root was put back."""
    context = place.context(node)
    offer = place.offer(tree)
    take(Keeper(context), (offer, place.decision(offer)))
    if not in_force:
        return Keeper(context)
    context.epochs.settle(tree, lambda _: frozenset())
    return Keeper(replace(context, base=replace(context.base, hierarchy=tree)))


def test_another_content_for_an_epoch_in_force_is_refused(place: Place) -> None:
    """The same content again is not: then nothing is decided twice."""
    keeper = holding_keeper(place, VILLAGE, moved(), in_force=True)

    other = take(keeper, (place.offer(other_threshold()), None))
    same = take(keeper, (place.offer(moved()), None))

    assert "REGION_NOT_NEXT" in other.refused[VILLAGE]
    assert other.have == {}
    assert same.have == {VILLAGE: 2}


@pytest.mark.parametrize("given_up", [(), (COUNTY,)])
def test_the_root_takes_what_it_has_decided_and_lost(
    place: Place, given_up: tuple[NodeId, ...]
) -> None:
    """Instead of signing another content, whoever is given up; then it is in force at the root."""
    wire = Wire({COUNTY: holding_keeper(place, COUNTY, moved(), in_force=True)})
    root = linked_root(place, wire)
    everybody_else = tuple(set(HIERARCHY.nodes) - {CITY, COUNTY})

    with pytest.raises(RegionBlockedError, match=f"{COUNTY} holds what this root signed"):
        apply(root, region_text(other_threshold()), without=(*everybody_else, *given_up))

    assert place.restarts == [CITY]
    assert load_region(place.folders[CITY] / "region.yaml") == moved()


def test_a_child_that_is_ahead_tells_the_root_when_its_link_comes_up(place: Place) -> None:
    """Nobody has to apply anything."""
    wire = Wire({COUNTY: holding_keeper(place, COUNTY, moved(), in_force=True)})
    root = linked_root(place, wire)

    async def meet() -> None:
        root.met(COUNTY, Hello(COUNTY, 1, 1, 1, 1, "x", 0, config_epoch=2))
        while root._tasks:  # noqa: SLF001 - waits instead of sleeping
            await asyncio.gather(*root._tasks)  # noqa: SLF001

    asyncio.run(meet())

    assert place.restarts == [CITY]
    assert load_region(place.folders[CITY] / "region.yaml") == moved()


def test_what_no_root_signed_is_not_learnt(place: Place) -> None:
    """A child that says it is ahead, and tells epochs of its own making or none at all."""
    forged = place.offer(moved(), by=COUNTY)
    told: list[Any] = [
        {"epochs": [{"offer": forged, "decision": forged}]},
        {"epochs": [{"offer": place.offer(moved()), "decision": None}]},
        {"epochs": [5]},
        {"epochs": 5},
        {},
    ]
    for said in told:
        wire = Wire({}, {(COUNTY, EPOCHS): keeper_body(said)})
        root = linked_root(place, wire)

        assert asyncio.run(root.learn(COUNTY)) is False
        assert [row.state for row in root._c.epochs.all()] == [EpochState.ACTIVE]  # noqa: SLF001


def keeper_body(said: Any) -> bytes:
    """An answer as it travels."""
    return json.dumps(said).encode()


def test_a_node_told_of_its_closing_before_all_others_gives_the_root_its_decision_back(
    place: Place,
) -> None:
    """It is drained first, as it was to be: nothing is in force by its word."""
    left = {node: entry for node, entry in HIERARCHY.nodes.items() if node != OTHER_COUNTY}
    left[COUNTY] = replace(left[COUNTY], succeeds=OTHER_COUNTY)
    closing = replace(HIERARCHY, epoch=2, nodes=left)
    wire = Wire({OTHER_COUNTY: holding_keeper(place, OTHER_COUNTY, closing, in_force=False)})
    root = linked_root(place, wire)

    assert asyncio.run(root.learn(OTHER_COUNTY)) is True

    row = root._c.epochs.get(2)  # noqa: SLF001
    assert row is not None
    assert row.decision is None
    assert row.progress["draining"]
    assert row.hierarchy == closing
    switch(root)
    assert place.restarts == []
    refused = take(root, (place.offer(other_threshold()), None))
    assert "REGION_NOT_NEXT" in refused.refused[CITY]


def test_a_root_that_recovers_decides_nothing(place: Place) -> None:
    """Its neighbours have not told it yet what they hold."""
    place.recovery.active = True
    root = linked_root(place, Wire({}))
    without = tuple(set(HIERARCHY.nodes) - {CITY})

    with pytest.raises(RegionBlockedError, match="recovers"):
        apply(root, region_text(other_threshold()), without=without)


def test_a_root_that_recovers_takes_nothing_back(place: Place) -> None:
    """The epoch that it would go back to may not be the last but one."""
    place.recovery.active = True
    context = place.context(CITY)
    context.epochs.settle(other_threshold(), lambda _: frozenset())
    root = Keeper(replace(context, base=replace(context.base, hierarchy=other_threshold())))
    coordinator = Coordinator(root._c, root, Jobs(root._c))  # noqa: SLF001

    async def run() -> list[Step]:
        return [step async for step in coordinator.rollback(Wish("operator", ""))]

    with pytest.raises(RegionRollbackError, match="recovers"):
        asyncio.run(run())


def test_answers_of_another_kind_neither_count_nor_break(place: Place) -> None:
    """A county may say anything; the root says who does not hold it."""
    offer = keeper_body(
        {"have": {COUNTY: "2", SIBLING: True, VILLAGE: 1e400}, "held": {COUNTY: 5}, "refused": 7}
    )
    wire = Wire({}, {(COUNTY, "region.offer"): offer, (COUNTY, "region.look"): offer})
    root = linked_root(place, wire)

    with pytest.raises(RegionNotHeldError, match=COUNTY):
        apply(root, region_text(other_threshold()))
    assert asyncio.run(root.look(100)) == {"nodes": {CITY: 1}}
