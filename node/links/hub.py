"""LinkHub: which links are up, and the way of a question through them.

The child dials. A second stream of one child replaces the first, whose end then changes nothing.
A question names its next hop; on the way down it passes node by node, each hop taking its share of
the time left. Questions are passed down only for the parent, and a child is answered nothing that
is not in `child_handlers`: to a child this node's whole subtree is its siblings' data.
How often a child may ask is in rates.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import grpc
from sqlalchemy.exc import SQLAlchemyError

from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.errors import NodeError
from node.links.rates import COMMON, Rate, Rates
from node.links.streams import ClientStream, describe, dial
from node.logs import get_logger
from replication.channel import AskRefusedError, LinkDownError
from replication.core.greeting import Versions, versions_of
from replication.core.model import Hello, Lane, Request
from replication.runner import FrameStream, LinkEnded, LinkRunner

__all__ = ["LinkHub", "LinkState", "ParentLink", "RequestHandler", "RunnerFactory"]

BACKOFF_S_MIN: Final = 0.2
BACKOFF_S_MAX: Final = 15.0
STEADY_MS: Final = 5_000
HOP_RESERVE_MS: Final = 50
STREAM_AGE_S_MAX: Final = 6 * 3600.0

RequestHandler = Callable[[NodeId, Request], Awaitable[bytes]]
"""Answers a question of a peer."""


class RunnerFactory(Protocol):
    """Makes the runner of one stream; reads the link's cursors, so it blocks on the database."""

    async def __call__(
        self,
        peer: NodeId,
        stream: FrameStream,
        answer: Callable[[Request], Awaitable[bytes]],
        on_up: Callable[[Hello], None],
    ) -> LinkRunner: ...


@dataclass(slots=True)
class LinkState:
    """What is known of one link, for status and metrics."""

    peer: NodeId
    role: str
    runner: LinkRunner | None = None
    last_heard_ms: int = 0
    last_error: str = ""
    last_hint: str = ""
    changed_ms: int = 0
    """When it last went up or down, ms since 1970 UTC."""
    clock_skew_ms: int = 0
    """The peer's clock at its last greeting minus this node's."""
    connects: int = 0
    versions: Versions | None = None
    """Of the peer's last greeting, refused or not; None: none since the start."""

    @property
    def delivered_to(self) -> Mapping[Lane, int]:
        """By lane, as the live stream knows it; empty without one."""
        return self.runner.delivered_to if self.runner is not None else {}

    @property
    def connected(self) -> bool:
        """True while a stream is up and its Hello was accepted."""
        return self.runner is not None and self.runner.is_up


@dataclass(slots=True)
class ParentLink:
    """Where and how the parent is dialled."""

    node_id: NodeId
    open_channel: Callable[[], Awaitable[grpc.aio.Channel]]
    """Called at each dial: the parent may be reached elsewhere by then."""


