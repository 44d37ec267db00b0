"""The composition root: builds every part of one node, starts it, stops it.

Nothing below this file reads the environment, a global or another part's settings. Starting goes
from what must not be wrong (folder, settings, certificate, durability) to what may be late (links,
columnar replica, Ray); stopping goes back.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import grpc

from node.cache import CacheFollower, FollowerTask
from node.clock import Clock, SystemClock
from node.foundations import Foundations, read_foundations, utc_now
from node.guards import DiskGuard, bound_port_is_free, folder_locked, server_folder
from node.lasting import lasting
from node.link_store import NodeLinkStore
from node.links import LinkHub, ParentLink
from node.links.making import LinkMaker
from node.logs import configure_logs, get_logger
from node.metrics import NodeMetrics, serve_metrics
from node.opening import OpenStore, open_store
from node.pump import LogPump
from node.questions import Questions
from node.reconcile.room import ReconcileRoom
from node.recovery import SeedingRoom
from node.region import RegionGround, RegionRoom, lay_ground, parent_names
from node.residence.room import ResidenceRoom
from node.security.tls import ServerCertificates, open_channel, server_options
from node.services.bundle_writes import BundleWrites
from node.services.care import CareDesk
from node.services.interceptor import GuardInterceptor
from node.services.operations import ReplicationServicer
from node.services.point_reads import PointReads
from node.services.region import RegionServicer
from node.services.registration import Servicers, add_servicers
from node.services.residence import ResidenceServicer
from node.services.status import NodeServicer, StatusSources
from node.services.wire import resident_wire
from node.transit.room import TransitRoom
from node.watch import WatchRoom
from node.whereabouts import Whereabouts

__all__ = ["Node", "run_node"]

STOP_GRACE_S: Final = 3.0
WATCH_S: Final = 5.0
AUDIT_CHAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a node is made of, once its store is open."""

    store: OpenStore
    pump: LogPump
    link_store: NodeLinkStore
    hub: LinkHub
    questions: Questions
    watch: WatchRoom
    seeding: SeedingRoom
    ground: RegionGround
    region: RegionRoom
    transit: TransitRoom
    residence: ResidenceRoom
    reconcile: ReconcileRoom
    disk: DiskGuard
    threads: ThreadPoolExecutor
    started_ms: int


