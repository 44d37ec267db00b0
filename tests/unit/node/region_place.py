"""A region's folders, and the keepers of some of its nodes, without links or processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hardware_profiles import load_profile
from hierarchy_config import Hierarchy, NodeId, dump_region, load_region, region_text
from node.clock import SystemClock
from node.foundations import Foundations
from node.region.context import RegionContext
from node.region.keeper import Holding, Keeper
from node.region.statements import Judge, read_offer, sign_decision, sign_offer
from node.region.store import EpochStore
from node.security.authority import create_region
from node.security.credentials import NodeCredentials, load_node_credentials
from node.security.former import FormerNames
from node.settings import NodePaths, NodeSettings, load_settings, save_settings
from node.storage import EngineLimits, migrate, open_engine
from node.storage.transactions import Transactions
from tests.unit.security.region import CITY, HIERARCHY, OTHER_COUNTY, TOWNSHIP

__all__ = ["CLOCK", "Place", "laid_out", "moved", "now", "switch", "take"]

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
    recovery: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(active=False))

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
            storage=cast(Any, SimpleNamespace(recovery=self.recovery)),
            hub=cast(Any, NoHub()),
            former=FormerNames(node, base.hierarchy),
            threads=self.pool,
            clock=CLOCK,
            utc=now,
            restart=lambda: self.restarts.append(node),
            durable_head=lambda: 0,
            figures=cast(Any, None),
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


@contextmanager
def laid_out(root: Path) -> Iterator[Place]:
    """Every node's keys, certificates and region file."""
    folders = create_region(root, HIERARCHY, now())
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


def switch(keeper: Keeper) -> None:
    """Let a keeper carry out what is decided."""

    async def run() -> None:
        await keeper.carry_out(0, 100)
        await asyncio.gather(*keeper._tasks)  # noqa: SLF001 - waits instead of sleeping

    asyncio.run(run())