@dataclass
class LinkHub:
    """All links of this node. `handlers` answer the parent, `child_handlers` the children."""

    node_id: NodeId
    hierarchy: Hierarchy
    make_runner: RunnerFactory
    clock: Clock
    jitter: Callable[[], float]
    handlers: Mapping[str, RequestHandler] = field(default_factory=dict)
    child_handlers: Mapping[str, RequestHandler] = field(default_factory=dict)
    child_rates: Mapping[str, Rate] = field(default_factory=dict)
    """By method, how often a child may ask; else COMMON."""
    head: Callable[[], int] = lambda: 0
    met: Callable[[NodeId, Hello], None] = lambda _peer, _hello: None
    """Told of each peer whose link has come up."""
    _states: dict[NodeId, LinkState] = field(default_factory=dict)
    _rates: Rates = field(default_factory=Rates)

    def __post_init__(self) -> None:
        self._log = get_logger("links")
        parent = self.hierarchy.parent(self.node_id)
        if parent is not None:
            self._states[parent] = LinkState(parent, "parent")
        for child in self.hierarchy.children(self.node_id):
            self._states[child] = LinkState(child, "child")

    @property
    def states(self) -> Mapping[NodeId, LinkState]:
        """One state for each neighbour, connected or not."""
        return self._states

    def log_advanced(self, head: int, lane_heads: Mapping[Lane, int] | None = None) -> None:
        """Tell every live stream that the log has moved; lanes without news are not read."""
        for state in self._states.values():
            if state.runner is not None:
                state.runner.log_advanced(head, lane_heads)

    async def ask(
        self, to: NodeId, method: str, body: bytes, *, remaining_ms: int, manifest: bytes = b""
    ) -> bytes:
        """Ask a node above or below. Errors: those of Channel.ask."""
        hops = self._hops(to)
        return await self._ask_over(hops[0], method, body, remaining_ms, manifest, hops[1:])

    async def serve_child(
        self, child: NodeId, stream: FrameStream, certificate_left_s: float
    ) -> LinkEnded:
        """Run the stream that a child has just opened, until it ends.

        Open streams survive the expiry of a certificate, so the stream's age is cut to it.
        """
        age_s_max = min(STREAM_AGE_S_MAX, certificate_left_s)
        return await self._run(self._states[child], stream, age_s_max)

    async def dial_parent(self, parent: ParentLink) -> None:
        """Keep the link to the parent up until cancelled."""
        state = self._states[parent.node_id]
        failures = 0
        while True:
            dialled_ms = self.clock.monotonic_ms()
            try:
                ended = await self._dial(parent)
            except (grpc.aio.AioRpcError, FenheError, SQLAlchemyError) as error:
                ended = _failed(error)
                state.last_error, state.last_hint = f"{ended.code}: {ended.reason}", ended.hint
                self._log.warning("no link", peer=state.peer, code=ended.code, reason=ended.reason)
            # A link that comes up and breaks at once, again and again, is not a link.
            lasted_ms = self.clock.monotonic_ms() - dialled_ms
            failures = 0 if state.connects and lasted_ms >= STEADY_MS else failures + 1
            state.connects = 0
            # Bounded before it is raised: a float ends at 2**1024, a parent's absence does not.
            wait = min(BACKOFF_S_MIN * 2 ** min(failures, 10), BACKOFF_S_MAX)
            await asyncio.sleep(wait * (0.5 + self.jitter()))

    async def _dial(self, parent: ParentLink) -> LinkEnded:
        channel = await parent.open_channel()
        try:
            call = dial(channel)
            stream = ClientStream(call, parent.node_id)
            ended = await self._run(self._states[parent.node_id], stream)
            call.cancel()
            return ended
        finally:
            await channel.close()

    def end_all(self, reason: str) -> None:
        """Say goodbye on every stream."""
        for state in self._states.values():
            if state.runner is not None:
                state.runner.end("STOPPING", reason)

    async def _run(
        self, state: LinkState, stream: FrameStream, age_s_max: float = STREAM_AGE_S_MAX
    ) -> LinkEnded:
        def went_up(hello: Hello) -> None:
            state.connects += 1
            state.versions = versions_of(hello)
            state.last_error, state.last_hint = self._notice(hello), ""
            state.changed_ms = self.clock.now_ms()
            state.clock_skew_ms = hello.clock_ms - state.changed_ms if hello.clock_ms else 0
            self._log.info("link up", peer=state.peer, role=state.role, epoch=hello.store_epoch)
            self.met(state.peer, hello)
            if state.last_error:
                self._log.warning("link up, but", peer=state.peer, notice=state.last_error)

        async def answer(request: Request) -> bytes:
            return await self._answer(state.peer, request)

        runner = await self.make_runner(state.peer, stream, answer, went_up)
        if state.runner is not None:
            state.runner.end("REPLACED", "a newer stream of the same node replaced this one")
        state.runner = runner
        age = asyncio.get_running_loop().call_later(
            age_s_max, runner.end, "STREAM_AGE", "the stream's age limit"
        )
        try:
            ended = await runner.run(self.head)
        finally:
            age.cancel()
            state.versions = runner.peer_versions or state.versions
            if state.runner is runner:
                state.runner = None
        if ended.code != "REPLACED":
            state.last_error, state.last_hint = f"{ended.code}: {ended.reason}", ended.hint
            state.changed_ms = self.clock.now_ms()
            if ended.hint:
                state.last_error += f" ({ended.hint})"
        self._log.info(
            "link down",
            peer=state.peer,
            code=ended.code,
            reason=ended.reason,
            hint=ended.hint,
            exc_info=ended.error,
        )
        return ended

    def _notice(self, hello: Hello) -> str:
        """What is amiss with a peer although the link is up; "" if nothing is.

        Records go on over such a link: what each end admits follows its own region file. Questions
        do not (federation/manifest.py).
        """
        here = self.hierarchy.epoch
        if hello.config_epoch == here:
            return ""
        return (
            f"CONFIG_EPOCH_MISMATCH: {hello.node_id} is at region epoch {hello.config_epoch}, "
            f"{self.node_id} at {here} (give both the same region file)"
        )

    def _hops(self, to: NodeId) -> tuple[NodeId, ...]:
        """The nodes a question passes, nearest first, `to` last."""
        if to == self.hierarchy.parent(self.node_id):
            return (to,)
        if to != self.node_id and self.hierarchy.is_in_subtree(to, self.node_id):
            up = self.hierarchy.path_to_root(to)
            return tuple(reversed(up[: up.index(self.node_id)]))
        raise NodeError(f"{to} is neither below this node nor its parent")

    async def _ask_over(
        self,
        hop: NodeId,
        method: str,
        body: bytes,
        remaining_ms: int,
        manifest: bytes,
        route: tuple[str, ...],
    ) -> bytes:
        state = self._states[hop]
        if state.runner is None or not state.runner.is_up:
            raise LinkDownError(f"{hop} is not connected")
        return await state.runner.channel.ask(
            method, body, remaining_ms=remaining_ms, route=tuple(route), manifest=manifest
        )

    async def _answer(self, peer: NodeId, request: Request) -> bytes:
        """Answer a peer's question here, or pass the parent's on down its route."""
        remaining = request.remaining_ms - HOP_RESERVE_MS
        from_above = peer == self.hierarchy.parent(self.node_id)
        if request.route:
            if not from_above:
                raise AskRefusedError("NO_ROUTE", f"{peer} may not ask through {self.node_id}")
            hop = NodeId(request.route[0])
            if hop not in self.hierarchy.children(self.node_id):
                raise AskRefusedError("NO_ROUTE", f"{hop} is not a child of {self.node_id}")
            return await self._ask_over(
                hop, request.method, request.body, remaining, request.manifest, request.route[1:]
            )
        handlers = self.handlers if from_above else self.child_handlers
        handler = handlers.get(request.method)
        if handler is None:
            raise AskRefusedError("UNKNOWN_METHOD", f"{request.method} is not known here")
        if not from_above:
            self._count(peer, request.method)
        return await handler(peer, request)

    def _count(self, child: NodeId, method: str) -> None:
        """Raise AskRefusedError if a child asks too often."""
        rate = self.child_rates.get(method, COMMON)
        nodes = len(self.hierarchy.subtree(child))
        wait_ms = self._rates.take(child, method, rate, nodes, self.clock.monotonic_ms())
        if wait_ms:
            raise AskRefusedError(
                "OVERLOADED", f"{child} asks {method} too often; again in {wait_ms} ms"
            )


def _failed(error: Exception) -> LinkEnded:
    """Why no stream came about. A database's own text stays out: it may quote a cell."""
    match error:
        case grpc.aio.AioRpcError():
            return LinkEnded("LINK_DOWN", describe(error))
        case FenheError():
            return LinkEnded(error.code, error.message, error.hint)
        case _:
            return LinkEnded("INTERNAL", f"unexpected {type(error).__name__}")
