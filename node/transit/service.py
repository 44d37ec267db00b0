"""The task of letters: finds keys, sends again what got no receipt, erases what was handed on.

Answers neighbours who look for a node's chain ("keys.chain"): from what this node knows, else from
below, else from above; a node's chain is public and proves itself.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, Engine

from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.aside import ITEM_FAULTS, AsideBook, is_passing
from node.clock import Clock
from node.links.hub import RequestHandler
from node.logs import get_logger
from node.storage.transactions import Transactions
from node.transit.carriage import Carriage, next_hop
from node.transit.chains import KnownKey
from node.transit.post import Post
from replication.channel import AskRefusedError
from replication.core.mailbox import LETTER_KEY_OLD
from replication.core.model import Lane, Request

__all__ = ["Asker", "TransitService"]

KEYS_CHAIN: Final = "keys.chain"
_STEP_S: Final = 1.0
_LETTERS_A_STEP: Final = 500
_KEY_MS: Final = 5_000
_HOP_MS: Final = 100
_KEY_HEX: Final = 64
_LETTER: Final = "letter"
_LOOKED_AT: Final = 20
"""Letters set aside that are looked at in one step."""
_SOON_MS: Final = 10_000
_ASIDE_MS: Final = 3_600_000
"""A letter that cannot be read or sent is looked at again after that."""
T = TypeVar("T")


class Asker(Protocol):
    """Asks a neighbour over the link: node/links' LinkHub."""

    async def ask(self, to: NodeId, method: str, body: bytes, *, remaining_ms: int) -> bytes:
        """Raises LinkDownError, AskTimeoutError, AskRefusedError."""


