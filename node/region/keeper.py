"""One node's part in changing the region: takes configurations, passes them on, switches.

What comes from above is verified here, whoever handed it over. The children get a decision before
this node acts on it. A node that was put back from a backup learns from below what was decided
since. Knows nothing of plans: it holds, it passes on, it obeys the root.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, TypeGuard

from hierarchy_config import Hierarchy, NodeId, shape_digest
from hierarchy_config.errors import FenheError
from node.links.hub import RequestHandler
from node.logs import get_logger
from node.region.context import RegionContext, own_keys, parse_body, to_body
from node.region.errors import RegionClosedError, RegionNotNextError, RegionStatementError
from node.region.statements import (
    Decision,
    Offer,
    digest_of,
    epoch_said,
    read_decision,
    read_offer,
    sign_held,
)
from node.region.store import EpochRow, EpochState
from node.region.switching import write_epoch
from replication.channel import AskRefusedError
from replication.core.model import Hello, Request

__all__ = ["OFFER", "Holding", "Keeper"]

OFFER: Final = "region.offer"
LOOK: Final = "region.look"
EPOCHS: Final = "region.epochs"
_EPOCHS_A_MESSAGE: Final = 16
_CHILD_SHARE: Final = 0.8
_CATCH_UP_MS: Final = 20_000
_SWITCH_PAUSE_S: Final = 0.2
_SWITCH_AGAIN_S: Final = 5.0
_EPOCH_MAX: Final = 2**31 - 1


@dataclass(slots=True)
class Holding:
    """Who holds what was offered, gathered from below.

    `have`: epoch by node. `held`: the own word of nodes that are moved or closed. `refused`: why.
    """

    have: dict[str, int]
    held: dict[str, str]
    refused: dict[str, str]

    def merge(self, answer: Mapping[str, Any], below: frozenset[NodeId]) -> None:
        """Add what a child said of the nodes below it; of others it may say nothing.

        A value of another kind is as good as none.
        """
        self.have.update(_epochs_by_node(answer.get("have"), below))
        self.held.update(_texts_by_node(answer.get("held"), below))
        self.refused.update(_texts_by_node(answer.get("refused"), below))

    def as_body(self) -> Mapping[str, Any]:
        """As it travels up."""
        return {"have": self.have, "held": self.held, "refused": self.refused}


class Keeper:
    """Lives on the event loop of the node."""

    def __init__(self, context: RegionContext, switch_again_s: float = _SWITCH_AGAIN_S) -> None:
        """`switch_again_s`: the pause after files that could not be written."""
        self._c = context
        self._switch_again_s = switch_again_s
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
        return {OFFER: self._on_offer, LOOK: self._on_look, EPOCHS: self._on_epochs}

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

    def _take(
        self, statements: Sequence[Mapping[str, Any]], source: NodeId | None = None
    ) -> tuple[int, str]:
        """The last epoch that is held now, and this node's word if it is concerned.

        `source`: a node below, if it is one that was asked.
        """
        before = self._c.hierarchy
        word = ""
        for each in statements[:_EPOCHS_A_MESSAGE]:
            raw, decision = _parts_of(each)
            if epoch_said(raw.encode()) <= before.epoch:
                self._refuse_another(read_offer(raw.encode(), self._c.judge(before)))
                continue
            offer = self._next_offer(raw, before)
            if source is not None and source not in offer.hierarchy:
                self._keep_draining(decision, offer, before)
                break
            self._c.epochs.keep_offer(offer, shape_digest(offer.hierarchy))
            if decision:
                self._keep_decision(decision, offer, before)
                self._decided()
            word = sign_held(
                self._c.base.credentials.signer, self._c.node_id, offer, own_keys(self._c.base)
            ).decode()
            before = offer.hierarchy
        return before.epoch, word

    def _refuse_another(self, offer: Offer) -> None:
        """Refuse a content for an epoch that is held with another one: its signer lost the first.

        A file that was put in place by hand is compared by what it means.
        """
        held = self._c.epochs.get(offer.epoch)
        if held is None:
            return
        if held.offer is not None:
            same = digest_of(held.text) == offer.digest
        else:
            same = held.shape_digest == shape_digest(offer.hierarchy)
        if not same:
            raise RegionNotNextError(f"epoch {offer.epoch} is held here with another content")

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
        decision = self._decision_for(raw, offer, before)
        stands = self._c.epochs.keep_decision(offer.epoch, decision.raw, offer.text)
        if read_decision(stands, self._c.judge(before)).digest != offer.digest:
            raise RegionNotNextError(f"epoch {offer.epoch} was decided on with another content")

    def _keep_draining(self, raw: str | None, offer: Offer, before: Hierarchy) -> None:
        """A node that an epoch closes is told before all others, so its word puts nothing in force.

        The root that signed it goes on where it was: it waits until the node is drained.
        """
        if raw and self._c.is_root:
            decision = self._decision_for(raw, offer, before)
            self._c.epochs.keep_offer(offer, shape_digest(offer.hierarchy))
            self._c.epochs.note(offer.epoch, {"draining": decision.raw.decode()})

    def _decision_for(self, raw: str, offer: Offer, before: Hierarchy) -> Decision:
        decision = read_decision(raw.encode(), self._c.judge(before))
        if (decision.epoch, decision.digest) != (offer.epoch, offer.digest):
            raise RegionStatementError("a decision is for another configuration")
        return decision

    # --- learning from below ----------------------------------------------------------------------

    async def learn(self, node: NodeId) -> bool:
        """Ask a node below for later epochs that are decided on; whether there is one now.

        What the root signed is as good from below as from above. Only one that was put back from a
        backup is told something new so; then `carry_out` is due.
        """
        try:
            asked = {"after": self._c.hierarchy.epoch}
            said = (await self._c.ask(node, EPOCHS, asked, _CATCH_UP_MS)).get("epochs")
            told = said if isinstance(said, list) else []
            decided = list(takewhile(lambda each: bool(_parts_of(each)[1]), told))
            await self._c.blocking(self._take, decided, node)
        except FenheError as error:
            self._log.info("nothing learnt", peer=node, code=error.code, reason=error.message)
            return False
        waiting = await self._c.blocking(self._c.epochs.get, self._c.hierarchy.epoch + 1)
        if waiting is None or not waiting.is_decided:
            return False
        self._log.warning(
            "epochs were decided on that this node had lost", peer=node, epoch=waiting.epoch
        )
        return True

    async def _learn_and_carry_out(self, child: NodeId) -> None:
        if await self.learn(child):
            await self.carry_out(0, _CATCH_UP_MS)

    async def _on_epochs(self, _peer: NodeId, request: Request) -> bytes:
        after = parse_body(request.body).get("after")
        if not _is_epoch(after):
            raise AskRefusedError("INVALID_REQUEST", "a question for epochs has another shape")
        return to_body({"epochs": await self.statements(after)})

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
        """A link is up: a child that is behind, or lacks what is pending, is offered it.

        From one that is ahead this node learns.
        """
        if self._c.hierarchy.parent(peer) != self._c.node_id:
            return
        self.children_at[peer] = hello.config_epoch
        if hello.config_epoch > self._c.hierarchy.epoch:
            self.spawn(self._learn_and_carry_out(peer))
        else:
            self.spawn(self._catch_up(peer, hello.config_epoch))

    async def _catch_up(self, child: NodeId, config_epoch: int) -> None:
        statements = await self.statements(config_epoch)
        answer = await self._offer(child, statements, _CATCH_UP_MS) if statements else None
        if answer is not None:
            have = _epochs_by_node(answer.get("have"), frozenset({child}))
            self.children_at[child] = have.get(child, config_epoch)

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
            found.update(_epochs_by_node(answer, self._c.hierarchy.subtree(child)))
        return {"nodes": found}

    async def _look_at(self, child: NodeId, remaining_ms: int) -> Any:
        try:
            return (await self._c.ask(child, LOOK, {}, remaining_ms)).get("nodes")
        except FenheError:
            return None

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

    async def is_switch_due(self) -> bool:
        """Whether something is decided that this node has not carried out yet."""
        return await self._c.blocking(self._decided) is not None

    def switch_soon(self) -> None:
        """Carry out what is decided, once the answer that is under way has left."""
        self.spawn(self._switch())

    async def _switch(self) -> None:
        await asyncio.sleep(_SWITCH_PAUSE_S)
        if self._switching:
            return
        self._switching = True
        try:
            while (decided := await self._c.blocking(self._decided)) is not None:
                if await self._c.blocking(self._write, decided):
                    self._log.info(
                        "the region changes", epoch=decided.epoch, was=self._c.hierarchy.epoch
                    )
                    self._c.restart()
                    return
                await asyncio.sleep(self._switch_again_s)
        finally:
            self._switching = False

    def _write(self, decided: EpochRow) -> bool:
        """Put the files of an epoch in place; False: they cannot be written now, as on a full disk.

        The log says so at each try: the node stays behind until it succeeds.
        """
        try:
            write_epoch(self._c.base, decided.text, decided.hierarchy)
        except (OSError, FenheError) as error:
            self._log.error("the files of an epoch cannot be written", reason=str(error))
            return False
        return True

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


def _parts_of(each: Any) -> tuple[str, str | None]:
    """The offer and the decision of a signed epoch as it travels. Raises RegionStatementError."""
    if isinstance(each, Mapping):
        offer, decision = each.get("offer"), each.get("decision")
        if isinstance(offer, str) and isinstance(decision, str | None):
            return offer, decision
    raise RegionStatementError("a signed epoch has another shape")


def _is_epoch(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _EPOCH_MAX


def _epochs_by_node(said: Any, below: frozenset[NodeId]) -> dict[str, int]:
    """What a peer said in the place of epochs by node."""
    given = said.items() if isinstance(said, dict) else ()
    return {node: value for node, value in given if node in below and _is_epoch(value)}


def _texts_by_node(said: Any, below: frozenset[NodeId]) -> dict[str, str]:
    """What a peer said in the place of texts by node."""
    given = said.items() if isinstance(said, dict) else ()
    return {node: value for node, value in given if node in below and isinstance(value, str)}
