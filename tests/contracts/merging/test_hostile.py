"""What a hostile child can do with halves of events: nothing over its neighbours' residents."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest
from sqlalchemy import select

from node.merging.errors import MergeApartError, MergeTooLargeError
from node.merging.fold import GROUP_MAX, Group
from node.merging.links import HALVES_MAX
from node.services.steward import evidence_out
from node.storage.model import ApplyOutcome
from node.storage.tables import CHANGELOG
from replication.core.config import PeerRole
from replication.core.model import Lane, Value
from tests.contracts.merging.place import A, B, C, desk_of, group_at, timeline, wanted
from tests.contracts.storage.region import (
    COUNTY,
    TOWNSHIP,
    VILLAGE_2,
    NodeStore,
    Region,
    bundle,
    change,
    count,
    log_entry,
    observation,
    person,
    send,
)

_NUMBERS = itertools.count(90)
MERGED: Mapping[str, Value] = {"decision": "same", "part": "merged"}


def some_id(number: int, kind: int = 9) -> str:
    """An id that nobody has."""
    return f"00000000-0000-7000-{kind}000-{number:012d}"


def said(
    node: NodeStore, about: str, other: str, home: str = VILLAGE_2, **values: Value
) -> ApplyOutcome:
    """The second village sends half an event to its township; it says "merged" unless told else."""
    number = next(_NUMBERS)
    row = change(
        "identity_links",
        row=number,
        author=VILLAGE_2,
        home=home,
        values={**MERGED, "other_id": other, "event_id": some_id(number, 7), **values},
    )
    entry = log_entry(
        replace(row, resident_id=about), lane=Lane.CARE, origin=VILLAGE_2, sequence=number
    )
    return send(node, VILLAGE_2, PeerRole.CHILD, entry, lane=Lane.CARE)


def test_a_child_says_nothing_over_its_neighbour(filled: Region) -> None:
    """Its word over its own resident joins nobody; over another's it waits in the quarantine."""
    township = filled.node(TOWNSHIP)
    event = {"event_id": C}
    assert said(township, B, A, **event).applied == 1
    outcome = said(township, A, B, home="141002001201", part="survivor", **event)
    assert (outcome.applied, outcome.quarantined) == (0, 1)
    with township.engine.connect() as connection:
        causes = connection.execute(select(CHANGELOG.quarantine.c.cause)).scalars().all()
    assert causes == ["AUTHOR_NOT_OVER_HOME"]
    assert count(township, "identity_links") == 1
    assert group_at(township, A).members == {A}
    assert group_at(township, B).members == {B}
    assert timeline(township, A) == [A]
    (shown,) = desk_of(township).look(township.caller(), B)[1]
    assert not shown.in_force


def test_nobody_is_joined_to_somebody_who_is_yet_to_come(filled: Region) -> None:
    """A half about a stranger, under the child's own home, counts nothing once he is registered."""
    township, stranger = filled.node(TOWNSHIP), some_id(4)
    event = {"event_id": some_id(1, 7)}
    said(township, B, stranger, **event)
    said(township, stranger, B, part="survivor", **event)
    # Shown as an id elsewhere, while he is not held.
    assert group_at(township, B).members == {B}
    village = filled.node("141002001201")  # type: ignore[arg-type]
    village.storage.put_bundle(
        village.caller(),
        bundle(
            "he-comes",
            person(resident_id=stranger, number="142601198001010079"),
            observation(stranger, 99.0),
        ),
    )
    filled.ship_up("141002001201", TOWNSHIP, COUNTY)  # type: ignore[arg-type]
    filled.ship_up(TOWNSHIP, COUNTY)
    for node_id in (TOWNSHIP, COUNTY):
        node = filled.node(node_id)
        assert group_at(node, stranger) == Group(stranger, frozenset({stranger}))
        assert group_at(node, B) == Group(B, frozenset({B}))
        assert timeline(node, B) == [B]


def test_a_child_parts_its_own_resident_and_locks_nobody(filled: Region) -> None:
    """Half an end is enough to part; any number of halves that join nobody do not stop an end."""
    township = filled.node(TOWNSHIP)
    desk = desk_of(township)
    merged = desk.merge(township.caller(), wanted())
    for _ in range(12):
        assert said(township, B, A).applied == 1
    assert group_at(township, A).members == {A, B}
    ended = desk.unmerge(township.caller(), wanted())
    assert merged.event_id in ended.ends
    assert group_at(township, A).members == {A}
    again = desk.merge(township.caller(), wanted(despite=True))
    parts = {"decision": "different", "part": "neither", "ends": again.event_id}
    assert said(township, B, A, **parts).applied == 1
    assert group_at(township, A).members == {A}


