"""What a region file means as a whole: is it one tree, are its places known, its limits sane."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hierarchy_config.config_file import Report
from hierarchy_config.model import CareLevel, Division, NodeEntry, NodeId, prefixes_of_code
from hierarchy_config.region_model import Located, NodeModel, RegionModel

__all__ = ["entry_of", "find_faults", "nearest"]


def nearest(
    node_id: NodeId, present: frozenset[NodeId], divisions: Mapping[NodeId, Division]
) -> NodeId | None:
    """Return the nearest ancestor by the division table (by the code beyond it) that is present."""
    return next((code for code in _ancestors(node_id, divisions) if code in present), None)


def _ancestors(node_id: NodeId, divisions: Mapping[NodeId, Division]) -> Iterator[NodeId]:
    division = divisions.get(node_id)
    if division is None:
        yield from prefixes_of_code(node_id)
    while division is not None and division.parent is not None:
        yield division.parent
        division = divisions.get(division.parent)


def entry_of(
    node: NodeModel, present: frozenset[NodeId], divisions: Mapping[NodeId, Division]
) -> NodeEntry:
    """Fill an entry of the file from the division table."""
    division = divisions.get(node.id)
    level = node.level or (division.level if division else CareLevel.of_code(node.id))
    name = node.name or (division.name_zh if division else "")
    return NodeEntry(
        node_id=node.id,
        level=level,
        name_zh=name,
        # A renamed node without a pinyin is shown by its name: the table's reading is of the old.
        pinyin=node.pinyin or (division.pinyin if division and not node.name else name),
        parent=node.parent if node.names_parent else nearest(node.id, present, divisions),
        endpoint=node.endpoint,
        profile=node.profile or level.value,
        succeeds=node.succeeds or (division.succeeds if division else None),
    )


def find_faults(
    model: RegionModel,
    nodes: list[Located],
    divisions: Mapping[NodeId, Division],
    report: Report,
) -> None:
    """Report everything wrong that no single key shows."""
    present = frozenset(each.node.id for each in nodes)
    entries = {each.node.id: entry_of(each.node, present, divisions) for each in nodes}
    _report_repeats(nodes, report)
    for each in nodes:
        if each.node.id not in divisions and each.node.name is None:
            report(f"{each.key}.id", each.node.id, "a code of the division table, or a `name`")
        if each.node.succeeds in present:
            report(f"{each.key}.succeeds", each.node.succeeds, "a code that is no longer a node")
        # Its own entry: of a code that stands twice, `entries` has the last one only.
        _report_parent(each.key, entry_of(each.node, present, divisions), entries, report)
    _report_cycles(nodes, entries, report)
    _report_roots(nodes, entries, report)
    for node_id, least in model.thresholds.overrides.items():
        key = f"thresholds.overrides.{node_id}"
        if node_id not in entries:
            report(key, node_id, "a node of this file")
        if least < model.thresholds.cell_count_min:
            report(key, least, f"at least cell_count_min ({model.thresholds.cell_count_min})")


def _report_repeats(nodes: list[Located], report: Report) -> None:
    ids: set[str] = set()
    endpoints: set[str] = set()
    for each in nodes:
        if each.node.id in ids:
            report(f"{each.key}.id", each.node.id, "a code that stands once")
        ids.add(each.node.id)
        if each.node.endpoint is None:
            continue
        if each.node.endpoint in endpoints:
            report(f"{each.key}.endpoint", each.node.endpoint, "an endpoint that one node has")
        endpoints.add(each.node.endpoint)


def _report_parent(
    key: str, entry: NodeEntry, entries: Mapping[NodeId, NodeEntry], report: Report
) -> None:
    if entry.parent is None:
        return
    above = entries.get(entry.parent)
    if above is None:
        report(f"{key}.parent", entry.parent, "a node of this file")
    elif above.level.depth >= entry.level.depth and entry.parent != entry.node_id:
        expected = f"a node above the level {entry.level} ({above.level} is not)"
        report(f"{key}.parent", entry.parent, expected)


def _report_cycles(
    nodes: list[Located], entries: Mapping[NodeId, NodeEntry], report: Report
) -> None:
    keys = {each.node.id: each.key for each in nodes}
    settled: set[NodeId] = set()
    for start in entries:
        trail: list[NodeId] = []
        step: NodeId | None = start
        while step is not None and step in entries and step not in settled and step not in trail:
            trail.append(step)
            step = entries[step].parent
        if step is not None and step in trail:
            cycle = trail[trail.index(step) :]
            shown = " > ".join([*cycle, step])
            report(f"{keys[step]}.parent", shown, "a way up that ends at the root, not a cycle")
        settled.update(trail)


def _report_roots(
    nodes: list[Located], entries: Mapping[NodeId, NodeEntry], report: Report
) -> None:
    roots = [each for each in nodes if entries[each.node.id].parent is None]
    if not roots and nodes:
        report("nodes", "no root", "exactly one node without a parent")
    if len({each.node.id for each in roots}) > 1:
        for each in roots:
            report(f"{each.key}.parent", None, f"a parent: {each.node.id} is one of several roots")
    if not nodes:
        report("nodes", "no nodes", "at least one node")
