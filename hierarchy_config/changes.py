"""What differs between two hierarchies, what follows from it for each node, and what forbids it.

Pure functions of two hierarchies: the one in force and the one meant to follow it. Owns the digest
of what a hierarchy means. Never asks whether a node is there or what it holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CopyForm, NodeId

__all__ = ["Closing", "HierarchyChange", "Move", "Resending", "shape_digest"]

RESIDENTS: Final = "residents"
_TAG: Final = "fenhe-hierarchy-1"


def shape_digest(hierarchy: Hierarchy) -> str:
    """SHA-256, hexadecimal, of what a hierarchy means: not of addresses, profiles or names shown.

    Two files of one epoch that differ in layout or in where nodes are reached have one digest.
    """
    shape = {
        "region": hierarchy.region,
        "epoch": hierarchy.epoch,
        "nodes": sorted(
            [node_id, entry.level.value, entry.parent or "", entry.succeeds or ""]
            for node_id, entry in hierarchy.nodes.items()
        ),
        "rules": sorted(
            [rule.level.value, rule.table, sorted(form.value for form in rule.forms)]
            for rule in hierarchy.rules
        ),
        "cell_count_min": hierarchy.thresholds.cell_count_min,
        "overrides": sorted(hierarchy.thresholds.overrides.items()),
    }
    text = json.dumps(shape, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(f"{_TAG}\0{text}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Move:
    """A node that gets another parent; what is below it comes along."""

    node_id: NodeId
    old_parent: NodeId
    new_parent: NodeId


@dataclass(frozen=True, slots=True)
class Closing:
    """A node that is none any more. `renumbered`: the successor is the same node, new in code."""

    node_id: NodeId
    successor: NodeId | None
    renumbered: bool


@dataclass(frozen=True, slots=True)
class Resending:
    """Rows that a node logs again: of these homes, written by these authors, held in full."""

    homes: frozenset[NodeId]
    authors: frozenset[NodeId]


@dataclass(frozen=True)
class HierarchyChange:
    """From one epoch to the next."""

    old: Hierarchy
    new: Hierarchy

    @cached_property
    def added(self) -> tuple[NodeId, ...]:
        """Nodes that were none, renumbered ones apart."""
        renumbered = {each.successor for each in self.closed if each.renumbered}
        return tuple(sorted(set(self.new.nodes) - set(self.old.nodes) - renumbered))

    @cached_property
    def moved(self) -> tuple[Move, ...]:
        """Nodes of both with another parent, those higher up first."""
        found = []
        for node_id in set(self.old.nodes) & set(self.new.nodes):
            before, after = self.old.parent(node_id), self.new.parent(node_id)
            if before is not None and after is not None and before != after:
                found.append(Move(node_id, before, after))
        return tuple(sorted(found, key=lambda each: (len(each.node_id), each.node_id)))

    @cached_property
    def closed(self) -> tuple[Closing, ...]:
        """Nodes that are none any more, each with the node that succeeds it."""
        successors = {
            entry.succeeds: entry.node_id for entry in self.new.nodes.values() if entry.succeeds
        }
        return tuple(
            Closing(
                node_id,
                successors.get(node_id),
                node_id in successors and successors[node_id] not in self.old.nodes,
            )
            for node_id in sorted(set(self.old.nodes) - set(self.new.nodes))
        )

    @cached_property
    def renamed(self) -> tuple[NodeId, ...]:
        """Nodes of both whose certificate must say another name: the moved, and all below them."""
        both = set(self.old.nodes) & set(self.new.nodes)
        return tuple(
            sorted(each for each in both if self.old.dns_name(each) != self.new.dns_name(each))
        )

    @property
    def rules_differ(self) -> bool:
        """Whether what is copied up changes."""
        return sorted(self.old.rules, key=repr) != sorted(self.new.rules, key=repr)

    @property
    def thresholds_differ(self) -> bool:
        """Whether a smallest cell changes."""
        return self.old.thresholds != self.new.thresholds

    @property
    def is_nothing(self) -> bool:
        """Whether the two mean the same but for the epoch."""
        parts = (self.added, self.moved, self.closed)
        return not (any(parts) or self.rules_differ or self.thresholds_differ)

    @cached_property
    def concerned(self) -> frozenset[NodeId]:
        """Nodes that must have taken part before it is decided: the moved and the closed."""
        return frozenset({each.node_id for each in self.moved}) | {
            each.node_id for each in self.closed
        }

    def leaving(self, here: NodeId) -> frozenset[NodeId]:
        """Homes that were below a node and are elsewhere in the new hierarchy.

        Closed ones too, unless their successor is below it.
        """
        if here not in self.old or here not in self.new:
            return frozenset()
        gone = self.old.subtree(here) - self.new.subtree(here)
        return frozenset(
            home
            for home in gone
            if (heir := self.new.successor(home)) is not None
            and not self.new.is_in_subtree(heir, here)
        )

    def keeper_of(self, closing: Closing) -> NodeId | None:
        """The lowest node above a closed one and above its successor; None: there is none."""
        if closing.successor is None:
            return None
        above = self.new.path_to_root(closing.successor)[1:]
        return next((e for e in self.old.path_to_root(closing.node_id)[1:] if e in above), None)

    def draining(self, closing: Closing) -> tuple[NodeId, ...]:
        """The closed node and those above it, up to below the one that hands its rows on."""
        path = self.old.path_to_root(closing.node_id)
        keeper = self.keeper_of(closing)
        return path[: path.index(keeper)] if keeper in path else path

    @cached_property
    def purging(self) -> tuple[NodeId, ...]:
        """Nodes that hold rows of homes which leave them, ordered by id."""
        return tuple(each for each in sorted(self.old.nodes) if self.leaving(each))

    def neighbours_lost(self, here: NodeId) -> frozenset[NodeId]:
        """Nodes that a node was linked to and is not any more."""
        return _neighbours(self.old, here) - _neighbours(self.new, here)

    def resending(self, here: NodeId) -> tuple[Resending, ...]:
        """What a node logs again so that a new branch gets what its log does not tell it.

        The moved node: what its former ancestors wrote about the people below it. The lowest common
        ancestor: what it and those above it wrote about them.
        """
        found = []
        for move in self.moved:
            homes = self.old.subtree(move.node_id) & self.new.subtree(move.node_id)
            old_path = self.old.path_to_root(move.node_id)[1:]
            new_path = self.new.path_to_root(move.node_id)[1:]
            common = next((each for each in old_path if each in new_path), None)
            if here == move.node_id:
                authors = frozenset(old_path) - frozenset(new_path)
            elif here == common:
                authors = frozenset(self.new.path_to_root(here))
            else:
                continue
            if authors:
                found.append(Resending(homes, authors))
        return tuple(found)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """What forbids it, one sentence each; none: it may go ahead."""
        return tuple(self._blocks())

    def _blocks(self) -> Iterator[str]:
        old, new = self.old, self.new
        if new.region != old.region:
            yield f"the file is of region {new.region}, in force is {old.region}"
        if new.root != old.root:
            yield f"the root would be {new.root}, it is {old.root}: a root cannot be replaced"
        for node_id in sorted(set(old.nodes) & set(new.nodes)):
            before, after = old.entry(node_id).level, new.entry(node_id).level
            if before is not after:
                yield f"{node_id} would change its level from {before} to {after}"
        for each in self.closed:
            yield from self._blocks_of_closing(each)
        if self.is_nothing:
            yield "nothing changes but the epoch, addresses, profiles or names"

    def _blocks_of_closing(self, closing: Closing) -> Iterator[str]:
        node_id = closing.node_id
        below = [each for each in self.old.children(node_id) if each in self.new]
        if below:
            yield (
                f"{node_id} would be closed while {', '.join(below)} is below it: move that first"
            )
        if closing.successor is None:
            yield f"{node_id} would be closed and nobody succeeds it: set `succeeds: {node_id}`"
            return
        successor = self.new.entry(closing.successor)
        if successor.level is not self.old.entry(node_id).level:
            yield f"{successor.node_id} succeeds {node_id} and is of another level"
        reduced = [
            each
            for each in self.draining(closing)
            if self.old.copy_forms(each, RESIDENTS) != (CopyForm.FULL,)
        ]
        if reduced:
            yield (
                f"{successor.node_id} cannot take over from {node_id}: no node above both holds "
                "its rows in full; move one of them to the other's branch first"
            )
        earlier = self.old.nodes.get(closing.successor)
        if earlier is not None and earlier.succeeds not in {None, node_id}:
            yield f"{successor.node_id} succeeds {earlier.succeeds} already"


def _neighbours(hierarchy: Hierarchy, here: NodeId) -> frozenset[NodeId]:
    if here not in hierarchy:
        return frozenset()
    parent = hierarchy.parent(here)
    return frozenset(hierarchy.children(here)) | ({parent} if parent is not None else frozenset())
