"""Reads: scoped by the caller in the statement, audited in the transaction, paged stably."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from sqlalchemy import delete, func, select, update

from hierarchy_config.model import NodeId
from node.records.model import NewRecord
from node.security.caller import Caller
from node.storage import AuditEntry
from node.storage.errors import PageTokenError
from node.storage.tables import AUDIT, SCOPE_HOMES
from replication.changelog import read_transaction, write_transaction
from tests.contracts.storage.region import (
    COUNTY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    bundle,
    count,
    observation,
    person,
)

RESIDENT = "00000000-0000-7000-8000-00000000000a"
NOBODY = "00000000-0000-7000-8000-0000000000ff"
NUMBER = "14260119800101001X"


@pytest.fixture
def township(region: Region) -> NodeStore:
    """A township that holds a village's resident with one record, which it reads."""
    village, held = region.node(VILLAGE), region.node(TOWNSHIP)
    village.storage.put_bundle(
        village.caller(),
        bundle("request-1", person(NUMBER, resident_id=RESIDENT), observation(RESIDENT)),
    )
    region.ship(village, held)
    return held


def _record_id(node: NodeStore) -> str:
    return next(row.row_id for row in node.changes() if row.table == "observations")


def _seen(node: NodeStore, caller: Caller) -> list[bool]:
    """Whether the caller sees the resident, finds him, sees his record, sees his timeline."""
    storage = node.storage
    return [
        storage.resident(caller, RESIDENT) is not None,
        storage.find_resident(caller, "identity_number", NUMBER) is not None,
        storage.record(caller, _record_id(node)) is not None,
        bool(storage.timeline(caller, RESIDENT).records),
    ]


def test_a_resident_is_read_as_he_was_written(village: NodeStore) -> None:
    """Sealed and opened again, every field."""
    who = person(
        NUMBER, "赵钱", resident_id=RESIDENT, phone="139", address="某村", deceased_on="2026-01-01"
    )
    village.storage.put_bundle(village.caller(), bundle("request-1", who))

    found = village.storage.resident(village.caller(), RESIDENT)

    assert found is not None
    assert (found.name, found.sex, found.birth_date, found.birth_year) == (
        "赵钱",
        "female",
        "1980-01-01",
        1980,
    )
    assert (found.phone, found.address, found.deceased_on) == ("139", "某村", "2026-01-01")
    assert (found.home_node, found.home_epoch) == (VILLAGE, 1)
    assert found.identifiers == who.identifiers
    assert village.storage.find_resident(village.caller(), "identity_number", NUMBER) == found


def test_a_caller_sees_his_scope_and_nothing_else(region: Region, township: NodeStore) -> None:
    """Own subtree yes; sibling village, other county, no homes at all: no."""
    assert _seen(township, township.caller()) == [True] * 4
    assert _seen(township, region.node(VILLAGE).caller()) == [True] * 4
    for stranger in (VILLAGE_2, OTHER_COUNTY):
        caller = replace(township.caller(), node_id=stranger, scope=township.tree.subtree(stranger))
        assert _seen(township, caller) == [False] * 4
    no_homes = replace(township.caller(), node_id=VILLAGE_2, scope=frozenset())
    assert _seen(township, no_homes) == [False] * 4


def test_large_scopes_see_the_same(township: NodeStore) -> None:
    """A scope of hundreds of homes is looked up in a table, with the same answers."""
    others = frozenset(NodeId(f"1410250{n:02d}") for n in range(60))
    stranger = replace(township.caller(), node_id=NodeId("141025"), scope=others)
    neighbour = replace(stranger, scope=others | {VILLAGE})

    assert _seen(township, stranger) == [False] * 4
    assert _seen(township, neighbour) == [True] * 4
    assert township.storage.residents_by_home(stranger) == {}
    assert township.storage.residents_by_home(neighbour) == {VILLAGE: 1}
    assert count(township, SCOPE_HOMES) == 60 + 61


def test_the_author_sees_what_he_wrote_for_a_stranger(region: Region, township: NodeStore) -> None:
    """A node shows what it wrote, also of residents whose home is not its own."""
    written = township.storage.put_bundle(
        township.caller(), bundle("request-1", observation(RESIDENT, 140.0))
    )
    narrow = replace(township.caller(), scope=frozenset({TOWNSHIP}))

    assert township.storage.record(narrow, written.record_ids[0]) is not None
    assert [r.values["value"] for r in township.storage.timeline(narrow, RESIDENT).records] == [140]
    assert township.storage.resident(narrow, RESIDENT) is None


