"""Entries are found by every filter, page by page, along an index; whoever looks is found too."""

from __future__ import annotations

import random
import uuid

import pytest
from sqlalchemy import select

from node.auditing.search import AuditSearch, Found, Wanted, _query
from node.clock import format_ms
from node.errors import InvalidRequestError
from node.storage.audit import Action, Deed, Outcome
from node.storage.tables import AUDIT
from tests.contracts.auditing.place import START_MS, Place


def everything(search: AuditSearch, place: Place, wanted: Wanted, size: int) -> list[Found]:
    """All pages."""
    found: list[Found] = []
    token = ""
    while True:
        page = search.page(place.village.caller("auditor"), wanted, size=size, token=token)
        found.extend(page.entries)
        token = page.next_token
        if not token:
            return found


def test_pages_of_any_size_give_every_entry_once(place: Place) -> None:
    """By resident, principal, deed, outcome and time; against a plain filter over all entries."""
    source = random.Random(2)
    people = [str(uuid.UUID(int=source.getrandbits(128))) for _ in range(4)]
    glasses = [str(uuid.UUID(int=source.getrandbits(128))) for _ in range(2)]
    ground = place.village.ground
    for _ in range(60):
        deed = Deed(
            source.choice((Action.READ, Action.FIND, Action.PUT)),
            "residents",
            source.choice((Outcome.DONE, Outcome.NOT_FOUND)),
            1,
            resident_id=source.choice(people),
            grant_id=source.choice((None, None, *glasses)),
        )
        caller = place.village.caller(source.choice(("zhang", "li")))
        ground.transactions.write(
            lambda c, caller=caller, deed=deed: ground.auditor.write(c, caller, deed)  # type: ignore[misc]
        )
        if source.random() < 0.5:
            place.clock.pass_ms(1000)
    with place.village.engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(select(AUDIT)).mappings()]
    zhang = place.village.caller("zhang").principal
    middle = format_ms(START_MS + 15_000)
    for wanted in (
        Wanted(resident_id=people[0]),
        Wanted(principal=zhang),
        Wanted(action="find"),
        Wanted(outcome="not_found", until=middle),
        Wanted(resident_id=people[1], action="read", outcome="done"),
        Wanted(principal=zhang, since=middle),
        Wanted(since=format_ms(START_MS)[:10], action="put"),
        Wanted(grant_id=glasses[0]),
        Wanted(break_glass=True, principal=zhang),
    ):
        names = ("resident_id", "principal", "action", "outcome", "grant_id")
        expected = {
            row["audit_id"]
            for row in rows
            if all(getattr(wanted, name) in {"", row[name]} for name in names)
            and row["at"] >= wanted.since
            and (row["grant_id"] or not wanted.break_glass)
            and (not wanted.until or row["at"] < wanted.until)
        }
        for size in (1, 7, 500):
            found = everything(place.village.search, place, wanted, size)
            # What is looked for about somebody is about him, too: the searches themselves.
            found = [each for each in found if each.audit_id <= rows[-1]["audit_id"]]
            assert {each.audit_id for each in found} == expected
            assert len(found) == len(expected)
            order = [(each.entry.at, each.audit_id) for each in found]
            assert order == sorted(order, reverse=True)
    assert place.village.actions().count("search") >= 9 * 3


@pytest.mark.parametrize("token", ["x", "W10=", "bnVsbA==", "WzEsMl0=", "A" * 5000])
def test_a_made_up_token_is_refused(place: Place, token: str) -> None:
    """It is the caller's fault, and nothing else."""
    with pytest.raises(InvalidRequestError):
        place.village.search.page(place.village.caller(), Wanted(), size=5, token=token)


def test_no_search_by_a_name_or_a_time_reads_the_table(place: Place) -> None:
    """As the database itself plans it."""
    engine = place.village.engine
    for wanted in (
        Wanted(),
        Wanted(resident_id="a", action="b", principal="c", outcome="d"),
        Wanted(principal="c", action="b"),
        Wanted(action="b", outcome="d"),
        Wanted(since="2026", until="2027"),
        Wanted(grant_id="a", action="b"),
    ):
        query = _query(wanted, ("2026-11-01", 5)).limit(100)
        text = str(query.compile(engine, compile_kwargs={"literal_binds": True}))
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
                assert all("USING INDEX ix_audit_" in str(row[3]) for row in plan), plan
                assert not any("TEMP B-TREE" in str(row[3]) for row in plan), plan
            else:
                (row,) = connection.exec_driver_sql(f"EXPLAIN {text.replace('%', '%%')}").mappings()
                assert "ix_audit_" in str(row["possible_keys"]) + str(row["key"])
