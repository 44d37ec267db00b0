"""The hierarchy answers from its closure, whatever the codes look like."""

from __future__ import annotations

import pickle
import time
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hierarchy_config import (
    CareLevel,
    CopyForm,
    CopyRule,
    Hierarchy,
    HierarchyShapeError,
    NodeEntry,
    NodeId,
    NodeNotBelowError,
    NodeUnknownError,
    Thresholds,
    load_region,
    shipped_region,
    slice_hierarchy,
    with_endpoints,
)

CITY = NodeId("1410")
COUNTY = NodeId("141002")
TOWNSHIP = NodeId("141002001")
VILLAGE = NodeId("141002001001")
LINFEN = load_region(shipped_region())


def entry(node_id: str, level: CareLevel, parent: str | None) -> NodeEntry:
    """A node of a made-up region."""
    above = None if parent is None else NodeId(parent)
    return NodeEntry(NodeId(node_id), level, "名", "Name", above, None, level.value)


def tree(*entries: NodeEntry, rules: tuple[CopyRule, ...] = ()) -> Hierarchy:
    """A made-up region."""
    return Hierarchy("test", 1, {each.node_id: each for each in entries}, rules)


@st.composite
def hierarchies(draw: st.DrawFn) -> Hierarchy:
    """Random trees whose codes say nothing about their parents."""
    entries = [entry("9999", CareLevel.CITY, None)]
    for number in range(draw(st.integers(0, 25))):
        level = draw(st.sampled_from([CareLevel.COUNTY, CareLevel.TOWNSHIP, CareLevel.VILLAGE]))
        above = [each for each in entries if each.level.depth < level.depth]
        parent = draw(st.sampled_from(above))
        entries.append(entry(f"{100000 + number}", level, parent.node_id))
    return tree(*entries)


@given(hierarchies())
def test_subtrees_and_paths_are_two_views_of_one_order(hierarchy: Hierarchy) -> None:
    """A node is in a subtree exactly if the subtree's root is on its path."""
    for one in hierarchy.nodes:
        for other in hierarchy.nodes:
            below = one in hierarchy.subtree(other)
            assert below == (other in hierarchy.path_to_root(one))
            assert below == hierarchy.is_in_subtree(one, other)


@given(hierarchies())
def test_children_partition_a_subtree(hierarchy: Hierarchy) -> None:
    """A subtree is its root and the disjoint subtrees of the root's children."""
    for node_id in hierarchy.nodes:
        parts = [hierarchy.subtree(child) for child in hierarchy.children(node_id)]
        assert sum(len(part) for part in parts) + 1 == len(hierarchy.subtree(node_id))
        assert frozenset().union(*parts) | {node_id} == hierarchy.subtree(node_id)
        assert all(hierarchy.parent(child) == node_id for child in hierarchy.children(node_id))


@given(hierarchies())
def test_following_next_hops_arrives(hierarchy: Hierarchy) -> None:
    """From every ancestor each hop is a child, and the last is the node itself."""
    for to in hierarchy.nodes:
        for frm in hierarchy.path_to_root(to)[1:]:
            here = frm
            while here != to:
                hop = hierarchy.next_hop(here, to)
                assert hierarchy.parent(hop) == here
                here = hop


@given(hierarchies(), st.data())
def test_the_common_ancestor_is_the_lowest(hierarchy: Hierarchy, data: st.DataObject) -> None:
    """It holds both, and none of its children does."""
    nodes = sorted(hierarchy.nodes)
    one, other = data.draw(st.sampled_from(nodes)), data.draw(st.sampled_from(nodes))
    common = hierarchy.common_ancestor(one, other)
    assert {one, other} <= hierarchy.subtree(common)
    for child in hierarchy.children(common):
        assert not {one, other} <= hierarchy.subtree(child)


@given(hierarchies(), st.data())
def test_a_slice_keeps_who_is_above_whom(hierarchy: Hierarchy, data: st.DataObject) -> None:
    """Whatever is cut away, two nodes that stay keep their order."""
    kept = data.draw(st.sets(st.sampled_from(sorted(hierarchy.nodes)))) | {hierarchy.root}
    part = slice_hierarchy(hierarchy, kept)
    assert set(part.nodes) == kept
    for one in kept:
        for other in kept:
            assert part.is_in_subtree(one, other) == hierarchy.is_in_subtree(one, other)


def test_next_hop_refuses_what_does_not_lie_below() -> None:
    """Sideways, upward and to itself."""
    for to in (NodeId("141024"), CITY, COUNTY):
        with pytest.raises(NodeNotBelowError):
            LINFEN.next_hop(COUNTY, to)


