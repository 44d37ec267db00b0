"""A plan: what a region file would change, in words and counts, before anything moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hierarchy_config import Hierarchy, HierarchyChange, NodeId, parse_region

__all__ = ["Census", "Plan", "PlannedChange", "PlannedPurge", "describe", "make_plan", "next_epoch"]


@dataclass(frozen=True, slots=True)
class Census:
    """What a node said it holds of some homes, and the digest of its key."""

    residents: int
    rows: int
    key: str


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """One change. `census` None: the node could not be asked."""

    kind: str
    node_id: str
    detail: str
    nodes_below: int = 0
    census: Census | None = None


@dataclass(frozen=True, slots=True)
class PlannedPurge:
    """What a node of an old branch deletes; `rows` None: it could not be asked."""

    node_id: NodeId
    homes: int
    rows: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything an operator should know before he applies a file."""

    change: HierarchyChange
    changes: tuple[PlannedChange, ...]
    purges: tuple[PlannedPurge, ...]
    away: tuple[NodeId, ...]
    blocks: tuple[str, ...]
    notes: tuple[str, ...]


def next_epoch(text: str, old: Hierarchy) -> tuple[Hierarchy, tuple[str, ...]]:
    """The hierarchy of a file as the epoch after `old`, and what forbids it by its epoch.

    Raises:
        RegionFileError: It is no region file.
    """
    given = parse_region(text, file="the region file")
    blocks: tuple[str, ...] = ()
    if given.epoch not in {old.epoch, old.epoch + 1}:
        said = f"the file is of epoch {given.epoch}, in force is {old.epoch}"
        blocks = (f"{said}: make the change on the file that is in force",)
    return replace(given, epoch=old.epoch + 1), blocks


def describe(change: HierarchyChange) -> tuple[PlannedChange, ...]:
    """What changes, without counts."""
    below = change.old.subtree
    found = [
        PlannedChange(
            "moved",
            each.node_id,
            f"from {each.old_parent} to {each.new_parent}",
            len(below(each.node_id)) - 1,
        )
        for each in change.moved
    ]
    for closing in change.closed:
        kind = "renumbered" if closing.renumbered else "closed"
        found.append(PlannedChange(kind, closing.node_id, f"into {closing.successor or 'nothing'}"))
    found += [
        PlannedChange("added", node_id, f"under {change.new.parent(node_id)}")
        for node_id in change.added
    ]
    if change.rules_differ:
        found.append(PlannedChange("rules", "", "what is copied up is ruled otherwise"))
    if change.thresholds_differ:
        least = change.new.thresholds.cell_count_min
        found.append(PlannedChange("thresholds", "", f"smallest cell {least}, or its exceptions"))
    return tuple(found)


def make_plan(
    change: HierarchyChange,
    *,
    seen: frozenset[NodeId],
    moving: Mapping[NodeId, Census],
    purging: Mapping[NodeId, Census],
    blocks: tuple[str, ...],
) -> Plan:
    """Put together what was asked.

    Args:
        change: From the epoch in force.
        seen: Nodes that answered.
        moving: What moved nodes hold of all below them.
        purging: What nodes of old branches hold of the homes that leave them.
        blocks: What forbids it beside the change itself.
    """
    changes = tuple(
        replace(each, census=moving.get(NodeId(each.node_id))) for each in describe(change)
    )
    purges = tuple(
        PlannedPurge(
            node_id,
            len(change.leaving(node_id)),
            purging[node_id].rows if node_id in purging else None,
        )
        for node_id in change.purging
    )
    away = tuple(sorted(set(change.old.nodes) - seen))
    return Plan(change, changes, purges, away, (*change.blocks, *blocks), _notes(change, away))


def _notes(change: HierarchyChange, away: tuple[NodeId, ...]) -> tuple[str, ...]:
    notes = [
        f"{move.new_parent} has no endpoint in the file: {move.node_id} must find it in its "
        "directory"
        for move in change.moved
        if change.new.entry(move.new_parent).endpoint is None
    ]
    notes += [
        f"{node_id} is to be made with `fenhe node init` once this is in force"
        for node_id in change.added
    ]
    notes += [
        f"{each.successor} is to be made with `fenhe node init` once this is in force, and takes "
        f"over what {each.node_id} holds"
        for each in change.closed
        if each.renumbered
    ]
    concerned = sorted(change.concerned & set(away))
    notes += [f"{node_id} moves and must be there: it cannot be given up" for node_id in concerned]
    return tuple(notes)
