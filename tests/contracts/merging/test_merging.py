"""Merges between stores: nothing is rewritten, all levels agree, an unmerge gives back what was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection, update

from node.errors import InvalidRequestError, NotFoundError
from node.merging.desk import MergeDesk
from node.merging.errors import (
    MergeApartError,
    MergeNotHereError,
    MergeStandsError,
    MergeUnknownError,
)
from node.merging.fold import Decision, Group
from node.security.caller import CallerKind
from node.storage import ResidentQuestion
from node.storage.errors import RequestIdReusedError
from node.storage.tables import AUDIT, REPLICATED
from tests.contracts.merging.place import (
    REASON,
    A,
    B,
    C,
    desk_of,
    group_at,
    number_of,
    spread,
    timeline,
    wanted,
)
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    Region,
    bundle,
    count,
    observation,
    person,
)


def test_a_merge_is_read_alike_at_every_level(filled: Region) -> None:
    """At the township and above both records are one timeline; each village says the other id."""
    township, county = filled.node(TOWNSHIP), filled.node(COUNTY)
    event = desk_of(township).merge(township.caller(), wanted())
    assert (event.decision, event.in_force) == (Decision.SAME, True)
    assert group_at(county, A) == Group(A, frozenset({A}))
    spread(filled)
    for node_id in (TOWNSHIP, COUNTY, VILLAGE, VILLAGE_2):
        node = filled.node(node_id)
        here = B if node_id == VILLAGE_2 else A
        held = {TOWNSHIP: {A, B}, COUNTY: {A, B}}.get(node_id, {here})
        assert group_at(node, here) == Group(A, frozenset(held), frozenset({A, B} - held))
    for node in (township, county):
        for asked in (A, B):
            assert timeline(node, asked) == [A, B]
    assert timeline(filled.node(VILLAGE), A) == [A]
    assert timeline(filled.node(VILLAGE_2), B) == [B]


def test_nothing_goes_where_it_would_tell_who_is_who(filled: Region) -> None:
    """The city holds nobody in full, and is told of no merge."""
    township = filled.node(TOWNSHIP)
    desk_of(township).merge(township.caller(), wanted())
    spread(filled)
    filled.ship(filled.node(COUNTY), filled.node(CITY))
    assert count(filled.node(COUNTY), "identity_links") == 2
    assert count(filled.node(CITY), "identity_links") == 0
    assert count(filled.node(VILLAGE), "identity_links") == 1


def test_merge_edit_unmerge_gives_back_what_was_with_the_edits(filled: Region) -> None:
    """On the right person, at every level; and the two are never matched again."""
    township, village = filled.node(TOWNSHIP), filled.node(VILLAGE)
    desk = desk_of(township)
    before = {each: township.storage.resident(township.caller(), each) for each in (A, B)}
    merged = desk.merge(township.caller(), wanted())
    spread(filled)
    village.storage.put_bundle(
        village.caller(), bundle("edit", person(resident_id=A, number=number_of(A), name="张三丰"))
    )
    second = filled.node(VILLAGE_2)
    second.storage.put_bundle(second.caller(), bundle("late", observation(B, 130.0)))
    filled.ship_up(VILLAGE, TOWNSHIP, COUNTY)
    filled.ship_up(VILLAGE_2, TOWNSHIP, COUNTY)
    assert timeline(township, A) == [A, B, B]

    ended = desk.unmerge(township.caller(), wanted())
    assert ended.ends == {merged.event_id}
    spread(filled)
    for node in (township, filled.node(COUNTY)):
        assert (timeline(node, A), timeline(node, B)) == ([A], [B, B])
        names = {
            each: getattr(node.storage.resident(node.caller(), each), "name", "") for each in (A, B)
        }
        assert names == {A: "张三丰", B: getattr(before[B], "name", "?")}
    for node_id, each in ((VILLAGE, A), (VILLAGE_2, B)):
        assert group_at(filled.node(node_id), each).members == {each}

    with pytest.raises(MergeApartError, match=ended.event_id):
        desk.merge(township.caller(), wanted())
    again = desk.merge(township.caller(), wanted(despite=True))
    assert again.ends == {ended.event_id}
    assert timeline(township, B) == [A, B, B]
    said = [(event.decision, event.in_force) for event in desk.look(township.caller(), A)[1]]
    assert sorted(said) == sorted(
        [(Decision.SAME, False), (Decision.DIFFERENT, False), (Decision.SAME, True)]
    )


def test_the_answer_says_under_which_id_he_is_known(filled: Region) -> None:
    """Beside what is kept in the cache, and not in it."""
    township = filled.node(TOWNSHIP)
    asked = [ResidentQuestion(township.caller(), each) for each in (A, B, C)]

    def answers() -> list[bytes | None]:
        return township.storage.resident_answers(
            asked,
            lambda resident: resident.resident_id[-1].encode(),
            lambda resident_id, group: f"-{group.survivor[-1]}".encode(),
        )

    assert answers() == [b"1", b"2", b"3"]
    desk_of(township).merge(township.caller(), wanted())
    assert answers() == [b"1-1", b"2-1", b"3"]
    found = township.storage.resident(township.caller(), B)
    assert found is not None
    assert found.group == Group(A, frozenset({A, B}))
    desk_of(township).unmerge(township.caller(), wanted())
    assert answers() == [b"1", b"2", b"3"]


def test_who_is_merged_is_not_merged_again(filled: Region) -> None:
    """The error names the survivor; a chain over the survivor is one person."""
    township = filled.node(TOWNSHIP)
    desk, asker = desk_of(township), township.caller()
    desk.merge(asker, wanted(A, B))
    with pytest.raises(MergeStandsError, match="one person already"):
        desk.merge(asker, wanted(B, A))
    with pytest.raises(MergeStandsError, match=A):
        desk.merge(asker, wanted(C, B))
    with pytest.raises(MergeStandsError):
        desk.tell_apart(asker, wanted(A, B))
    desk.merge(asker, wanted(C, A))
    for each in (A, B, C):
        assert group_at(township, each) == Group(C, frozenset({A, B, C}))
    with pytest.raises(MergeStandsError, match="by way of others"):
        desk.tell_apart(asker, wanted(C, B))
    desk.unmerge(asker, wanted(A, C))
    assert group_at(township, B) == Group(A, frozenset({A, B}))


def test_told_apart_is_remembered(filled: Region) -> None:
    """Until somebody says despite."""
    township = filled.node(TOWNSHIP)
    desk, asker = desk_of(township), township.caller()
    with pytest.raises(MergeUnknownError):
        desk.unmerge(asker, wanted())
    told = desk.tell_apart(asker, wanted(B, A))
    with pytest.raises(MergeApartError, match=told.event_id):
        desk.merge(asker, wanted())
    for _ in range(12):
        newest = desk.tell_apart(asker, wanted())
    assert len(newest.ends) == 1
    assert desk.merge(asker, wanted(despite=True)).ends == {newest.event_id}


def test_the_same_request_again_gives_the_first_answer(filled: Region) -> None:
    """And another body under its id is refused."""
    township = filled.node(TOWNSHIP)
    desk, once = desk_of(township), wanted()
    first = desk.merge(township.caller(), once)
    assert desk.merge(township.caller(), once) == first
    assert count(township, "identity_links") == 2
    desk.unmerge(township.caller(), wanted())
    assert desk.merge(township.caller(), once) == replace(first, in_force=False)
    rows = count(township, "identity_links")
    for other in (replace(once, merged_id=C), replace(once, survivor_id=C)):
        with pytest.raises(RequestIdReusedError):
            desk.merge(township.caller(), other)
    for length in (0, 7, 65):
        with pytest.raises(InvalidRequestError):
            desk.merge(township.caller(), wanted(C, A, request_id="x" * length))
    assert count(township, "identity_links") == rows


def test_it_is_decided_over_both_homes(filled: Region) -> None:
    """Whom a node does not hold it does not find, and says where to ask; nobody is merged alone."""
    village, city = filled.node(VILLAGE), filled.node(CITY)
    with pytest.raises(NotFoundError, match="no such resident") as refused:
        desk_of(village).merge(village.caller(), wanted())
    assert "township or county above both" in refused.value.hint
    with pytest.raises(NotFoundError):
        desk_of(city).merge(city.caller(), wanted())
    with pytest.raises(InvalidRequestError):
        desk_of(village).merge(village.caller(), wanted(A, A))
    with pytest.raises(InvalidRequestError):
        desk_of(village).merge(village.caller(), wanted(A, C, reason="x"))


def test_another_node_than_one_over_both_is_named(filled: Region) -> None:
    """Somebody who was registered here and has moved away is held, and is not this node's."""
    village, t = filled.node(VILLAGE), REPLICATED["residents"]
    with village.engine.begin() as connection:
        connection.execute(update(t).where(t.c.row_id == C).values(home_node=VILLAGE_2))
    with pytest.raises(MergeNotHereError, match=TOWNSHIP):
        desk_of(village).merge(village.caller(), wanted(A, C))


