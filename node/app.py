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
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import grpc

from node.clock import Clock, SystemClock
from node.foundations import Foundations, read_foundations
from node.guards import bound_port_is_free, folder_locked
from node.joining.room import JoiningRoom
from node.joining.wire import open_door
from node.lasting import lasting
from node.limits import CallGate, CallLimits, LimitGauges
from node.links import ParentLink
from node.logs import configure_logs, get_logger
from node.metrics import NodeMetrics, serve_metrics
from node.opening import OpenStore
from node.parts import Assembly, Parts
from node.region import parent_names
from node.renewing.child import Asker
from node.renewing.standin import serving_files
from node.renewing.watch import RenewalWatch
from node.security.tls import ServerCertificates, open_channel, server_options
from node.services.door_server import open_side_door
from node.services.interceptor import GuardInterceptor
from node.services.open_calls import OpenCalls
from node.services.registration import Servicers, add_servicers
from node.whereabouts import Whereabouts

__all__ = ["Node", "run_node"]

STOP_GRACE_S: Final = 3.0
CANCEL_AGAIN_S: Final = 2.0
WATCH_S: Final = 5.0
AUDIT_CHAIN_S: Final = 5.0


class Node:
    """One running node."""

    assembly = Assembly

    def __init__(self, base: Foundations, clock: Clock) -> None:
        """Nothing happens before `start`."""
        self._base = base
        self._clock = clock
        self._log = get_logger("node")
        self._exit = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] | None = None
        self.address = base.listen
        self.door_address = ""
        self.restarting = asyncio.Event()
        """Set when the data folder says something new: stop, and start another Node on it."""
        self._assembly = self.assembly(
            base, clock, self._exit, restart=self.restarting.set, address=lambda: self.address
        )

    async def start(self) -> None:
        """Open, serve, dial; returns when the node serves."""
        base, clock = self._base, self._clock
        self._failure = asyncio.get_running_loop().create_future()
        self._exit.enter_context(folder_locked(base.paths.lock))
        # Not in stop(): a second process that finds the folder locked must leave it as it is.
        self._exit.callback(base.paths.run.unlink, missing_ok=True)
        if not base.listen.endswith(":0"):
            bound_port_is_free(base.listen)
        parts = await self._assembly.open(clock.monotonic_ms())
        metrics = NodeMetrics(base.node_id)
        for reader in (
            lambda head: parts.hub.log_advanced(head, parts.pump.lane_heads),
            metrics.log_head,
            parts.questions.log_advanced,
        ):
            parts.pump.subscribe(reader)
        following = self._assembly.following(parts.store, parts.pump)
        await parts.pump.step()
        # Before the server, so that it is stopped after it.
        await parts.questions.start()
        self._exit.push_async_callback(parts.questions.stop)
        await self._serve(self._assembly.servicers(parts), metrics, parts)
        await self._open_door(parts.joining, metrics)
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
            ("revocation", parts.revocation.run),
            ("letters", parts.transit.service.run),
            ("moves", parts.residence.run),
            ("comparison", partial(parts.reconcile.run, metrics)),
            ("keys", parts.keys.run),
            ("escrow", parts.keys.run_escrow),
            ("audit anchors", parts.auditing.keeper.run),
            ("refusals", parts.auditing.denials.run),
            ("audit figures", partial(parts.auditing.run, metrics)),
            ("checkup", parts.checkup.run),
            ("intake", parts.intake.run),
            ("matching", parts.matching.run),
            ("cache figures", partial(self._watch_cache, parts.store, metrics)),
        ):
            self._run(lasting(name, work), name)
        places = Whereabouts(base, self._assembly.threads("directory", 1))
        self._exit.push_async_callback(places.stop)
        self._run(places.run(self.address))
        await self._dial(parts, places)
        self._announce()

    async def wait(self) -> None:
        """Until a background task fails, which ends the node with that error."""
        if self._failure is not None:
            await self._failure

    async def stop(self) -> None:
        """Finish what is under way and give everything back."""
        waiting: set[asyncio.Task[None]] = set(self._tasks)
        while waiting:
            # Again and again: asyncio.wait_for forgets a cancellation that meets its own end.
            for task in waiting:
                task.cancel()
            _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN_S)
            for task in waiting:
                self._log.warning("still at work", task=task.get_name())
        await self._exit.aclose()
        self._log.info("stopped", node=self._base.node_id)

    async def _serve(self, servicers: Servicers, metrics: NodeMetrics, parts: Parts) -> None:
        base = self._base
        guard = self._guard(servicers, metrics, parts)
        server = grpc.aio.server(interceptors=(guard,), options=server_options(base.limits))
        health = await add_servicers(server, servicers)
        files = await asyncio.get_running_loop().run_in_executor(
            parts.threads, serving_files, base, self._clock
        )
        certificates = ServerCertificates(files)
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

    def _guard(self, servicers: Servicers, metrics: NodeMetrics, parts: Parts) -> GuardInterceptor:
        """What every call passes."""
        base = self._base
        calls = OpenCalls(parts.revocation.book)
        parts.revocation.on_change(calls.look)
        gauges = LimitGauges(metrics.registry)
        gate = CallGate(CallLimits.of(base.profile), self._clock, gauges.refused)
        gauges.watch(gate)
        return GuardInterceptor(
            base.node_id,
            base.hierarchy,
            lambda: secrets.token_hex(4),
            metrics.count_call,
            parts.ground.former,
            clock=self._clock,
            calls=calls,
            gate=gate,
            sessions=servicers.people,
            denied=parts.auditing.denials.note,
        )

    async def _open_door(self, joining: JoiningRoom, metrics: NodeMetrics) -> None:
        """Open the side door of a node that has children."""
        close = await open_side_door(
            self._base,
            joining,
            self.address,
            incident=lambda: secrets.token_hex(4),
            count=metrics.count_call,
        )
        self.door_address = joining.door_address
        if close is not None:
            self._exit.push_async_callback(close, STOP_GRACE_S)

    async def _dial(self, parts: Parts, places: Whereabouts) -> None:
        """Keep the link to the parent up, if there is a parent.

        Raises:
            ParentAddressUnknownError: It has no address, there is no directory to wait for, and no
                change of the region that is about to name another parent.
        """
        base = self._base
        parent = base.hierarchy.parent(base.node_id)
        self._run(lasting("renewal", self._renewal(parts, places).run))
        if parent is None or base.credentials.limited is not None:
            # A limited node opens no link: it asks at the parent's door.
            return
        if not places.has_directory and not await parts.region.keeper.is_switch_due():
            await places.parent_endpoint(parent)
        names = cycle(parent_names(base))

        async def channel() -> grpc.aio.Channel:
            endpoint = await places.parent_endpoint(parent)
            return open_channel(endpoint, next(names), base.credentials.tls, base.limits)

        self._run(parts.hub.dial_parent(ParentLink(parent, channel)))

    def _renewal(self, parts: Parts, places: Whereabouts) -> RenewalWatch:
        base = self._base
        parent = base.hierarchy.parent(base.node_id)
        asker = None
        if parent is not None:
            asker = Asker(
                base.paths.data,
                base.node_id,
                parent,
                base.hierarchy,
                self._clock,
                os.urandom,
                open_door,
                parts.ground.former,
                parts.revocation.book,
            )
        return RenewalWatch(
            base,
            parts.hub,
            asker,
            endpoint=places.parent_endpoint,
            restart=self.restarting.set,
            threads=self._assembly.threads("renewal", 1),
            clock=self._clock,
            jitter=random.SystemRandom().random,
        )

    def _announce(self) -> None:
        """Say that the node serves: in the log, and in run.json for whoever started it."""
        base = self._base
        said = {
            "node_id": base.node_id,
            "listen": self.address,
            "door": self.door_address,
            "pid": os.getpid(),
        }
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

    async def _watch(self, parts: Parts, metrics: NodeMetrics) -> None:
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
            for link in await loop.run_in_executor(parts.threads, parts.watch.figures.links):
                backlog = {each.lane.name.lower(): each.lag_entries for each in link.lanes}
                metrics.link(link.peer, connected=link.connected, backlog=backlog)

    async def _watch_cache(self, store: OpenStore, metrics: NodeMetrics) -> None:
        """Bring the cache's figures into the metrics."""
        while True:
            counts = store.storage.answer_counts
            metrics.cache(available=store.cache.is_available, kept=counts.kept, read=counts.read)
            await asyncio.sleep(WATCH_S)

    def _run(self, work: Coroutine[Any, Any, None], name: str | None = None) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(task.exception() or RuntimeError("unknown"))


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
        base = replace(
            read_foundations(base.paths.data, clock),
            address=node.address,
            door_address=node.door_address,
        )


async def _first(*works: Callable[[], Awaitable[object]]) -> None:
    """Until one of the works ends; its exception, if any, is raised."""
    tasks = [asyncio.ensure_future(work()) for work in works]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    for task in done:
        task.result()
