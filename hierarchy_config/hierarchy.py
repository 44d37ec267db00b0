"""Who is above whom, in one configuration epoch.

Owns the closure of the hierarchy: computed once when the value is made, then every question is a
lookup. Ancestry comes from the nodes' parents only; a code's prefix is never asked. It does no I/O
and never changes: another epoch is another value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from hierarchy_config.errors import Fault, HierarchyError
from hierarchy_config.model import (
    CONSENTS_TABLE,
    FULL_ONLY_TABLES,
    REPLICATED_TABLES,
    CareLevel,
    CopyForm,
    CopyRule,
    NodeEntry,
    NodeId,
    Thresholds,
)

__all__ = [
    "DEFAULT_RULES",
    "Hierarchy",
    "HierarchyShapeError",
    "NodeNotBelowError",
    "NodeUnknownError",
    "slice_hierarchy",
    "with_endpoints",
]

_FULL: Final = (CopyForm.FULL,)
_NONE: Final = (CopyForm.NONE,)
_OF_RESIDENTS: Final = tuple(
    sorted(REPLICATED_TABLES - FULL_ONLY_TABLES - {CONSENTS_TABLE, "resident_index"})
)

DEFAULT_RULES: Final[tuple[CopyRule, ...]] = (
    CopyRule(CareLevel.VILLAGE, "*", _FULL),
    CopyRule(CareLevel.TOWNSHIP, "*", _FULL),
    CopyRule(CareLevel.COUNTY, "residents", (CopyForm.INDEX, CopyForm.DEIDENTIFIED)),
    CopyRule(CareLevel.COUNTY, "identifiers", _NONE),
    CopyRule(CareLevel.COUNTY, "resident_index", (CopyForm.INDEX,)),
    CopyRule(CareLevel.COUNTY, "*", (CopyForm.DEIDENTIFIED,)),
)


_CODE: Final = re.compile(r"[0-9]{1,12}")


class NodeUnknownError(HierarchyError):
    """A node was asked about that this epoch does not have."""

    code = "NODE_UNKNOWN"
    fault = Fault.CALLER
    default_hint = "See `fenhe hierarchy tree` for the nodes of this region."

    def __init__(self, node_id: str) -> None:
        # What is no code at all may be anything, a name too, and is not repeated.
        shown = f"node {node_id}" if _CODE.fullmatch(node_id) else "what was named as a node"
        super().__init__(f"{shown} is not in this hierarchy")


class NodeNotBelowError(HierarchyError):
    """The next hop down was asked for a node that does not lie below."""

    code = "NODE_NOT_BELOW"
    fault = Fault.CALLER
    default_hint = "Send it to the parent: only an ancestor can pass it down."


class HierarchyShapeError(HierarchyError):
    """The nodes do not form one tree whose levels descend."""

    code = "HIERARCHY_SHAPE"
    default_hint = "Load the region from its file: that reports every fault with its place."


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One epoch's nodes as a tree. Lookups are O(1) or O(levels).

    Raises:
        HierarchyShapeError: Unknown parent, not exactly one root, a cycle, or a child not below
            its parent's level.
    """

    region: str
    epoch: int
    nodes: Mapping[NodeId, NodeEntry]
    rules: tuple[CopyRule, ...] = DEFAULT_RULES
    thresholds: Thresholds = field(default_factory=Thresholds)
    root: NodeId = field(init=False, compare=False)
    _children: Mapping[NodeId, tuple[NodeId, ...]] = field(init=False, repr=False, compare=False)
    _paths: Mapping[NodeId, tuple[NodeId, ...]] = field(init=False, repr=False, compare=False)
    _subtrees: Mapping[NodeId, frozenset[NodeId]] = field(init=False, repr=False, compare=False)
    _forms: Mapping[tuple[CareLevel, str], tuple[CopyForm, ...]] = field(
        init=False, repr=False, compare=False
    )
    _successors: Mapping[NodeId, NodeId] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A copy, so that nobody else holds the mapping; a plain dict, so that it can be pickled.
        nodes = dict(self.nodes)
        children = _children_of(nodes)
        paths = _paths_of(nodes, children)
        object.__setattr__(self, "nodes", nodes)
        object.__setattr__(self, "root", next(iter(paths)))
        object.__setattr__(self, "_children", children)
        object.__setattr__(self, "_paths", paths)
        object.__setattr__(self, "_subtrees", _subtrees_of(paths))
        object.__setattr__(self, "_forms", _forms_of(self.rules))
        succeeded = {each.succeeds: code for code, each in nodes.items() if each.succeeds}
        object.__setattr__(self, "_successors", succeeded)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self.nodes

    def __len__(self) -> int:
        return len(self.nodes)

    def entry(self, node_id: NodeId) -> NodeEntry:
        """Return a node's entry. Raises NodeUnknownError."""
        try:
            return self.nodes[node_id]
        except KeyError:
            raise NodeUnknownError(node_id) from None

    def parent(self, node_id: NodeId) -> NodeId | None:
        """Return the node above, None at the root. Raises NodeUnknownError."""
        return self.entry(node_id).parent

    def children(self, node_id: NodeId) -> tuple[NodeId, ...]:
        """Return the nodes directly below, ordered by id. Raises NodeUnknownError."""
        self.entry(node_id)
        return self._children.get(node_id, ())

    def subtree(self, node_id: NodeId) -> frozenset[NodeId]:
        """Return the node and everything below it. Raises NodeUnknownError."""
        self.entry(node_id)
        return self._subtrees[node_id]

    def path_to_root(self, node_id: NodeId) -> tuple[NodeId, ...]:
        """Return the node, its parent, … and the root last. Raises NodeUnknownError."""
        self.entry(node_id)
        return self._paths[node_id]

    def successor(self, node_id: NodeId) -> NodeId | None:
        """Return the node that stands for a code: itself, its successor, None if there is none."""
        return node_id if node_id in self.nodes else self._successors.get(node_id)

    def is_in_subtree(self, node_id: NodeId, root: NodeId) -> bool:
        """Whether `node_id` is `root` or below it. An unknown node is in no subtree.

        Raises:
            NodeUnknownError: `root` is unknown.
        """
        return node_id in self.subtree(root)

    def ancestor_at(self, node_id: NodeId, level: CareLevel) -> NodeId | None:
        """Return the node's ancestor of that level (itself if it is of it), None if it has none."""
        for candidate in self.path_to_root(node_id):
            if self.nodes[candidate].level is level:
                return candidate
        return None

    def common_ancestor(self, one: NodeId, other: NodeId) -> NodeId:
        """Return the lowest node that has both in its subtree."""
        above = set(self.path_to_root(one))
        return next(node_id for node_id in self.path_to_root(other) if node_id in above)

    def next_hop(self, frm: NodeId, to: NodeId) -> NodeId:
        """Return the child of `frm` whose subtree holds `to`.

        Raises:
            NodeUnknownError: One of them is unknown.
            NodeNotBelowError: `to` is not strictly below `frm`.
        """
        path, depth = self.path_to_root(to), len(self.path_to_root(frm))
        if len(path) <= depth or path[-depth] != frm:
            raise NodeNotBelowError(f"node {to} does not lie below node {frm}")
        return path[-depth - 1]

    def copy_forms(self, child: NodeId, table: str) -> tuple[CopyForm, ...]:
        """Return the forms in which `child` sends rows of `table` to its parent.

        Where a level is left out (a village directly under the city) the rules of every level
        passed over hold one after the other, so that a shorter way never sends more. Tables of
        FULL_ONLY_TABLES go whole or not at all; consents go wherever any row of a resident goes, in
        the fullest form that one of them has.
        """
        if table == CONSENTS_TABLE:
            return self._consent_forms(child)
        entry = self.entry(child)
        if entry.parent is None:
            return _NONE
        top = self.nodes[entry.parent].level.depth
        forms: tuple[CopyForm, ...] = _FULL
        for level in sorted(CareLevel, key=lambda each: -each.depth):
            if top < level.depth <= entry.level.depth:
                forms = _and_then(forms, self._rule(level, table))
        return _NONE if table in FULL_ONLY_TABLES and forms != _FULL else forms

    def _consent_forms(self, child: NodeId) -> tuple[CopyForm, ...]:
        sent = {form for table in _OF_RESIDENTS for form in self.copy_forms(child, table)}
        fullest = (form for form in (CopyForm.FULL, CopyForm.DEIDENTIFIED) if form in sent)
        return tuple(fullest)[:1] or _NONE

    def _rule(self, level: CareLevel, table: str) -> tuple[CopyForm, ...]:
        return self._forms.get((level, table)) or self._forms.get((level, "*"), _NONE)

    def cell_count_min(self, node_id: NodeId) -> int:
        """Return the fewest distinct residents a cell released by this node may stand for."""
        self.entry(node_id)
        return self.thresholds.overrides.get(node_id, self.thresholds.cell_count_min)

    def dns_name(self, node_id: NodeId) -> str:
        """Return the name in the node's certificate, e.g. n141002.n1410.linfen.fenhe."""
        labels = [f"n{each}" for each in self.path_to_root(node_id)]
        return ".".join([*labels, self.region, "fenhe"])

    def dns_domain(self, node_id: NodeId) -> str:
        """Return the DNS domain that the node's own authority may sign for: its name."""
        return self.dns_name(node_id)

    def spiffe_id(self, node_id: NodeId) -> str:
        """Return the URI in the node's certificate, e.g. spiffe://linfen/141002."""
        return f"spiffe://{self.region}/{self.entry(node_id).node_id}"