def test_all_of_linfen_stands_in_levels() -> None:
    """1 city, 17 counties, 158 townships, 2,326 villages."""
    levels = [each.level for each in LINFEN.nodes.values()]
    assert [levels.count(level) for level in CareLevel] == [1, 17, 158, 2326]
    assert LINFEN.root == CITY
    assert len(LINFEN.children(CITY)) == 17
    assert LINFEN.nodes[COUNTY].name_zh == "尧都区"
    assert LINFEN.path_to_root(VILLAGE) == (VILLAGE, TOWNSHIP, COUNTY, CITY)
    assert len(LINFEN.subtree(CITY)) == len(LINFEN) == 2502
    assert VILLAGE in LINFEN


def test_the_closure_of_all_of_linfen_is_made_at_once() -> None:
    """Well under a tenth of a second for 2,502 nodes."""
    spent = []
    for _ in range(3):
        before = time.perf_counter()
        replace(LINFEN, epoch=2)
        spent.append(time.perf_counter() - before)
    assert min(spent) < 0.1


def test_ancestry_is_the_parents_and_never_the_codes() -> None:
    """A village placed under a township of another county belongs there."""
    moved = tree(
        entry("1410", CareLevel.CITY, None),
        entry("141002", CareLevel.COUNTY, "1410"),
        entry("141024", CareLevel.COUNTY, "1410"),
        entry("141024100", CareLevel.TOWNSHIP, "141024"),
        entry("141002001001", CareLevel.VILLAGE, "141024100"),
    )
    assert moved.is_in_subtree(VILLAGE, NodeId("141024"))
    assert not moved.is_in_subtree(VILLAGE, COUNTY)
    assert moved.ancestor_at(VILLAGE, CareLevel.COUNTY) == "141024"
    assert moved.dns_name(VILLAGE) == "n141002001001.n141024100.n141024.n1410.test.fenhe"


def test_the_ancestor_at_a_level_may_be_oneself_or_missing() -> None:
    """None where a level was left out."""
    assert LINFEN.ancestor_at(COUNTY, CareLevel.COUNTY) == COUNTY
    assert LINFEN.ancestor_at(VILLAGE, CareLevel.CITY) == CITY
    assert LINFEN.ancestor_at(COUNTY, CareLevel.VILLAGE) is None


def test_names_in_certificates_follow_the_path() -> None:
    """The DNS name nests as the authorities do; the URI names region and node."""
    assert LINFEN.dns_name(TOWNSHIP) == "n141002001.n141002.n1410.linfen.fenhe"
    assert LINFEN.dns_name(TOWNSHIP).endswith("." + LINFEN.dns_domain(COUNTY))
    assert LINFEN.spiffe_id(TOWNSHIP) == "spiffe://linfen/141002001"


def test_only_a_code_is_repeated_of_a_node_that_is_unknown() -> None:
    """What was named instead may be somebody's name."""
    assert "141099" in NodeUnknownError("141099").message
    assert "张三" not in NodeUnknownError("张三").message
    assert "\x1b" not in NodeUnknownError("1410\x1b[31m").message


def test_unknown_nodes_are_refused_and_in_no_subtree() -> None:
    """A home of another epoch is below nobody; asking about it is an error."""
    stranger = NodeId("141099")
    assert not LINFEN.is_in_subtree(stranger, CITY)
    assert stranger not in LINFEN
    for ask in (LINFEN.entry, LINFEN.parent, LINFEN.children, LINFEN.subtree):
        with pytest.raises(NodeUnknownError):
            ask(stranger)
    for ask_more in (LINFEN.path_to_root, LINFEN.dns_name, LINFEN.spiffe_id):
        with pytest.raises(NodeUnknownError):
            ask_more(stranger)
    with pytest.raises(NodeUnknownError):
        LINFEN.is_in_subtree(CITY, stranger)
    with pytest.raises(NodeUnknownError):
        LINFEN.cell_count_min(stranger)


FULL = (CopyForm.FULL,)
DEIDENTIFIED = (CopyForm.DEIDENTIFIED,)
INDEX = (CopyForm.INDEX,)
NONE = (CopyForm.NONE,)