class Node:
    """One running node."""

    def __init__(self, base: Foundations, clock: Clock) -> None:
        """Nothing happens before `start`."""
        self._base = base
        self._clock = clock
        self._log = get_logger("node")
        self._exit = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] | None = None
        self.address = base.listen
        self.restarting = asyncio.Event()
        """Set when the data folder says something new: stop, and start another Node on it."""

    async def start(self) -> None:
        """Open, serve, dial; returns when the node serves."""
        base, clock = self._base, self._clock
        self._failure = asyncio.get_running_loop().create_future()
        self._exit.enter_context(folder_locked(base.paths.lock))
        # Not in stop(): a second process that finds the folder locked must leave it as it is.
        self._exit.callback(base.paths.run.unlink, missing_ok=True)
        if not base.listen.endswith(":0"):
            bound_port_is_free(base.listen)
        parts = await self._open(clock.monotonic_ms())
        metrics = NodeMetrics(base.node_id)
        for reader in (
            lambda head: parts.hub.log_advanced(head, parts.pump.lane_heads),
            metrics.log_head,
            parts.questions.log_advanced,
        ):
            parts.pump.subscribe(reader)
        following = self._following(parts.store, parts.pump)
        await parts.pump.step()
        # Before the server, so that it is stopped after it.
        await parts.questions.start()
        self._exit.push_async_callback(parts.questions.stop)
        await self._serve(self._servicers(parts), metrics, parts.ground)
        self._exit.push_async_callback(parts.region.keeper.stop)
        for name, work in (
            ("log pulse", parts.pump.run),
            ("columnar feed", parts.questions.run),
            ("cache", following.run),
            ("audit chain", partial(self._chain_audit, parts.store)),
            ("link figures", partial(self._watch, parts, metrics)),
            ("watch", partial(parts.watch.run, metrics)),
            ("quarantine", parts.watch.keeper.run),
            ("recovery", parts.seeding.recovery.run),
            ("pruning", parts.seeding.pruner.run),
            ("region", parts.region.run),
            ("letters", parts.transit.service.run),
            ("moves", parts.residence.run),
            ("comparison", partial(parts.reconcile.run, metrics)),
            ("cache figures", partial(self._watch_cache, parts.store, metrics)),
        ):
            self._run(lasting(name, work))
        places = Whereabouts(base, self._threads("directory", 1))
        self._exit.push_async_callback(places.stop)
        self._run(places.run(self.address))
        await self._dial(parts, places)
        self._announce()

    async def _open(self, started_ms: int) -> _Parts:
        """Open the store and put the parts on it together; nothing serves yet."""
        base, clock = self._base, self._clock
        threads = self._threads("rpc", base.profile.grpc_workers)
        link_threads = self._threads("link", base.profile.database_pool)
        loop = asyncio.get_running_loop()
        store = await loop.run_in_executor(
            threads, open_store, base.paths.data, base.settings, base.hierarchy, base.profile, clock
        )
        self._exit.callback(store.close)
        disk = await loop.run_in_executor(threads, self._disk, store)
        pump = LogPump(
            store.number,
            self._threads("number", 1),
            ends=store.tail,
            lane_heads=store.lane_heads,
        )
        link_store = self._link_store(store, pump, disk)
        ground = await loop.run_in_executor(threads, lay_ground, base, store, clock)
        hub = self._hub(store, link_store, pump, link_threads, ground)
        questions = Questions(
            base, store, hub, clock, utc=lambda: utc_now(clock), address=lambda: self.address
        )
        region = RegionRoom(
            base,
            ground,
            store,
            hub,
            link_store,
            threads=threads,
            clock=clock,
            restart=self.restarting.set,
        )
        hub.handlers = {**questions.handlers, **region.handlers}
        hub.child_handlers = region.child_handlers
        hub.met = region.met
        residence = ResidenceRoom(store, hub, threads=threads, notify=pump.notify)
        seeding = SeedingRoom(base, store, hub, link_store, questions, threads)
        transit = TransitRoom(base, store, hub, link_store, pump, threads=threads, clock=clock)
        watch = WatchRoom(base, store, hub, disk, threads=threads, clock=clock, notify=pump.notify)
        thread = self._threads("reconcile", 1)
        reconcile = ReconcileRoom(
            base, store, hub, link_store, thread=thread, clock=clock, notify=pump.notify
        )
        return _Parts(
            store,
            pump,
            link_store,
            hub,
            questions,
            watch,
            seeding,
            ground,
            region,
            transit,
            residence,
            reconcile,
            disk,
            threads,
            started_ms,
        )

    def _link_store(self, store: OpenStore, pump: LogPump, disk: DiskGuard) -> NodeLinkStore:
        return NodeLinkStore(
            store.engine,
            store.storage,
            store.log,
            store.links,
            store.marks,
            node_id=self._base.node_id,
            hierarchy=self._base.hierarchy,
            clock=self._clock,
            notify=pump.notify,
            number=store.number,
            head=lambda: pump.head,
            disk_is_full=disk.is_full,
        )

    def _servicers(self, parts: _Parts) -> Servicers:
        base, clock = self._base, self._clock
        status = StatusSources(
            base.node_id,
            base.hierarchy,
            parts.store.storage,
            parts.hub,
            parts.link_store,
            parts.threads,
            clock,
            base.profile.level.value,
            parts.store.database,
            lambda: parts.questions.columnar_sequence,
            parts.started_ms,
            parts.watch.book,
            lambda: parts.seeding.pruner.standing,
            parts.ground.epochs.decided_after,
        )
        return Servicers(
            self._desk(parts),
            NodeServicer(status),
            ReplicationServicer(parts.watch, clock),
            parts.hub,
            parts.questions,
            RegionServicer(parts.region),
            ResidenceServicer(parts.residence),
            parts.seeding,
            parts.transit.where,
            parts.reconcile,
            lambda: utc_now(clock),
        )

    async def wait(self) -> None:
        """Until a background task fails, which ends the node with that error."""
        if self._failure is not None:
            await self._failure

    async def stop(self) -> None:
        """Finish what is under way and give everything back."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._exit.aclose()
        self._log.info("stopped", node=self._base.node_id)

    def _threads(self, name: str, count: int) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._exit.callback(pool.shutdown)
        return pool

    def _hub(
        self,
        store: OpenStore,
        link_store: NodeLinkStore,
        pump: LogPump,
        threads: ThreadPoolExecutor,
        ground: RegionGround,
    ) -> LinkHub:
        base = self._base
        maker = LinkMaker(
            base.node_id,
            base.hierarchy,
            base.profile,
            base.credentials,
            link_store,
            epoch=store.epoch,
            incarnation=store.incarnation,
            threads=threads,
            clock=self._clock,
            utc=lambda: utc_now(self._clock),
            former=ground.former,
        )
        return LinkHub(
            base.node_id,
            base.hierarchy,
            maker.make,
            self._clock,
            random.SystemRandom().random,
            head=lambda: pump.head,
        )

    def _following(self, store: OpenStore, pump: LogPump) -> FollowerTask:
        """The cache's reader of the log, told of every pulse."""
        follower = CacheFollower(store.cache, store.storage)
        following = FollowerTask(follower, self._threads("cache", 1))
        pump.subscribe(following.log_advanced)
        return following

    def _disk(self, store: OpenStore) -> DiskGuard:
        """The guard of the disks that the data folder and a database server here write to."""
        base = self._base
        server = server_folder(store.engine)
        return DiskGuard(
            [base.paths.data, *([server] if server else [])],
            base.profile.disk_free_min_mb,
            base.profile.disk_free_min_percent,
            self._clock,
        )

    def _desk(self, parts: _Parts) -> CareDesk:
        base, storage, threads = self._base, parts.store.storage, parts.threads
        return CareDesk(
            base.node_id,
            base.hierarchy,
            storage,
            threads,
            self._clock,
            partial(_refuses_writes, parts),
            PointReads(lambda asked: storage.resident_answers(asked, resident_wire), threads),
            BundleWrites(storage.put_bundles, threads, parts.pump.notify),
        )

    async def _serve(
        self, servicers: Servicers, metrics: NodeMetrics, ground: RegionGround
    ) -> None:
        base = self._base
        guard = GuardInterceptor(
            base.node_id,
            base.hierarchy,
            lambda: secrets.token_hex(4),
            metrics.count_call,
            ground.former,
        )
        server = grpc.aio.server(interceptors=(guard,), options=server_options(base.limits))
        health = await add_servicers(server, servicers)
        certificates = ServerCertificates(base.credentials.tls)
        metrics.certificate(lambda: certificates.not_after, lambda: certificates.failures)
        port = server.add_secure_port(base.listen, certificates.credentials())
        host = base.listen.rpartition(":")[0]
        self.address = f"{host}:{port}"
        await server.start()

        async def end() -> None:
            await health.enter_graceful_shutdown()
            servicers.hub.end_all("the node is stopping")
            await server.stop(STOP_GRACE_S)

        self._exit.push_async_callback(end)
        if base.settings.metrics_listen:
            self._exit.callback(serve_metrics(metrics, base.settings.metrics_listen))

    async def _dial(self, parts: _Parts, places: Whereabouts) -> None:
        """Keep the link to the parent up, if there is a parent.

        Raises:
            ParentAddressUnknownError: It has no address, there is no directory to wait for, and no
                change of the region that is about to name another parent.
        """
        base = self._base
        parent = base.hierarchy.parent(base.node_id)
        if parent is None:
            return
        if not places.has_directory and not await parts.region.keeper.is_switch_due():
            await places.parent_endpoint(parent)
        names = cycle(parent_names(base))

        async def channel() -> grpc.aio.Channel:
            endpoint = await places.parent_endpoint(parent)
            return open_channel(endpoint, next(names), base.credentials.tls, base.limits)

        self._run(parts.hub.dial_parent(ParentLink(parent, channel)))

    def _announce(self) -> None:
        """Say that the node serves: in the log, and in run.json for whoever started it."""
        base = self._base
        said = {"node_id": base.node_id, "listen": self.address, "pid": os.getpid()}
        fresh = base.paths.run.with_suffix(".new")
        fresh.write_text(json.dumps(said) + "\n", encoding="utf-8")
        fresh.replace(base.paths.run)
        self._log.info("serving", **said)

    async def _chain_audit(self, store: OpenStore) -> None:
        """Link new audit entries into their hash chain, beside the requests that wrote them."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="audit") as thread:
            while True:
                await asyncio.sleep(AUDIT_CHAIN_S)
                while await loop.run_in_executor(thread, store.storage.link_audit):
                    pass

    async def _watch(self, parts: _Parts, metrics: NodeMetrics) -> None:
        """Bring the link figures into the metrics."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_S)
            metrics.columnar(parts.questions.columnar_sequence)
            standing = parts.seeding.pruner.standing
            metrics.log_kept(standing.log_bytes, standing.pruned_to)
            metrics.recovering(active=parts.seeding.recovery.active)
            metrics.quarantined(
                await loop.run_in_executor(parts.threads, parts.store.storage.quarantined)
            )
            for state in parts.hub.states.values():
                lanes = await loop.run_in_executor(
                    parts.threads, parts.link_store.lanes, state.peer, state.delivered_to
                )
                backlog = {lane.name.lower(): each.backlog for lane, each in lanes.items()}
                metrics.link(state.peer, connected=state.connected, backlog=backlog)

    async def _watch_cache(self, store: OpenStore, metrics: NodeMetrics) -> None:
        """Bring the cache's figures into the metrics."""
        while True:
            counts = store.storage.answer_counts
            metrics.cache(available=store.cache.is_available, kept=counts.kept, read=counts.read)
            await asyncio.sleep(WATCH_S)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(task.exception() or RuntimeError("unknown"))


