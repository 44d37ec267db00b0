"""What events over pairs of residents mean together; pure.

An event is two halves under one id, a row about each of the two, so that each travels to its own
resident's home. A merge is in force if nobody ended it and both of its halves are held: a node that
is not over both homes can write one half at most. Where only one of the two residents is held, his
half is enough to say under which id he is known elsewhere; it joins no rows.

Where in doubt, two people: one half of an end is enough for a merge, and both are needed to end a
word that two are different.

The people so connected are a group. The survivor is the only one of them who was merged into
nobody. Decisions that did not know of each other can leave several such, then it is the least id of
them; or none, then the least of all. So the order in which events come changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

__all__ = ["GROUP_MAX", "Decision", "Group", "Half", "Part", "apart", "group_of", "standing"]

GROUP_MAX: Final = 32
"""The most ids of one person. So many can only be a mistake."""


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
    author: str = ""

    @property
    def pair(self) -> frozenset[str]:
        """The two."""
        return frozenset({self.resident_id, self.other_id})


@dataclass(frozen=True, slots=True)
class Group:
    """Ids of one person; somebody unmerged is a group of his own.

    Attributes:
        survivor: Who is shown; of `members` or `away`. Empty: one whom the caller does not see.
        members: Held here, and read together.
        away: Not held here; known by a half about whoever was asked for.
        is_cut: More than `GROUP_MAX` are joined, so that fewer events count (group_of).
        events: Those in force by which somebody is a member or away.
    """

    survivor: str
    members: frozenset[str]
    away: frozenset[str] = frozenset()
    is_cut: bool = False
    events: frozenset[str] = field(default=frozenset(), compare=False)

    def others_of(self, resident_id: str) -> frozenset[str]:
        """All ids but one."""
        return (self.members | self.away) - {resident_id}

    def shown_to(self, seen: AbstractSet[str]) -> Group:
        """The group without members whom a caller does not see."""
        members = self.members & seen
        survivor = self.survivor if self.survivor in members | self.away else ""
        return Group(survivor, members, self.away, self.is_cut, self.events)


Own = Callable[[str], Iterable[Half]]
"""Halves about a resident."""

Back = Callable[[Collection[str], str], Iterable[Half]]
"""Halves about some residents over one other."""

HeldOf = Callable[[Collection[str]], Collection[str]]
"""Those of some residents who are held here in full."""


def standing(halves: Iterable[Half]) -> list[Half]:
    """Halves of events that no event over the same pair ends."""
    found = list(halves)
    sides: dict[tuple[frozenset[str], str], dict[str, set[str]]] = {}
    for half in found:
        for event_id in half.ends:
            ending = sides.setdefault((half.pair, event_id), {})
            ending.setdefault(half.event_id, set()).add(half.resident_id)

    def stands(half: Half) -> bool:
        ending = sides.get((half.pair, half.event_id), {})
        if half.decision is Decision.SAME:
            return not ending
        return not any(said >= half.pair for said in ending.values())

    return [half for half in found if stands(half)]


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


def group_of(
    resident_id: str, *, own: Own, back: Back, held_of: HeldOf, above: AbstractSet[str]
) -> Group:
    """Everybody who is one person with a resident.

    Asks for the halves of whoever was found, step by step. If more than `GROUP_MAX` are joined,
    only events of the nodes `above` count, this node among them; and none, if it is still so.
    """
    group = _Fold(own, back, held_of).group(resident_id)
    if group is None:
        group = _Fold(own, back, held_of, above).group(resident_id)
        cut = frozenset({resident_id})
        if group is None:
            return Group(resident_id, cut, is_cut=True)
        return Group(group.survivor, group.members, group.away, True, group.events)
    return group


class _Fold:
    """One walk over the halves."""

    def __init__(
        self, own: Own, back: Back, held_of: HeldOf, authors: AbstractSet[str] | None = None
    ) -> None:
        self._own = own
        self._back = back
        self._held_of = held_of
        self._authors = authors
        self._halves: set[Half] = set()

    def group(self, resident_id: str) -> Group | None:
        """The group; None if it is too large."""
        members, frontier = {resident_id}, [resident_id]
        joining: set[str] = set()
        away: set[tuple[str, str]] = set()
        while frontier:
            one = frontier.pop()
            joined, lone = self._partners(one)
            if one == resident_id:
                gone = {other for _, other in lone}
                held = set(self._held_of(gone)) if gone else set()
                away = {(event_id, other) for event_id, other in lone if other not in held}
            joining |= {event_id for event_id, _ in joined}
            new = {other for _, other in joined} - members
            members |= new
            frontier.extend(sorted(new))
            if len(members) > GROUP_MAX:
                return None
        elsewhere = frozenset(other for _, other in away)
        events = frozenset(joining | {event_id for event_id, _ in away})
        survivor = _survivor(members | elsewhere, self._halves, events)
        return Group(survivor, frozenset(members), elsewhere, events=events)

    def _partners(self, one: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
        """Merges over `one` that both sides hold, and those that only he does."""
        own = self._counted(self._own(one))
        others = sorted({half.other_id for half in own if half.decision is Decision.SAME})
        pool = [*own, *(self._counted(self._back(others, one)) if others else ())]
        self._halves.update(pool)
        stands = [half for half in standing(pool) if half.decision is Decision.SAME]
        mine = {(half.event_id, half.other_id) for half in stands if half.resident_id == one}
        theirs = {(half.event_id, half.resident_id) for half in stands if half.other_id == one}
        return mine & theirs, mine - theirs

    def _counted(self, halves: Iterable[Half]) -> list[Half]:
        if self._authors is None:
            return list(halves)
        # Whatever parts counts, whoever wrote it.
        return [
            half
            for half in halves
            if half.decision is Decision.DIFFERENT or half.author in self._authors
        ]


def _survivor(members: Collection[str], halves: Iterable[Half], events: AbstractSet[str]) -> str:
    said: dict[str, set[tuple[str, str]]] = {}
    for half in halves:
        if half.event_id in events and half.pair <= set(members):
            pair = (half.resident_id, half.other_id)
            survivor, merged = pair if half.part is Part.SURVIVOR else pair[::-1]
            said.setdefault(half.event_id, set()).add((survivor, merged))
    # An event whose halves contradict each other says nothing about who is shown.
    merged_ids = {merged for ((_, merged), *more) in said.values() if not more}
    return min(set(members) - merged_ids or members)
