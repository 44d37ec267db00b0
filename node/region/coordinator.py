"""The root's part: plan, distribute, decide once, watch until settled, order the purge.

Everything it has decided stands in `region_epochs` before anybody is told. Whatever it does after a
switch it does by asking again and again, so that a death of any node costs nothing but time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from hierarchy_config import Closing, HierarchyChange, NodeId, region_text
from hierarchy_config.errors import FenheError
from node.clock import format_ms
from node.logs import get_logger
from node.region.context import RegionContext
from node.region.errors import (
    RegionBlockedError,
    RegionNotHeldError,
    RegionNotRootError,
    RegionRollbackError,
)
from node.region.jobs import CENSUS, DRAIN, PROGRESS, PURGE, Jobs
from node.region.keeper import OFFER, Holding, Keeper
from node.region.plan import Census, Plan, make_plan, next_epoch
from node.region.statements import (
    Offer,
    digest_of,
    read_decision,
    read_held,
    read_offer,
    sign_decision,
    sign_offer,
    sign_purge_order,
)
from node.region.store import EpochRow, EpochState

__all__ = ["Coordinator", "Step", "Wish"]

_LOOK_MS: Final = 10_000
_OFFER_MS: Final = 20_000
_CENSUS_MS: Final = 10_000
_FACTS_MS: Final = 5_000
_HAND_DOWN_MS: Final = 10_000
_AGAIN_S: Final = 1.0
_LAST_WORD_S: Final = 0.5
_ASKED_MAX: Final = 16
_COUNT_MAX: Final = 2**53


@dataclass(frozen=True, slots=True)
class Step:
    """One step of putting an epoch in force, for who waits for it."""

    step: str
    epoch: int
    detail: str


@dataclass(frozen=True, slots=True)
class Wish:
    """How an operator wants a change made. `by`: his principal."""

    by: str
    request_id: str
    without: tuple[NodeId, ...] = ()
    purge_after_s: int = 0
    wait_s: int = 0
    note: str = ""


class Coordinator:
    """Lives on the event loop of the root; at other nodes it only refuses."""

    def __init__(self, context: RegionContext, keeper: Keeper, jobs: Jobs) -> None:
        self._c = context
        self._keeper = keeper
        self._jobs = jobs
        self._log = get_logger("region")
        self._one_at_a_time = asyncio.Lock()
        self.standing: dict[NodeId, Mapping[str, Any]] = {}
        """What the nodes concerned said last of the epoch in force."""

    # --- plan -------------------------------------------------------------------------------------

    async def plan(self, text: str) -> Plan:
        """See PlanResponse.

        Raises:
            RegionFileError: It is no region file.
            RegionNotRootError: This node is not the root.
        """
        self._refuse_elsewhere()
        new, blocks = next_epoch(text, self._c.hierarchy)
        change = HierarchyChange(self._c.hierarchy, new)
        unsettled = await self._unsettled()
        answer = await self._keeper.look(_LOOK_MS)
        ahead = sorted(n for n, epoch in answer["nodes"].items() if epoch > change.old.epoch)
        if ahead:
            unsettled += (_named("are at a later epoch than this root", ahead),)
        homes = {each.node_id: self._c.hierarchy.subtree(each.node_id) for each in change.moved} | {
            each.node_id: frozenset({each.node_id}) for each in change.closed
        }
        moving = await self._census(homes)
        purging = await self._census({each: change.leaving(each) for each in change.purging})
        return make_plan(
            change,
            seen=frozenset(NodeId(each) for each in answer["nodes"]),
            moving=moving,
            purging=purging,
            blocks=(*blocks, *unsettled),
        )

    async def _unsettled(self) -> tuple[str, ...]:
        if self._c.storage.recovery.active:
            # What was decided after the backup is known to the neighbours alone.
            return ("this root recovers: see `fenhe node recover --status`",)
        waiting = await self.pending()
        if waiting is not None and waiting.is_decided:
            return (f"epoch {waiting.epoch} is decided and waits for closed nodes to deliver",)
        row = await self._c.blocking(self._c.epochs.get, self._c.hierarchy.epoch)
        if row is None or row.offer is None or row.progress.get("settled"):
            return ()
        return (f"epoch {row.epoch} is not settled yet: see `fenhe hierarchy history`",)

    async def _census(self, homes: Mapping[NodeId, frozenset[NodeId]]) -> dict[NodeId, Census]:
        async def ask(node_id: NodeId, asked: frozenset[NodeId]) -> Census | None:
            if node_id == self._c.node_id:
                return None
            try:
                said = await self._c.ask(node_id, CENSUS, {"homes": sorted(asked)}, _CENSUS_MS)
            except FenheError:
                return None
            residents, rows = _count(said, "residents"), _count(said, "rows")
            if residents is None or rows is None:
                return None
            return Census(residents, rows, str(said.get("key", "")))

        answers = await asyncio.gather(*(ask(*each) for each in homes.items()))
        return {
            node_id: said for node_id, said in zip(homes, answers, strict=True) if said is not None
        }

    # --- apply ------------------------------------------------------------------------------------

    async def apply(self, text: str, wish: Wish) -> AsyncIterator[Step]:
        """Put a region file in force; ends when it is decided, and the switch follows.

        Raises:
            RegionBlockedError, RegionNotHeldError: Nothing is in force.
        """
        self._refuse_elsewhere()
        async with self._one_at_a_time:
            if (known := await self._known(wish)) is not None:
                yield known
                return
            new, blocks = next_epoch(text, self._c.hierarchy)
            change = HierarchyChange(self._c.hierarchy, new)
            blocks = (*blocks, *change.blocks, *await self._unsettled())
            async for step in self._put_in_force(change, blocks, wish):
                yield step

    async def rollback(self, wish: Wish) -> AsyncIterator[Step]:
        """Put the content of the epoch before in force again, as a new epoch.

        Raises:
            RegionRollbackError: There is none, or old branches may have begun to delete.
        """
        self._refuse_elsewhere()
        async with self._one_at_a_time:
            if (known := await self._known(wish)) is not None:
                yield known
                return
            row = await self._c.blocking(self._c.epochs.get, self._c.hierarchy.epoch)
            before = None
            if row is not None:
                before = await self._c.blocking(
                    self._c.epochs.get, int(row.progress.get("from", 0))
                )
            if row is None or before is None:
                raise RegionRollbackError("no epoch before the one in force is known here")
            if self._c.storage.recovery.active:
                raise RegionRollbackError(
                    "this root recovers: what it decided last is not known here yet",
                    hint="Wait until `fenhe node recover --status` says that it is over.",
                )
            if row.purge_order is not None:
                raise RegionRollbackError(
                    f"the old branches were ordered to delete what left them by epoch {row.epoch}"
                )
            new = replace(before.hierarchy, epoch=self._c.hierarchy.epoch + 1)
            change = HierarchyChange(self._c.hierarchy, new)
            async for step in self._put_in_force(change, change.blocks, wish):
                yield step

    async def _known(self, wish: Wish) -> Step | None:
        """The step at which a request of that id ended, if it was decided before."""
        for row in await self._c.blocking(self._c.epochs.all):
            decided = row.decision or row.progress.get("draining")
            if decided and wish.request_id and row.progress.get("request") == wish.request_id:
                return Step("decided", row.epoch, "this request was carried out before")
        return None

    async def _put_in_force(
        self, change: HierarchyChange, blocks: Sequence[str], wish: Wish
    ) -> AsyncIterator[Step]:
        given_up = sorted(set(wish.without) & change.concerned)
        blocks = (*blocks, *(f"{each} moves itself: it cannot be given up" for each in given_up))
        if blocks:
            raise RegionBlockedError("; ".join(blocks))
        offer = await self._c.blocking(self._make_offer, change, wish)
        yield Step("offered", offer.epoch, f"{len(change.old.nodes)} nodes are offered the epoch")
        deadline = self._c.clock.monotonic_ms() + wish.wait_s * 1000
        while True:
            holding = await self._distribute(offer)
            await self._refuse_decided(offer, holding)
            missing = self._missing(change, offer, holding, wish)
            if not missing:
                break
            yield Step("waiting", offer.epoch, _named("do not hold it yet", missing))
            if self._c.clock.monotonic_ms() >= deadline:
                refused = "; ".join(f"{k}: {v}" for k, v in sorted(holding.refused.items())[:5])
                raise RegionNotHeldError(
                    _named("do not hold the configuration", missing)
                    + (f" (refused: {refused})" if refused else "")
                )
            await asyncio.sleep(_AGAIN_S)
        await self._c.blocking(self._decide, offer, change, holding, wish)
        yield Step("decided", offer.epoch, "decided; it is handed down, then this node switches")
        self._keeper.spawn(self.carry_out(_LAST_WORD_S, _HAND_DOWN_MS))

    def _make_offer(self, change: HierarchyChange, wish: Wish) -> Offer:
        text = region_text(change.new)
        held = self._c.epochs.get(change.new.epoch)
        if held is not None and held.offer and digest_of(held.text) == digest_of(text):
            # The same offer again, so that whoever holds it already need not take another.
            return read_offer(held.offer, self._c.judge())
        raw = sign_offer(
            self._c.base.credentials.signer,
            change.old,
            text,
            by=wish.by,
            at=format_ms(self._c.clock.now_ms()),
            note=wish.note,
        )
        return read_offer(raw, self._c.judge())

    async def _distribute(self, offer: Offer) -> Holding:
        statements = [{"offer": offer.raw.decode(), "decision": None}]
        holding = await self._keeper.take(statements)
        await self._keeper.pass_on(statements, holding, _OFFER_MS)
        return holding

    async def _refuse_decided(self, offer: Offer, holding: Holding) -> None:
        """Refuse to decide an epoch that was decided on, which this root has lost by a restore.

        Whoever holds another content or a later epoch is asked for what the root signed, which is
        then carried out. Also of those that are given up: a signature is no matter of who is there.

        Raises:
            RegionBlockedError: It is so.
        """
        other = {node_id for node_id, epoch in holding.have.items() if epoch > offer.epoch}
        for node_id in sorted((other | set(holding.refused)) - {self._c.node_id})[:_ASKED_MAX]:
            if await self._keeper.learn(NodeId(node_id)):
                self._keeper.spawn(self.carry_out(_LAST_WORD_S, _HAND_DOWN_MS))
                raise RegionBlockedError(
                    f"epoch {offer.epoch} was decided on before, {node_id} holds what this root "
                    "signed: it is carried out now",
                    hint="Wait until `fenhe hierarchy history` shows it settled, then plan anew.",
                )

    def _missing(
        self, change: HierarchyChange, offer: Offer, holding: Holding, wish: Wish
    ) -> list[NodeId]:
        """Nodes that do not hold it; of the moved ones only their own word counts."""
        return sorted(
            node_id
            for node_id in set(change.old.nodes) - set(wish.without)
            if holding.have.get(node_id) != offer.epoch
            or (node_id in change.concerned and not self._keys(node_id, offer, holding))
        )

    def _keys(self, node_id: NodeId, offer: Offer, holding: Holding) -> tuple[str, str] | None:
        word = holding.held.get(node_id)
        if not isinstance(word, str):
            return None
        try:
            held = read_held(word.encode(), self._c.judge())
        except FenheError as error:
            self._log.warning("a node's word does not hold", peer=node_id, reason=error.message)
            return None
        said = (held.node_id, held.epoch, held.digest)
        return held.keys if said == (node_id, offer.epoch, offer.digest) else None

    def _decide(self, offer: Offer, change: HierarchyChange, holding: Holding, wish: Wish) -> None:
        keys = {each: self._keys(each, offer, holding) for each in sorted(change.concerned)}
        raw = sign_decision(
            self._c.base.credentials.signer,
            offer,
            without=wish.without,
            keys={node_id: pair for node_id, pair in keys.items() if pair is not None},
            purge_after_s=wish.purge_after_s,
            by=wish.by,
            at=format_ms(self._c.clock.now_ms()),
        )
        self._c.epochs.note(offer.epoch, {"request": wish.request_id})
        if change.closed:
            # Told to the closed nodes first; it stands, and comes into force when they are drained.
            self._c.epochs.note(offer.epoch, {"draining": raw.decode()})
        else:
            self._c.epochs.keep_decision(offer.epoch, raw, offer.text)

    async def carry_out(self, pause_s: float, remaining_ms: int) -> None:
        """Drain what is closed, hand the decision down, switch.

        After a decision, and at the start of a life that finds one waiting.
        """
        await asyncio.sleep(pause_s)
        row = await self._c.blocking(self._c.epochs.get, self._c.hierarchy.epoch + 1)
        waiting = None if row is None else row.progress.get("draining")
        if self._c.is_root and row is not None and waiting and row.decision is None:
            change = HierarchyChange(self._c.hierarchy, row.hierarchy)
            for closing in change.closed:
                await self._drain(change, closing, row, waiting)
            await self._c.blocking(
                self._c.epochs.keep_decision, row.epoch, waiting.encode(), row.text
            )
        await self._keeper.carry_out(0, remaining_ms)

    async def _drain(
        self, change: HierarchyChange, closing: Closing, row: EpochRow, decision: str
    ) -> None:
        """Until the node that hands the rows on has everything from the closed one; for ever.

        What it has acknowledged and not delivered would be lost with it.
        """
        told = {"offer": (row.offer or b"").decode(), "decision": decision}
        for node_id in change.draining(closing):
            head, drained = 0, False
            while not drained:
                try:
                    if node_id == closing.node_id:
                        await self._c.ask(node_id, OFFER, {"epochs": [told]}, _FACTS_MS)
                    said = await self._c.ask(node_id, DRAIN, {"head": head}, _FACTS_MS)
                    head = _count(said, "head") or head
                    drained = said.get("drained") is True
                except FenheError as error:
                    self._log.info("not drained yet", peer=node_id, code=error.code)
                if not drained:
                    await asyncio.sleep(_AGAIN_S)
        self._log.info("a closed node is drained", peer=closing.node_id, epoch=row.epoch)

    def _refuse_elsewhere(self) -> None:
        if not self._c.is_root:
            raise RegionNotRootError(
                f"the hierarchy is changed at the root {self._c.hierarchy.root}, this is "
                f"{self._c.node_id}"
            )

    # --- afterwards -------------------------------------------------------------------------------

    async def see_through(self) -> None:
        """Look once how far the epoch in force is, and go on with what is due."""
        row = await self._c.blocking(self._c.epochs.get, self._c.hierarchy.epoch)
        if not self._c.is_root or row is None or row.offer is None or row.progress.get("settled"):
            return
        before = await self._c.blocking(self._c.epochs.get, int(row.progress.get("from", 0)))
        if before is None:
            return
        change = HierarchyChange(before.hierarchy, self._c.hierarchy)
        self.standing = await self._facts(change)
        if self._is_seeded(change, row):
            await self._purge(change, row)

    def _is_seeded(self, change: HierarchyChange, row: EpochRow) -> bool:
        for move in change.moved:
            facts = self.standing.get(move.node_id, {})
            if facts.get("epoch") != row.epoch or not facts.get("renewed"):
                return False
            if not facts.get("seeded"):
                return False
        for closing in change.closed:
            heir = closing.successor
            if heir is None or not self.standing.get(heir, {}).get("taken"):
                return False
        return all(self.standing.get(each, {}).get("resent") for each in _resending(change))

    async def _purge(self, change: HierarchyChange, row: EpochRow) -> None:
        """Order it when its time has come, and see who has done it."""
        async with self._one_at_a_time:
            held = await self._c.blocking(self._c.epochs.get, row.epoch)
            order = None if held is None else held.purge_order
            if order is None:
                if change.purging and not await self._c.blocking(self._is_time, row):
                    return
                signer = self._c.base.credentials.signer
                order = sign_purge_order(signer, row.epoch, digest_of(row.text))
                # From here on there is no way back by a rollback.
                await self._c.blocking(self._c.epochs.keep_purge_order, row.epoch, order)
        left = [e for e in change.purging if not self.standing.get(e, {}).get("purged")]
        for node_id in left:
            await self._order(node_id, order)
        if not left:
            await self._c.blocking(self._c.epochs.note, row.epoch, {"settled": True})
            self._log.info("the change of the region is settled", epoch=row.epoch)

    def _is_time(self, row: EpochRow) -> bool:
        if row.decision is None or row.activated_ms is None:
            return False
        before = self._c.epochs.get(int(row.progress.get("from", 0)))
        hierarchy = None if before is None else before.hierarchy
        decision = read_decision(row.decision, self._c.judge(hierarchy))
        return self._c.clock.now_ms() >= row.activated_ms + decision.purge_after_s * 1000

    async def _order(self, node_id: NodeId, order: bytes) -> None:
        try:
            if node_id == self._c.node_id:
                await self._c.blocking(self._jobs.order, order)
            else:
                await self._c.ask(node_id, PURGE, {"order": order.decode()}, _FACTS_MS)
        except FenheError as error:
            self._log.info("not reached with the order", peer=node_id, code=error.code)

    async def _facts(self, change: HierarchyChange) -> dict[NodeId, Mapping[str, Any]]:
        nodes = {each.node_id for each in change.moved} | set(change.purging)
        nodes |= {each.successor for each in change.closed if each.successor is not None}
        asked = sorted(each for each in nodes | _resending(change) if each in self._c.hierarchy)

        async def ask(node_id: NodeId) -> Mapping[str, Any]:
            if node_id == self._c.node_id:
                return await self._jobs.progress()
            try:
                return await self._c.ask(node_id, PROGRESS, {}, _FACTS_MS)
            except FenheError as error:
                return {"away": error.code}

        answers = await asyncio.gather(*(ask(each) for each in asked))
        return dict(zip(asked, answers, strict=True))

    async def pending(self) -> EpochRow | None:
        """The epoch that is offered and not in force here yet."""
        rows = await self._c.blocking(self._c.epochs.all)
        return next((row for row in rows if row.state is EpochState.PENDING), None)


def _resending(change: HierarchyChange) -> set[NodeId]:
    above = {each for move in change.moved for each in change.new.path_to_root(move.node_id)}
    return {each for each in above if change.resending(each)}


def _count(said: Mapping[str, Any], name: str) -> int | None:
    """A count in a peer's answer; None: it says none."""
    value = said.get(name)
    return value if type(value) is int and 0 <= value <= _COUNT_MAX else None


def _named(what: str, nodes: Sequence[NodeId]) -> str:
    shown = ", ".join(nodes[:10])
    more = f" and {len(nodes) - 10} more" if len(nodes) > 10 else ""
    return f"{shown}{more} {what}"
