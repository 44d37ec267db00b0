"""NodeService: what this node is, holds and is linked to. No patient data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import grpc

import protos.fenhe.common.v1.common_pb2 as common
import protos.fenhe.node.v1.auditing_pb2 as audit_pb
import protos.fenhe.node.v1.node_pb2 as pb
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock, format_ms
from node.links import LinkHub, LinkState
from node.pruning import PruningState
from node.services.operations import alarm_out
from node.storage import Storage
from node.watch import AlarmBook, Figures, LinkFigure
from protos.fenhe.node.v1 import node_pb2_grpc

__all__ = ["NodeServicer", "StatusSources", "program_version"]


def program_version() -> str:
    """The installed version of Fenhe."""
    try:
        return version("fenhe")
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class StatusSources:
    """Where the figures come from."""

    node_id: NodeId
    hierarchy: Hierarchy
    storage: Storage
    links: LinkHub
    figures: Figures
    store_epoch: int
    threads: Executor
    clock: Clock
    profile_name: str
    database: str
    columnar_sequence: Callable[[], int]
    started_ms: int
    alarms: AlarmBook
    pruning: Callable[[], PruningState]
    decided_after: Callable[[int], int]
    """The last epoch of the region after one that is decided on; 0: none."""
    audit: Callable[[], audit_pb.AuditStanding]


class NodeServicer(node_pb2_grpc.NodeServiceServicer):
    """fenhe.node.v1.NodeService."""

    def __init__(self, sources: StatusSources) -> None:
        self._sources = sources

    async def Status(
        self, request: pb.StatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.StatusResponse:
        """State of the node, its store and its links."""
        return await asyncio.get_running_loop().run_in_executor(self._sources.threads, self.collect)

    def collect(self) -> pb.StatusResponse:
        """Read the figures; blocks on the database."""
        s = self._sources
        entry = s.hierarchy.nodes[s.node_id]
        counts = s.storage.counts()
        log = s.storage.log_state()
        return pb.StatusResponse(
            node_id=s.node_id,
            level=entry.level.value,
            name=entry.name_zh,
            version=program_version(),
            store_epoch=s.store_epoch,
            config_epoch=s.hierarchy.epoch,
            config_epoch_decided=s.decided_after(s.hierarchy.epoch),
            database=s.database,
            profile=s.profile_name,
            residents=counts.residents,
            rows=dict(counts.rows),
            log_sequence=log.head,
            log_unnumbered=log.left_unnumbered,
            links=[self._link(s.links.states[each.peer], each) for each in s.figures.links()],
            columnar_sequence=s.columnar_sequence(),
            uptime_ms=s.clock.monotonic_ms() - s.started_ms,
            quarantined=s.storage.quarantined(),
            alarms=[alarm_out(alarm) for alarm in s.alarms.standing],
            recovering=s.storage.recovery.active,
            log_pruned_to=s.pruning().pruned_to,
            log_bytes=s.pruning().log_bytes,
            audit=s.audit(),
        )

    def _link(self, state: LinkState, figure: LinkFigure) -> pb.LinkStatus:
        s = self._sources
        runner = state.runner
        heard = ""
        if runner is not None and runner.last_heard_ms:
            ago = s.clock.monotonic_ms() - runner.last_heard_ms
            heard = format_ms(s.clock.now_ms() - ago)
        lanes = [
            pb.LaneStatus(
                lane=common.Lane.ValueType(each.lane.value),
                delivered_to=each.delivered_to,
                applied_to=each.applied_to,
                backlog=each.lag_entries,
            )
            for each in figure.lanes
        ]
        return pb.LinkStatus(
            peer=state.peer,
            role=state.role,
            connected=state.connected,
            last_heard_at=heard,
            lanes=lanes,
            last_error=state.last_error,
        )
