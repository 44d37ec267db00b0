"""The ways out of the quarantine: tried again, skipped, superseded, sent again by a neighbour."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import pytest
from sqlalchemy import insert, select, update

from node.links import LinkHub
from node.security.caller import CallerKind
from node.storage import CHANGELOG
from node.storage.causes import CAUSES, Misfit, meaning_of, retry_at
from node.storage.errors import NothingToResendError, QuarantineItemError
from node.storage.release import WAITING, Released
from node.storage.resend import Wanted
from node.storage.specs import TABLES
from node.storage.tables import REPLICATED
from node.watch.tending import DELETE_MS, QuarantineKeeper
from replication.changelog import QuarantinedItem
from replication.changelog.quarantine import KEPT_CLOSED_MS
from replication.core.admission import Cause
from replication.core.codec import decode_changes
from replication.core.config import PeerRole
from replication.core.mailbox import LetterCause
from replication.core.model import Form, Lane
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    NOW_MS,
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


@pytest.fixture
def township(region: Region) -> NodeStore:
    """The node between the villages and the county."""
    return region.node(TOWNSHIP)


def _items(node: NodeStore) -> list[QuarantinedItem]:
    caller = node.caller(CallerKind.OPERATOR)
    return node.storage.desk.waiting(caller, after=0, limit=500)[0]


def _unknown_table(node: NodeStore, *, moved: bool = False, number: int = 1) -> None:
    """A row of a village in a table that the township's release does not have yet.

    `moved`: the same version, once its resident has moved within the village's subtree.
    """
    older = {name: spec for name, spec in TABLES.items() if name != "observations"}
    row = change(home=VILLAGE_2, home_epoch=2) if moved else change()
    with pytest.MonkeyPatch.context() as release:
        release.setattr("node.storage.apply.TABLES", older)
        send(node, VILLAGE, PeerRole.CHILD, log_entry(row, sequence=number))


def _home_of_row(node: NodeStore) -> tuple[str, int]:
    """The home and its epoch of the one observation held."""
    t = REPLICATED["observations"]
    with node.engine.begin() as connection:
        row = connection.execute(select(t.c.home_node, t.c.home_epoch)).one()
    return row.home_node, row.home_epoch


def _retry_unknown(node: NodeStore, item_id: int) -> Released:
    """Try again while the release is still the older one."""
    older = {name: spec for name, spec in TABLES.items() if name != "observations"}
    with pytest.MonkeyPatch.context() as release:
        release.setattr("node.storage.apply.TABLES", older)
        return node.storage.desk.retry(item_id)


def _actions(node: NodeStore) -> list[tuple[str, str | None]]:
    return [
        (entry.action, entry.object_id)
        for entry in node.storage.audit_entries()
        if entry.object_table == "quarantine"
    ]


def test_every_cause_is_explained() -> None:
    """With what it means and whether time can mend it; another release's is not known."""
    assert {*Cause, *Misfit, *LetterCause} == set(CAUSES)
    assert retry_at(Misfit.TABLE_UNKNOWN, 2, 1000) == 1000 + 120_000
    assert retry_at(Misfit.LANE_MISMATCH, 2, 1000) is None
    assert "not know" in meaning_of("FROM_TOMORROW")


def test_an_upgrade_lets_out_what_waited_for_it(township: NodeStore) -> None:
    """The row is stored, logged for those above, and no resident waits any more."""
    _unknown_table(township)
    [item] = _items(township)
    assert (item.cause, item.retry_at) == ("TABLE_UNKNOWN", NOW_MS + 60_000)
    still = _retry_unknown(township, item.item_id)
    assert still == Released(item.item_id, WAITING, "TABLE_UNKNOWN")

    done = township.storage.desk.retry(item.item_id)

    assert done == Released(item.item_id, "released", applied=1)
    assert count(township, "observations") == 1
    [entry] = township.entries()
    assert (entry.origin_node, entry.origin_sequence, entry.row_count) == (VILLAGE, 0, 1)
    assert township.storage.quarantined_by_home() == {}
    with pytest.raises(QuarantineItemError):
        township.storage.desk.retry(item.item_id)


