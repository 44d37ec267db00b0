"""The node's end of its Ray session: starts the host, gives it stages, notices when it is gone."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from federation.availability import ExtraMissingError, RayUnavailableError, SiteSeedingError
from federation.core.coverage import SiteCoverage
from federation.core.model import ExecutorKind
from federation.errors import FederationError
from federation.executors.stage import Progress, Stage, StageResult, lost_scan
from federation.local import Loan, LocalSite
from federation.ray_runner.messages import (
    Cancelled,
    Failed,
    Finished,
    FromHost,
    FromNode,
    HostStart,
    LoopbackIssuer,
    Partition,
    RaySettings,
    Ready,
    StageFor,
    Stepped,
    pack,
    read_frame,
)
from federation.ray_runner.session import RaySession, environment, open_session

__all__ = ["RayExecutor", "ray_is_installed"]

_log = logging.getLogger(__name__)

_START_S_MAX = 200.0
_START_ATTEMPTS = 3
_STOP_S_MAX = 15.0
# The host itself cuts a stage at its deadline; after this much more it is taken to hang.
_HOST_GRACE_S = 5.0


def ray_is_installed() -> bool:
    """Whether the extra is there; ray itself is not imported."""
    return importlib.util.find_spec("ray") is not None


class _Host:
    """A running host process and the stages it has."""

    def __init__(self, process: asyncio.subprocess.Process, session: RaySession) -> None:
        self.process = process
        self.session = session
        self.workers: tuple[str, ...] = ()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stages: dict[int, tuple[asyncio.Future[Finished], Progress]] = {}
        self._reading = asyncio.create_task(self._read())

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None and not self._reading.done()

    async def send(self, message: FromNode) -> None:
        """Raises RayUnavailableError if the host is gone."""
        pipe = self.process.stdin
        if pipe is None or not self.is_alive:
            raise RayUnavailableError("Ray's host process is gone")
        try:
            pipe.write(pack(message))
            await pipe.drain()
        except ConnectionError:
            raise RayUnavailableError("Ray's host process is gone") from None

    async def run(self, message: StageFor, progress: Progress) -> Finished:
        """Raises RayUnavailableError, or RuntimeError for a fault of the program."""
        future: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
        self._stages[message.number] = (future, progress)
        try:
            await self.send(message)
            return await future
        except asyncio.CancelledError:
            with suppress(RayUnavailableError):
                await self.send(Cancelled(message.number))
            raise
        finally:
            del self._stages[message.number]

    async def stop(self) -> None:
        """End the host and with it all of Ray, by force if it must be; remove the session."""
        pipe = self.process.stdin
        if pipe is not None:
            pipe.close()
        try:
            async with asyncio.timeout(_STOP_S_MAX):
                await self.process.wait()
        except TimeoutError:
            _log.warning("Ray's host did not stop in %s s and is killed", _STOP_S_MAX)
        # The host leads its own group; what it left behind goes with it.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        await self._reading
        await asyncio.to_thread(self.session.remove)

    async def _read(self) -> None:
        reader = self.process.stdout
        while reader is not None and (message := await read_frame(reader)) is not None:
            self._take(message)
        gone = RayUnavailableError("Ray's host process ended")
        for future, _ in self._stages.values():
            if not future.done():
                future.set_exception(gone)
        if not self.ready.done():
            self.ready.set_exception(gone)
            # Marked as seen: nobody may be waiting for it any more.
            self.ready.exception()

    def _take(self, message: FromHost | FromNode) -> None:
        match message:
            case Ready():
                self.workers = message.workers
                if not self.ready.done():
                    self.ready.set_result(None)
            case Stepped() if message.number in self._stages:
                self._stages[message.number][1](message.step)
            case Finished() if message.number in self._stages:
                self._settle(message.number, message)
            case Failed() if message.number in self._stages:
                error = (
                    RayUnavailableError(f"Ray could not finish the question ({message.text})")
                    if message.is_ray
                    else RuntimeError(f"a Ray worker failed:\n{message.text}")
                )
                self._settle(message.number, error)

    def _settle(self, number: int, outcome: Finished | Exception) -> None:
        future, _ = self._stages[number]
        if future.done():
            return
        if isinstance(outcome, Finished):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)


@dataclass(frozen=True, slots=True)
class _Scan:
    """What of a stage's scan goes to the workers, and what could not be lent."""

    loan: Loan | None
    partitions: tuple[Partition, ...]
    open_sites: tuple[SiteCoverage, ...]


