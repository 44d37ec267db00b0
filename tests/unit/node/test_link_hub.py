"""The hub: who may ask whom through it, and a link to the parent that nothing ends for good."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import grpc
import pytest
from sqlalchemy.exc import OperationalError

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeEntry, NodeId
from node.clock import SystemClock
from node.links import LinkHub, ParentLink, hub
from node.links.rates import NODES_MAX, Rate, Rates
from replication.channel import AskRefusedError
from replication.core.config import LinkConfig, PeerRole
from replication.core.greeting import Versions
from replication.core.model import SCHEMA_MIN, Frame, Hello, Refusal, Request
from replication.runner import FrameStream, LinkRunner

COUNTY, TOWNSHIP = NodeId("141002"), NodeId("141002001")
VILLAGE, SIBLING = NodeId("141002001201"), NodeId("141002001202")
METHOD = "federation.partial"

Answer = Callable[[Request], Awaitable[bytes]]


class CaughtError(Exception):
    """Ends a stream where the answerer has been caught."""


class Streams:
    """Stands for the maker of runners: keeps how each peer's questions are answered."""

    def __init__(self, error: Exception | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.ups: dict[str, Callable[[Hello], None]] = {}
        self.made = 0
        self._error = error or CaughtError()

    async def make(
        self, peer: NodeId, stream: FrameStream, answer: Answer, on_up: Callable[[Hello], None]
    ) -> LinkRunner:
        self.answers[peer] = answer
        self.ups[peer] = on_up
        self.made += 1
        raise self._error


def township(streams: Streams) -> LinkHub:
    """The hub of a township between its county and two villages."""
    levels = {6: CareLevel.COUNTY, 9: CareLevel.TOWNSHIP, 12: CareLevel.VILLAGE}
    above = {COUNTY: None, TOWNSHIP: COUNTY, VILLAGE: TOWNSHIP, SIBLING: TOWNSHIP}
    nodes = {
        code: NodeEntry(code, levels[len(code)], "地", "di", parent, None, "village")
        for code, parent in above.items()
    }
    made = LinkHub(
        TOWNSHIP,
        Hierarchy(region="linfen", epoch=1, nodes=nodes),
        streams.make,
        SystemClock(),
        lambda: 0.5,
    )

    async def answer(_peer: NodeId, _request: Request) -> bytes:
        return b"everybody below the township"

    made.handlers = {METHOD: answer}
    return made


async def answers_to(peer: NodeId) -> Answer:
    """How the township answers a peer."""
    streams = Streams()
    made = township(streams)
    with pytest.raises(CaughtError):
        await made.serve_child(peer, None, 60.0)  # type: ignore[arg-type]
    return streams.answers[peer]


async def test_the_parent_is_answered() -> None:
    """Questions come from above."""
    answer = await answers_to(COUNTY)
    assert await answer(Request(1, (), METHOD, 1000)) == b"everybody below the township"


async def test_a_child_is_not_answered_for_its_siblings() -> None:
    """A child that sends its parent's own manifest back up is told nothing of the others."""
    answer = await answers_to(VILLAGE)
    with pytest.raises(AskRefusedError) as refused:
        await answer(Request(1, (), METHOD, 1000, b"a manifest that the township signed"))
    assert refused.value.status == "UNKNOWN_METHOD"


@dataclass
class HandClock:
    """Time that a test lets pass."""

    ran: int = 0

    def now_ms(self) -> int:
        return self.ran

    def monotonic_ms(self) -> int:
        return self.ran


async def test_a_child_that_asks_too_often_is_told_to_wait() -> None:
    """One question of one child: the others, the siblings and the parent go on; time heals it."""
    streams, clock = Streams(), HandClock()
    made = township(streams)
    made.clock = clock
    made.child_handlers = {"audit.about": made.handlers[METHOD], "other": made.handlers[METHOD]}
    made.handlers = made.child_handlers
    made.child_rates = {"audit.about": Rate(3, 0.5, by_node=True)}
    for peer in (VILLAGE, SIBLING, COUNTY):
        with pytest.raises(CaughtError):
            await made.serve_child(peer, None, 60.0)  # type: ignore[arg-type]
    question = Request(1, (), "audit.about", 1000)
    for _ in range(3):
        await streams.answers[VILLAGE](question)
    with pytest.raises(AskRefusedError) as refused:
        await streams.answers[VILLAGE](question)
    assert refused.value.status == "OVERLOADED"
    await streams.answers[VILLAGE](Request(1, (), "other", 1000))
    await streams.answers[SIBLING](question)
    for _ in range(10):
        await streams.answers[COUNTY](question)
    clock.ran += 2_000
    await streams.answers[VILLAGE](question)
    with pytest.raises(AskRefusedError):
        await streams.answers[VILLAGE](question)


def test_a_rate_by_node_grows_with_those_behind_the_child() -> None:
    """And no further than NODES_MAX; a rate of its own kind does not grow."""
    rates = Rates()
    by_node, plain = Rate(2, 1.0, by_node=True), Rate(2, 1.0)

    def room(method: str, rate: Rate, nodes: int) -> int:
        taken = 0
        while not rates.take(NodeId(str(nodes)), method, rate, nodes, 0):
            taken += 1
        return taken

    assert room("a", by_node, 3) == 6
    assert room("a", by_node, 10_000) == 2 * NODES_MAX
    assert room("b", plain, 3) == 2


@pytest.mark.parametrize("route", [(SIBLING,), (VILLAGE,), (COUNTY,)])
async def test_a_child_cannot_ask_through_its_parent(route: tuple[str, ...]) -> None:
    """Not its siblings, who would take the question for their parent's; nobody."""
    answer = await answers_to(VILLAGE)
    with pytest.raises(AskRefusedError) as refused:
        await answer(Request(1, route, METHOD, 1000))
    assert refused.value.status == "NO_ROUTE"


@pytest.mark.parametrize(("epoch", "notice"), [(1, ""), (2, "CONFIG_EPOCH_MISMATCH: 141002 is")])
async def test_another_region_epoch_is_said_while_the_link_is_up(epoch: int, notice: str) -> None:
    """Records go on; the operator sees it in the state of the link."""
    streams = Streams()
    made = township(streams)
    with pytest.raises(CaughtError):
        await made.serve_child(COUNTY, None, 60.0)  # type: ignore[arg-type]
    streams.ups[COUNTY](
        Hello(
            node_id=COUNTY,
            protocol_min=1,
            protocol_max=1,
            schema=1,
            store_epoch=1,
            store_incarnation="its-1",
            peer_store_epoch_seen=0,
            config_epoch=epoch,
            cursors=(),
            features=(),
            clock_ms=0,
            signing_certificate=b"",
        )
    )
    assert made.states[COUNTY].last_error.startswith(notice)
    assert bool(made.states[COUNTY].last_error) == bool(notice)


class Says:
    """A stream whose peer says one frame, and waits."""

    def __init__(self, frame: Frame) -> None:
        self._frame: Frame | None = frame
        self.written: list[Frame] = []

    async def read(self) -> Frame | None:
        frame, self._frame = self._frame, None
        if frame is None:
            await asyncio.Event().wait()
        return frame

    async def write(self, frame: Frame) -> None:
        self.written.append(frame)


OLD = Hello(VILLAGE, 1, 2, SCHEMA_MIN - 1, 1, "its-1", 0, 1)
TOLD = Refusal("SCHEMA_TOO_OLD", "node 141002001 has table schema 2", "Upgrade node 141002001.")


@pytest.mark.parametrize(
    ("frame", "hint", "versions"),
    [
        (OLD, f"Upgrade node {VILLAGE}.", Versions(1, 2, 0, SCHEMA_MIN - 1)),
        (TOLD, f"Upgrade node {TOWNSHIP}.", None),
    ],
    ids=["refused here", "refused there"],
)
async def test_a_refusal_stays_the_links_last_error(
    frame: Frame, hint: str, versions: Versions | None
) -> None:
    """With the next step, and what the peer speaks as far as it said."""
    stream = Says(frame)
    with ThreadPoolExecutor(1) as threads:

        async def make(
            peer: NodeId, stream: FrameStream, answer: Answer, on_up: Callable[[Hello], None]
        ) -> LinkRunner:
            return LinkRunner(
                LinkConfig(
                    node_id=TOWNSHIP,
                    peer_id=peer,
                    peer_role=PeerRole.CHILD,
                    store_epoch=1,
                    store_incarnation="here-1",
                ),
                inbound={},
                outbound={},
                stream=stream,
                store=cast(Any, None),
                answer=answer,
                threads=threads,
                clock=SystemClock(),
                on_up=on_up,
            )

        made = township(Streams())
        made.make_runner = make
        ended = await made.serve_child(VILLAGE, stream, 60.0)
    state = made.states[VILLAGE]
    assert ended.code == "SCHEMA_TOO_OLD"
    assert state.last_error.startswith("SCHEMA_TOO_OLD: node ")
    assert state.last_hint == hint
    assert state.versions == versions
    refusals = [said for said in stream.written if isinstance(said, Refusal)]
    assert [said.hint for said in refusals] == ([hint] if versions else [])


async def test_a_database_that_is_away_does_not_end_the_dialling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The link is dialled again, however often; its pauses stay within bounds."""
    streams = Streams(OperationalError("SELECT 1", {}, Exception("gone")))
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1100:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", pause)

    async def channel() -> grpc.aio.Channel:
        return grpc.aio.insecure_channel("127.0.0.1:9")

    monkeypatch.setattr(hub, "dial", lambda _channel: None)
    with pytest.raises(asyncio.CancelledError):
        await township(streams).dial_parent(ParentLink(COUNTY, channel))
    assert streams.made == 1100
    assert max(pauses) == hub.BACKOFF_S_MAX