def _and_then(below: tuple[CopyForm, ...], above: tuple[CopyForm, ...]) -> tuple[CopyForm, ...]:
    if CopyForm.FULL in below:
        return above
    if CopyForm.FULL in above:
        return below
    return tuple(form for form in below if form in above) or _NONE


def _forms_of(
    rules: tuple[CopyRule, ...],
) -> dict[tuple[CareLevel, str], tuple[CopyForm, ...]]:
    # A level that is ruled at all is ruled wholly: a default under a rule that someone wrote
    # to send less would still send more.
    ruled = {rule.level for rule in rules}
    defaults = [rule for rule in DEFAULT_RULES if rule.level not in ruled]
    return {(rule.level, rule.table): rule.forms for rule in (*defaults, *rules)}


def _children_of(nodes: Mapping[NodeId, NodeEntry]) -> dict[NodeId, tuple[NodeId, ...]]:
    gathered: dict[NodeId, list[NodeId]] = {}
    for node_id, entry in nodes.items():
        if entry.node_id != node_id:
            raise HierarchyShapeError(f"node {entry.node_id} is filed under another id")
        if entry.parent is None:
            continue
        above = nodes.get(entry.parent)
        if above is None:
            raise HierarchyShapeError(f"node {node_id} names an unknown parent {entry.parent}")
        if above.level.depth >= entry.level.depth:
            raise HierarchyShapeError(f"node {node_id} is not of a lower level than its parent")
        gathered.setdefault(entry.parent, []).append(node_id)
    return {node_id: tuple(sorted(below)) for node_id, below in gathered.items()}


