"""One node's part in changing the region: takes configurations, passes them on, switches.

What comes from above is verified here, whoever handed it over. The children get a decision before
this node acts on it. Knows nothing of plans: it holds, it passes on, it obeys the root.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hierarchy_config import Hierarchy, NodeId, shape_digest
from hierarchy_config.errors import FenheError
from node.links.hub import RequestHandler
from node.logs import get_logger
from node.region.context import RegionContext, own_keys, parse_body, to_body
from node.region.errors import RegionClosedError, RegionNotNextError, RegionStatementError
from node.region.statements import Offer, epoch_said, read_decision, read_offer, sign_held
from node.region.store import EpochRow, EpochState
from node.region.switching import write_epoch
from replication.channel import AskRefusedError
from replication.core.model import Hello, Request

__all__ = ["OFFER", "Holding", "Keeper"]

OFFER: Final = "region.offer"
LOOK: Final = "region.look"
_EPOCHS_A_MESSAGE: Final = 16
_CHILD_SHARE: Final = 0.8
_CATCH_UP_MS: Final = 20_000
_SWITCH_PAUSE_S: Final = 0.2


@dataclass(slots=True)
class Holding:
    """Who holds what was offered, gathered from below.

    `have`: epoch by node. `held`: the own word of nodes that are moved or closed. `refused`: why.
    """

    have: dict[str, int]
    held: dict[str, str]
    refused: dict[str, str]

    def merge(self, answer: Mapping[str, Any], below: frozenset[NodeId]) -> None:
        """Add what a child said of the nodes below it; of others it may say nothing."""
        for name, mine in (("have", self.have), ("held", self.held), ("refused", self.refused)):
            said = answer.get(name)
            if isinstance(said, dict):
                mine.update({node: value for node, value in said.items() if node in below})

    def as_body(self) -> Mapping[str, Any]:
        """As it travels up."""
        return {"have": self.have, "held": self.held, "refused": self.refused}


class Keeper:
    """Lives on the event loop of the node."""

    def __init__(self, context: RegionContext) -> None:
        self._c = context
        self._log = get_logger("region")
        self._tasks: set[asyncio.Task[None]] = set()
        self._switching = False
        self.closed_by = 0
        """The epoch that was decided on and does not have this node; 0: none."""
        self.children_at: dict[NodeId, int] = {}
        """The newest epoch that each direct child was last known to hold."""

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """Questions of the parent."""
        return {OFFER: self._on_offer, LOOK: self._on_look}

    async def stop(self) -> None:
        """End what runs beside."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- taking -----------------------------------------------------------------------------------

    async def _on_offer(self, _peer: NodeId, request: Request) -> bytes:
        body = parse_body(request.body)
        statements = body.get("epochs")
        if not isinstance(statements, list):
            raise AskRefusedError("INVALID_REQUEST", "an offer has another shape")
        holding = await self.take(statements)
        await self.pass_on(statements, holding, int(request.remaining_ms * _CHILD_SHARE))
        self.switch_soon()
        return to_body(holding.as_body())

    async def take(self, statements: Sequence[Mapping[str, Any]]) -> Holding:
        """Keep what is verified of some signed epochs; says what this node then holds."""
        here = self._c.node_id
        holding = Holding({}, {}, {})
        try:
            last, word = await self._c.blocking(self._take, statements)
            holding.have[here] = last
            if word:
                holding.held[here] = word
        except FenheError as error:
            self._log.warning("a configuration was refused", code=error.code, reason=error.message)
            holding.refused[here] = f"{error.code}: {error.message}"
        return holding

    def _take(self, statements: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
        """The last epoch that is held now, and this node's word if it is concerned."""
        before = self._c.hierarchy
        word = ""
        for each in statements[:_EPOCHS_A_MESSAGE]:
            raw, decision = each.get("offer"), each.get("decision")
            if not isinstance(raw, str) or not isinstance(decision, str | None):
                raise RegionStatementError("a signed epoch has another shape")
            if epoch_said(raw.encode()) <= before.epoch:
                continue
            offer = self._next_offer(raw, before)
            self._c.epochs.keep_offer(offer, shape_digest(offer.hierarchy))
            if decision:
                self._keep_decision(decision, offer, before)
                self._decided()
            word = sign_held(
                self._c.base.credentials.signer, self._c.node_id, offer, own_keys(self._c.base)
            ).decode()
            before = offer.hierarchy
        return before.epoch, word

    def _next_offer(self, raw: str, before: Hierarchy) -> Offer:
        offer = read_offer(raw.encode(), self._c.judge(before))
        if offer.epoch != before.epoch + 1:
            raise RegionNotNextError(
                f"epoch {offer.epoch} does not follow epoch {before.epoch}, in force here"
            )
        if offer.follows != shape_digest(before):
            raise RegionNotNextError(
                f"epoch {offer.epoch} follows another hierarchy ({offer.follows[:12]}) than the "
                f"one in force here ({shape_digest(before)[:12]})"
            )
        if offer.hierarchy.root != before.root:
            raise RegionStatementError("a configuration names another root")
        return offer

    def _keep_decision(self, raw: str, offer: Offer, before: Hierarchy) -> None:
        decision = read_decision(raw.encode(), self._c.judge(before))
        if (decision.epoch, decision.digest) != (offer.epoch, offer.digest):
            raise RegionStatementError("a decision is for another configuration")
        stands = self._c.epochs.keep_decision(offer.epoch, decision.raw, offer.text)
        if read_decision(stands, self._c.judge(before)).digest != offer.digest:
            raise RegionNotNextError(f"epoch {offer.epoch} was decided on with another content")

    # --- passing on -------------------------------------------------------------------------------

    async def pass_on(
        self, statements: Sequence[Mapping[str, Any]], holding: Holding, remaining_ms: int
    ) -> None:
        """Offer to every connected child, and add what they say."""
        children = [
            state.peer
            for state in self._c.hub.states.values()
            if state.role == "child" and state.connected
        ]
        answers = await asyncio.gather(
            *(self._offer(child, statements, remaining_ms) for child in children)
        )
        for child, answer in zip(children, answers, strict=True):
            if answer is not None:
                holding.merge(answer, self._c.hierarchy.subtree(child))
                self.children_at[child] = holding.have.get(child, 0)

    async def _offer(
        self, child: NodeId, statements: Sequence[Mapping[str, Any]], remaining_ms: int
    ) -> Mapping[str, Any] | None:
        try:
            return await self._c.ask(child, OFFER, {"epochs": list(statements)}, remaining_ms)
        except FenheError as error:
            self._log.warning("not offered", peer=child, code=error.code, reason=error.message)
            return None

    def met(self, peer: NodeId, hello: Hello) -> None:
        """A link is up: a child that is behind, or lacks what is pending, is offered it."""
        if self._c.hierarchy.parent(peer) == self._c.node_id:
            self.children_at[peer] = hello.config_epoch
            self.spawn(self._catch_up(peer, hello.config_epoch))

    async def _catch_up(self, child: NodeId, config_epoch: int) -> None:
        statements = await self.statements(config_epoch)
        answer = await self._offer(child, statements, _CATCH_UP_MS) if statements else None
        if answer is not None:
            self.children_at[child] = int(answer.get("have", {}).get(child, config_epoch))

    async def statements(self, after: int) -> list[dict[str, Any]]:
        """Signed epochs after one, oldest first, as they travel; at most a message full."""
        rows = await self._c.blocking(self._c.epochs.all)
        return [
            {
                "offer": row.offer.decode(),
                "decision": row.decision.decode() if row.decision else None,
            }
            for row in rows
            if row.epoch > after and row.offer is not None
        ][:_EPOCHS_A_MESSAGE]

    # --- looking ----------------------------------------------------------------------------------

    async def _on_look(self, _peer: NodeId, request: Request) -> bytes:
        return to_body(await self.look(int(request.remaining_ms * _CHILD_SHARE)))

    async def look(self, remaining_ms: int) -> Mapping[str, Any]:
        """Which nodes at and below this one answer, with the epoch of each."""
        found: dict[str, int] = {self._c.node_id: self._c.hierarchy.epoch}
        children = [s.peer for s in self._c.hub.states.values() if s.role == "child"]
        answers = await asyncio.gather(*(self._look_at(each, remaining_ms) for each in children))
        for child, answer in zip(children, answers, strict=True):
            below = self._c.hierarchy.subtree(child)
            found.update({node: epoch for node, epoch in answer.items() if node in below})
        return {"nodes": found}

    async def _look_at(self, child: NodeId, remaining_ms: int) -> Mapping[str, int]:
        try:
            answer = await self._c.ask(child, LOOK, {}, remaining_ms)
        except FenheError:
            return {}
        nodes = answer.get("nodes")
        return nodes if isinstance(nodes, dict) else {}

    # --- switching --------------------------------------------------------------------------------

    async def carry_out(self, pause_s: float, remaining_ms: int) -> None:
        """Hand what is decided to the children, then switch; does nothing if nothing is decided.

        At the root after its decision, and at the start of a life that found one waiting.
        """
        await asyncio.sleep(pause_s)
        if await self._c.blocking(self._decided) is None:
            return
        statements = await self.statements(self._c.hierarchy.epoch)
        await self.pass_on(statements, Holding({}, {}, {}), remaining_ms)
        self.switch_soon()

    def switch_soon(self) -> None:
        """Carry out what is decided, once the answer that is under way has left."""
        self.spawn(self._switch())

    async def _switch(self) -> None:
        await asyncio.sleep(_SWITCH_PAUSE_S)
        decided = await self._c.blocking(self._decided)
        if decided is None or self._switching:
            return
        self._switching = True
        await self._c.blocking(write_epoch, self._c.base, decided.text, decided.hierarchy)
        self._log.info("the region changes", epoch=decided.epoch, was=self._c.hierarchy.epoch)
        self._c.restart()

    def refuse_if_closed(self) -> None:
        """Refuse to write at a node that the region has closed.

        Raises:
            RegionClosedError: It is decided.
        """
        if self.closed_by:
            raise RegionClosedError(
                f"{self._c.node_id} is closed by epoch {self.closed_by} of the region"
            )

    def _decided(self) -> EpochRow | None:
        """The last epoch that is decided on without a gap and that has this node."""
        found, epoch = None, self._c.hierarchy.epoch
        for row in self._c.epochs.all():
            if row.epoch != epoch + 1 or row.state is EpochState.SUPERSEDED or not row.decision:
                continue
            epoch = row.epoch
            if self._c.node_id in row.hierarchy:
                found = row
            elif not self.closed_by:
                self.closed_by = row.epoch
                self._log.warning("this node is closed: it takes no more writes", epoch=row.epoch)
        return found

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it beside; an error of it is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("unexpected error", exc_info=error)
