"""What a node takes of the region's configurations: only the root's, only the next, only once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hierarchy_config import Hierarchy, NodeId, load_region, region_text
from node.region.context import own_keys
from node.region.coordinator import Coordinator, Step, Wish
from node.region.errors import RegionBlockedError, RegionNotHeldError, RegionStatementError
from node.region.jobs import Jobs
from node.region.keeper import Holding, Keeper
from node.region.statements import (
    read_held,
    read_offer,
    sign_held,
    sign_purge_order,
)
from node.region.store import EpochState
from node.settings import load_settings, save_settings
from tests.unit.node.region_place import Place, laid_out, moved, switch, take
from tests.unit.security.region import (
    CITY,
    COUNTY,
    HIERARCHY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Every node's keys, certificates and region file."""
    with laid_out(tmp_path) as made:
        yield made


def test_what_the_root_signed_is_held_and_answered_with_the_nodes_own_word(place: Place) -> None:
    """The word names the node's keys, and nobody else could have given it."""
    context = place.context(VILLAGE)
    offer = place.offer(moved())

    holding = take(Keeper(context), (offer, None))

    assert holding.have == {VILLAGE: 2}
    word = read_held(holding.held[VILLAGE].encode(), place.judge())
    assert (word.node_id, word.epoch, word.keys) == (VILLAGE, 2, own_keys(context.base))
    assert [(row.epoch, row.state) for row in context.epochs.all()] == [
        (1, EpochState.ACTIVE),
        (2, EpochState.PENDING),
    ]


@pytest.mark.parametrize("forger", [COUNTY, TOWNSHIP, VILLAGE])
def test_a_configuration_of_anybody_else_is_refused(place: Place, forger: NodeId) -> None:
    """A middle node has a certificate of the region, and is not its root."""
    context = place.context(VILLAGE)

    holding = take(Keeper(context), (place.offer(moved(), by=forger), None))

    assert "REGION_STATEMENT" in holding.refused[VILLAGE]
    assert holding.have == {}
    assert len(context.epochs.all()) == 1


def test_an_altered_configuration_is_refused(place: Place) -> None:
    """One letter of the body, or a decision in place of an offer."""
    context = place.context(VILLAGE)
    offer = place.offer(moved())
    envelope = json.loads(offer)
    envelope["body"] = envelope["body"].replace(OTHER_COUNTY, COUNTY)

    altered = take(Keeper(context), (json.dumps(envelope), None))
    exchanged = take(Keeper(context), (place.decision(offer), None))
    unreadable = take(Keeper(context), ("{}", None))

    for holding in (altered, exchanged, unreadable):
        assert "REGION_STATEMENT" in holding.refused.get(VILLAGE, "") or holding.have == {}
    assert len(context.epochs.all()) == 1


def test_an_old_or_a_later_epoch_is_not_taken(place: Place) -> None:
    """Nor one that is held with another content, nor what follows another hierarchy."""
    context = place.context(VILLAGE)
    keeper = Keeper(context)
    second = moved()
    third = moved(second, COUNTY)
    replayed = place.offer(replace(moved(), epoch=1), replace(HIERARCHY, epoch=0))
    elsewhere = replace(HIERARCHY, nodes={**HIERARCHY.nodes, **moved().nodes})

    again = take(keeper, (replayed, None))
    gap = take(keeper, (place.offer(third, second), None))
    other = take(keeper, (place.offer(moved(elsewhere, COUNTY), elsewhere), None))

    assert "REGION_NOT_NEXT" in again.refused[VILLAGE]
    assert "REGION_NOT_NEXT" in gap.refused[VILLAGE]
    assert "REGION_NOT_NEXT" in other.refused[VILLAGE]
    assert len(context.epochs.all()) == 1