def _audit(node: NodeStore) -> list[AuditEntry]:
    return node.storage.audit_entries(limit=1000)


def test_every_read_writes_its_audit(township: NodeStore) -> None:
    """Who, for what purpose, what, whose, how it ended: one entry a read."""
    caller = township.caller()
    record_id = _record_id(township)

    township.storage.resident(caller, RESIDENT)
    township.storage.find_resident(caller, "identity_number", NUMBER)
    township.storage.record(caller, record_id)
    township.storage.timeline(caller, RESIDENT)
    township.storage.residents_by_home(caller)

    entries = _audit(township)
    assert [(e.action, e.object_id, e.resident_id, e.outcome, e.row_count) for e in entries] == [
        ("read", RESIDENT, RESIDENT, "done", 1),
        ("find", RESIDENT, RESIDENT, "done", 1),
        ("read", record_id, RESIDENT, "done", 1),
        ("timeline", None, RESIDENT, "done", 1),
        ("count", None, None, "done", 1),
    ]
    assert {(e.principal, e.purpose) for e in entries} == {(caller.principal, "treatment")}


def test_not_there_and_not_allowed_look_the_same(region: Region, township: NodeStore) -> None:
    """To the caller and in the audit, but for the id he asked for himself."""
    stranger = replace(township.caller(), node_id=VILLAGE_2, scope=township.tree.subtree(VILLAGE_2))

    assert township.storage.resident(stranger, RESIDENT) is None
    assert township.storage.resident(stranger, NOBODY) is None

    forbidden, missing = _audit(township)
    assert replace(forbidden, object_id=NOBODY, resident_id=NOBODY) == missing
    assert missing.outcome == "not_found"


def test_the_audit_never_repeats_what_a_caller_typed(village: NodeStore) -> None:
    """A name typed where an id belongs is nobody's id, and is not kept."""
    assert village.storage.resident(village.caller(), "赵钱孙李 139") is None
    assert village.storage.record(village.caller(), NUMBER) is None
    assert village.storage.timeline(village.caller(), "赵钱孙李").records == ()
    assert village.storage.find_resident(village.caller(), "身份证", NUMBER) is None

    assert [(e.object_id, e.resident_id) for e in _audit(village)] == [(None, None)] * 4


def test_a_read_without_its_audit_does_not_happen(village: NodeStore) -> None:
    """Audit that cannot be written stops the read."""
    village.storage.put_bundle(village.caller(), bundle("request-1", person(resident_id=RESIDENT)))
    with village.engine.begin() as connection:
        AUDIT.drop(connection)

    with pytest.raises(Exception, match="audit"):
        village.storage.resident(village.caller(), RESIDENT)

    AUDIT.create(village.engine)


def _pages(node: NodeStore, size: int) -> list[list[str]]:
    pages, token = [], ""
    while True:
        page = node.storage.timeline(node.caller(), RESIDENT, size=size, token=token)
        pages.append([record.record_id for record in page.records])
        token = page.next_token
        if not token:
            return pages


def test_a_timeline_is_newest_first_across_tables(village: NodeStore) -> None:
    """By the day of care whatever the table; without one, by the day it was recorded."""
    rows = [
        observation(RESIDENT, day="2026-03-01"),
        NewRecord(None, "conditions", RESIDENT, {"code": "I10", "onset_on": "2019-05-01"}),
        NewRecord(None, "conditions", RESIDENT, {"code": "E11"}),
        NewRecord(None, "encounters", RESIDENT, {"class": "home", "started_on": "2026-02-01"}),
    ]
    stored = village.storage.put_bundle(
        village.caller(), bundle("request-1", person(resident_id=RESIDENT), *rows)
    )

    page = village.storage.timeline(village.caller(), RESIDENT)

    order = [stored.record_ids[i] for i in (2, 0, 3, 1)]
    assert [record.record_id for record in page.records] == order
    assert page.next_token == ""


def test_paging_is_stable_under_inserts(village: NodeStore) -> None:
    """What is written between two pages neither repeats nor hides a row of the later pages."""
    days = [f"2026-01-{day:02d}" for day in range(1, 16)]
    rows = [observation(RESIDENT, day=day) for day in days for _ in range(2)]
    caller = village.caller()
    village.storage.put_bundle(caller, bundle("request-0", person(resident_id=RESIDENT), *rows))
    quiet = [record for page in _pages(village, 1000) for record in page]

    seen: list[str] = []
    token = ""
    for number in range(1, 7):
        page = village.storage.timeline(caller, RESIDENT, size=5, token=token)
        seen.extend(record.record_id for record in page.records)
        token = page.next_token
        newer = observation(RESIDENT, day="2026-05-01")
        village.storage.put_bundle(caller, bundle(f"request-{number}", newer))

    assert len(quiet) == 30
    assert seen == quiet
    assert token == ""