def _paths_of(
    nodes: Mapping[NodeId, NodeEntry], children: Mapping[NodeId, tuple[NodeId, ...]]
) -> dict[NodeId, tuple[NodeId, ...]]:
    """Paths to the root, the root first, every parent before its children."""
    roots = [node_id for node_id, entry in nodes.items() if entry.parent is None]
    if len(roots) != 1:
        raise HierarchyShapeError(f"expected exactly one root, found {len(roots)}")
    paths: dict[NodeId, tuple[NodeId, ...]] = {roots[0]: (roots[0],)}
    pending = [roots[0]]
    while pending:
        above = pending.pop()
        for node_id in children.get(above, ()):
            paths[node_id] = (node_id, *paths[above])
            pending.append(node_id)
    # No cycle can be left out here: levels descend strictly from parent to child.
    return paths


def _subtrees_of(paths: Mapping[NodeId, tuple[NodeId, ...]]) -> dict[NodeId, frozenset[NodeId]]:
    gathered: dict[NodeId, list[NodeId]] = {node_id: [] for node_id in paths}
    for node_id, path in paths.items():
        for above in path:
            gathered[above].append(node_id)
    return {node_id: frozenset(below) for node_id, below in gathered.items()}


def slice_hierarchy(hierarchy: Hierarchy, node_ids: Iterable[NodeId]) -> Hierarchy:
    """Cut a hierarchy to the named nodes; each hangs under its nearest ancestor that is kept.

    Raises:
        NodeUnknownError: A node is not in the hierarchy.
        HierarchyShapeError: What is left has not exactly one root.
    """
    kept = set(node_ids)
    nodes: dict[NodeId, NodeEntry] = {}
    for node_id in sorted(kept):
        above = hierarchy.path_to_root(node_id)[1:]
        parent = next((each for each in above if each in kept), None)
        nodes[node_id] = replace(hierarchy.entry(node_id), parent=parent)
    overrides = {
        node_id: least
        for node_id, least in hierarchy.thresholds.overrides.items()
        if node_id in kept
    }
    return replace(
        hierarchy, nodes=nodes, thresholds=replace(hierarchy.thresholds, overrides=overrides)
    )


def with_endpoints(hierarchy: Hierarchy, endpoints: Mapping[NodeId, str]) -> Hierarchy:
    """Return the same hierarchy with host:port set where `endpoints` names a node."""
    nodes = dict(hierarchy.nodes)
    for node_id, endpoint in endpoints.items():
        nodes[node_id] = replace(hierarchy.entry(node_id), endpoint=endpoint)
    return replace(hierarchy, nodes=nodes)
