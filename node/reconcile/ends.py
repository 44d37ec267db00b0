"""The two ends of a comparison behind one face: this node's own, and the other's over the link.

What the other end may ask here is decided in LinkDesk: nothing outside the child's subtree, no word
of a child about what its parent's side wrote.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.reconcile import messages as m
from node.reconcile.errors import ReconcileScopeError
from node.reconcile.model import Current, Direction, Offer, Open, Pair, Slice, Taken, Verdict
from node.reconcile.ranges import KeyRange, LeafPage, Leaves, RangeDigest
from node.reconcile.side import LocalSide
from node.storage.specs import TABLES
from replication.core.model import Request, RowChange
from replication.errors import RemoteProtocolError

__all__ = ["METHODS", "End", "FarEnd", "LinkDesk", "NearEnd"]

T = TypeVar("T")
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs blocking work beside the event loop."""

PREFIX: Final = "reconcile."
_ASK_MS: Final = 180_000
_KEYS_MAX: Final = 1000
_SPANS_MAX: Final = 4096


class End(Protocol):
    """One end, as the comparison sees it. See LocalSide for what each does."""

    async def slices(self, tables: Sequence[str]) -> list[Slice]: ...
    async def digests(
        self, part: Slice, spans: Sequence[KeyRange], *, fresh: bool
    ) -> list[RangeDigest]: ...
    async def pages(self, part: Slice, spans: Sequence[KeyRange]) -> list[LeafPage]: ...
    async def opened(self) -> Open: ...
    async def current(self, part: Slice, keys: Sequence[bytes]) -> list[Current]: ...
    async def settle(
        self, part: Slice, opened: Open, theirs: Mapping[bytes, Current], *, repair: bool
    ) -> list[Verdict]: ...
    async def give(self, part: Slice, keys: Sequence[bytes]) -> list[Offer]: ...
    async def take(self, part: Slice, rows: Sequence[RowChange]) -> list[Taken]: ...
    async def end(self, part: Slice) -> None: ...


class NearEnd:
    """This node's own end."""

    def __init__(self, side: LocalSide, in_thread: InThread) -> None:
        self.side = side
        self._in_thread = in_thread

    async def slices(self, tables: Sequence[str]) -> list[Slice]:
        return await self._run(lambda: self.side.slices(tables))

    async def begin(self, part: Slice) -> tuple[Leaves, int]:
        """See LocalSide.begin."""
        return await self._run(lambda: self.side.begin(part))

    async def digests(
        self, part: Slice, spans: Sequence[KeyRange], *, fresh: bool
    ) -> list[RangeDigest]:
        return await self._run(lambda: self.side.digests(part, spans, fresh=fresh))

    async def pages(self, part: Slice, spans: Sequence[KeyRange]) -> list[LeafPage]:
        return await self._run(lambda: self.side.pages(part, spans))

    async def opened(self) -> Open:
        return await self._run(self.side.opened)

    async def current(self, part: Slice, keys: Sequence[bytes]) -> list[Current]:
        return await self._run(lambda: self.side.current(part, keys))

    async def settle(
        self, part: Slice, opened: Open, theirs: Mapping[bytes, Current], *, repair: bool
    ) -> list[Verdict]:
        return await self._run(lambda: self.side.settle(part, opened, theirs, repair=repair))

    async def give(self, part: Slice, keys: Sequence[bytes]) -> list[Offer]:
        return await self._run(lambda: self.side.give(part, keys))

    async def take(self, part: Slice, rows: Sequence[RowChange]) -> list[Taken]:
        return await self._run(lambda: self.side.take(part, rows))

    async def end(self, part: Slice) -> None:
        await self._run(lambda: self.side.end(part))

    async def _run(self, work: Callable[[], T]) -> T:
        done: T = await self._in_thread(work)
        return done


class FarEnd:
    """The other end. `questions` and `bytes` count what went over the link."""

    def __init__(self, ask: Callable[[str, bytes, int], Awaitable[bytes]]) -> None:
        """`ask`: method, body, ms left; raises as Channel.ask does."""
        self._ask = ask
        self.questions = 0
        self.bytes = 0

    async def slices(self, tables: Sequence[str]) -> list[Slice]:
        said = await self._said("slices", {"tables": list(tables)})
        return [m.slice_in(each) for each in said["slices"]]

    async def digests(
        self, part: Slice, spans: Sequence[KeyRange], *, fresh: bool
    ) -> list[RangeDigest]:
        said = await self._of(part, "digests", {"spans": m.spans_out(spans), "fresh": fresh})
        return m.digests_in(said["digests"])

    async def pages(self, part: Slice, spans: Sequence[KeyRange]) -> list[LeafPage]:
        said = await self._of(part, "pages", {"spans": m.spans_out(spans)})
        return m.pages_in(said["pages"])

    async def opened(self) -> Open:
        return m.opened_in((await self._said("opened", {}))["delivered"])

    async def current(self, part: Slice, keys: Sequence[bytes]) -> list[Current]:
        said = await self._of(part, "current", {"keys": m.keys_out(keys)})
        return m.current_in(said["rows"])

    async def settle(
        self, part: Slice, opened: Open, theirs: Mapping[bytes, Current], *, repair: bool
    ) -> list[Verdict]:
        said = await self._of(
            part,
            "settle",
            {
                "delivered": m.opened_out(opened),
                "keys": m.keys_out(list(theirs)),
                "rows": m.current_out(list(theirs.values())),
                "repair": repair,
            },
        )
        return m.verdicts_in(said)

    async def give(self, part: Slice, keys: Sequence[bytes]) -> list[Offer]:
        return m.offers_in(await self._of(part, "give", {"keys": m.keys_out(keys)}))

    async def take(self, part: Slice, rows: Sequence[RowChange]) -> list[Taken]:
        said = await self._of(part, "take", {"rows": m.rows_out(rows)})
        return m.taken_in(said["taken"])

    async def end(self, part: Slice) -> None:
        await self._of(part, "end", {})

    async def _of(self, part: Slice, word: str, said: dict[str, Any]) -> dict[str, Any]:
        return await self._said(word, {"slice": m.slice_out(part), **said})

    async def _said(self, word: str, said: dict[str, Any]) -> dict[str, Any]:
        body = m.packed(said)
        answer = await self._ask(PREFIX + word, body, _ASK_MS)
        self.questions += 1
        self.bytes += len(body) + len(answer)
        return m.unpacked(answer)


