"""Whether every acknowledged row stands where policy sends it, counted in the nodes' databases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import protos.fenhe.node.v1.node_pb2 as node_pb
from hierarchy_config import CareLevel, CopyForm, Hierarchy, NodeId
from node.clock import Clock
from node.demo.place import DemoPlace

__all__ = ["Arrival", "wait_for_arrival"]

_RETRY_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Arrival:
    """Row versions acknowledged, those at every destination, rows at each node, seconds waited."""

    acknowledged: int
    delivered: int
    rows: Mapping[NodeId, int]
    lag_s: float


def wait_for_arrival(
    place: DemoPlace,
    status: Callable[[NodeId], node_pb.StatusResponse],
    acknowledged: Mapping[NodeId, int],
    clock: Clock,
    patience_s: float,
) -> Arrival:
    """Count until everything is everywhere, or patience ends; then say what was counted."""
    started = clock.monotonic_ms()
    total = sum(acknowledged.values()) + place.visits
    pause = threading.Event()
    while True:
        rows = {node: dict(status(node).rows) for node in place.nodes}
        delivered = _delivered(place.hierarchy, place.villages, rows)
        waited = (clock.monotonic_ms() - started) / 1000
        if delivered >= total or waited > patience_s:
            sums = {node: sum(tables.values()) for node, tables in rows.items()}
            return Arrival(total, delivered, sums, waited)
        pause.wait(_RETRY_S)


def _delivered(
    hierarchy: Hierarchy, villages: tuple[NodeId, ...], rows: Mapping[NodeId, Mapping[str, int]]
) -> int:
    """Per table: how many of the villages' rows are at every level that policy names.

    A township or county holds what its villages wrote, so the level's sum is compared with the
    villages'; the smallest level bounds what can be everywhere.
    """
    tables = {table for village in villages for table in rows[village]} - {"resident_index"}
    delivered = 0
    for table in tables:
        bounds = [sum(rows[village].get(table, 0) for village in villages)]
        for level in (CareLevel.TOWNSHIP, CareLevel.COUNTY, CareLevel.CITY):
            nodes = [node for node in rows if hierarchy.entry(node).level is level]
            bounds.extend(_held(hierarchy, villages[0], level, nodes, table, rows))
        delivered += min(bounds)
    return delivered


def _held(
    hierarchy: Hierarchy,
    village: NodeId,
    level: CareLevel,
    nodes: list[NodeId],
    table: str,
    rows: Mapping[NodeId, Mapping[str, int]],
) -> list[int]:
    """How many rows of a table the nodes of a level hold, one figure for each form they get."""
    sender = hierarchy.path_to_root(village)[CareLevel.VILLAGE.depth - level.depth - 1]
    figures = []
    for form in hierarchy.copy_forms(sender, table):
        held = "resident_index" if form is CopyForm.INDEX else table
        if form is not CopyForm.NONE:
            figures.append(sum(rows[node].get(held, 0) for node in nodes))
    return figures
