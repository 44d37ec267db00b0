"""Who grants a move, who is believed, what each node owes, and what late edits become."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import pytest

from replication.core.model import Version
from replication.core.residence import (
    Duty,
    Grant,
    KnownHome,
    LateEdit,
    MoveDecision,
    MoveRequest,
    Step,
    believed_claim,
    common_ancestor,
    decide,
    duty,
    is_genuine,
    judge_late_edit,
    lets_go,
    may_ask,
    newest_home,
    outranks,
    pseudonym_home,
    taken_over,
)

_PARENTS = {
    "1": "",
    "11": "1",
    "12": "1",
    "13": "1",
    "111": "11",
    "112": "11",
    "1111": "111",
    "1112": "111",
    "1121": "112",
    "1211": "12",
}


def _path(node: str) -> Sequence[str]:
    found = []
    while node in _PARENTS:
        found.append(node)
        node = _PARENTS[node]
    return found


def _subtree(node: str) -> frozenset[str]:
    return frozenset(each for each in _PARENTS if node in _path(each))


def _grant(frm: str = "1111", to: str = "1121", by: str = "11", epoch: int = 2) -> Grant:
    return Grant("r", epoch, to, frm, by, 1000)


_ASKED = MoveRequest("r", "1121", "moved house")


@pytest.mark.parametrize(
    ("one", "other", "above"),
    [
        ("1111", "1112", "111"),
        ("1111", "1121", "11"),
        ("1111", "1211", "1"),
        ("1111", "111", "111"),
        ("1111", "1111", "1111"),
        ("1111", "9", ""),
    ],
)
def test_the_common_ancestor_is_the_lowest_node_above_both(
    one: str, other: str, above: str
) -> None:
    """A node is above itself; a stranger has no ancestor in common with anybody."""
    assert common_ancestor(one, other, _path) == above
    assert common_ancestor(other, one, _path) == above


@pytest.mark.parametrize(
    ("here", "step"),
    [
        ("1111", Step(MoveDecision.ASK_ABOVE)),
        ("1121", Step(MoveDecision.ASK_ABOVE)),
        ("111", Step(MoveDecision.ASK_ABOVE)),
        ("11", Step(MoveDecision.GRANT, "11")),
        ("1", Step(MoveDecision.ASK_BELOW, "11")),
        ("12", Step(MoveDecision.ASK_ABOVE)),
    ],
)
def test_only_the_common_ancestor_grants(here: str, step: Step) -> None:
    """Those below ask above, those above ask below."""
    assert decide(here, _ASKED, KnownHome("1111", 1), _path) == step


def test_who_does_not_know_the_home_asks_above_and_the_root_says_no() -> None:
    """A home nobody copies up cannot be moved from afar."""
    assert decide("1121", _ASKED, None, _path).decision is MoveDecision.ASK_ABOVE
    assert decide("1", _ASKED, None, _path).decision is MoveDecision.REFUSE_UNKNOWN


def test_a_move_to_where_he_lives_or_to_nowhere_is_refused() -> None:
    """Neither would be a move."""
    lives = KnownHome("1121", 4)
    assert decide("11", _ASKED, lives, _path).decision is MoveDecision.REFUSE_HERE_ALREADY
    nowhere = replace(_ASKED, to_node="77")
    assert decide("11", nowhere, lives, _path).decision is MoveDecision.REFUSE_PLACE


def test_a_child_may_ask_for_its_residents_and_with_a_reason_for_newcomers() -> None:
    """Neither home in its subtree, or no reason: not its affair."""
    at_old, at_new, elsewhere = _subtree("111"), _subtree("112"), _subtree("12")
    home = KnownHome("1111", 1)
    assert may_ask(at_old, home, replace(_ASKED, reason=""))
    assert may_ask(at_new, home, _ASKED)
    assert may_ask(at_new, None, _ASKED)
    assert not may_ask(at_new, home, replace(_ASKED, reason="  "))
    assert not may_ask(elsewhere, home, _ASKED)


def test_a_child_is_believed_about_its_own_subtree_only() -> None:
    """It cannot claim somebody who lives elsewhere, nor say that he lives elsewhere."""
    below = _subtree("111")
    here = KnownHome("1111", 1)
    assert believed_claim(here, KnownHome("1112", 2), below) == KnownHome("1112", 2)
    assert believed_claim(None, KnownHome("1112", 2), below) == KnownHome("1112", 2)
    assert believed_claim(here, KnownHome("1121", 9), below) == here
    abroad = KnownHome("1121", 3)
    assert believed_claim(abroad, KnownHome("1112", 99), below) == abroad
    assert believed_claim(here, None, below) == here
    assert believed_claim(KnownHome("1112", 5), KnownHome("1111", 4), below) == KnownHome("1112", 5)


def test_the_latest_epoch_is_the_home() -> None:
    """Of equals the first."""
    assert newest_home([None]) is None
    assert newest_home([KnownHome("a", 1), None, KnownHome("b", 3), KnownHome("c", 3)]) == (
        KnownHome("b", 3)
    )


@pytest.mark.parametrize(
    "forged",
    [
        _grant(by="111"),
        _grant(by="1"),
        _grant(by=""),
        _grant(epoch=1),
        _grant(to="1111"),
        _grant(to="77"),
    ],
)
def test_a_grant_of_anybody_else_is_not_genuine(forged: Grant) -> None:
    """Not a lower node, not a higher one, not for no move, not into the unknown."""
    assert not is_genuine(forged, forged.granted_by, _path)


def test_a_grant_is_genuine_if_its_granter_signed_it() -> None:
    """The signature's owner and the name inside must agree."""
    assert is_genuine(_grant(), "11", _path)
    assert not is_genuine(_grant(), "1121", _path)