def test_who_was_away_takes_several_epochs_in_order(place: Place) -> None:
    """Each verified by the one before, and all of them carried out at once."""
    context = place.context(VILLAGE)
    second, third = moved(), moved(moved(), COUNTY)
    first_offer, second_offer = place.offer(second), place.offer(third, second)
    told = (
        (first_offer, place.decision(first_offer)),
        (second_offer, place.decision(second_offer, second)),
    )

    assert take(Keeper(context), *told).have == {VILLAGE: 3}
    switch(Keeper(context))

    assert place.restarts == [VILLAGE]
    assert load_region(place.folders[VILLAGE] / "region.yaml").epoch == 3
    assert load_region(place.folders[VILLAGE] / "region.former.yaml").epoch == 1


def test_nothing_is_switched_to_without_the_roots_decision(place: Place) -> None:
    """Not on an offer, not on a decision of another node or for another content."""
    context = place.context(VILLAGE)
    keeper = Keeper(context)
    offer = place.offer(moved())
    other = place.offer(moved(parent=COUNTY))
    for decision in (
        None,
        place.decision(offer, by=COUNTY),
        place.decision(other),
    ):
        take(keeper, (offer, decision))
        switch(keeper)

    assert place.restarts == []
    assert load_region(place.folders[VILLAGE] / "region.yaml").epoch == 1


def test_what_is_decided_and_not_in_force_is_told(place: Place) -> None:
    """An offer alone is not; once decided it is, until the node has switched."""
    context = place.context(VILLAGE)
    offer = place.offer(moved())

    take(Keeper(context), (offer, None))
    assert context.epochs.decided_after(1) == 0
    take(Keeper(context), (offer, place.decision(offer)))
    assert context.epochs.decided_after(1) == 2
    context.epochs.settle(moved(), lambda _: frozenset())
    assert context.epochs.decided_after(2) == 0


def test_an_epoch_is_decided_once(place: Place) -> None:
    """Another content under the same number is refused, whoever signed it."""
    context = place.context(VILLAGE)
    keeper = Keeper(context)
    offer, other = place.offer(moved()), place.offer(moved(parent=COUNTY))

    assert take(keeper, (other, None)).have == {VILLAGE: 2}
    assert take(keeper, (offer, place.decision(offer))).have == {VILLAGE: 2}
    again = take(keeper, (other, place.decision(other)))

    assert "REGION_NOT_NEXT" in again.refused[VILLAGE]
    row = context.epochs.get(2)
    assert row is not None
    assert row.hierarchy.parent(TOWNSHIP) == OTHER_COUNTY


def test_a_switch_of_a_moved_node_forgets_the_former_parents_address(place: Place) -> None:
    """Or it would go on dialling it."""
    folder = place.folders[TOWNSHIP]
    settings = load_settings(folder).model_copy(update={"parent_endpoint": "127.0.0.1:4510"})
    save_settings(folder, settings)
    keeper = Keeper(place.context(TOWNSHIP))
    offer = place.offer(moved())
    take(keeper, (offer, place.decision(offer)))

    switch(keeper)

    assert load_settings(folder).parent_endpoint is None
    assert load_region(folder / "region.yaml").parent(TOWNSHIP) == OTHER_COUNTY


def test_files_that_cannot_be_written_are_tried_again(place: Place) -> None:
    """A full disk at the switch does not leave the node behind for good."""
    context = place.context(VILLAGE)
    keeper = Keeper(context, switch_again_s=0.01)
    offer = place.offer(moved())
    take(keeper, (offer, place.decision(offer)))
    in_the_way = place.folders[VILLAGE] / "region.former.yaml"
    in_the_way.mkdir()
    draft = place.folders[VILLAGE] / ".region.former.yaml.new"

    async def run() -> None:
        keeper.switch_soon()
        tries: set[int] = set()
        while len(tries) < 2:
            await asyncio.sleep(0)
            with suppress(FileNotFoundError):
                tries.add(draft.stat().st_mtime_ns)
        assert place.restarts == []
        in_the_way.rmdir()
        await asyncio.gather(*keeper._tasks)  # noqa: SLF001 - waits instead of sleeping

    asyncio.run(asyncio.wait_for(run(), 20))

    assert place.restarts == [VILLAGE]
    assert load_region(place.folders[VILLAGE] / "region.yaml").epoch == 2


