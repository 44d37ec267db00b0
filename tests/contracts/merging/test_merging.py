"""Merges between stores: nothing is rewritten, all levels agree, an unmerge gives back what was."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from node.errors import InvalidRequestError, NotFoundError
from node.merging.desk import MergeDesk, Wanted
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
from node.storage.model import ApplyOutcome
from node.storage.tables import AUDIT, CHANGELOG, REPLICATED
from replication.core.config import PeerRole
from replication.core.model import Lane, RowChange
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    TOWNSHIP,
    VILLAGE,
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

A, B, C = (f"00000000-0000-7000-9000-00000000000{number}" for number in (1, 2, 3))
REASON = "the same number on both cards"


@pytest.fixture
def filled(region: Region) -> Region:
    """A and C live in one village, B in the other; the county holds all three."""
    for node_id, people in ((VILLAGE, (A, C)), (VILLAGE_2, (B,))):
        node = region.node(node_id)
        for number, each in enumerate(people):
            rows = (person(resident_id=each, number=_number(each)), observation(each, 100.0))
            node.storage.put_bundle(node.caller(), bundle(f"r-{number}", *rows))
        region.ship_up(node_id, TOWNSHIP, COUNTY, CITY)
    return region


def _number(resident_id: str) -> str:
    return {A: "14260119800101001X", B: "142601198001010036", C: "142601198001010052"}[resident_id]


def desk_of(node: NodeStore) -> MergeDesk:
    """The desk of a node."""
    return MergeDesk(node.storage.context, lambda: None)


_REQUESTS = itertools.count()


def wanted(survivor: str = A, merged: str = B, **more: Any) -> Wanted:
    """A new request over two residents."""
    return replace(Wanted(f"request-{next(_REQUESTS)}", survivor, merged, REASON), **more)


def spread(region: Region) -> None:
    """What the township wrote goes up and down."""
    township = region.node(TOWNSHIP)
    for other in (COUNTY, VILLAGE, VILLAGE_2):
        region.ship(township, region.node(other))


def group_at(node: NodeStore, resident_id: str) -> Group:
    """Under which ids a node knows somebody."""
    return desk_of(node).look(node.caller(), resident_id)[0]


def timeline(node: NodeStore, resident_id: str) -> list[str]:
    """Under which ids the records stand that a node shows of somebody."""
    page = node.storage.timeline(node.caller(), resident_id)
    return sorted(record.resident_id for record in page.records)


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
        assert group_at(node, here) == Group(A, frozenset({A, B}))
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
        village.caller(), bundle("edit", person(resident_id=A, number=_number(A), name="张三丰"))
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


def test_a_child_says_nothing_over_its_neighbour(filled: Region) -> None:
    """Its word over its own resident joins nobody; over another's it waits in the quarantine."""
    township = filled.node(TOWNSHIP)
    half = {"event_id": C, "decision": "same", "reason": "mine"}
    own = change(
        "identity_links",
        row=1,
        author=VILLAGE_2,
        home=VILLAGE_2,
        values={**half, "part": "merged", "other_id": A},
    )
    others = change(
        "identity_links",
        row=2,
        author=VILLAGE_2,
        home=VILLAGE,
        values={**half, "part": "survivor", "other_id": B},
    )
    rows = (replace(own, resident_id=B), replace(others, resident_id=A))
    told(township, rows[0], 90)
    outcome = told(township, rows[1], 91)
    assert (outcome.applied, outcome.quarantined) == (0, 1)
    with township.engine.connect() as connection:
        causes = connection.execute(select(CHANGELOG.quarantine.c.cause)).scalars().all()
    assert causes == ["AUTHOR_NOT_OVER_HOME"]
    assert count(township, "identity_links") == 1
    assert group_at(township, A).members == {A}
    assert group_at(township, B).members == {B}
    assert timeline(township, A) == [A]
    (said,) = desk_of(township).look(township.caller(), B)[1]
    assert not said.in_force


def told(node: NodeStore, row: RowChange, sequence: int) -> ApplyOutcome:
    """A node takes a row that the second village sends."""
    entry = log_entry(row, lane=Lane.CARE, origin=VILLAGE_2, sequence=sequence)
    return send(node, VILLAGE_2, PeerRole.CHILD, entry, lane=Lane.CARE)


def test_a_child_parts_its_own_resident_and_locks_nobody(filled: Region) -> None:
    """Half an end is enough to part; any number of halves that join nobody do not stop an end."""
    township = filled.node(TOWNSHIP)
    desk = desk_of(township)
    merged = desk.merge(township.caller(), wanted())
    half = {"decision": "same", "part": "merged", "other_id": A}
    for number in range(12):
        row = change(
            "identity_links",
            row=number,
            author=VILLAGE_2,
            home=VILLAGE_2,
            values={**half, "event_id": f"00000000-0000-7000-0000-{number:012d}"},
        )
        assert told(township, replace(row, resident_id=B), 90 + number).applied == 1
    assert group_at(township, A).members == {A, B}
    ended = desk.unmerge(township.caller(), wanted())
    assert merged.event_id in ended.ends
    assert group_at(township, A).members == {A}
    again = desk.merge(township.caller(), wanted(despite=True))

    parts = {"event_id": C, "decision": "different", "part": "neither", "other_id": A}
    row = change(
        "identity_links",
        row=50,
        author=VILLAGE_2,
        home=VILLAGE_2,
        values={**parts, "ends": again.event_id},
    )
    assert told(township, replace(row, resident_id=B), 120).applied == 1
    assert group_at(township, A).members == {A}
    assert group_at(township, C).members == {C}


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