def test_of_two_grants_of_one_epoch_the_higher_granter_wins_everywhere() -> None:
    """Whichever is heard first, all nodes come to the same home."""
    local, regional = _grant(to="1112", by="111"), _grant(to="1211", by="1")
    assert outranks(regional, local, _path)
    assert not outranks(local, regional, _path)
    again = replace(_grant(), home_node="1112", granted_at_ms=2000)
    assert outranks(again, _grant(), _path)
    assert not outranks(_grant(), again, _path)
    assert not outranks(_grant(), _grant(), _path)


def test_a_granter_that_is_no_more_outranks_nobody() -> None:
    """A node that was closed is above nobody."""
    closed = replace(_grant(), granted_by="9", granted_at_ms=9000)
    assert not outranks(closed, _grant(), _path)
    assert outranks(_grant(), closed, _path)


@pytest.mark.parametrize(
    ("here", "owed", "goes"),
    [
        ("1111", Duty.OLD_HOME, True),
        ("111", Duty.LEAVES, True),
        ("11", Duty.KEEPS, False),
        ("1", Duty.KEEPS, False),
        ("112", Duty.NONE, False),
        ("1121", Duty.NEW_HOME, False),
        ("12", Duty.NONE, False),
    ],
)
def test_each_node_owes_its_part(here: str, owed: Duty, goes: bool) -> None:
    """What is not above the new home lets go; what is keeps."""
    assert duty(here, _grant(), _path) is owed
    assert lets_go(here, _grant(), _path) is goes


def test_an_old_home_above_the_new_one_keeps_its_copy() -> None:
    """He moved from the township to a village of it: the township copies him as before."""
    grant = _grant(frm="11", to="1121", by="11")
    assert duty("11", grant, _path) is Duty.OLD_HOME
    assert not lets_go("11", grant, _path)
    upward = _grant(frm="1121", to="11", by="11")
    assert duty("11", upward, _path) is Duty.NEW_HOME
    assert duty("112", upward, _path) is Duty.LEAVES
    assert lets_go("1121", upward, _path)


def test_a_late_edit_is_a_proposal_and_an_old_one_is_known() -> None:
    """What the new home did meanwhile does not matter: nothing of the old home's is lost."""
    assert taken_over(Version(1, 5)) == Version(2, 5)
    assert taken_over(Version(1, 9)) > Version(1, 99)
    assert judge_late_edit(Version(1, 5), Version(1, 6)) is LateEdit.PROPOSAL
    assert judge_late_edit(Version(1, 5), Version(1, 5)) is LateEdit.KNOWN
    assert judge_late_edit(Version(1, 5), Version(1, 4)) is LateEdit.KNOWN
    assert judge_late_edit(None, Version(1, 1)) is LateEdit.PROPOSAL


def _unnamed(held: KnownHome, claimed: KnownHome, peer: str, *granted: Grant) -> bool:
    """As the city judges it: its counties are 11 and 12 and 13."""

    def moves_from(homes: Set[str], after: int, up_to: int) -> list[tuple[str, str, int]]:
        return [
            (each.from_node, each.home_node, each.home_epoch)
            for each in granted
            if each.from_node in homes and after < each.home_epoch <= up_to
        ]

    return pseudonym_home(
        held,
        claimed,
        _subtree(peer),
        moves_from=moves_from,
        branch=lambda home: _subtree(home[:2]),
    )


def test_a_row_without_a_name_moves_only_where_somebody_was_granted_to() -> None:
    """The city cannot say who it is, but it knows who was let go where."""
    held, moved = KnownHome("1111", 1), KnownHome("1211", 2)
    granted = _grant(to="1211", by="1")
    assert _unnamed(held, moved, "12", granted)
    assert not _unnamed(held, moved, "12")
    assert not _unnamed(held, moved, "112", granted)
    assert not _unnamed(KnownHome("1112", 1), moved, "12", granted)
    assert not _unnamed(KnownHome("1111", 2), moved, "12", granted)
    assert _unnamed(held, KnownHome("1211", 3), "12", _grant(to="12", by="1"))


def test_who_moved_inside_his_branch_unheard_may_leave_it_from_another_home() -> None:
    """The county granted the second epoch, and his rows of it never came to the city."""
    held, moved = KnownHome("1112", 1), KnownHome("1211", 3)
    assert _unnamed(held, moved, "12", _grant(frm="1111", to="1211", by="1", epoch=3))
    assert not _unnamed(held, KnownHome("1211", 2), "12", _grant(frm="1111", to="1211", epoch=3))


def test_who_only_passed_through_a_branch_is_followed_through_it() -> None:
    """Nothing of him came to the city from there; he may have moved inside it too."""
    held, moved = KnownHome("1111", 1), KnownHome("13", 4)
    there, on = _grant(to="12", by="1"), _grant(frm="1211", to="13", by="1", epoch=4)
    assert _unnamed(held, moved, "13", on, there)
    assert not _unnamed(held, moved, "13", on)
    assert not _unnamed(held, moved, "13", there)
    late = _grant(to="12", by="1", epoch=4)
    assert not _unnamed(held, moved, "13", late, on)