def test_a_child_may_speak_only_for_those_below_it() -> None:
    """What it says of others is dropped."""
    holding = Holding({}, {}, {})

    holding.merge({"have": {"141002": 2, "141024": 2}, "held": [1]}, frozenset({COUNTY}))
    holding.merge({"have": {"141002": "3"}, "held": {"141002": 3}}, frozenset({COUNTY}))

    assert holding == Holding({"141002": 2}, {}, {})


def steps(place: Place, tree: Hierarchy, holding: Holding, **more: Any) -> list[Step]:
    """Apply at the root, with what the nodes below are made to say."""
    context = place.context(CITY)
    keeper = Keeper(context)

    async def pass_on(_told: Any, gathered: Holding, _ms: int) -> None:
        gathered.have.update(holding.have)
        gathered.held.update(holding.held)

    keeper.pass_on = pass_on  # type: ignore[assignment, method-assign]
    coordinator = Coordinator(context, keeper, Jobs(context))

    async def run() -> list[Step]:
        wish = Wish("operator", "a-request", **more)
        try:
            return [step async for step in coordinator.apply(region_text(tree), wish)]
        finally:
            await keeper.stop()

    return asyncio.run(run())


def word_of(place: Place, node: NodeId, tree: Hierarchy, by: NodeId | None = None) -> str:
    """A node's word that it holds a configuration, truly or made up by another."""
    offer = read_offer(place.offer(tree).encode(), place.judge())
    signer = place.credentials(by or node).signer
    return sign_held(signer, node, offer, ("aa", "bb")).decode()


def everybody(epoch: int) -> dict[str, int]:
    """All nodes hold an epoch, as they say."""
    return {str(node): epoch for node in HIERARCHY.nodes}


def test_the_root_decides_when_all_hold_it_and_the_moved_one_says_so_itself(place: Place) -> None:
    """And pins the keys that it named."""
    tree = moved()
    word = word_of(place, TOWNSHIP, tree)

    done = steps(place, tree, Holding(everybody(2), {TOWNSHIP: word}, {}))

    assert [step.step for step in done] == ["offered", "decided"]


def test_a_middle_node_cannot_give_the_moved_ones_word(place: Place) -> None:
    """Nor keep the configuration from it without the root seeing it."""
    tree = moved()
    forged = Holding(everybody(2), {TOWNSHIP: word_of(place, TOWNSHIP, tree, by=COUNTY)}, {})
    withheld = Holding(everybody(2), {}, {})

    for said in (forged, withheld):
        with pytest.raises(RegionNotHeldError, match=TOWNSHIP):
            steps(place, tree, said)


def test_the_root_waits_for_all_but_those_given_up(place: Place) -> None:
    """A moved node is never given up."""
    tree = moved()
    have = everybody(2)
    del have[VILLAGE]
    said = Holding(have, {TOWNSHIP: word_of(place, TOWNSHIP, tree)}, {})

    with pytest.raises(RegionNotHeldError, match=VILLAGE):
        steps(place, tree, said)
    with pytest.raises(RegionBlockedError, match="cannot be given up"):
        steps(place, tree, said, without=(TOWNSHIP,))
    assert steps(place, tree, said, without=(VILLAGE,))[-1].step == "decided"


def test_a_request_that_was_carried_out_is_not_carried_out_again(place: Place) -> None:
    """The same id finds the decision that stands."""
    tree = moved()
    said = Holding(everybody(2), {TOWNSHIP: word_of(place, TOWNSHIP, tree)}, {})
    steps(place, tree, said)

    assert [step.step for step in steps(place, moved(parent=COUNTY), said)] == ["decided"]


def test_only_the_roots_order_is_carried_out(place: Place) -> None:
    """A purge deletes: nobody on the way may order it."""
    context = place.context(COUNTY)
    jobs = Jobs(context)

    with pytest.raises(RegionStatementError):
        jobs.order(sign_purge_order(place.credentials(OTHER_COUNTY).signer, 1, "x"))
    jobs.order(sign_purge_order(place.credentials(CITY).signer, 1, "x"))

    row = context.epochs.get(1)
    assert row is not None
    assert row.purge_order is not None
