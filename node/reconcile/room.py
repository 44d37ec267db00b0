"""Comparing as part of a running node: answers neighbours, compares on demand and slowly by itself.

In the background the child compares with its parent: so the work of a parent with many children is
shared among them. It keeps to the profile's rows a second and mends what it finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Final

from hierarchy_config.model import NodeId
from node.clock import Clock
from node.errors import said_node
from node.foundations import Foundations
from node.link_store import NodeLinkStore
from node.links import LinkHub
from node.links.hub import RequestHandler
from node.logs import get_logger
from node.metrics import NodeMetrics
from node.opening import OpenStore
from node.reconcile.comparing import Comparison
from node.reconcile.ends import METHODS, FarEnd, LinkDesk, NearEnd
from node.reconcile.errors import ReconcilePeerError
from node.reconcile.gauges import ReconcileGauges
from node.reconcile.model import LinkReport, Pair
from node.reconcile.side import LocalSide
from node.storage import CHANGELOG
from node.storage.rows import RowMaker
from node.storage.specs import TABLES
from replication.changelog import StoreState, read_transaction
from replication.core.model import Lane

__all__ = ["ReconcileRoom"]

FIRST_S: Final = 120.0
REST_S: Final = 3600.0
RETRY_S: Final = 300.0

Told = Callable[[LinkReport], Awaitable[None]]


class ReconcileRoom:
    """This node's comparisons."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        hub: LinkHub,
        link_store: NodeLinkStore,
        *,
        thread: Executor,
        clock: Clock,
        notify: Callable[[], None],
    ) -> None:
        """Answers neighbours' questions from now on; compares nothing before it is told to.

        `thread`: of its own, one worker: what neighbours ask must not crowd out other work.
        """
        self._base = base
        self._store = store
        self._hub = hub
        self._link_store = link_store
        self._clock = clock
        self._notify = notify
        self._log = get_logger("reconcile")
        self._thread = thread
        self._ends: dict[NodeId, NearEnd] = {}
        self._busy = asyncio.Lock()
        self._gauges: ReconcileGauges | None = None
        desk = LinkDesk(base.node_id, lambda: base.hierarchy, self._near)
        handlers: Mapping[str, RequestHandler] = dict.fromkeys(METHODS, desk.answer)
        hub.handlers = {**hub.handlers, **handlers}
        hub.child_handlers = {**hub.child_handlers, **handlers}

    @property
    def now_ms(self) -> int:
        """Monotonic milliseconds, for how long a comparison took."""
        return self._clock.monotonic_ms()

    def peers(self, named: str = "") -> list[NodeId]:
        """The neighbour named, or all: the parent first.

        Raises:
            ReconcilePeerError: The node named is none.
        """
        known = list(self._hub.states)
        if not named:
            return known
        if named not in known:
            raise ReconcilePeerError(f"{said_node(named)} is no neighbour of {self._base.node_id}")
        return [NodeId(named)]

    async def verify(
        self, peer: NodeId, tables: Sequence[str], *, repair: bool, told: Told
    ) -> LinkReport:
        """Compare with one neighbour now; one comparison at a time. See Comparison.run.

        Raises:
            ReconcilePeerError: A table is not one of the schema.
        """
        # What a caller typed is not repeated: it may be anything.
        if set(tables) - set(TABLES):
            raise ReconcilePeerError(
                "a table that was named is no replicated table",
                hint=f"Name one of {', '.join(TABLES)}.",
            )
        async with self._busy:
            report = await self._comparison(peer, repair).run(tables or tuple(TABLES), told)
        self._count(report)
        return report

    async def run(self, metrics: NodeMetrics) -> None:
        """Compare with the parent for ever, slowly, and mend."""
        self._gauges = self._gauges or ReconcileGauges(metrics.registry)
        parent = self._base.hierarchy.parent(self._base.node_id)
        rate = self._base.profile.verify_rows_s
        if parent is None or rate == 0:
            return await _never()
        await asyncio.sleep(FIRST_S)
        while True:
            state = self._hub.states[parent]
            if not state.connected or await self._in_thread(self._is_recovering):
                await asyncio.sleep(RETRY_S)
                continue
            report = await self.verify(parent, (), repair=True, told=_Pace(rate).wait)
            said = {"rows": report.rows, "differing": report.differing, "fault": report.fault}
            self._log.info("compared", peer=parent, repaired=report.repaired, **said)
            await asyncio.sleep(REST_S if not report.fault else RETRY_S)

    def _comparison(self, peer: NodeId, repair: bool) -> Comparison:
        async def ask(method: str, body: bytes, remaining_ms: int) -> bytes:
            return await self._hub.ask(peer, method, body, remaining_ms=remaining_ms)

        here = self._base.node_id
        return Comparison(self._pair(peer), here, self._near(peer), FarEnd(ask), repair=repair)

    def _pair(self, peer: NodeId) -> Pair:
        here = self._base.node_id
        if self._base.hierarchy.parent(here) == peer:
            return Pair(child=here, parent=peer)
        return Pair(child=peer, parent=here)

    def _near(self, peer: NodeId) -> NearEnd:
        """This node's end of a link; made at the first use."""
        if peer not in self._ends:
            context = self._store.storage.context
            side = LocalSide(
                context,
                RowMaker(context.cells, context.blind_index),
                self._pair(peer),
                durable_head=self._store.durable_head,
                delivered=lambda: self._delivered(peer),
                changed=self._notify,
            )
            self._ends[peer] = NearEnd(side, self._in_thread)
        return self._ends[peer]

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _delivered(self, peer: NodeId) -> dict[Lane, int]:
        """What the peer has confirmed, and what was passed over because it is not for it."""
        saved = self._link_store.load(peer).outbound
        live = self._hub.states[peer].delivered_to
        return {
            lane: max(saved[lane].covers_to if lane in saved else 0, live.get(lane, 0))
            for lane in Lane
        }

    def _is_recovering(self) -> bool:
        with read_transaction(self._store.engine) as connection:
            return StoreState(CHANGELOG).load(connection).get("recovering", "") == "1"

    def _count(self, report: LinkReport) -> None:
        if self._gauges is not None:
            self._gauges.count(report)


class _Pace:
    """Waits as long as the rows that were looked at may take."""

    def __init__(self, rows_s: int) -> None:
        self._rows_s = rows_s
        self._seen = 0

    async def wait(self, report: LinkReport) -> None:
        """After a slice."""
        rows, self._seen = report.rows - self._seen, report.rows
        await asyncio.sleep(rows / self._rows_s)


async def _never() -> None:
    """This node compares nothing by itself."""
    await asyncio.Event().wait()