class TransitService:
    """Letters of a running node."""

    def __init__(
        self,
        engine: Engine,
        post: Post,
        carriage: Carriage,
        hub: Asker,
        *,
        hierarchy: Hierarchy,
        clock: Clock,
        threads: Executor,
        notify: Callable[[], None],
        head: Callable[[], int],
        aside: AsideBook,
        delivered: Callable[[Connection, Lane], int],
    ) -> None:
        """Sends nothing yet.

        Args:
            engine: Of the node's database.
            post: The letters.
            carriage: Those on their way in the log.
            hub: Asks neighbours.
            hierarchy: Who they are.
            clock: What is due.
            threads: For the database.
            notify: The log has grown.
            head: How far it is durable.
            aside: Where letters go that cannot be read.
            delivered: Up to where the parent holds what is for it of a lane.
        """
        self._transactions = Transactions(engine)
        self._post = post
        self._carriage = carriage
        self._hub = hub
        self._here = post.node_id
        self._hierarchy = hierarchy
        self._clock = clock
        self._threads = threads
        self._notify = notify
        self._head = head
        self._aside = aside
        self._delivered = delivered
        self._log = get_logger("transit")

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """Questions that the parent and the children may ask."""
        return {KEYS_CHAIN: self._answer_chain}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(_STEP_S)

    async def step(self) -> None:
        """Everything that is due now."""
        wanting = await self._run(self._send_due)
        for addressee, letters in wanting.items():
            bad = letters[0][1]
            known = await self._find(addressee, bad, _KEY_MS, may_be_kept=True)
            await self._run(self._go_on_with, known, [letter_id for letter_id, _ in letters])
        if await self._run(self._answer_owed):
            self._notify()
        await self._run(self._carriage.step, self._head())

    def _answer_owed(self) -> int:
        """Receipts that waited for the parent; how many have gone."""
        owed = self._post.owed
        if not self._transactions.read(owed.is_any):
            return 0
        self._transactions.write(owed.place)

        def work(connection: Connection) -> int:
            return self._post.answer_owed(
                connection, lambda lane: self._delivered(connection, lane)
            )

        return self._transactions.write(work)

    def _send_due(self) -> dict[NodeId, list[tuple[str, str]]]:
        """Send what is due; by addressee, letters that want a key, each with the key refused."""
        now_ms = self._clock.now_ms()
        self._forget_done()
        due = self._transactions.read(
            lambda connection: self._post.outbox.due(connection, now_ms, _LETTERS_A_STEP)
        )
        wanting: dict[NodeId, list[tuple[str, str]]] = defaultdict(list)
        for letter_id in due:
            addressee = self._one(letter_id, _going_on(self._post, letter_id))
            if addressee is None:
                continue
            letter = self._transactions.read(_getting(self._post, letter_id))
            is_old = letter is not None and letter.parcel.code == LETTER_KEY_OLD
            bad = letter.key_id if letter is not None and is_old else ""
            wanting[addressee].append((letter_id, bad))
        if len(due) > sum(map(len, wanting.values())):
            self._notify()
        return wanting

    def _forget_done(self) -> None:
        """Letters that were set aside and have got their receipt all the same."""
        for letter_id in self._aside.keys(_LETTER, _LOOKED_AT):
            letter = self._transactions.read(_getting(self._post, letter_id))
            if letter is None or letter.parcel.next_ms is None:
                self._aside.clear(_LETTER, letter_id)

    def _one(self, letter_id: str, work: Callable[[Connection], T]) -> T | None:
        """Do something about one letter; None if it cannot be done: the others do not wait."""
        try:
            done = self._transactions.write(work)
        except ITEM_FAULTS as error:
            pause_ms = _SOON_MS
            if not is_passing(error):
                self._aside.add(_LETTER, letter_id, error)
                pause_ms = _ASIDE_MS
            again_ms = self._clock.now_ms() + pause_ms
            self._transactions.write(
                lambda connection: self._post.outbox.put_off(connection, letter_id, again_ms)
            )
            return None
        self._aside.clear(_LETTER, letter_id)
        return done

    def _go_on_with(self, known: KnownKey | None, letters: list[str]) -> None:
        """Send with the key that was found, or later."""
        for letter_id in letters:
            if known is None:
                self._one(letter_id, _postponing(self._post, letter_id))
            else:
                self._one(letter_id, _going_on(self._post, letter_id))
        self._notify()

    # -- keys -----------------------------------------------------------------------------------

    async def _find(
        self, node_id: NodeId, bad: str, remaining_ms: int, *, may_be_kept: bool
    ) -> KnownKey | None:
        """A node's chain, learnt; `bad` names the key that its owner no longer has.

        `may_be_kept`: the chain kept here will do. Where a key was given up, that of a node further
        off may be older still: then its neighbour is asked, who has met it since.
        """
        hop = next_hop(self._hierarchy, self._here, node_id)
        if may_be_kept or hop is None or hop == node_id:
            known = await self._run(self._known, node_id)
            if known is not None and known.key_id != bad:
                return known
        if hop is None:
            return None
        body = json.dumps({"node": node_id, "not": bad}).encode()
        try:
            chain = await self._hub.ask(hop, KEYS_CHAIN, body, remaining_ms=remaining_ms)
            return await self._run(self._learn, node_id, chain, bad)
        except FenheError as error:
            self._log.info("no key yet", node=node_id, asked=hop, code=error.code)
            return None

    def _known(self, node_id: NodeId) -> KnownKey | None:
        own = self._post.own() if node_id == self._here else None
        if own is not None:
            return KnownKey(node_id, own.key_id, own.chain_pem)
        return self._transactions.read(
            lambda connection: self._post.chains.known(connection, node_id)
        )

    def _learn(self, node_id: NodeId, chain: bytes, bad: str) -> KnownKey | None:
        known = self._transactions.write(
            lambda connection: self._post.chains.learn(connection, node_id, chain)
        )
        return None if known.key_id == bad else known

    async def _answer_chain(self, peer: NodeId, request: Request) -> bytes:
        """A node's chain for a neighbour. A child's question about its own subtree ends here."""
        node_id, bad = _asked(request.body)
        hop = next_hop(self._hierarchy, self._here, node_id)
        known = None
        if node_id in self._hierarchy.nodes:
            if hop == peer:
                known = await self._run(self._known, node_id)
                known = known if known is not None and known.key_id != bad else None
            else:
                left_ms = request.remaining_ms - _HOP_MS
                known = await self._find(node_id, bad, left_ms, may_be_kept=not bad)
        if known is None:
            raise AskRefusedError(
                "KEY_NOT_FOUND", f"{self._here} cannot give the chain of {node_id}"
            )
        return known.chain_pem

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def _asked(body: bytes) -> tuple[NodeId, str]:
    try:
        said = json.loads(body)
        node_id, bad = said["node"], said["not"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AskRefusedError("BAD_REQUEST", "the question cannot be read") from None
    if not isinstance(node_id, str) or not isinstance(bad, str) or len(bad) > _KEY_HEX:
        raise AskRefusedError("BAD_REQUEST", "the question cannot be read")
    return NodeId(node_id), bad


def _going_on(post: Post, letter_id: str) -> Callable[[Connection], NodeId | None]:
    return lambda connection: post.go_on(connection, letter_id)


def _postponing(post: Post, letter_id: str) -> Callable[[Connection], None]:
    return lambda connection: post.postpone(connection, letter_id)


def _getting(post: Post, letter_id: str) -> Callable[[Connection], Any]:
    return lambda connection: post.outbox.get(connection, letter_id, with_body=False)
