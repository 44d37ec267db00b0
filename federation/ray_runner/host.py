"""The process that owns the node's Ray session: `python -m federation.ray_runner.host`.

Reads stages from its standard input and writes results to its standard output. It ends when its
input ends, which is also what the death of the node does to it, and takes Ray's processes with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray._private.node import Node
from ray._private.parameter import RayParams

from federation.availability import ScanCancelledError
from federation.core.model import PartialAnswer, SiteProgress, SiteProgressState
from federation.executors.stage import Ask, Stage, lines_only, lost_scan, lost_site
from federation.ray_runner.messages import (
    Cancelled,
    Failed,
    Finished,
    FromHost,
    HostStart,
    Partition,
    Ready,
    StageFor,
    Stepped,
    pack,
    read_frame,
)
from federation.ray_runner.worker import PartNote, SiteWorker

__all__ = ["main"]

_log = logging.getLogger(__name__)

_PARENT_LOOK_S = 1.0
_STOP_S_MAX = 10.0
_GRACE_MS = 300
_ATTEMPTS = 2

_Part = tuple[PartNote, Any]
"""A part's note, and its answer or the reference to it in Ray's object store."""


class _WorkersLostError(Exception):
    """A task lost its worker on every attempt."""


def _die_with_parent(parent: int) -> None:
    """End with the node by force, should the end of the input not have done it."""

    def watch() -> None:
        never = threading.Event()
        while os.getppid() == parent:
            never.wait(_PARENT_LOOK_S)
        never.wait(_STOP_S_MAX)
        # This process leads its group: Ray's own processes are in it, its workers end with them.
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _start_head(start: HostStart) -> Node:
    """Ray's own processes, of this machine alone, and no more of them than the pool needs.

    ray.init would start the autoscaler's and the log's monitor too: 200 MB, and two Pythons more
    that import their modules while the raylet gives its agents 15 s for that. An old machine with
    other work needs the time. ray.init has no parameter for it; `ray start` has them, at the price
    of one Python more.
    """
    settings = start.settings
    params = RayParams(
        num_cpus=settings.workers,
        num_gpus=0,
        object_store_memory=settings.object_store_mb * 1024 * 1024,
        include_dashboard=False,
        dashboard_host="127.0.0.1",
        include_log_monitor=False,
        no_monitor=True,
        temp_dir=start.session,
        node_ip_address="127.0.0.1",
    )
    return Node(params, head=True, shutdown_at_exit=False, spawn_reaper=True)


def _start_ray(start: HostStart, head: Node) -> list[Any]:
    """The pool of actors in the session, all of them up."""
    settings = start.settings
    ray.init(
        address=head.gcs_address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="fenhe",
    )
    actor = ray.remote(concurrency_groups={"control": 2})(SiteWorker)
    workers = [
        actor.options(
            num_cpus=1,
            max_restarts=-1,
            # With others to turn to, waiting for the lost worker to come back is slower.
            max_task_retries=0 if settings.workers > 1 else 1,
            max_concurrency=settings.asks_max,
        ).remote(
            str(Path(start.session).parent / f"worker-{index}"),
            start.replica,
            max(1, settings.threads // settings.workers),
            max(64, settings.memory_mb // settings.workers),
        )
        for index in range(settings.workers)
    ]
    ray.get([worker.where.remote() for worker in workers])
    return workers


class _Host:
    """Runs stages on the pool."""

    def __init__(self, workers: list[Any], send: Callable[[FromHost], None]) -> None:
        self._workers = workers
        self._send = send
        self._turn = 0
        self._stages: dict[int, asyncio.Task[None]] = {}

    def begin(self, message: StageFor) -> None:
        """Start a stage; its result is sent."""
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._stages[message.number] = task
        task.add_done_callback(lambda _: self._stages.pop(message.number, None))

    def cancel(self, number: int) -> None:
        """Stop a stage here and in the workers."""
        task = self._stages.get(number)
        if task is not None:
            task.cancel()

    async def end(self) -> None:
        """Stop every stage."""
        tasks = list(self._stages.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, message: StageFor) -> None:
        try:
            self._send(await self._run(message))
        except ray.exceptions.RayTaskError as error:
            self._send(Failed(message.number, is_ray=False, text=str(error)))
        except (ray.exceptions.RayError, _WorkersLostError) as error:
            self._send(Failed(message.number, is_ray=True, text=type(error).__name__))
        except asyncio.CancelledError:
            self._tell(message.number, "cancel")
            raise
        finally:
            self._tell(message.number, "forget")

    def _tell(self, number: int, method: str) -> None:
        for worker in self._workers:
            getattr(worker, method).options(concurrency_group="control").remote(number)

    async def _run(self, message: StageFor) -> Finished:
        stage = message.stage
        parts = await self._parts(message)
        answers = [answer for _, answer in parts]
        if stage.before is not None:
            answers.append(stage.before)
        where, answer, open_sites = await self._with_retry(
            lambda worker: worker.add_up.remote(stage.plan, *answers)
        )
        return Finished(
            message.number,
            answer,
            open_sites,
            tasks=(*(note.where for note, _ in parts), where),
            is_damaged=any(note.is_damaged for note, _ in parts),
        )

    async def _parts(self, message: StageFor) -> list[_Part]:
        stage = message.stage
        tasks: list[asyncio.Task[_Part]] = []
        try:
            async with asyncio.timeout((stage.remaining_ms + _GRACE_MS) / 1000):
                async with asyncio.TaskGroup() as group:
                    tasks += [group.create_task(self._ask(message, ask)) for ask in stage.asks]
                    tasks += [
                        group.create_task(self._scan(message, partition))
                        for partition in message.partitions
                    ]
        except TimeoutError:
            self._tell(message.number, "cancel")
        except BaseExceptionGroup as group_error:
            # One fault is enough to say; the others are the same fault or follow from it.
            raise group_error.exceptions[0] from None
        late = ScanCancelledError("the scan was cut at its deadline")
        lost: list[PartialAnswer] = [
            lines_only(stage.plan, lost_site(ask.child, ask.sites, "it did not answer in time"))
            for ask in stage.asks
        ]
        lost += [
            lines_only(stage.plan, lost_scan(partition.lines, late))
            for partition in message.partitions
        ]
        return [
            (PartNote("a task was cut at the deadline"), cut) if task.cancelled() else task.result()
            for task, cut in zip(tasks, lost, strict=True)
        ]

    async def _ask(self, message: StageFor, ask: Ask) -> _Part:
        asked = SiteProgress(ask.child, SiteProgressState.ASKED)
        self._send(Stepped(message.number, asked))
        stage = _bare(message.stage)
        part = await self._part(
            lambda worker: worker.ask.options(num_returns=2).remote(
                message.number, stage, ask, message.loopback
            )
        )
        note, _ = part
        state = SiteProgressState.ANSWERED if note.counted_sites else SiteProgressState.MISSING
        self._send(Stepped(message.number, SiteProgress(ask.child, state)))
        return part

    async def _scan(self, message: StageFor, partition: Partition) -> _Part:
        stage = _bare(message.stage)
        return await self._part(
            lambda worker: worker.scan.options(num_returns=2).remote(
                message.number, stage, message.files, partition
            )
        )

    async def _part(self, submit: Callable[[Any], Any]) -> _Part:
        """Only the note comes here; the answer stays in the object store for the adding up."""
        references: list[Any] = []

        def first(worker: Any) -> Any:
            references[:] = submit(worker)
            return references[0]

        note: PartNote = await self._with_retry(first)
        return note, references[1]

    async def _with_retry(self, submit: Callable[[Any], Any]) -> Any:
        """The result of a task; on another worker if its worker died."""
        self._turn += 1
        turn = self._turn
        for attempt in range(_ATTEMPTS):
            worker = self._workers[(turn + attempt) % len(self._workers)]
            try:
                return await submit(worker)
            except ray.exceptions.RayActorError as error:
                _log.warning("a Ray worker was lost: %s", type(error).__name__)
        raise _WorkersLostError


def _bare(stage: Stage) -> Stage:
    """What a task needs of a stage: neither the other children nor what was counted before."""
    return replace(stage, asks=(), before=None)


async def _serve(output: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    pipe = os.fdopen(output, "wb", buffering=0)

    def send(message: FromHost) -> None:
        # The node reads all the time; a pipe that stays full means that it is gone.
        with suppress(BrokenPipeError):
            pipe.write(pack(message))

    start = await read_frame(reader)
    if not isinstance(start, HostStart):
        return
    head = _start_head(start)
    try:
        workers = _start_ray(start, head)
        # A signal in the middle of the clean-up would leave Ray's agents behind. Whoever ends the
        # node ends this too: by closing the input, or by force after a while.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        send(Ready(tuple(ray.get([worker.where.remote() for worker in workers]))))
        host = _Host(workers, send)
        await _read_stages(reader, host)
        await host.end()
    finally:
        ray.shutdown()
        head.kill_all_processes(check_alive=False, allow_graceful=True)


async def _read_stages(reader: asyncio.StreamReader, host: _Host) -> None:
    while (message := await read_frame(reader)) is not None:
        match message:
            case StageFor():
                host.begin(message)
            case Cancelled():
                host.cancel(message.number)


def main() -> None:
    """Serve until the input ends."""
    parent = os.getppid()
    _die_with_parent(parent)
    # Whatever Ray or a library prints must not end up between two frames.
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        asyncio.run(_serve(output))
    finally:
        if os.getppid() != parent:
            # The node that would clean up is gone. This folder is the session's, and the group
            # is this process with what Ray has left running (its agents outlive a killed raylet).
            shutil.rmtree(Path.cwd(), ignore_errors=True)
            os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
