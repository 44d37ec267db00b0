"""The room put together for one life of a node: what is laid before the links, and what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from hierarchy_config import Hierarchy, HierarchyChange, NodeId
from hierarchy_config.errors import FenheError
from node.clock import Clock
from node.foundations import Foundations, utc_now
from node.links import LinkHub
from node.links.hub import RequestHandler
from node.logs import get_logger
from node.opening import OpenStore
from node.region.context import RegionContext
from node.region.coordinator import Coordinator
from node.region.fetching import Fetching
from node.region.hurrying import LetterHurry
from node.region.inheriting import INHERIT, Inheriting
from node.region.jobs import Jobs
from node.region.joined import adopt_signed
from node.region.keeper import Keeper
from node.region.renewal import CERTIFICATE, Renewal
from node.region.statements import Judge, read_decision
from node.region.store import EpochStore
from node.security.authority import JoinRequest, load_authority
from node.security.former import FormerNames
from node.watch.figures import Figures
from replication.core.model import Hello

__all__ = ["RegionGround", "RegionRoom", "lay_ground", "parent_names"]

_PAUSE_S: Final = 1.0
_FETCH_EVERY: Final = 5
_START_PAUSE_S: Final = 2.0
_HAND_DOWN_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class RegionGround:
    """What must be true before a link comes up: the table agrees with the file, keys are known."""

    epochs: EpochStore
    former: FormerNames


def lay_ground(base: Foundations, store: OpenStore, clock: Clock) -> RegionGround:
    """Make the table agree with the region file; read the keys that decisions pin. Blocks."""
    node_id, hierarchy = base.node_id, base.hierarchy
    epochs = EpochStore(store.storage.transactions, clock.now_ms)
    adopt_signed(base, epochs, clock)
    epochs.settle(
        hierarchy, lambda before: HierarchyChange(before, hierarchy).neighbours_lost(node_id)
    )
    authority = load_authority(base.paths.data).private_key.public_key()
    pins = _pins(base, epochs, clock)
    return RegionGround(epochs, FormerNames(node_id, hierarchy, authority, pins))


def _pins(base: Foundations, epochs: EpochStore, clock: Clock) -> dict[NodeId, str]:
    """The keys that the decisions in force name; they were verified when they were taken."""
    pins: dict[NodeId, str] = {}
    before: Hierarchy | None = None
    for row in epochs.all():
        if row.epoch > base.hierarchy.epoch:
            break
        if row.decision is not None and before is not None:
            judge = Judge(base.credentials.root_pem, before, utc_now(clock))
            try:
                decision = read_decision(row.decision, judge)
            except FenheError as error:
                # Its signer's certificate has expired: by now everybody has a new name.
                get_logger("region").info("a decision is past", epoch=row.epoch, code=error.code)
            else:
                pins |= {node_id: keys[0] for node_id, keys in decision.keys.items()}
        before = row.hierarchy
    return pins


def parent_names(base: Foundations) -> tuple[str, ...]:
    """The names under which the parent may answer.

    Its present one; and the one it had, as long as this node's own certificate is of a former name.
    """
    parent = base.hierarchy.parent(base.node_id)
    if parent is None:
        return ()
    names = [base.hierarchy.dns_name(parent)]
    if base.credentials.is_former and base.former is not None and parent in base.former:
        names.append(base.former.dns_name(parent))
    return tuple(dict.fromkeys(names))


class RegionRoom:
    """Lives on the event loop of one life of the node."""

    def __init__(
        self,
        base: Foundations,
        ground: RegionGround,
        store: OpenStore,
        hub: LinkHub,
        figures: Figures,
        *,
        threads: Executor,
        clock: Clock,
        restart: Callable[[], None],
    ) -> None:
        """`restart` ends this life of the node's parts and begins the next."""
        self.context = context = RegionContext(
            base=base,
            epochs=ground.epochs,
            storage=store.storage,
            hub=hub,
            former=ground.former,
            threads=threads,
            clock=clock,
            utc=lambda: utc_now(clock),
            restart=restart,
            durable_head=store.durable_head,
            figures=figures,
            pruned_to=lambda: store.storage.transactions.read(store.log.pruned_to),
        )
        self.keeper = Keeper(context)
        self._jobs = Jobs(context)
        self._renewal = Renewal(context, clock)
        self._inheriting = Inheriting(context)
        self._fetching = Fetching(context, self.keeper)
        self._hurry = LetterHurry(
            ground.epochs, base.hierarchy.epoch, store.storage.transactions, store.post, clock
        )
        self.coordinator = Coordinator(context, self.keeper, self._jobs)

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """Questions of the parent."""
        return {**self.keeper.handlers, **self._jobs.handlers}

    @property
    def child_handlers(self) -> Mapping[str, RequestHandler]:
        """Questions of the children."""
        return {
            CERTIFICATE: self._renewal.on_certificate,
            INHERIT: self._inheriting.on_inherit,
        }

    def admits(self, admit: Callable[[JoinRequest, bytes, str], None]) -> None:
        """Ask this before certificates are signed for a child: see RevocationRoom.readmit."""
        self._renewal.admit = admit

    def met(self, peer: NodeId, hello: Hello) -> None:
        """A link is up."""
        self.keeper.met(peer, hello)

    async def run(self) -> None:
        """Until cancelled: what was decided, what is due, what is missing."""
        await self.coordinator.carry_out(_START_PAUSE_S, _HAND_DOWN_MS)
        turn = 0
        while True:
            while await self.context.blocking(self._jobs.step):
                pass
            if self._renewal.is_due and await self._renewal.ask() and not self._renewal.take_up():
                self.context.restart()
                return
            await self._inheriting.take()
            await self.context.blocking(self._hurry.step)
            if turn % _FETCH_EVERY == 0:
                await self._fetching.look()
            await self.coordinator.see_through()
            turn += 1
            await asyncio.sleep(_PAUSE_S)