def test_waits_longer_after_each_attempt_in_vain(region: Region, township: NodeStore) -> None:
    """A minute, two, four; and what is not due is left alone."""
    _unknown_table(township)
    [item] = _items(township)
    desk = township.storage.desk
    assert desk.due(NOW_MS, 10) == []
    for minutes in (2, 4):
        region.clock.ms = _items(township)[0].retry_at or 0
        assert desk.due(region.clock.ms, 10) == [item.item_id]
        _retry_unknown(township, item.item_id)
        assert _items(township)[0].retry_at == region.clock.ms + minutes * 60_000


def test_an_entry_that_is_read_at_last_is_judged_row_by_row(
    township: NodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in order is let in; the rest waits by itself, with its own cause."""
    entry = log_entry(change(), change(row=2, author=COUNTY))
    send(township, VILLAGE, PeerRole.CHILD, replace(entry, codec=77))
    [item] = _items(township)
    assert (item.cause, item.whole_entry, item.row_count) == ("ENTRY_UNREADABLE", True, 2)

    monkeypatch.setattr(
        "node.storage.entry_work.decode_changes", lambda _codec, rows: decode_changes(1, rows)
    )
    done = township.storage.desk.retry(item.item_id)

    assert done == Released(item.item_id, "released", applied=1)
    assert count(township, "observations") == 1
    [left] = _items(township)
    assert (left.cause, left.whole_entry) == ("AUTHOR_NOT_BELOW", False)


def test_a_newer_version_closes_what_it_replaces(township: NodeStore) -> None:
    """By itself; an item whose row is not here, or older, goes on waiting."""
    for lane_mismatch in (change(), change(row=2), change(version=(1, 3))):
        entry = log_entry(lane_mismatch, lane=Lane.IDENTITY)
        send(township, VILLAGE, PeerRole.CHILD, entry, lane=Lane.IDENTITY)
    send(township, VILLAGE, PeerRole.CHILD, log_entry(change(version=(1, 2)), sequence=9))
    assert len(_items(township)) == 3

    closed, last = township.storage.desk.close_superseded(0, 2)
    assert (closed, last) == (1, _items(township)[0].item_id)
    assert township.storage.desk.close_superseded(last, 2) == (0, 0)

    assert sorted((i.row_id[-1], i.version_number) for i in _items(township)) == [
        ("1", 3),
        ("2", 1),
    ]


def test_a_row_under_a_later_home_epoch_is_another_change(
    region: Region, township: NodeStore
) -> None:
    """He moved while both waited: each is judged for itself, and he ends at his new home."""
    _unknown_table(township)
    _unknown_table(township, moved=True)
    first, second = _items(township)
    assert (first.home_epoch, second.home_epoch) == (1, 2)
    assert (first.home_node, second.home_node) == (VILLAGE, VILLAGE_2)

    region.clock.ms += 60_000
    desk = township.storage.desk
    done = [desk.retry(item_id).outcome for item_id in desk.due(region.clock.ms, 10)]

    assert done == ["released", "released"]
    assert _home_of_row(township) == (VILLAGE_2, 2)


def test_a_skip_is_of_one_home_epoch(township: NodeStore) -> None:
    """What came under the former home may be skipped; what comes under the new one waits."""
    _unknown_table(township)
    [item] = _items(township)
    operator = township.caller(CallerKind.OPERATOR)
    township.storage.desk.skip(operator, item.item_id, "of another release")

    _unknown_table(township, moved=True)

    [waits] = _items(township)
    assert waits.home_epoch == 2


def test_the_same_version_under_a_later_home_epoch_is_not_superseded(township: NodeStore) -> None:
    """It is newer than what is held, though its version is the same; older ones are closed."""
    send(township, VILLAGE, PeerRole.CHILD, log_entry(change()))
    _unknown_table(township, moved=True)
    desk = township.storage.desk

    assert desk.close_superseded(0, 100) == (0, 0)

    [item] = _items(township)
    assert desk.retry(item.item_id).outcome == "released"
    assert _home_of_row(township) == (VILLAGE_2, 2)
    _unknown_table(township, number=2)
    assert desk.close_superseded(0, 100) == (1, 0)


def test_a_skip_is_for_good_and_audited(township: NodeStore) -> None:
    """Whoever sends it again does not bring it back; the reason stays with it."""
    _unknown_table(township)
    [item] = _items(township)
    operator = township.caller(CallerKind.OPERATOR)
    desk = township.storage.desk

    desk.skip(operator, item.item_id, "sent by a test system")
    _unknown_table(township)

    shown = desk.show(operator, item.item_id)
    assert (shown.closed_as, shown.reason) == ("discarded", "sent by a test system")
    assert (shown.attempts, shown.retry_at) == (2, None)
    assert township.storage.quarantined() == 0
    with pytest.raises(QuarantineItemError):
        desk.skip(operator, item.item_id, "again")
    with pytest.raises(QuarantineItemError):
        desk.show(operator, 999)
    assert ("skip", str(item.item_id)) in _actions(township)
    assert ("read", str(item.item_id)) in _actions(township)


def test_what_left_long_ago_is_deleted(region: Region, township: NodeStore) -> None:
    """Ninety days after; what waits stays, and what was skipped stays skipped without its content.

    It is looked for once an hour.
    """
    _unknown_table(township)
    _unknown_table(township, moved=True)
    wrong = log_entry(change(row=3), lane=Lane.IDENTITY)
    send(township, VILLAGE, PeerRole.CHILD, wrong, lane=Lane.IDENTITY)
    gone, skipped, waits = (item.item_id for item in _items(township))
    desk, operator = township.storage.desk, township.caller(CallerKind.OPERATOR)
    desk.skip(operator, skipped, "sent by a test system")
    assert desk.retry(gone).outcome == "released"
    keeper = QuarantineKeeper(
        TOWNSHIP,
        region.tree,
        township.storage,
        cast(LinkHub, None),
        threads=ThreadPoolExecutor(1),
        clock=region.clock,
        notify=lambda: None,
    )

    region.clock.ms += KEPT_CLOSED_MS - 1
    keeper.tend()
    region.clock.ms += 1
    keeper.tend()
    assert desk.show(operator, gone).closed_as == "released"
    region.clock.ms += DELETE_MS
    keeper.tend()

    with pytest.raises(QuarantineItemError):
        desk.show(operator, gone)
    assert [item.item_id for item in _items(township)] == [waits]
    _unknown_table(township, moved=True)
    shown = desk.show(operator, skipped)
    assert (shown.closed_as, shown.reason, shown.attempts) == (
        "discarded",
        "sent by a test system",
        2,
    )


def test_nothing_is_let_out_of_a_peer_that_is_no_neighbour(township: NodeStore) -> None:
    """After the region has changed nobody can say what he may send."""
    _unknown_table(township)
    [item] = _items(township)
    with township.engine.begin() as connection:
        connection.execute(update(CHANGELOG.quarantine).values(peer="1408"))

    assert township.storage.desk.retry(item.item_id).outcome == WAITING


def _resident(node: NodeStore) -> tuple[str, str]:
    """A resident of the village with one record."""
    caller = node.caller()
    [resident] = node.storage.put_bundle(caller, bundle("who", person())).resident_ids
    put = node.storage.put_bundle(caller, bundle("what", observation(resident, 128.0)))
    return resident, put.record_ids[0]


def test_a_child_sends_a_row_again(region: Region, township: NodeStore) -> None:
    """Its current version, through the lane; nobody else is troubled."""
    village, other = region.node(VILLAGE), region.node(VILLAGE_2)
    _, record = _resident(village)
    region.ship(village, township)
    wanted = Wanted("observations", record, VILLAGE, Form.FULL)

    assert village.storage.resender.resend(TOWNSHIP, PeerRole.PARENT, wanted) == 1

    [entry] = region.ship(village, township)
    assert (entry.lane, entry.row_count, entry.origin_sequence) == (Lane.BULK, 1, 0)
    assert township.storage.quarantined() == 0
    assert region.ship(township, other) == []
    with pytest.raises(NothingToResendError):
        village.storage.resender.resend(
            TOWNSHIP, PeerRole.PARENT, replace(wanted, row_id=change().row_id)
        )


def test_a_parent_sends_a_row_again_to_whose_home_it_is(region: Region) -> None:
    """And not to a sibling of that home, who is told what he would be told of nothing."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    resident, _ = _resident(village)
    region.ship(village, township)
    visit = township.storage.put_bundle(
        township.caller(), bundle("visit", observation(resident, 99.0))
    ).record_ids[0]
    region.ship(township, village)
    wanted = Wanted("observations", visit, VILLAGE, Form.FULL)

    assert township.storage.resender.resend(VILLAGE, PeerRole.CHILD, wanted) == 1
    with pytest.raises(NothingToResendError):
        township.storage.resender.resend(VILLAGE_2, PeerRole.CHILD, wanted)

    [entry] = region.ship(township, village)
    assert entry.origin_node == TOWNSHIP
    assert village.storage.quarantined() == 0


def test_all_rows_of_a_transaction_are_sent_again(region: Region, township: NodeStore) -> None:
    """Of an entry that could not be read nobody knows the rows; its sender does."""
    village = region.node(VILLAGE)
    _resident(village)
    entry = village.entries(Lane.IDENTITY)[0]
    wanted = Wanted(
        "", "", VILLAGE, Form.FULL, entry.origin_node, entry.origin_epoch, entry.origin_sequence
    )

    assert village.storage.resender.resend(TOWNSHIP, PeerRole.PARENT, wanted) == entry.row_count

    assert sum(sent.row_count for sent in region.ship(village, township)) == 2 * entry.row_count + 1


def test_a_pseudonym_finds_its_row_again(region: Region) -> None:
    """The city knows a record by its pseudonym alone, and gets it as de-identified as before."""
    village, county, city = region.node(VILLAGE), region.node(COUNTY), region.node(CITY)
    _resident(village)
    region.ship_up(VILLAGE, TOWNSHIP, COUNTY)
    before = [entry for entry in region.ship(county, city) if entry.lane is Lane.BULK]
    [row] = [row for entry in before for row in decode_changes(entry.codec, entry.rows)]
    wanted = Wanted("observations", row.row_id, VILLAGE, Form.DEIDENTIFIED)

    assert county.storage.resender.resend(CITY, PeerRole.PARENT, wanted) == 1

    [again] = [e for e in region.ship(county, city) if e.lane is Lane.BULK]
    assert again.form is Form.DEIDENTIFIED
    assert decode_changes(again.codec, again.rows) == [row]
    assert count(city, "observations") == 1


def test_an_older_stores_items_have_their_exits(township: NodeStore) -> None:
    """What a former release set aside is one row, of a resident who had not moved."""
    _unknown_table(township)
    table = CHANGELOG.quarantine
    new = {"row_count", "whole_entry", "reason", "home_epoch"}
    with township.engine.begin() as connection:
        [row] = connection.execute(table.select()).mappings().all()
        old = {k: v for k, v in row.items() if k not in new}
        connection.execute(table.delete())
        connection.execute(insert(table).values(**old))

    [item] = _items(township)
    assert (item.row_count, item.whole_entry, item.reason) == (1, False, "")
    assert item.home_epoch == 1
    assert township.storage.desk.retry(item.item_id).outcome == "released"
