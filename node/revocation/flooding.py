"""How entries reach every node: neighbours compare heads, and each fetches what it lacks.

    revocation.heads    {"heads": {signer: digest}, "authority": PEM} → {"heads": {signer: digest}}
    revocation.entries  {"signers": […], "after": digest} → {"entries": […], "next": digest}

Asked at each greeting, on every change, and every half minute: a lost message delays, and nothing
is lost. Nobody is believed: an entry is verified here, whoever hands it over. Whoever hands over
what is no entry, again and again, is not asked for more for a while. Lives on the event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.links.hub import LinkHub, RequestHandler
from node.logs import get_logger
from node.revocation.book import RevokedBook
from node.revocation.entries import Entry, read_entry
from node.revocation.errors import RevocationInvalidError
from node.revocation.store import RevocationStore
from node.security.caller import Caller, CallerKind
from replication.channel import AskRefusedError
from replication.core.model import Request

__all__ = ["ENTRIES", "HEADS", "Flooding", "Ground", "page", "parse_body", "to_body"]

HEADS: Final = "revocation.heads"
ENTRIES: Final = "revocation.entries"
LOOK_S: Final = 30.0
_ASK_MS: Final = 10_000
_PAGE: Final = 16
_PAGES_MAX: Final = 2_048
_INVALID_MAX: Final = 32
_SHUNNED_MS: Final = 10 * 60_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ground:
    """What flooding stands on.

    `learnt`: told of entries that are new here, from a neighbour or an operator. `met`: told, in a
    thread, what a child says of its own authority.
    """

    node_id: NodeId
    hierarchy: Hierarchy
    root_pem: bytes
    book: RevokedBook
    store: RevocationStore
    hub: LinkHub
    threads: Executor
    clock: Clock
    authority: Callable[[], str]
    learnt: Callable[[Sequence[Entry]], None]
    met: Callable[[NodeId, str], None]


class Flooding:
    """Both ends of both questions."""

    def __init__(self, ground: Ground) -> None:
        self._g = ground
        self._log = get_logger("revocation")
        self._pulling: set[NodeId] = set()
        self._shunned: dict[NodeId, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def handlers(self) -> Mapping[str, RequestHandler]:
        """Questions of every neighbour, above or below."""
        return {HEADS: self._on_heads, ENTRIES: self._on_entries}

    async def run(self) -> None:
        """Compare with every neighbour from time to time, until cancelled."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                self.spread()
        finally:
            for task in tuple(self._tasks):
                task.cancel()

    def greet(self, peer: NodeId) -> None:
        """A link is up: compare with it."""
        self._spawn(self._compare(peer))

    def spread(self, source: NodeId | None = None) -> None:
        """Tell every neighbour but the one it came from that there is news."""
        for state in self._g.hub.states.values():
            if state.connected and state.peer != source:
                self._spawn(self._compare(state.peer))

    async def idle(self) -> None:
        """Wait until nothing that this end began is under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _compare(self, peer: NodeId) -> None:
        try:
            asked = {"heads": dict(self._g.book.heads), "authority": self._g.authority()}
            said = await self._ask(peer, HEADS, asked)
            await self._pull(peer, said.get("heads"))
        except FenheError as error:
            # One of an older release does not know the question; a link that broke asks again.
            self._log.debug("lists are not compared", peer=peer, code=error.code)

    async def _on_heads(self, peer: NodeId, request: Request) -> bytes:
        body = parse_body(request.body)
        authority = body.get("authority")
        if isinstance(authority, str):
            await self._blocking(self._g.met, peer, authority)
        self._spawn(self._pull_quietly(peer, body.get("heads")))
        return to_body({"heads": dict(self._g.book.heads)})

    async def _on_entries(self, _peer: NodeId, request: Request) -> bytes:
        body = parse_body(request.body)
        signers, after = body.get("signers"), body.get("after")
        if not isinstance(signers, list) or not isinstance(after, str):
            raise AskRefusedError("INVALID_REQUEST", "a question for entries has another shape")
        entries, following = page(self._g.book, signers, after)
        return to_body({"entries": [each.raw.decode() for each in entries], "next": following})

    async def _pull_quietly(self, peer: NodeId, heads: Any) -> None:
        try:
            await self._pull(peer, heads)
        except FenheError as error:
            self._log.debug("entries are not fetched", peer=peer, code=error.code)

    async def _pull(self, peer: NodeId, heads: Any) -> None:
        """Fetch the lists that differ, page by page."""
        signers = self._differing(heads)
        now_ms = self._g.clock.monotonic_ms()
        if not signers or peer in self._pulling or self._shunned.get(peer, 0) > now_ms:
            return
        self._pulling.add(peer)
        try:
            after, invalid = "", 0
            for _ in range(_PAGES_MAX):
                said = await self._ask(peer, ENTRIES, {"signers": signers, "after": after})
                invalid += await self._take(peer, said.get("entries"))
                following = said.get("next")
                if invalid > _INVALID_MAX:
                    self._shunned[peer] = now_ms + _SHUNNED_MS
                    self._log.warning("a neighbour hands over what is no revocation", peer=peer)
                    return
                if not isinstance(following, str) or following <= after:
                    return
                after = following
        finally:
            self._pulling.discard(peer)

    def _differing(self, heads: Any) -> list[str]:
        here, hierarchy = self._g.book.heads, self._g.hierarchy
        said = heads if isinstance(heads, dict) else {}
        return sorted(s for s in hierarchy.nodes if s in said and here.get(s) != said[s])

    async def _take(self, peer: NodeId, entries: Any) -> int:
        """Verify and keep a page; returns how many were no entries."""
        raws = entries if isinstance(entries, list) else []
        new, invalid = await self._blocking(self.accept, peer, raws)
        if new:
            self._log.info("keys are revoked", entries=len(new), source=peer)
            self._g.learnt(new)
            self.spread(peer)
        return invalid

    def accept(self, peer: NodeId, raws: Sequence[Any]) -> tuple[tuple[Entry, ...], int]:
        """Verify and keep; returns what is new, and how many were not proven. Blocks."""
        g = self._g
        good: list[Entry] = []
        invalid = 0
        for raw in raws[: 4 * _PAGE]:
            try:
                good.append(self._read(raw))
            except RevocationInvalidError as error:
                invalid += 1
                self._log.debug("an entry is not taken", peer=peer, reason=error.message)
        fresh = [each for each in good if not g.book.holds(each.digest)]
        if not fresh:
            return (), invalid
        principal = g.hierarchy.spiffe_id(peer)
        caller = Caller(CallerKind.NODE, principal, peer, HEADS, frozenset())
        kept = g.store.keep(fresh, caller, peer)
        return g.book.add(kept), invalid

    def _read(self, raw: Any) -> Entry:
        if not isinstance(raw, str):
            raise RevocationInvalidError("a revocation has another shape")
        try:
            encoded = raw.encode("utf-8")
        except UnicodeEncodeError:
            raise RevocationInvalidError("a revocation cannot be read") from None
        return read_entry(encoded, self._g.root_pem, self._g.hierarchy)

    async def _ask(self, peer: NodeId, method: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = await self._g.hub.ask(peer, method, to_body(body), remaining_ms=_ASK_MS)
        return parse_body(answer)

    async def _blocking(self, work: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._g.threads, work, *arguments)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("unexpected error", exc_info=error)


def page(book: RevokedBook, signers: Sequence[Any], after: str) -> tuple[tuple[Entry, ...], str]:
    """Entries of some signers after one, in the order of their digests; where to go on, or ""."""
    wanted = {each for each in signers if isinstance(each, str)}
    found = sorted(
        (e for e in book.entries if e.word.signer in wanted and e.digest > after),
        key=lambda each: each.digest,
    )
    part = tuple(found[:_PAGE])
    return part, part[-1].digest if len(found) > _PAGE else ""


def to_body(body: Mapping[str, Any]) -> bytes:
    """JSON, as questions over a link carry it here."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def parse_body(raw: bytes) -> Mapping[str, Any]:
    """What to_body made. Raises RevocationInvalidError: it is no JSON object."""
    try:
        body = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RevocationInvalidError("a question about revoked keys cannot be read")
    return body
