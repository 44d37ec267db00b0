"""Groups of ids: alike for all members, whatever the order, and joined by no half alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from node.merging.fold import GROUP_MAX, Decision, Group, Half, Part, apart, group_of, standing

PEOPLE = tuple("abcdef")
Event = tuple[str, str, Decision, frozenset[str]]


def _halves(events: Iterable[tuple[str, Event]]) -> list[Half]:
    """Both halves of each event, the survivor's first."""
    found = []
    for event_id, (one, other, decision, ends) in events:
        parts = (
            (Part.SURVIVOR, Part.MERGED)
            if decision is Decision.SAME
            else (Part.NEITHER, Part.NEITHER)
        )
        found.append(Half(event_id, one, other, decision, parts[0], ends))
        found.append(Half(event_id, other, one, decision, parts[1], ends))
    return found


def _group(who: str, halves: Iterable[Half], held: Collection[str] = PEOPLE) -> Group:
    known = [half for half in halves if half.resident_id in held]
    return group_of(
        who,
        own=lambda one: [half for half in known if half.resident_id == one],
        back=lambda ids, one: [
            half for half in known if half.resident_id in ids and half.other_id == one
        ],
        held_of=lambda ids: set(ids) & set(held),
        above={"here"},
    )


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, Event]]:
    """Decisions over pairs; later ones may end earlier ones, of this pair or of another."""
    found: list[tuple[str, Event]] = []
    for number in range(draw(st.integers(0, 9))):
        one, other = draw(st.permutations(PEOPLE))[:2]
        ends = draw(st.sets(st.sampled_from([each for each, _ in found]))) if found else set()
        decision = draw(st.sampled_from(Decision))
        found.append((f"e{number}", (one, other, decision, frozenset(ends))))
    return found


def _plain_groups(history: list[tuple[str, Event]]) -> dict[str, frozenset[str]]:
    """The same by brute force: pairs in force, closed over."""
    stands = {
        event_id: event
        for event_id, event in history
        if not any(
            event_id in later[3] and {later[0], later[1]} == {event[0], event[1]}
            for _, later in history
        )
    }
    groups = {each: frozenset({each}) for each in PEOPLE}
    for one, other, decision, _ in stands.values():
        if decision is Decision.SAME:
            joined = groups[one] | groups[other]
            groups.update(dict.fromkeys(joined, joined))
    return groups


@given(histories(), st.randoms(use_true_random=False))
def test_all_members_agree_in_whatever_order_events_came(
    history: list[tuple[str, Event]], order: random.Random
) -> None:
    """And they are those whom the events in force connect."""
    halves = _halves(history)
    shuffled = order.sample(halves, len(halves))
    expected = _plain_groups(history)
    for who in PEOPLE:
        group = _group(who, shuffled)
        assert group == _group(who, halves)
        assert group.members == expected[who]
        assert group.survivor in group.members
        assert all(_group(each, halves) == group for each in group.members)


@given(histories(), st.data())
def test_half_an_event_joins_nobody_who_is_held(
    history: list[tuple[str, Event]], data: st.DataObject
) -> None:
    """Whoever writes only over his own resident changes no group by it."""
    halves = _halves(history)
    one, other = data.draw(st.permutations(PEOPLE))[:2]
    forged = Half("forged", one, other, Decision.SAME, Part.MERGED)
    again = [Half(half.event_id, one, half.other_id, half.decision, Part.MERGED) for half in halves]
    for who in PEOPLE:
        assert _group(who, [*halves, forged]) == _group(who, halves)
        more = [half for half in again if half.other_id != one]
        assert _group(who, [*halves, forged, *more]).members == _group(who, halves).members


@given(histories(), st.data())
def test_half_an_end_parts_and_never_joins(
    history: list[tuple[str, Event]], data: st.DataObject
) -> None:
    """Whoever says over his own resident that he is somebody else parts him from that one alone."""
    halves = _halves(history)
    one, other = data.draw(st.permutations(PEOPLE))[:2]
    ends = frozenset(event_id for event_id, _ in history)
    forged = Half("forged", one, other, Decision.DIFFERENT, Part.NEITHER, ends)
    left = [
        (event_id, event) for event_id, event in history if {event[0], event[1]} != {one, other}
    ]
    for who in PEOPLE:
        members = _group(who, [*halves, forged]).members
        assert members <= _group(who, halves).members
        assert members == _group(who, _halves(left)).members


