"""Residence for callers and neighbours: moves are asked for, granted or passed on, and driven.

A question for a grant climbs from node to node until the lowest common ancestor of both homes
answers it; each node on the way adds what it knows of the present home and asks no further for a
child that has no business with it. Before it grants, the ancestor asks down both branches, so that
a move granted below it is not granted over.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.aside import ITEM_FAULTS, is_passing
from node.errors import DeniedError, InvalidRequestError, NotFoundError
from node.links.hub import LinkHub, RequestHandler
from node.logs import get_logger
from node.records.canaries import is_canary
from node.residence.asking import GrantAsker
from node.residence.errors import MoveNotNeededError, MoveRefusedError, ResidentMovedError
from node.residence.homes import SignedGrant
from node.residence.moves import REQUESTED_EPOCH, MoveState
from node.residence.papers import Ask, ask_in, ask_out, grant_in, grant_out, home_in, home_out
from node.residence.reminders import Reminders
from node.residence.residence import Knowledge, Residence
from node.residence.steps import MoveSteps
from node.security.caller import Caller, CallerKind, caller_for, local_operator
from node.storage.audit import Action
from node.storage.context import StoreContext
from node.storage.moved import may_know
from node.storage.scope import has_place, seen_residents
from node.storage.shapes import is_row_id
from replication.channel import AskError, AskRefusedError
from replication.core.model import Request as LinkRequest
from replication.core.residence import (
    KnownHome,
    MoveDecision,
    MoveRequest,
    believed_claim,
    may_ask,
    newest_home,
)

__all__ = ["GRANT_METHOD", "KNOWN_METHOD", "ResidenceDesk", "Whereabouts"]

GRANT_METHOD: Final = "residence.grant"
KNOWN_METHOD: Final = "residence.known"
ASK_MS: Final = 10_000
_KNOWN_MS: Final = 3_000
_PULSE_S: Final = 1.0
_AGAIN_MS: Final = 15_000
_REASON_MAX: Final = 200
_MOVE: Final = "move"
_LOOKED_AT: Final = 20
"""Moves set aside that are looked at in one pulse."""

_NOT_REACHED: Final = frozenset({"LINK_DOWN", "ASK_TIMEOUT", "ASK_FAILED", "RECOVERING"})
"""Refusals that say nothing of the move: it is asked for again."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What a caller may know of a resident's home. `state`: of the newest move, "" if none.

    `in_subtree`: the asked node is his home or above it.
    """

    resident_id: str
    home_node: str
    home_epoch: int
    held_here: bool
    state: str
    code: str
    from_node: str
    since_ms: int
    in_subtree: bool


class ResidenceDesk:
    """One node's desk. `durable_head`: of the log, before steps that look at numbers."""

    def __init__(
        self,
        store: StoreContext,
        residence: Residence,
        hub: LinkHub,
        *,
        threads: Executor,
        durable_head: Callable[[], int],
        notify: Callable[[], None],
    ) -> None:
        self._store = store
        self._residence = residence
        self._hub = hub
        self._threads = threads
        self._durable_head = durable_head
        self._notify = notify
        self._steps = MoveSteps(store, residence, is_connected=self._is_connected)
        self.reminders = Reminders(store, residence)
        self._asker = GrantAsker(store, residence, hub, threads=threads, notify=notify)
        self._log = get_logger("residence")

    @property
    def child_handlers(self) -> Mapping[str, RequestHandler]:
        """What a child may ask."""
        return {GRANT_METHOD: self._answer_child}

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """What the parent may ask."""
        own = {KNOWN_METHOD: self._answer_known, GRANT_METHOD: self._answer_parent}
        return {**own, **self._asker.handlers}

    # -- callers ----------------------------------------------------------------------------

    async def move(
        self, caller: Caller, resident_id: str, to_node: str, reason: str
    ) -> Whereabouts:
        """Ask for a move, and wait for the answer as long as one question takes.

        If the node that grants cannot be reached now it is asked again until it answers.

        Raises:
            NotFoundError: No such resident, for all this node may say.
            MoveNotNeededError: He lives there.
            ResidentMovedError: Somebody else's move was granted first.
            MoveRefusedError: The node that grants said no.
        """
        if not is_row_id(resident_id):
            raise InvalidRequestError("resident_id is not a UUID")
        if is_canary(resident_id):
            raise InvalidRequestError("a canary does not move: its id names its home")
        if not self._residence.path(to_node):
            raise InvalidRequestError(
                f"{to_node[:16]} is not a node of this region",
                hint="`fenhe hierarchy tree` lists the region's nodes.",
            )
        here = str(self._store.node_id)
        known = await self._read(lambda c: self._residence.known(c, resident_id))
        may = known is not None and known.home_node in caller.scope
        if not may and not (to_node in caller.scope and reason.strip()):
            raise DeniedError(
                "a move is asked for where he lives, or with a reason where he moves to",
                hint="Give --reason at the new home, or ask at the resident's home.",
            )
        ask = Ask(resident_id, to_node, reason[:_REASON_MAX], here, known)
        await self._write(lambda c: self._residence.request(c, caller, ask))
        await self._ask(caller, ask)
        return await self.where(caller, resident_id)

    async def where(self, caller: Caller, resident_id: str) -> Whereabouts:
        """Where he lives, and how far a move is. Audited.

        Raises:
            NotFoundError: Unknown here, or not for this caller.
        """
        if not is_row_id(resident_id):
            raise InvalidRequestError("resident_id is not a UUID")
        scope = await self._blocking(lambda: self._store.scopes.parameters(caller))

        def work(connection: Connection) -> tuple[Knowledge, bool]:
            self._residence.audit(connection, caller, Action.WHERE, resident_id)
            known = self._residence.knowledge(connection, resident_id)
            seen = not known.held or bool(seen_residents(connection, caller, scope, [resident_id]))
            return known, seen

        known, seen = await self._write(work)
        home = known.home
        newest = known.grants[-1].grant if known.grants else None
        asked = any(move.state is MoveState.REQUESTED for move in known.moves)
        allowed = (
            seen
            and home is not None
            and (
                has_place(caller, home_node=home.home_node, author_node="")
                or (newest is not None and may_know(caller, newest))
            )
        )
        if not allowed and not asked:
            raise NotFoundError("no such resident is known here")
        # What was asked for and not granted comes first: its epoch is 0.
        pending = [move for move in known.moves if move.home_epoch == REQUESTED_EPOCH]
        move = next(iter((*pending, *known.moves[-1:])), None)
        return Whereabouts(
            resident_id,
            home.home_node if home and allowed else "",
            home.home_epoch if home and allowed else 0,
            known.held,
            move.state.value if move else "",
            move.code if move else "",
            move.from_node if move else "",
            move.since if move else 0,
            home is not None and home.home_node in self._below(),
        )

    # -- questions over links -------------------------------------------------------------------

    async def _ask(self, caller: Caller, ask: Ask) -> None:
        """Have a noted request answered; it stays noted if nobody could be reached."""
        try:
            signed = await self._obtain(caller, ask)
        except AskRefusedError as error:
            if error.status in _NOT_REACHED:
                self._log.info("a move waits", code=error.status, reason=error.message)
                return
            status = error.status
            await self._write(lambda c: self._residence.answered(c, ask.resident_id, status))
            raise MoveRefusedError(f"{status}: {error.message}") from None
        except AskError as error:
            self._log.info("a move waits", code=error.code, reason=error.message)
            return
        except FenheError as error:
            code = error.code
            await self._write(lambda c: self._residence.answered(c, ask.resident_id, code))
            raise
        await self._write(lambda c: self._learn(c, signed))
        self._notify()

    def _learn(self, connection: Connection, signed: SignedGrant) -> None:
        """The granter's letter says the same again; who asked and has a part in it acts now."""
        here, grant = str(self._store.node_id), signed.grant
        if here in {grant.home_node, grant.from_node}:
            self._residence.learn(connection, signed)
        self._residence.answered(connection, grant.resident_id, "")

    async def _obtain(self, caller: Caller, ask: Ask) -> SignedGrant:
        """The grant: from here, from above or from below, wherever the common ancestor is."""
        known = await self._read(lambda c: self._residence.known(c, ask.resident_id))
        present = newest_home((known, ask.known))
        ask = replace(ask, known=present)
        request = MoveRequest(ask.resident_id, ask.to_node, ask.reason)
        step = self._residence.decide(request, present)
        if (
            step.decision in {MoveDecision.GRANT, MoveDecision.REFUSE_HERE_ALREADY}
            and present is not None
        ):
            fresh = await self._present(ask, present)
            if fresh != present:
                ask, present = replace(ask, known=fresh), fresh
                step = self._residence.decide(request, present)
        match step.decision:
            case MoveDecision.GRANT | MoveDecision.REFUSE_HERE_ALREADY if present is not None:
                home = present
                signed = await self._write(lambda c: self._residence.grant(c, caller, ask, home))
                self._notify()
                return signed
            case MoveDecision.ASK_ABOVE:
                above = self._hub.hierarchy.parent(self._store.node_id)
                if above is None:
                    raise NotFoundError("no such resident is known here")
                return await self._asked(above, ask)
            case MoveDecision.ASK_BELOW:
                return await self._asked(NodeId(step.node), ask)
            case _:
                raise NotFoundError("no such resident is known here")

    async def _asked(self, node: NodeId, ask: Ask) -> SignedGrant:
        body = await self._hub.ask(node, GRANT_METHOD, ask_out(ask), remaining_ms=ASK_MS)
        signed = grant_in(body)
        await self._read(lambda c: self._residence.judge.prove(c, signed))
        return signed

    async def _present(self, ask: Ask, present: KnownHome) -> KnownHome:
        """The newest home that the nodes down both branches know; those away are not waited for."""
        here = self._store.node_id
        tree = self._hub.hierarchy
        towards = {
            tree.next_hop(here, NodeId(place))
            for place in (present.home_node, ask.to_node)
            if place != here and tree.is_in_subtree(NodeId(place), here)
        }
        said = await asyncio.gather(
            *(self._known_of(child, ask.resident_id) for child in sorted(towards))
        )
        return newest_home((present, *said)) or present

    async def _known_of(self, child: NodeId, resident_id: str) -> KnownHome | None:
        body = json.dumps({"resident_id": resident_id}).encode()
        try:
            answer = await self._hub.ask(child, KNOWN_METHOD, body, remaining_ms=_KNOWN_MS)
        except AskError:
            return None
        claim = home_in(answer)
        subtree = self._hub.hierarchy.subtree(child)
        return claim if claim is not None and claim.home_node in subtree else None

    async def _answer_known(self, _peer: NodeId, request: LinkRequest) -> bytes:
        """Tell the parent his newest home, as known here or further down."""
        try:
            resident_id = str(json.loads(request.body)["resident_id"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InvalidRequestError("not a question for a resident's home") from None
        if not is_row_id(resident_id):
            raise InvalidRequestError("not a question for a resident's home")
        known = await self._read(lambda c: self._residence.known(c, resident_id))
        here, tree = self._store.node_id, self._hub.hierarchy
        if known is not None and known.home_node != here:
            place = NodeId(known.home_node)
            if tree.is_in_subtree(place, here):
                below = await self._known_of(tree.next_hop(here, place), resident_id)
                known = newest_home((known, below))
        return home_out(known)

    async def _answer_child(self, peer: NodeId, request: LinkRequest) -> bytes:
        """A child asks for a grant, for itself or for somebody below it."""
        ask = ask_in(request.body)
        below = self._hub.hierarchy.subtree(peer)
        own = await self._read(lambda c: self._residence.known(c, ask.resident_id))
        present = believed_claim(own, ask.known, below)
        wanted = MoveRequest(ask.resident_id, ask.to_node, ask.reason)
        if ask.asked_by not in below or not may_ask(below, present, wanted):
            raise AskRefusedError("DENIED", f"{peer} has no part in this resident's move")
        purpose = ask.reason or "move of a resident"
        tree = self._hub.hierarchy
        caller = caller_for(CallerKind.NODE, tree.spiffe_id(peer), peer, tree, purpose)
        await self._write(lambda c: self._residence.audit(c, caller, Action.MOVE, ask.resident_id))
        return grant_out(await self._passed_on(caller, replace(ask, known=present)))

    async def _answer_parent(self, peer: NodeId, request: LinkRequest) -> bytes:
        """The parent found that the common ancestor is this node, or lies below it."""
        ask = ask_in(request.body)
        tree = self._hub.hierarchy
        purpose = ask.reason or "move of a resident"
        caller = caller_for(CallerKind.NODE, tree.spiffe_id(peer), peer, tree, purpose)
        return grant_out(await self._passed_on(caller, ask))

    async def _passed_on(self, caller: Caller, ask: Ask) -> SignedGrant:
        """Obtain a grant for somebody else; a refusal keeps its own code on the way down."""
        try:
            return await self._obtain(caller, ask)
        except AskRefusedError:
            raise
        except AskError as error:
            raise AskRefusedError("LINK_DOWN", error.message) from None
        except FenheError as error:
            raise AskRefusedError(error.code, error.message) from None

    # -- steps ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry moves on for ever."""
        has_begun = False
        while True:
            await asyncio.sleep(_PULSE_S)
            try:
                if not has_begun:
                    await self._blocking(self._steps.begin)
                    has_begun = True
                await self.pulse()
            except (FenheError, SQLAlchemyError) as error:
                self._log.warning("moves wait", reason=type(error).__name__)

    async def pulse(self) -> None:
        """One look at everything that is due."""
        await self._blocking(self._forget_done)
        if await self._blocking(self.reminders.step):
            self._notify()
        await self._asker.step()
        due = await self._blocking(self._steps.due)
        if not due:
            return
        await self._blocking(self._durable_head)
        for resident_id, home_epoch in due:
            try:
                if home_epoch == REQUESTED_EPOCH:
                    await self._ask_again(resident_id)
                else:
                    await self._blocking(partial(self._steps.step, resident_id, home_epoch))
            except ITEM_FAULTS as error:
                await self._blocking(partial(self._put_off, resident_id, home_epoch, error))
            else:
                self._store.aside.clear(_MOVE, resident_id)
        self._notify()

    def _put_off(self, resident_id: str, home_epoch: int, error: Exception) -> None:
        """One move cannot go on, as with a row of his that does not open: others do not wait."""
        waits = self._steps.put_off(resident_id, home_epoch)
        if waits and not is_passing(error):
            self._store.aside.add(_MOVE, resident_id, error)

    def _forget_done(self) -> None:
        """What was set aside and came to its end another way: a letter, another grant."""
        for resident_id in self._store.aside.keys(_MOVE, _LOOKED_AT):
            if not self._steps.waits(resident_id):
                self._store.aside.clear(_MOVE, resident_id)

    async def _ask_again(self, resident_id: str) -> None:
        """Ask once more for what was noted and could not be answered."""

        def noted(connection: Connection) -> Ask | None:
            move = self._residence.moves.get(connection, resident_id, REQUESTED_EPOCH)
            if move is None or move.state is not MoveState.REQUESTED:
                return None
            again = replace(move, next_at=self._store.clock.now_ms() + _AGAIN_MS)
            self._residence.moves.save(connection, again)
            known = self._residence.known(connection, resident_id)
            here = str(self._store.node_id)
            return Ask(resident_id, move.home_node, move.reason, here, known)

        ask = await self._write(noted)
        if ask is None:
            return
        operator = local_operator(self._store.node_id, self._store.hierarchy, "a move asked for")
        try:
            await self._ask(operator, ask)
        except (MoveRefusedError, MoveNotNeededError, ResidentMovedError, NotFoundError) as error:
            # Noted with its code, where whoever asked looks for it.
            self._log.info("a move was refused", code=error.code)

    # -- small ----------------------------------------------------------------------------------

    def _below(self) -> frozenset[NodeId]:
        return self._hub.hierarchy.subtree(self._store.node_id)

    def _is_connected(self, node: NodeId) -> bool:
        state = self._hub.states.get(node)
        return state is not None and state.connected

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._blocking(lambda: self._store.transactions.read(work))

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._blocking(lambda: self._store.transactions.write(work))

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
