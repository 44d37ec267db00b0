"""What a change of the hierarchy means for each node, and what forbids it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hierarchy_config import (
    CareLevel,
    Hierarchy,
    HierarchyChange,
    NodeEntry,
    NodeId,
    Thresholds,
    parse_region,
    region_text,
    shape_digest,
    with_endpoints,
)

CITY, OLD, NEW = NodeId("1410"), NodeId("141002"), NodeId("141024")
TOWN, TOWN_2 = NodeId("141002100"), NodeId("141002104")
VILLAGE, VILLAGE_2 = NodeId("141002100200"), NodeId("141002104200")
_LEVELS = {4: CareLevel.CITY, 6: CareLevel.COUNTY, 9: CareLevel.TOWNSHIP, 12: CareLevel.VILLAGE}


def tree(**more: str | None) -> Hierarchy:
    """City, two counties, two townships of the first, a village each; `more`: n141002100=NEW."""
    above: dict[str, str | None] = {
        CITY: None,
        OLD: CITY,
        NEW: CITY,
        TOWN: OLD,
        TOWN_2: OLD,
        VILLAGE: TOWN,
        VILLAGE_2: TOWN_2,
    }
    above |= {key[1:]: parent for key, parent in more.items()}
    return Hierarchy(
        "linfen",
        1,
        {
            NodeId(code): NodeEntry(
                NodeId(code),
                _LEVELS[len(code)],
                "名",
                "Name",
                NodeId(parent) if parent else None,
                None,
                _LEVELS[len(code)].value,
            )
            for code, parent in above.items()
        },
    )


def without(hierarchy: Hierarchy, *codes: NodeId) -> Hierarchy:
    """The hierarchy less some nodes."""
    kept = {node: entry for node, entry in hierarchy.nodes.items() if node not in codes}
    return replace(hierarchy, nodes=kept)


def succeeding(hierarchy: Hierarchy, node: NodeId, succeeded: NodeId) -> Hierarchy:
    """The hierarchy in which one node succeeds a code."""
    entry = replace(hierarchy.entry(node), succeeds=succeeded)
    return replace(hierarchy, nodes={**hierarchy.nodes, node: entry})


TO_NEW = HierarchyChange(tree(), tree(n141002100=NEW))
BELOW = frozenset({TOWN, VILLAGE})
WITHIN = HierarchyChange(tree(), tree(n141002100200=TOWN_2))


def test_a_move_takes_along_what_is_below() -> None:
    """One node moves; the names of all below it change."""
    (move,) = TO_NEW.moved

    assert (move.node_id, move.old_parent, move.new_parent) == (TOWN, OLD, NEW)
    assert TO_NEW.renamed == (TOWN, VILLAGE)
    assert TO_NEW.concerned == {TOWN}
    assert TO_NEW.blocks == ()


def test_only_former_ancestors_let_homes_go() -> None:
    """The common ancestor stays one."""
    assert TO_NEW.purging == (OLD,)
    assert TO_NEW.leaving(OLD) == {TOWN, VILLAGE}
    assert WITHIN.purging == (TOWN,)
    assert WITHIN.leaving(TOWN) == {VILLAGE}


def test_only_those_whose_parent_changes_lose_a_neighbour() -> None:
    """And so only they begin a stream anew."""
    assert TO_NEW.neighbours_lost(TOWN) == {OLD}
    assert TO_NEW.neighbours_lost(OLD) == {TOWN}
    assert TO_NEW.neighbours_lost(NEW) == frozenset()
    assert TO_NEW.neighbours_lost(VILLAGE) == frozenset()


def test_rows_are_logged_again_where_the_new_branch_would_miss_them() -> None:
    """At the moved node those of former ancestors; at the common one its own and from above it."""
    (at_moved,) = TO_NEW.resending(TOWN)
    (at_common,) = TO_NEW.resending(CITY)
    (within_common,) = WITHIN.resending(OLD)

    assert (at_moved.homes, at_moved.authors) == (BELOW, frozenset({OLD}))
    assert (at_common.homes, at_common.authors) == (BELOW, frozenset({CITY}))
    assert within_common.authors == {OLD, CITY}
    assert TO_NEW.resending(NEW) == TO_NEW.resending(OLD) == TO_NEW.resending(VILLAGE) == ()


def test_a_digest_is_of_what_the_hierarchy_means() -> None:
    """Addresses, names shown and the layout of the file do not count; parents and limits do."""
    here = tree()
    addressed = with_endpoints(here, {OLD: "127.0.0.1:4510"})
    renamed = replace(here, nodes={**here.nodes, OLD: replace(here.entry(OLD), name_zh="另")})
    stricter = replace(here, thresholds=Thresholds(20))

    assert shape_digest(addressed) == shape_digest(renamed) == shape_digest(here)
    assert shape_digest(parse_region(region_text(here))) == shape_digest(here)
    others = [tree(n141002100=NEW), stricter, replace(here, epoch=2), replace(here, region="x")]
    assert len({shape_digest(each) for each in (here, *others)}) == 5


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (replace(tree(), region="other"), "is of region other"),
        (without(tree(), VILLAGE), "nobody succeeds it"),
        (succeeding(without(tree(), VILLAGE), TOWN_2, VILLAGE), "of another level"),
        (succeeding(without(tree(n141002100200=OLD), TOWN), TOWN_2, TOWN), "move that first"),
        (tree(), "nothing changes"),
        (with_endpoints(tree(), {OLD: "127.0.0.1:4510"}), "nothing changes"),
    ],
)
def test_what_cannot_be_is_blocked(new: Hierarchy, said: str) -> None:
    """Each with a sentence."""
    assert any(said in each for each in HierarchyChange(tree(), new).blocks)


def test_another_root_is_blocked() -> None:
    """The root signs; nobody could say who follows it."""
    new = tree()
    nodes = {
        node: replace(entry, parent=NodeId("1411") if entry.parent == CITY else entry.parent)
        for node, entry in new.nodes.items()
        if node != CITY
    }
    root = replace(new.entry(CITY), node_id=NodeId("1411"))
    other = replace(new, nodes={**nodes, NodeId("1411"): root})

    assert any("root" in each for each in HierarchyChange(new, other).blocks)


def test_a_closed_village_and_a_new_code_are_told_apart() -> None:
    """A successor that was there takes over; one that was not is the same node."""
    closed = HierarchyChange(tree(), succeeding(without(tree(), VILLAGE), VILLAGE_2, VILLAGE))
    new_code = NodeId("141002100299")
    renumbered = HierarchyChange(
        tree(), succeeding(without(tree(n141002100299=TOWN), VILLAGE), new_code, VILLAGE)
    )

    assert [(each.successor, each.renumbered) for each in closed.closed] == [(VILLAGE_2, False)]
    assert [(each.successor, each.renumbered) for each in renumbered.closed] == [(new_code, True)]
    assert closed.blocks == renumbered.blocks == ()
    assert closed.added == renumbered.added == ()