class RayExecutor:
    """Runs stages in Ray's workers.

    Args:
        settings: From the hardware profile.
        local: This node's replica, whose segments the workers read.
        issue: Makes the certificate with which workers reach this node's ExecutorService.
        new_token: Makes a session's token, at least 32 unguessable characters.
        is_installed: Whether the ray extra is there.
        temporary: Where the session's folder is made; the machine's temporary folder by default.
    """

    def __init__(
        self,
        settings: RaySettings,
        local: LocalSite,
        *,
        issue: LoopbackIssuer,
        new_token: Callable[[], str],
        temporary: Path | None = None,
        is_installed: Callable[[], bool] = ray_is_installed,
    ) -> None:
        self._settings = settings
        self._local = local
        self._issue = issue
        self._new_token = new_token
        self._temporary = temporary
        self._is_installed = is_installed
        self._starting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._host: _Host | None = None

    @property
    def kind(self) -> ExecutorKind:
        """Always ray."""
        return ExecutorKind.RAY

    @property
    def workers(self) -> tuple[str, ...]:
        """One line a worker that is up; empty when Ray is not running."""
        return self._host.workers if self._host is not None and self._host.is_alive else ()

    @property
    def session(self) -> Path | None:
        """The private folder of the session that runs."""
        return self._host.session.folder if self._host is not None else None

    @property
    def host_pid(self) -> int | None:
        """Process id of the host that runs; it leads the group of Ray's processes."""
        return self._host.process.pid if self._host is not None else None

    async def start(self) -> None:
        """Start the session if it is not running; takes about five seconds.

        Raises:
            ExtraMissingError: Ray is not installed.
            RayUnavailableError: It did not start.
        """
        await self._running_host()

    async def stop(self) -> None:
        """End the session and remove its folder. Stages that run end with RayUnavailableError."""
        async with self._starting:
            host, self._host = self._host, None
            if host is not None:
                await host.stop()

    async def run(self, stage: Stage, progress: Progress) -> StageResult:
        """See Executor."""
        host = await self._running_host()
        scan = await self._lend(stage)
        try:
            loopback = None
            if stage.asks:
                loopback = self._issue(stage.query_id, stage.remaining_ms)
            message = StageFor(
                number=next(self._numbers),
                stage=replace(stage, scan=()),
                loopback=loopback,
                files=scan.loan.files if scan.loan else None,
                partitions=scan.partitions,
            )
            finished = await self._within(host, message, progress)
        finally:
            if scan.loan is not None:
                await asyncio.to_thread(scan.loan.close)
        open_sites = (*finished.open_sites, *scan.open_sites)
        if finished.is_damaged and not await self._local.check_replica():
            # The workers could only say that they failed; here it is known why.
            seeding = {line.node_id: line for line in lost_scan(stage.scan, SiteSeedingError())}
            open_sites = tuple(seeding.get(site.node_id, site) for site in open_sites)
        return StageResult(finished.answer, open_sites, finished.tasks)

    # -- inside ---------------------------------------------------------------------------------

    async def _within(self, host: _Host, message: StageFor, progress: Progress) -> Finished:
        limit_s = message.stage.remaining_ms / 1000 + _HOST_GRACE_S
        try:
            async with asyncio.timeout(limit_s):
                return await host.run(message, progress)
        except TimeoutError:
            await self.stop()
            raise RayUnavailableError("Ray's host process hung and was ended") from None

    async def _lend(self, stage: Stage) -> _Scan:
        if not stage.scan:
            return _Scan(None, (), ())
        by_site = {line.node_id: line for line in stage.scan}
        try:
            loan = await self._local.lend(
                stage.plan,
                frozenset(by_site),
                parts=self._settings.workers,
                remaining_ms=stage.remaining_ms,
            )
        except FederationError as error:
            return _Scan(None, (), lost_scan(stage.scan, error))
        partitions = tuple(
            Partition(tuple(by_site[site] for site in sorted(part))) for part in loan.parts
        )
        return _Scan(loan, partitions, ())

    async def _running_host(self) -> _Host:
        async with self._starting:
            if self._host is not None and not self._host.is_alive:
                _log.warning("Ray's host is gone; it is started anew")
                host, self._host = self._host, None
                await host.stop()
            if self._host is None:
                self._host = await self._start()
            return self._host

    async def _start(self) -> _Host:
        """A host that is up; where Ray ends while it starts, started again while there is time.

        A raylet ends itself when its agents need more than 15 s, and no setting changes that: a
        machine that is busy now may not be so in the next minute.
        """
        if not self._is_installed():
            raise ExtraMissingError("ray", "ray")
        why = f"it was not up after {_START_S_MAX:.0f} s"
        end = asyncio.get_running_loop().time() + _START_S_MAX
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                for _ in range(_START_ATTEMPTS):
                    host = await self._attempt()
                    if host is not None:
                        return host
                why = f"it ended while starting, {_START_ATTEMPTS} times; the node's log says more"
        raise RayUnavailableError(f"Ray did not start: {why}")

    async def _attempt(self) -> _Host | None:
        """A host that is up, or None if it ended before it was."""
        session = await asyncio.to_thread(open_session, self._new_token(), below=self._temporary)
        host = _Host(await self._spawn(session), session)
        replica = self._local.replica
        folder = replica.folder if replica is not None else session.folder / "replica"
        try:
            await host.send(HostStart(self._settings, str(session.ray), str(folder)))
            await host.ready
        except RayUnavailableError:
            _log.error("Ray did not start:\n%s", _last_lines(session.log))
            await host.stop()
            return None
        except asyncio.CancelledError:
            await host.stop()
            raise
        return host

    async def _spawn(self, session: RaySession) -> asyncio.subprocess.Process:
        with session.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "federation.ray_runner.host",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=session.folder,
                env=environment(session.folder, self._settings),
                start_new_session=True,
            )


def _last_lines(log: Path, count: int = 20) -> str:
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    return ""