@pytest.mark.parametrize(
    ("child", "table", "forms"),
    [
        (VILLAGE, "residents", FULL),
        (VILLAGE, "identifiers", FULL),
        (TOWNSHIP, "observations", FULL),
        (COUNTY, "residents", (CopyForm.INDEX, CopyForm.DEIDENTIFIED)),
        (COUNTY, "identifiers", NONE),
        (COUNTY, "resident_index", INDEX),
        (COUNTY, "observations", DEIDENTIFIED),
        (VILLAGE, "staff", FULL),
        (TOWNSHIP, "assignments", FULL),
        (COUNTY, "staff", NONE),
        (COUNTY, "organizations", NONE),
        (CITY, "observations", NONE),
    ],
)
def test_linfens_policy_is_full_to_the_county_and_deidentified_to_the_city(
    child: NodeId, table: str, forms: tuple[CopyForm, ...]
) -> None:
    """What each level sends up, by table; the root sends nothing."""
    assert LINFEN.copy_forms(child, table) == forms


def test_a_shorter_way_never_sends_more() -> None:
    """A village directly under the city sends what a county would have let through."""
    short = tree(entry("1410", CareLevel.CITY, None), entry("10", CareLevel.VILLAGE, "1410"))
    for table in ("residents", "identifiers", "resident_index", "observations"):
        assert short.copy_forms(NodeId("10"), table) == LINFEN.copy_forms(COUNTY, table)


def test_each_level_passed_over_keeps_its_rule() -> None:
    """What a township sends in no form, a county's rule does not bring back."""
    rules = (
        CopyRule(CareLevel.TOWNSHIP, "*", DEIDENTIFIED),
        CopyRule(CareLevel.TOWNSHIP, "identifiers", NONE),
    )
    short = tree(
        entry("1410", CareLevel.CITY, None),
        entry("10", CareLevel.VILLAGE, "1410"),
        rules=rules,
    )
    assert short.copy_forms(NodeId("10"), "residents") == DEIDENTIFIED
    assert short.copy_forms(NodeId("10"), "resident_index") == NONE
    assert short.copy_forms(NodeId("10"), "identifiers") == NONE


def test_a_level_that_is_ruled_is_ruled_wholly() -> None:
    """A county told to send nothing does not go on sending the default's index entries."""
    strict = replace(LINFEN, rules=(CopyRule(CareLevel.COUNTY, "*", NONE),))
    assert strict.copy_forms(COUNTY, "residents") == NONE
    assert strict.copy_forms(VILLAGE, "residents") == FULL


def test_thresholds_are_the_regions_or_the_nodes_own() -> None:
    """An override concerns its node alone."""
    strict = replace(LINFEN, thresholds=Thresholds(10, {COUNTY: 20}))
    assert strict.cell_count_min(COUNTY) == 20
    assert strict.cell_count_min(TOWNSHIP) == 10
    assert slice_hierarchy(strict, [CITY]).thresholds == Thresholds(10, {})


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [entry("1", CareLevel.COUNTY, "2")],
        [entry("1", CareLevel.CITY, None), entry("2", CareLevel.CITY, None)],
        [entry("1", CareLevel.CITY, None), entry("2", CareLevel.CITY, "1")],
        [entry("1", CareLevel.VILLAGE, None), entry("2", CareLevel.COUNTY, "1")],
        [
            entry("1", CareLevel.CITY, None),
            entry("2", CareLevel.COUNTY, "3"),
            entry("3", CareLevel.COUNTY, "2"),
        ],
    ],
)
def test_refuses_what_is_no_tree(entries: list[NodeEntry]) -> None:
    """No root, an unknown parent, two roots, a child not below its parent, a cycle."""
    with pytest.raises(HierarchyShapeError):
        tree(*entries)


def test_is_a_value_that_never_changes() -> None:
    """Equal by content, frozen, untouched by what it was made from, and it can be pickled."""
    nodes = dict(LINFEN.nodes)
    copy = Hierarchy("linfen", 1, nodes, LINFEN.rules, LINFEN.thresholds)
    nodes.clear()
    assert copy == LINFEN
    assert pickle.loads(pickle.dumps(copy)).subtree(COUNTY) == LINFEN.subtree(COUNTY)  # noqa: S301
    with pytest.raises(FrozenInstanceError):
        copy.epoch = 2  # type: ignore[misc]


def test_endpoints_are_set_on_a_copy() -> None:
    """The demo knows its ports only at the start."""
    placed = with_endpoints(LINFEN, {COUNTY: "127.0.0.1:7443"})
    assert placed.nodes[COUNTY].endpoint == "127.0.0.1:7443"
    assert LINFEN.nodes[COUNTY].endpoint is None
    with pytest.raises(NodeUnknownError):
        with_endpoints(LINFEN, {NodeId("1"): "127.0.0.1:7443"})
