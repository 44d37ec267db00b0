"""Asks children for grants that this node lacks, and answers the parent that lacks some.

What is asked and believed is decided in questions.py and lost.py; here it goes over the links.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Final, TypeVar

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.links.hub import LinkHub, RequestHandler
from node.logs import get_logger
from node.residence.lost import LostGrants, LostQuestion
from node.residence.papers import grants_in, grants_out
from node.residence.questions import GrantQuestion, GrantQuestions
from node.residence.residence import Residence
from node.storage.context import StoreContext
from replication.channel import AskError, AskRefusedError
from replication.core.model import Request as LinkRequest

__all__ = ["GrantAsker"]

HELD_METHOD: Final = "residence.held"
LOST_METHOD: Final = "residence.lost"
_LOOK_MS: Final = 5_000
"""Between two looks for what is to be asked."""
_ANSWER_MS: Final = 5_000

T = TypeVar("T")


class GrantAsker:
    """One node's questions for grants; `notify`: something was written."""

    def __init__(
        self,
        store: StoreContext,
        residence: Residence,
        hub: LinkHub,
        *,
        threads: Executor,
        notify: Callable[[], None],
    ) -> None:
        self._store = store
        self._hub = hub
        self._threads = threads
        self._notify = notify
        self._questions = GrantQuestions(store, residence)
        self._lost = LostGrants(store, residence)
        self._look_at_ms = 0
        self._log = get_logger("residence")

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """What the parent may ask."""
        return {HELD_METHOD: self._answer_held, LOST_METHOD: self._answer_lost}

    async def step(self) -> None:
        """Ask what is due; who cannot be asked, or lies, is asked again later."""
        now_ms = self._store.clock.monotonic_ms()
        if 0 < self._look_at_ms - now_ms <= _LOOK_MS:
            return
        self._look_at_ms = now_ms + _LOOK_MS
        for lost in await self._blocking(self._lost.wanted):
            await self._asked(lost.peer, LOST_METHOD, lost.body(), partial(self._lost.take, lost))
        for held in await self._blocking(self._questions.wanted):
            take = partial(self._questions.take, held)
            await self._asked(held.peer, HELD_METHOD, held.body(), take)

    async def _asked(
        self, child: NodeId, method: str, body: bytes, take: Callable[..., bool]
    ) -> None:
        try:
            said = await self._hub.ask(child, method, body, remaining_ms=_ANSWER_MS)
            work = partial(take, grants_in(said))
            if await self._blocking(partial(self._store.transactions.write, work)):
                self._notify()
        except FenheError as error:
            self._log.info("no grant from below", peer=child, asked=method, code=error.code)

    async def _answer_held(self, _peer: NodeId, request: LinkRequest) -> bytes:
        """The grant of somebody who lives below, as known here or further down."""
        question = GrantQuestion.read(self._store.node_id, request.body)
        look = partial(self._questions.held, question=question)
        grants, towards = await self._blocking(partial(self._store.transactions.read, look))
        if towards is None:
            return grants_out(grants)
        try:
            said = await self._hub.ask(
                towards, HELD_METHOD, question.body(), remaining_ms=_ANSWER_MS
            )
        except AskRefusedError:
            raise
        except AskError as error:
            raise AskRefusedError("LINK_DOWN", error.message) from None
        return grants_out(grants_in(said))

    async def _answer_lost(self, peer: NodeId, request: LinkRequest) -> bytes:
        question = LostQuestion.read(self._store.node_id, request.body)
        look = partial(self._lost.held, granter=peer, question=question)
        return grants_out(await self._blocking(partial(self._store.transactions.read, look)))

    async def _blocking(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
