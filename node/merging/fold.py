"""What events over pairs of residents mean together; pure.

An event is two halves under one id, a row about each of the two, so that each travels to its own
resident's home. A merge is in force if nobody ended it and both of its halves are held: a node that
is not over both homes can write one half at most. Where only one of the two is held, his half is
enough: it says under which id he is known elsewhere, and joins no rows.

The people so connected are a group. The survivor is the only one of them who was merged into
nobody. Decisions that did not know of each other can leave several such, then it is the least id of
them; or none, then the least of all. So the order in which events come changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

__all__ = [
    "GROUP_MAX",
    "Decision",
    "Group",
    "Half",
    "Part",
    "apart",
    "group_of",
    "standing",
]

GROUP_MAX: Final = 32
"""The most ids of one person. Beyond it nothing is joined: so many can only be a mistake."""


class Decision(StrEnum):
    """What a steward says of two residents."""

    SAME = "same"
    """One person: a merge."""
    DIFFERENT = "different"
    """Two people, whatever matching says; also what an unmerge says."""


class Part(StrEnum):
    """What becomes of the resident a half is about."""

    SURVIVOR = "survivor"
    MERGED = "merged"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Half:
    """One resident's half of an event. `ends`: earlier events over the same pair."""

    event_id: str
    resident_id: str
    other_id: str
    decision: Decision
    part: Part
    ends: frozenset[str] = frozenset()

    @property
    def pair(self) -> frozenset[str]:
        """The two."""
        return frozenset({self.resident_id, self.other_id})


@dataclass(frozen=True, slots=True)
class Group:
    """Ids of one person. `survivor` is one of `members`; somebody unmerged is a group of his own.

    `is_cut`: there are more than `GROUP_MAX`, so `members` holds nobody but who was asked for.
    `events`: those in force that join the members.
    """

    survivor: str
    members: frozenset[str]
    is_cut: bool = False
    events: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def merged(self) -> tuple[str, ...]:
        """All but the survivor, in order."""
        return tuple(sorted(self.members - {self.survivor}))


HalvesOf = Callable[[Collection[str]], Iterable[Half]]
"""Halves of some residents."""

HeldOf = Callable[[Collection[str]], Collection[str]]
"""Those of some residents who are held here in full."""


def standing(halves: Iterable[Half]) -> list[Half]:
    """Halves of events that no event over the same pair ends."""
    found = list(halves)
    ended = {(half.pair, event_id) for half in found for event_id in half.ends}
    return [half for half in found if (half.pair, half.event_id) not in ended]


def apart(halves: Iterable[Half], one: str, other: str) -> list[str]:
    """Events in force that say that two residents are two people; half of one is enough."""
    pair = {one, other}
    return sorted(
        {
            half.event_id
            for half in standing(halves)
            if half.pair == pair and half.decision is Decision.DIFFERENT
        }
    )


def group_of(resident_id: str, halves_of: HalvesOf, held_of: HeldOf) -> Group:
    """Everybody who is one person with a resident.

    Asks for the halves of whoever was found, step by step: at most `GROUP_MAX` steps.
    """
    seen: dict[str, list[Half]] = {}

    def look(ids: Collection[str]) -> None:
        new = set(ids) - seen.keys()
        seen.update({each: [] for each in new})
        for half in halves_of(new) if new else ():
            seen[half.resident_id].append(half)

    members, frontier = {resident_id}, {resident_id}
    events: set[str] = set()
    while frontier:
        look(frontier)
        look({half.other_id for each in frontier for half in _merges(seen[each])})
        joined: set[str] = set()
        for each in frontier:
            for event_id, other in _partners(each, seen, held_of):
                events.add(event_id)
                joined.add(other)
        frontier = joined - members
        members |= joined
        if len(members) > GROUP_MAX:
            return Group(resident_id, frozenset({resident_id}), is_cut=True)
    halves = [half for each in members for half in seen.get(each, []) if half.event_id in events]
    return Group(_survivor(members, halves), frozenset(members), events=frozenset(events))


def _merges(halves: Iterable[Half]) -> list[Half]:
    return [half for half in halves if half.decision is Decision.SAME]


def _partners(one: str, seen: Mapping[str, list[Half]], held_of: HeldOf) -> set[tuple[str, str]]:
    """Events in force by which `one` is one person with another, as far as is known here."""
    others = {half.other_id for half in _merges(seen[one])}
    # What only one side holds of an end counts as well: where in doubt, two people.
    pool = [*seen[one], *(half for other in others for half in seen[other])]
    stands = _merges(standing(pool))
    own = {(half.event_id, half.other_id) for half in stands if half.resident_id == one}
    both = own & {(half.event_id, half.resident_id) for half in stands if half.other_id == one}
    lone = {other for _, other in own - both}
    away = lone - set(held_of(lone)) if lone else set()
    return both | {(event_id, other) for event_id, other in own if other in away}


def _survivor(members: Collection[str], halves: Iterable[Half]) -> str:
    """`halves`: of the events that join the members."""
    said: dict[str, set[tuple[str, str]]] = {}
    for half in halves:
        pair = (half.resident_id, half.other_id)
        survivor, merged = pair if half.part is Part.SURVIVOR else pair[::-1]
        said.setdefault(half.event_id, set()).add((survivor, merged))
    # An event whose halves contradict each other says nothing about who is shown.
    merged_ids = {merged for ((_, merged), *more) in said.values() if not more}
    return min(set(members) - merged_ids or members)