class LinkDesk:
    """Answers what the other ends of this node's links ask."""

    def __init__(
        self, node_id: NodeId, hierarchy: Callable[[], Hierarchy], near: Callable[[NodeId], NearEnd]
    ) -> None:
        """`near`: this node's end of the link with a neighbour."""
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._near = near

    async def answer(self, peer: NodeId, request: Request) -> bytes:
        """Answer one question of a neighbour.

        Raises:
            ReconcileScopeError: It is not about the child's subtree, or not his to ask.
            RemoteProtocolError: It cannot be read.
        """
        said = m.unpacked(request.body)
        word = request.method.removeprefix(PREFIX)
        try:
            return m.packed(await self._answer(peer, word, said))
        except (KeyError, TypeError, ValueError):
            raise RemoteProtocolError("a question of a comparison has another shape") from None

    async def _answer(self, peer: NodeId, word: str, said: dict[str, Any]) -> dict[str, Any]:
        near = self._near(peer)
        if word == "slices":
            tables = [name for name in TABLES if name in set(said["tables"])]
            return {"slices": [m.slice_out(part) for part in await near.slices(tables)]}
        if word == "opened":
            return {"delivered": m.opened_out(await near.opened())}
        part = self._part(peer, said)
        if word in {"digests", "pages"}:
            return await _ranges(near, part, word, said)
        if word == "end":
            await near.end(part)
            return {}
        self._refuse_unentitled(peer, part, word)
        return await _rows(near, part, word, said)

    def _part(self, peer: NodeId, said: Mapping[str, Any]) -> Slice:
        part = m.slice_in(said["slice"])
        child = self._pair(peer).child
        if part.table not in TABLES or part.home not in self._hierarchy().subtree(child):
            raise ReconcileScopeError(f"{peer} asks for what is not below {child}")
        return part

    def _pair(self, peer: NodeId) -> Pair:
        if self._hierarchy().parent(self._node_id) == peer:
            return Pair(child=self._node_id, parent=peer)
        return Pair(child=peer, parent=self._node_id)

    def _refuse_unentitled(self, peer: NodeId, part: Slice, word: str) -> None:
        """Only an owner judges, only a parent gives back, and a child gives a parent nothing."""
        pair = self._pair(peer)
        is_owner = pair.owner(part.direction) == self._node_id
        is_parent = pair.parent == self._node_id
        allowed = {
            "settle": is_owner,
            "give": is_parent and part.direction is Direction.UP,
            "take": not (is_owner and is_parent),
        }.get(word, True)
        if not allowed:
            raise ReconcileScopeError(f"{peer} may not ask {self._node_id} to {word} there")


async def _ranges(near: NearEnd, part: Slice, word: str, said: Mapping[str, Any]) -> dict[str, Any]:
    spans = m.spans_in(said["spans"])
    if len(spans) > _SPANS_MAX:
        raise ValueError("too many ranges in one question")
    if word == "pages":
        return {"pages": m.pages_out(await near.pages(part, spans))}
    digests = await near.digests(part, spans, fresh=bool(said["fresh"]))
    return {"digests": m.digests_out(digests)}


async def _rows(near: NearEnd, part: Slice, word: str, said: Mapping[str, Any]) -> dict[str, Any]:
    if word == "take":
        rows = m.rows_in(said["rows"])
        if len(rows) > _KEYS_MAX:
            raise ValueError("too many rows in one question")
        return {"taken": m.taken_out(await near.take(part, rows))}
    keys = m.keys_in(said["keys"])
    if len(keys) > _KEYS_MAX:
        raise ValueError("too many rows in one question")
    if word == "current":
        return {"rows": m.current_out(await near.current(part, keys))}
    if word == "give":
        return m.offers_out(await near.give(part, keys))
    theirs = dict(zip(keys, m.current_in(said["rows"]), strict=True))
    opened = m.opened_in(said["delivered"])
    return m.verdicts_out(await near.settle(part, opened, theirs, repair=bool(said["repair"])))


METHODS: Final = tuple(
    PREFIX + word
    for word in (
        "slices",
        "digests",
        "pages",
        "opened",
        "current",
        "settle",
        "give",
        "take",
        "end",
    )
)
"""What a neighbour may ask."""