def test_a_child_lifts_no_word_that_two_are_different(filled: Region) -> None:
    """Half an end joins nobody, and lets nobody be joined by accident."""
    township = filled.node(TOWNSHIP)
    apart = desk_of(township).tell_apart(township.caller(), wanted())
    assert said(township, B, A, ends=apart.event_id).applied == 1
    with pytest.raises(MergeApartError, match=apart.event_id):
        desk_of(township).merge(township.caller(), wanted())


def test_ids_that_a_child_makes_up_dissolve_no_group(filled: Region) -> None:
    """They are told as ids elsewhere, of its own resident alone, and can be undone."""
    township = filled.node(TOWNSHIP)
    desk, asker = desk_of(township), township.caller()
    desk.merge(asker, wanted(A, C))
    desk.merge(asker, wanted(A, B))
    for number in range(GROUP_MAX + 8):
        said(township, B, some_id(700 + number), part="survivor")
    for each in (A, B, C):
        assert group_at(township, each).members == {A, B, C}
    assert group_at(township, A).away == frozenset()
    assert len(group_at(township, B).away) == GROUP_MAX + 8
    said(township, B, some_id(999))
    assert group_at(township, B).survivor == A
    assert some_id(999) in group_at(township, B).away
    assert desk.unmerge(asker, wanted(B, some_id(999))).in_force
    assert some_id(999) not in group_at(township, B).away


def test_more_halves_than_are_read_part_the_childs_own_resident_at_most(filled: Region) -> None:
    """Its neighbours are read as before, and their groups hold."""
    township = filled.node(TOWNSHIP)
    desk, asker = desk_of(township), township.caller()
    desk.merge(asker, wanted(A, C))
    desk.merge(asker, wanted(A, B))
    for number in range(HALVES_MAX + 1):
        said(township, B, some_id(number))
    for each in (A, C):
        assert group_at(township, each).members >= {A, C}
    assert township.storage.resident(asker, B) is not None


def test_a_group_that_is_too_large_takes_nobody_in(filled: Region) -> None:
    """A village that merges its residents with each other grows no neighbour's group further."""
    township, second = filled.node(TOWNSHIP), filled.node(VILLAGE_2)
    desk, asker = desk_of(township), township.caller()
    desk.merge(asker, wanted(A, C))
    desk.merge(asker, wanted(A, B))
    own = [B, *(some_id(number) for number in range(100, 99 + GROUP_MAX))]
    second.storage.put_bundle(
        second.caller(),
        bundle("many", *(person(resident_id=each, number="") for each in own[1:])),
    )
    for one, other in itertools.pairwise(own[::-1]):
        desk_of(second).merge(second.caller(), wanted(other, one))
    filled.ship(second, township)
    for each in (A, C, B):
        group = group_at(township, each)
        assert (group.members, group.is_cut) == (frozenset({A, B, C}), True)
    with pytest.raises(MergeTooLargeError):
        desk.merge(asker, wanted(some_id(100), A))


@pytest.mark.parametrize(
    "evidence", ["[", "{", '{"name": 1}', '{"name": ["x", 1e999]}', "[" * 9000]
)
def test_evidence_of_another_form_says_nothing(evidence: str) -> None:
    """Whoever wrote it: the events can be listed all the same."""
    assert evidence_out(evidence) == []


def test_who_does_not_see_somebody_learns_nothing_of_his_other_ids(filled: Region) -> None:
    """Neither by the timeline of the one he does not see, nor beside the one he does."""
    township = filled.node(TOWNSHIP)
    desk_of(township).merge(township.caller(), wanted())
    of_village = replace(
        township.caller(),
        scope=frozenset({VILLAGE_2}),
        node_id=VILLAGE_2,
    )
    assert township.storage.resident(of_village, A) is None
    assert township.storage.timeline(of_village, A).records == ()
    found = township.storage.resident(of_village, B)
    assert found is not None
    assert found.group is not None
    assert found.group.others_of(B) == frozenset()
    assert found.group.survivor == ""
