"""What runs inside a Ray worker: asking a child through the own node, scanning, adding up.

A worker is an actor that stays: its DuckDB, its imports and, for one query, its channel to the node
are warm. Methods run in several threads at once; `cancel` reaches those of one stage.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federation.columnar.engine import open_engine
from federation.columnar.snapshot import SnapshotFiles, open_files
from federation.core.coverage import SiteCoverage
from federation.core.model import PartialAnswer
from federation.core.plan import LogicalPlan
from federation.errors import ColumnarError, FederationError, PartialInvalidError
from federation.executors.direct import counted
from federation.executors.stage import (
    Ask,
    Stage,
    accept_answer,
    add_up,
    lines_only,
    lost_scan,
    lost_site,
)
from federation.local import FigureMemory, scan_snapshot
from federation.ray_runner.messages import Loopback, Partition
from federation.wire import AskSite, decode_ask_site_answer, encode_ask_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

__all__ = ["PartNote", "SiteWorker"]

_ASK_SITE = "/fenhe.federation.v1.ExecutorService/AskSite"
_MESSAGE_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PartNote:
    """What the host needs to know of a part, without moving its table."""

    where: str
    is_damaged: bool = False
    counted_sites: int = 0


class SiteWorker:
    """One actor. `scratch` is its own folder, `replica` the node's columnar folder, read only."""

    def __init__(self, scratch: str, replica: str, threads: int, memory_mb: int) -> None:
        self._scratch = Path(scratch)
        self._replica = Path(replica)
        self._threads = threads
        self._memory_mb = memory_mb
        self._lock = threading.Lock()
        self._engine: Any = None
        self._memory = FigureMemory()
        self._channels: dict[int, grpc.Channel] = {}
        self._running: dict[int, list[Callable[[], object]]] = {}
        self._cancelled: set[int] = set()

    def where(self) -> str:
        """The worker's name for people: process, Ray worker and Ray node."""
        import ray

        context = ray.get_runtime_context()
        worker, node = context.get_worker_id()[:8], context.get_node_id()[:8]
        return f"ray worker {os.getpid()} (worker {worker}, node {node})"

    def ask(
        self, number: int, stage: Stage, ask: Ask, loopback: Loopback
    ) -> tuple[PartNote, PartialAnswer]:
        """A child's answer by way of the own node; what goes wrong becomes its lines."""
        answer = self._ask(number, stage, ask, loopback)
        sites = sum(site.is_counted for site in answer.coverage.sites)
        return PartNote(f"{self.where()} asked {ask.child}", counted_sites=sites), answer

    def scan(
        self, number: int, stage: Stage, files: SnapshotFiles, partition: Partition
    ) -> tuple[PartNote, PartialAnswer]:
        """The partials of some sites from the node's segments."""
        stage = replace(stage, scan=partition.lines)
        note = PartNote(f"{self.where()} scanned {len(partition.lines)} sites")
        sites = frozenset(line.node_id for line in partition.lines)
        try:
            with (
                open_files(self._duckdb(), files) as view,
                self._cancellable(number, view.interrupt),
            ):
                result = scan_snapshot(
                    view, stage.plan, sites, stage.cell_count_max, self._memory, stage.audience
                )
        except FederationError as error:
            lines = lost_scan(partition.lines, error)
            is_damaged = isinstance(error, ColumnarError)
            return replace(note, is_damaged=is_damaged), lines_only(stage.plan, lines)
        return replace(note, counted_sites=len(sites)), counted(stage, result)

    def add_up(
        self, plan: LogicalPlan, *parts: PartialAnswer
    ) -> tuple[str, PartialAnswer, tuple[SiteCoverage, ...]]:
        """All parts as one answer, and the lines of what they did not count."""
        answer, open_sites = add_up(plan, parts)
        return f"{self.where()} added up {len(parts)} parts", answer, open_sites

    def cancel(self, number: int) -> None:
        """Stop what runs of a stage, and whatever of it has not begun."""
        with self._lock:
            self._cancelled.add(number)
            running = list(self._running.get(number, ()))
        for stop in running:
            stop()

    def forget(self, number: int) -> None:
        """Close what was kept for a stage."""
        with self._lock:
            channel = self._channels.pop(number, None)
            self._cancelled.discard(number)
            self._running.pop(number, None)
        if channel is not None:
            channel.close()

    # -- inside ---------------------------------------------------------------------------------

    def _ask(self, number: int, stage: Stage, ask: Ask, loopback: Loopback) -> PartialAnswer:
        import grpc

        request = replace(stage.request, site=ask.site)
        body = encode_ask_site(AskSite(ask.child, request, stage.signed, stage.remaining_ms))
        call: Any = self._channel(number, loopback).unary_unary(_ASK_SITE)
        try:
            future = call.future(body, timeout=stage.remaining_ms / 1000)
            with self._cancellable(number, future.cancel):
                answer = decode_ask_site_answer(future.result())
            return accept_answer(stage.plan, ask, answer)
        except grpc.FutureCancelledError:
            reason = "the question was cancelled"
        except grpc.RpcError as error:
            reason = _reason(error)
        except PartialInvalidError as error:
            reason = f"its answer is invalid: {error.message}"
        return lines_only(stage.plan, lost_site(ask.child, ask.sites, reason))

    def _channel(self, number: int, loopback: Loopback) -> grpc.Channel:
        import grpc

        with self._lock:
            channel = self._channels.get(number)
            if channel is None:
                credentials = grpc.ssl_channel_credentials(
                    loopback.root_pem, loopback.key_pem, loopback.certificate_pem
                )
                channel = grpc.secure_channel(
                    loopback.address,
                    credentials,
                    options=[
                        ("grpc.ssl_target_name_override", loopback.server_name),
                        ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
                        ("grpc.enable_http_proxy", 0),
                    ],
                )
                self._channels[number] = channel
            return channel

    def _duckdb(self) -> Any:
        with self._lock:
            if self._engine is None:
                self._engine = open_engine(
                    self._scratch,
                    threads=self._threads,
                    memory_mb=self._memory_mb,
                    readable=[self._replica],
                )
            return self._engine

    @contextmanager
    def _cancellable(self, number: int, stop: Callable[[], object]) -> Iterator[None]:
        with self._lock:
            is_cancelled = number in self._cancelled
            self._running.setdefault(number, []).append(stop)
        try:
            if is_cancelled:
                stop()
            yield
        finally:
            with self._lock:
                running = self._running.get(number, [])
                if stop in running:
                    running.remove(stop)


def _reason(error: Any) -> str:
    """A sentence of a failed call: an RpcError that is a Call too, which the stubs do not know."""
    import grpc

    code: grpc.StatusCode = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "it did not answer in time"
    return str(error.details()) or f"the own node could not ask it ({code.name.lower()})"