def test_pages_have_the_size_asked_for_and_end(village: NodeStore) -> None:
    """An exact multiple ends without an empty page."""
    rows = [observation(RESIDENT, day=f"2026-01-{day:02d}") for day in range(1, 10)]
    village.storage.put_bundle(
        village.caller(), bundle("request-0", person(resident_id=RESIDENT), *rows)
    )

    assert [len(page) for page in _pages(village, 4)] == [4, 4, 1]
    assert [len(page) for page in _pages(village, 3)] == [3, 3, 3]


def test_refuses_a_token_of_another_list(village: NodeStore) -> None:
    """A token belongs to one resident's timeline; anything else typed is an error, not a page."""
    rows = [observation(RESIDENT), observation(RESIDENT)]
    caller = village.caller()
    village.storage.put_bundle(caller, bundle("request-0", person(resident_id=RESIDENT), *rows))
    token = village.storage.timeline(caller, RESIDENT, size=1).next_token

    for resident_id, wrong in (
        (NOBODY, token),
        (RESIDENT, "x"),
        (RESIDENT, "bnVsbA=="),
        (RESIDENT, "é"),
        (RESIDENT, base64.urlsafe_b64encode(b"[" * 100_000).decode()),
    ):
        with pytest.raises(PageTokenError):
            village.storage.timeline(caller, resident_id, token=wrong)


def test_counts_and_denominators(region: Region, township: NodeStore) -> None:
    """Residents by home, each once, in a scope."""
    neighbour = region.node(VILLAGE_2)
    for n in range(3):
        who = person(f"1426011980010102{n:02d}")
        neighbour.storage.put_bundle(neighbour.caller(), bundle(f"request-{n}", who))
    region.ship(neighbour, township)

    assert township.storage.residents_by_home(township.caller()) == {VILLAGE: 1, VILLAGE_2: 3}
    assert township.storage.residents_by_home(neighbour.caller()) == {VILLAGE_2: 3}
    counts = township.storage.counts()
    assert (counts.residents, counts.records) == (4, 1)
    assert (counts.rows["residents"], counts.rows["identifiers"]) == (4, 4)


def test_the_audit_chain_holds_and_shows_tampering(village: NodeStore) -> None:
    """Linked after the commit; a changed and a removed entry are found at their place."""
    caller = village.caller()
    for _ in range(5):
        village.storage.resident(caller, RESIDENT)
    assert village.storage.link_audit() == 5
    assert village.storage.link_audit() == 0
    village.storage.resident(caller, RESIDENT)
    village.storage.link_audit()
    assert village.storage.verify_audit() is None

    third = select(func.min(AUDIT.c.audit_id) + 2).scalar_subquery()
    with read_transaction(village.engine) as connection:
        target = connection.execute(select(third)).scalar_one()
    with write_transaction(village.engine) as connection:
        connection.execute(
            update(AUDIT).where(AUDIT.c.audit_id == target).values(principal="someone else")
        )
    broken = village.storage.verify_audit()
    assert broken is not None
    assert broken.position == 3

    with write_transaction(village.engine) as connection:
        connection.execute(delete(AUDIT).where(AUDIT.c.audit_id == target))
    gone = village.storage.verify_audit()
    assert gone is not None
    assert (gone.position, gone.reason) == (3, "an entry is missing")


def test_a_cut_chain_does_not_end_where_it_says(village: NodeStore) -> None:
    """Removing the last entries leaves the recorded end without them."""
    for _ in range(3):
        village.storage.resident(village.caller(), RESIDENT)
    village.storage.link_audit()
    with write_transaction(village.engine) as connection:
        connection.execute(delete(AUDIT).where(AUDIT.c.chain_position == 3))

    broken = village.storage.verify_audit()

    assert broken is not None
    assert broken.reason == "the end of the chain is missing"


def test_a_county_reads_by_its_large_scope(region: Region, township: NodeStore) -> None:
    """What climbed to the county is read there by the county's own people."""
    county = region.node(COUNTY)
    region.ship(township, county)

    assert _seen(county, county.caller()) == [True] * 4
