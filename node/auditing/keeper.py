"""Has the end of this node's chain anchored elsewhere, once a minute, and counts while it is not.

What is anchored is what is durable: the end is read from the database after a commit, so that no
kill of this process can make it take a head back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.auditing.errors import AuditStatementError
from node.auditing.ground import AuditGround
from node.auditing.model import NOWHERE, Head, KeptAnchor, Life, Point
from node.auditing.statements import (
    ANCHOR_TAG,
    HEAD_TAG,
    LIVES_MAX,
    anchor_in,
    digest_of,
    head_bytes,
    read_json,
    signed_in,
    signed_out,
)
from node.logs import get_logger
from node.storage.tables import CHANGELOG
from replication.changelog import StoreState
from replication.channel import AskRefusedError

__all__ = ["ANCHOR_METHOD", "COUNTED_FACT", "AnchorKeeper", "HolderState"]

ANCHOR_METHOD: Final = "audit.anchor"
COUNTED_FACT: Final = "audit_unanchored"
PERIOD_S: Final = 60.0
FIRST_S: Final = 5.0
_ASK_MS: Final = 20_000
_ROUNDS_MAX: Final = 6
_THIN_MS: Final = 3_600_000

AskPeer = Callable[[NodeId, str, bytes, int], Awaitable[bytes]]
"""Asks a neighbour over the link: to, method, body, remaining_ms. Errors: those of LinkHub.ask."""


@dataclass(slots=True)
class HolderState:
    """What is known of one holder. `error`: the code of the last attempt, empty: it went well."""

    anchored: Point = NOWHERE
    at_ms: int = 0
    error: str = ""
    message: str = ""
    asks_for: int = 0


@dataclass(frozen=True, slots=True)
class _End:
    """The chain's durable end. `seen`: what it holds where each holder asked."""

    end: Point
    lives: tuple[Life, ...]
    linked: int = 0
    seen: Mapping[int, Point] = field(default_factory=dict)


class AnchorKeeper:
    """Asks the holders; `states` by holder."""

    def __init__(self, ground: AuditGround, ask: AskPeer) -> None:
        self._g = ground
        self._ask = ask
        self._log = get_logger("audit")
        self._facts = StoreState(CHANGELOG)
        self._thinned_ms = ground.clock.monotonic_ms()
        self.states = {holder: HolderState() for holder in ground.holders}
        self.end = NOWHERE

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody who could anchor: a region of one node."""
        return not self.states

    async def run(self) -> None:
        """Until cancelled: every minute, and more often until the first success."""
        while True:
            done = await self.step()
            await asyncio.sleep(PERIOD_S if done else FIRST_S)

    async def step(self) -> bool:
        """One attempt at every holder; whether the end is anchored now."""
        g = self._g
        while await g.blocking(g.link):
            pass
        found = await g.blocking(self._read_end)
        self.end = found.end
        done = await asyncio.gather(*(self._anchor(holder, found) for holder in self.states))
        is_anchored = any(done) or self.is_alone
        await g.blocking(self._count, found.end if is_anchored else None)
        return is_anchored

    def _read_end(self) -> _End:
        def work(connection: Connection) -> _End:
            store = self._g.anchors
            end = store.end(connection)
            wanted = {state.asks_for for state in self.states.values()}
            seen = {place: store.at(connection, place) for place in wanted}
            lives = store.lives(connection)[-LIVES_MAX:]
            return _End(end, lives, seen=seen)

        return self._g.transactions.read(work)

    def _count(self, anchored: Point | None) -> None:
        """Bring the counted time up to date and keep it."""
        g = self._g
        now_ms = g.clock.monotonic_ms()

        def is_everything(connection: Connection) -> bool:
            return anchored is not None and g.anchors.end(connection) == anchored

        if anchored is not None:
            everything = g.link() == 0 and g.transactions.read(is_everything)
            g.counted.anchored(now_ms, everything=everything)
        else:
            g.counted.grown(now_ms)
        saved = g.counted.saved(g.clock.now_ms(), now_ms).text()
        thin = now_ms - self._thinned_ms >= _THIN_MS

        def keep(connection: Connection) -> None:
            self._facts.save(connection, COUNTED_FACT, saved)
            if thin:
                g.anchors.thin(connection, g.clock.now_ms())

        g.transactions.write(keep)
        if thin:
            self._thinned_ms = now_ms

    async def _anchor(self, holder: NodeId, found: _End) -> bool:
        state = self.states[holder]
        try:
            kept = await self._ask_until_taken(holder, state, found)
        except FenheError as error:
            code = error.status if isinstance(error, AskRefusedError) else error.code
            if state.error != code:
                self._log.warning("not anchored", peer=holder, code=code, reason=error.message)
            state.error, state.message = code, error.message
            return False
        if state.error:
            self._log.info("anchored", peer=holder, position=kept.head.end.position)
        state.error = state.message = ""
        state.anchored, state.at_ms = kept.head.end, self._g.clock.now_ms()
        return True

    async def _ask_until_taken(self, holder: NodeId, state: HolderState, found: _End) -> KeptAnchor:
        """Answer what the holder wants to know first, until it takes the head."""
        g = self._g
        wants_chain = False
        for _ in range(_ROUNDS_MAX):
            seen = found.seen.get(state.asks_for)
            if seen is None:
                seen = await g.blocking(self._seen, state.asks_for)
            head = Head(g.node_id, g.store_epoch, found.end, g.clock.now_ms(), found.lives, seen)
            signed = g.proof.sign(HEAD_TAG, head_bytes(head))
            body: dict[str, Any] = {"head": signed_out(signed)}
            if wants_chain:
                body["chain"] = g.proof.chain_pem.decode()
            answer = read_json(
                await self._ask(holder, ANCHOR_METHOD, json.dumps(body).encode(), _ASK_MS)
            )
            need = answer.get("need")
            if isinstance(need, dict):
                wants_chain = wants_chain or bool(need.get("chain"))
                state.asks_for = _position(need.get("position"), state.asks_for)
                continue
            anchor_signed = signed_in(answer.get("anchor"))
            anchor = anchor_in(anchor_signed.statement)
            if anchor.holder != holder or anchor.head_digest != digest_of(signed.statement):
                raise AuditStatementError(f"{holder} anchored another head than it was asked to")
            kept = KeptAnchor(head, anchor, signed, anchor_signed)
            await g.blocking(self._keep, kept, answer.get("chain"))
            state.asks_for = head.end.position
            return kept
        raise AuditStatementError(f"{holder} asks on and on")

    def _seen(self, position: int) -> Point:
        return self._g.transactions.read(
            lambda connection: self._g.anchors.at(connection, position)
        )

    def _keep(self, kept: KeptAnchor, chain: Any) -> None:
        """Keep an anchor, once the holder's signature is seen to be its own."""
        g, signed = self._g, kept.anchor_signed
        pem = chain.encode() if isinstance(chain, str) else b""
        if not g.proof.knows(kept.anchor.holder, signed.key_id):
            g.proof.meet(kept.anchor.holder, signed.key_id, pem)
        g.proof.verify(kept.anchor.holder, ANCHOR_TAG, signed)

        def work(connection: Connection) -> None:
            if pem:
                g.anchors.learn_signer(connection, signed.key_id, kept.anchor.holder, pem)
            g.anchors.put(connection, kept)

        g.transactions.write(work)


def _position(said: Any, otherwise: int) -> int:
    is_number = isinstance(said, int) and not isinstance(said, bool) and 0 <= said < 2**62
    return said if is_number else otherwise