def _refuses_writes(parts: _Parts) -> bool:
    """Whether the disk is full. Raises RegionClosedError: the region has closed this node."""
    parts.region.keeper.refuse_if_closed()
    return parts.disk.is_full()


def run_node(data_dir: Path, log_file: Path | None) -> None:
    """Run the node of a data folder until SIGTERM or Ctrl-C.

    Raises:
        FenheError: It cannot start; nothing was changed.
    """
    # What this process makes is its own user's alone, whatever the folder's mode was.
    os.umask(0o077)
    clock = SystemClock()
    base = read_foundations(data_dir, clock)
    configure_logs(base.settings.log_level, log_file)
    asyncio.run(_main(base, clock))


async def _main(base: Foundations, clock: Clock) -> None:
    """One life of the node's parts after the other, until a signal or a failure ends it."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    while True:
        node = Node(base, clock)
        try:
            await node.start()
            await _first(node.wait, stopping.wait, node.restarting.wait)
        finally:
            await node.stop()
        if stopping.is_set():
            return
        base = replace(read_foundations(base.paths.data, clock), address=node.address)


async def _first(*works: Callable[[], Awaitable[object]]) -> None:
    """Until one of the works ends; its exception, if any, is raised."""
    tasks = [asyncio.ensure_future(work()) for work in works]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    for task in done:
        task.result()