@given(histories())
def test_where_the_other_is_not_held_his_id_is_told(history: list[tuple[str, Event]]) -> None:
    """A node with one half of a merge says who he is elsewhere."""
    for who in PEOPLE:
        alone = [half for half in _halves(history) if half.resident_id == who]
        stands = [half for half in standing(alone) if half.decision is Decision.SAME]
        expected = {who, *(half.other_id for half in stands)}
        group = _group(who, alone, held=who)
        assert group.members == {who}
        assert group.away | {who} == expected


@given(histories())
def test_ending_all_that_is_in_force_leaves_everybody_alone(
    history: list[tuple[str, Event]],
) -> None:
    """An unmerge gives back what was, however often it was merged."""
    pairs = {frozenset({one, other}) for _, (one, other, _, _) in history}
    everything = frozenset(each for each, _ in history)
    last: list[tuple[str, Event]] = []
    for one, other in map(sorted, pairs):
        last.append((f"end-{one}-{other}", (one, other, Decision.DIFFERENT, everything)))
    halves = _halves([*history, *last])
    for who in PEOPLE:
        assert _group(who, halves).members == {who}
    for pair in pairs:
        one, other = sorted(pair)
        assert apart(halves, one, other)


def test_the_survivor_is_who_was_merged_into_nobody() -> None:
    """Also where only his half is held, and he is the younger."""
    halves = _halves([_merge("e", "b", "a")])
    assert _group("a", halves).survivor == "b"
    assert _group("b", halves[:1], held="b") == Group("b", frozenset("b"), frozenset("a"))
    assert _group("a", halves[1:], held="a") == Group("b", frozenset("a"), frozenset("b"))


def _merge(event_id: str, survivor: str, merged: str) -> tuple[str, Event]:
    return event_id, (survivor, merged, Decision.SAME, frozenset())


def test_decisions_that_did_not_know_of_each_other_leave_the_least_id() -> None:
    """Of those merged into nobody; of all, if there is a circle."""
    circle = [_merge("e", "a", "b"), _merge("f", "b", "a")]
    assert _group("b", _halves(circle)).survivor == "a"
    twice = [_merge("e", "c", "a"), _merge("f", "b", "a")]
    assert _group("a", _halves(twice)) == Group("b", frozenset("abc"))


def test_more_ids_than_anybody_has_join_nobody() -> None:
    """And it is said."""
    names = [f"n{number:02}" for number in range(GROUP_MAX + 2)]
    pairs = enumerate(itertools.pairwise(names))
    chain = [_merge(f"e{number}", one, other) for number, (one, other) in pairs]
    for count, is_cut in ((GROUP_MAX, False), (GROUP_MAX + 1, True)):
        halves = _halves(chain[: count - 1])
        for who in (names[0], names[count - 1]):
            group = _group(who, halves, held=names)
            assert group.is_cut is is_cut
            assert len(group.members) == (1 if is_cut else count)


def test_what_is_said_below_dissolves_no_group_that_was_made_above() -> None:
    """Of a group too large only what this node or one above decided counts; any end counts."""
    made = [replace(half, author="here") for half in _halves([_merge("e", "b", "c")])]
    names = ["b", *(f"n{number:02}" for number in range(GROUP_MAX))]
    chain = [_merge(f"f{one}", one, other) for one, other in itertools.pairwise(names)]
    halves = [*made, *_halves(chain)]
    for who in ("b", "c"):
        group = _group(who, halves, held=[*names, "c"])
        assert (group.members, group.is_cut) == (frozenset("bc"), True)
    parted = Half("g", "c", "b", Decision.DIFFERENT, Part.NEITHER, frozenset({"e"}))
    assert _group("b", [*halves, parted], held=[*names, "c"]).members == {"b"}


@given(histories(), st.data())
def test_half_an_event_lifts_no_word_that_two_are_different(
    history: list[tuple[str, Event]], data: st.DataObject
) -> None:
    """To join again what somebody told apart takes whoever stands over both."""
    halves = _halves(history)
    one, other = data.draw(st.permutations(PEOPLE))[:2]
    ends = frozenset(event_id for event_id, _ in history)
    for decision in Decision:
        forged = Half("forged", one, other, decision, Part.MERGED, ends)
        assert set(apart([*halves, forged], one, other)) >= set(apart(halves, one, other))
