"""What a node takes of the region's configurations: only the root's, only the next, only once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from hardware_profiles import load_profile
from hierarchy_config import Hierarchy, NodeId, dump_region, load_region, region_text
from node.clock import SystemClock
from node.foundations import Foundations
from node.region.context import RegionContext, own_keys
from node.region.coordinator import Coordinator, Step, Wish
from node.region.errors import RegionBlockedError, RegionNotHeldError, RegionStatementError
from node.region.jobs import Jobs
from node.region.keeper import Holding, Keeper
from node.region.statements import (
    Judge,
    read_held,
    read_offer,
    sign_decision,
    sign_held,
    sign_offer,
    sign_purge_order,
)
from node.region.store import EpochState, EpochStore
from node.security.authority import create_region
from node.security.credentials import NodeCredentials, load_node_credentials
from node.security.former import FormerNames
from node.settings import NodePaths, NodeSettings, load_settings, save_settings
from node.storage import EngineLimits, migrate, open_engine
from node.storage.transactions import Transactions
from tests.unit.security.region import (
    CITY,
    COUNTY,
    HIERARCHY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
)

CLOCK = SystemClock()


def now() -> datetime:
    """The machine's time."""
    return datetime.fromtimestamp(CLOCK.now_ms() / 1000, UTC)


def moved(tree: Hierarchy = HIERARCHY, parent: NodeId = OTHER_COUNTY) -> Hierarchy:
    """The next epoch, in which the township is below the other county."""
    entry = replace(tree.entry(TOWNSHIP), parent=parent)
    return replace(tree, epoch=tree.epoch + 1, nodes={**tree.nodes, TOWNSHIP: entry})


class NoHub:
    """Links of which none is up."""

    states: Mapping[str, Any] = {}


@dataclass
class Place:
    """A region's folders, and the keepers of some of its nodes."""

    folders: Mapping[NodeId, Path]
    pool: ThreadPoolExecutor
    opened: list[Any] = field(default_factory=list)
    restarts: list[NodeId] = field(default_factory=list)

    def credentials(self, node: NodeId) -> NodeCredentials:
        return load_node_credentials(self.folders[node], node, HIERARCHY, now())

    def context(self, node: NodeId) -> RegionContext:
        folder = self.folders[node]
        engine = open_engine(f"sqlite:///{folder / 'store.db'}", EngineLimits(connections=2))
        migrate(engine)
        self.opened.append(engine)
        base = Foundations(
            NodePaths(folder),
            load_settings(folder),
            load_region(folder / "region.yaml"),
            load_profile("village"),
            self.credentials(node),
        )
        epochs = EpochStore(Transactions(engine), CLOCK.now_ms)
        epochs.settle(base.hierarchy, lambda _: frozenset())
        return RegionContext(
            base=base,
            epochs=epochs,
            storage=cast(Any, None),
            hub=cast(Any, NoHub()),
            former=FormerNames(node, base.hierarchy),
            threads=self.pool,
            clock=CLOCK,
            utc=now,
            restart=lambda: self.restarts.append(node),
            number=lambda: 0,
            links=cast(Any, None),
            pruned_to=lambda: 0,
        )

    def offer(self, tree: Hierarchy, after: Hierarchy = HIERARCHY, by: NodeId = CITY) -> str:
        signer = self.credentials(by).signer
        return sign_offer(signer, after, region_text(tree), by="operator", at="now").decode()

    def decision(
        self, offer: str, after: Hierarchy = HIERARCHY, by: NodeId = CITY, **more: Any
    ) -> str:
        read = read_offer(offer.encode(), self.judge(after))
        asked: dict[str, Any] = {"without": (), "keys": {}, "purge_after_s": 0, **more}
        return sign_decision(self.credentials(by).signer, read, by="op", at="now", **asked).decode()

    def judge(self, tree: Hierarchy = HIERARCHY) -> Judge:
        return Judge(self.credentials(CITY).root_pem, tree, now())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Every node's keys, certificates and region file."""
    folders = create_region(tmp_path, HIERARCHY, now())
    for node, folder in folders.items():
        dump_region(HIERARCHY, folder / "region.yaml")
        save_settings(folder, NodeSettings(node_id=node, listen="127.0.0.1:0"))
    with ThreadPoolExecutor(2) as pool:
        made = Place(folders, pool)
        yield made
        for each in made.opened:
            each.dispose()


def take(keeper: Keeper, *statements: tuple[str, str | None]) -> Holding:
    """Hand a keeper some signed epochs."""
    told = [{"offer": offer, "decision": decision} for offer, decision in statements]
    return asyncio.run(keeper.take(told))


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
    """A replay says nothing new; a gap is refused, and so is what follows another hierarchy."""
    context = place.context(VILLAGE)
    keeper = Keeper(context)
    second = moved()
    third = moved(second, COUNTY)
    replayed = place.offer(replace(moved(), epoch=1), replace(HIERARCHY, epoch=0))
    elsewhere = replace(HIERARCHY, nodes={**HIERARCHY.nodes, **moved().nodes})

    assert take(keeper, (replayed, None)).have == {VILLAGE: 1}
    gap = take(keeper, (place.offer(third, second), None))
    other = take(keeper, (place.offer(moved(elsewhere, COUNTY), elsewhere), None))

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


def switch(keeper: Keeper) -> None:
    """Let a keeper carry out what is decided."""

    async def run() -> None:
        await keeper.carry_out(0, 100)
        await asyncio.gather(*keeper._tasks)  # noqa: SLF001 - waits instead of sleeping

    asyncio.run(run())


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


def test_a_child_may_speak_only_for_those_below_it() -> None:
    """What it says of others is dropped."""
    holding = Holding({}, {}, {})

    holding.merge({"have": {"141002": 2, "141024": 2}, "held": [1]}, frozenset({COUNTY}))

    assert holding.have == {"141002": 2}


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