def test_both_residents_audits_say_who_decided(filled: Region) -> None:
    """And a timeline that shows records of several ids is a look at each of them."""
    township = filled.node(TOWNSHIP)
    operator = township.caller(CallerKind.OPERATOR)
    event = desk_of(township).merge(operator, wanted())
    timeline(township, A)
    with township.engine.connect() as connection:
        rows = connection.execute(AUDIT.select().order_by(AUDIT.c.audit_id)).all()
    linked = [(row.resident_id, row.object_id) for row in rows if row.action == "link"]
    assert linked == [(A, event.event_id), (B, event.event_id)]
    looked = [(row.resident_id, row.row_count) for row in rows if row.action == "timeline"]
    assert looked == [(A, 1), (B, 1)]


class Matched:
    """What matching said, as the desk asks it."""

    def __init__(self) -> None:
        self.told: list[frozenset[str]] = []

    def evidence(self, connection: Connection, one: str, other: str) -> tuple[str, str]:
        """As kept beside a pair."""
        return '{"name": ["exact", 7.5]}', "a-digest"

    def decided(self, connection: Connection, one: str, other: str) -> None:
        """Remember whom over."""
        self.told.append(frozenset({one, other}))


def test_no_clear_word_of_a_reason_is_stored(filled: Region) -> None:
    """Reasons and evidence are sealed as names are, and what waited for the decision is told."""
    township, matched = filled.node(TOWNSHIP), Matched()
    desk = MergeDesk(township.storage.context, lambda: None, matched)
    desk.merge(township.caller(), wanted())
    assert matched.told == [frozenset({A, B})]
    with township.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT reason, evidence FROM identity_links").all()
    assert len(rows) == 2
    for row in rows:
        assert REASON.encode() not in bytes(row[0])
        assert b"7.5" not in bytes(row[1])
    (event,) = desk.look(township.caller(), A)[1]
    assert (event.reason, event.model) == (REASON, "a-digest")
    assert event.evidence == '{"name": ["exact", 7.5]}'
