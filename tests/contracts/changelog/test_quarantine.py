"""A change that is not admitted waits with its cause, sealed, until it has an exit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from replication.changelog import Quarantine, QuarantineExit, retry_after_ms
from replication.changelog.quarantine import KEPT_CLOSED_MS
from replication.core.codec import decode_changes
from replication.core.model import Form, Lane, LogEntry, Operation, RowChange, Version
from tests.contracts.changelog.stores import HOME, NODE, FakeSealer, LogStore

PEER = "141002001"
ENTRY = LogEntry(0, "141002001", 3, 17, Lane.BULK, HOME, Form.FULL, 1, 1, 1_795_000_000_000, 1, b"")


@pytest.fixture
def quarantine(store: LogStore) -> Quarantine:
    """Nobody waits."""
    return Quarantine(store.tables, node_id=NODE, sealer=FakeSealer())


def _change(
    row_id: str, *, resident: str = "r-1", number: int = 1, home_epoch: int = 1
) -> RowChange:
    return RowChange(
        table="observations",
        row_id=row_id,
        resident_id=resident,
        version=Version(1, number),
        operation=Operation.PUT,
        author_node="141002002",
        home_node=HOME,
        home_epoch=home_epoch,
        schema_version=1,
        recorded_at="2026-11-23T20:00:00.000Z",
        form=Form.FULL,
        values={"code": "8480-6", "value": 121.5, "note": "临汾-marker"},
    )


def test_keeps_the_change_with_its_cause(store: LogStore, quarantine: Quarantine) -> None:
    """All of it comes back, and who sent it, when and why not."""
    _add(quarantine, store, _change("a"), cause="AUTHOR_OUTSIDE", now_ms=10, retry_at=20)
    with store.engine.begin() as connection:
        [item] = quarantine.waiting(connection)
        assert quarantine.change(connection, item) == _change("a")
    assert (item.peer, item.lane) == (PEER, Lane.BULK)
    assert (item.origin_node, item.origin_epoch, item.origin_sequence) == ("141002001", 3, 17)
    assert (item.cause, item.attempts) == ("AUTHOR_OUTSIDE", 1)
    assert (item.first_at, item.last_at, item.retry_at) == (10, 10, 20)


def test_the_same_change_again_is_another_attempt(store: LogStore, quarantine: Quarantine) -> None:
    """A batch sent twice does not fill the quarantine; another version is another change."""
    _add(quarantine, store, _change("a"), cause="OLD_HOME_EPOCH", now_ms=10)
    _add(quarantine, store, _change("a"), cause="AUTHOR_OUTSIDE", now_ms=30)
    _add(quarantine, store, _change("a", number=2), cause="AUTHOR_OUTSIDE", now_ms=30)
    with store.engine.begin() as connection:
        first, second = quarantine.waiting(connection)
        assert quarantine.count(connection) == 2
    assert (first.attempts, first.cause, first.first_at, first.last_at) == (
        2,
        "AUTHOR_OUTSIDE",
        10,
        30,
    )
    assert second.attempts == 1


def test_a_later_home_epoch_is_another_change(store: LogStore, quarantine: Quarantine) -> None:
    """Of the same version: its resident has moved, and each has a content of its own."""
    for home_epoch in (1, 2):
        _add(quarantine, store, _change("a", home_epoch=home_epoch))
    with store.engine.begin() as connection:
        first, second = quarantine.waiting(connection)
        assert (first.home_epoch, second.home_epoch) == (1, 2)
        assert quarantine.change(connection, second) == _change("a", home_epoch=2)


def test_what_came_last_is_kept(store: LogStore, quarantine: Quarantine) -> None:
    """The same change in another entry is judged as it came last, also after it was let out."""
    later = replace(ENTRY, origin_node="141002009", origin_epoch=4, lane=Lane.IDENTITY)
    changed = replace(_change("a"), home_node="141002002201")
    _add(quarantine, store, _change("a"))
    for _ in range(2):
        with store.engine.begin() as connection:
            quarantine.add(
                connection, peer=PEER, entry=later, change=changed, cause="LATER", now_ms=5
            )
            [item] = quarantine.waiting(connection)
            assert quarantine.change(connection, item) == changed
            quarantine.close(connection, item.item_id, QuarantineExit.RELEASED, 9)
    assert (item.origin_node, item.origin_epoch, item.lane) == ("141002009", 4, Lane.IDENTITY)
    assert (item.home_node, item.attempts, item.first_at) == ("141002002201", 3, 1)


def test_what_was_closed_long_ago_is_deleted(store: LogStore, quarantine: Quarantine) -> None:
    """A few at a time; what waits stays however old, and what was discarded stays discarded."""
    exits = (QuarantineExit.RELEASED, QuarantineExit.SUPERSEDED, QuarantineExit.DISCARDED)
    for row in ("a", "b", "c", "waits"):
        _add(quarantine, store, _change(row))
    with store.engine.begin() as connection:
        for item, exit_as in zip(quarantine.waiting(connection), exits, strict=False):
            quarantine.close(connection, item.item_id, exit_as, 100)
        then = 100 + KEPT_CLOSED_MS
        assert quarantine.forget_closed(connection, now_ms=then - 1, limit=9) == 0
        some = [quarantine.forget_closed(connection, now_ms=then, limit=2) for _ in range(3)]
        t = store.tables.quarantine
        left = connection.execute(select(t.c.row_id, t.c.payload).order_by(t.c.row_id)).all()
    assert some == [2, 1, 0]
    assert [(row.row_id, bool(row.payload)) for row in left] == [("c", False), ("waits", True)]
    _add(quarantine, store, _change("c"))
    with store.engine.begin() as connection:
        assert quarantine.count(connection) == 1


def test_lists_what_is_due_in_pages(store: LogStore, quarantine: Quarantine) -> None:
    """Oldest first, after an item, and only what may be tried now if so asked."""
    for number, retry_at in enumerate((5, None, 50)):
        _add(quarantine, store, _change(f"row-{number}"), retry_at=retry_at)
    with store.engine.begin() as connection:
        page = quarantine.waiting(connection, limit=2)
        assert [item.row_id for item in page] == ["row-0", "row-1"]
        rest = quarantine.waiting(connection, after=page[-1].item_id)
        assert [item.row_id for item in rest] == ["row-2"]
        due = quarantine.waiting(connection, due_ms=10)
        assert [item.row_id for item in due] == ["row-0"]


def test_a_closed_change_waits_no_more(store: LogStore, quarantine: Quarantine) -> None:
    """Each change has one exit; closing twice says so."""
    _add(quarantine, store, _change("a"))
    with store.engine.begin() as connection:
        [item] = quarantine.waiting(connection)
        assert quarantine.close(connection, item.item_id, QuarantineExit.RELEASED, 99)
        assert not quarantine.close(connection, item.item_id, QuarantineExit.DISCARDED, 99)
        assert quarantine.count(connection) == 0
        assert quarantine.waiting(connection) == []


@pytest.mark.parametrize(
    ("exit_as", "waits"), [(QuarantineExit.RELEASED, 1), (QuarantineExit.DISCARDED, 0)]
)
def test_only_an_operators_discard_outlasts_a_repetition(
    store: LogStore, quarantine: Quarantine, exit_as: QuarantineExit, waits: int
) -> None:
    """What was discarded stays out when it is sent again; anything else waits again."""
    _add(quarantine, store, _change("a"))
    with store.engine.begin() as connection:
        [item] = quarantine.waiting(connection)
        quarantine.close(connection, item.item_id, exit_as, 99)
    _add(quarantine, store, _change("a"))
    with store.engine.begin() as connection:
        assert quarantine.count(connection) == waits


def test_counts_the_residents_who_wait(store: LogStore, quarantine: Quarantine) -> None:
    """Distinct residents by home: a federated answer must not count them as covered."""
    for row, resident in (("a", "r-1"), ("b", "r-1"), ("c", "r-2")):
        _add(quarantine, store, _change(row, resident=resident))
    with store.engine.begin() as connection:
        assert quarantine.residents_by_home(connection) == {HOME: 2}


def test_a_strange_row_id_is_kept_too(store: LogStore, quarantine: Quarantine) -> None:
    """A peer's word need not fit our columns; the sealed change holds it as it was."""
    strange, other = _change("行" * 300), _change("行" * 300 + "二")
    _add(quarantine, store, strange)
    _add(quarantine, store, strange)
    _add(quarantine, store, other)
    with store.engine.begin() as connection:
        first, second = quarantine.waiting(connection)
        assert (quarantine.change(connection, first), first.attempts) == (strange, 2)
        assert (quarantine.change(connection, second), second.attempts) == (other, 1)


def test_nothing_clear_lies_in_the_quarantine(store: LogStore, quarantine: Quarantine) -> None:
    """The values are under seal."""
    _add(quarantine, store, _change("a"))
    with store.engine.begin() as connection:
        t = store.tables.quarantine
        [payload] = connection.execute(select(t.c.payload)).scalars()
    assert b"marker" not in bytes(payload)


def _add(
    quarantine: Quarantine,
    store: LogStore,
    change: RowChange,
    *,
    cause: str = "OLD_HOME_EPOCH",
    now_ms: int = 1,
    retry_at: int | None = None,
) -> None:
    with store.engine.begin() as connection:
        quarantine.add(
            connection,
            peer=PEER,
            entry=ENTRY,
            change=change,
            cause=cause,
            now_ms=now_ms,
            retry_at_ms=retry_at,
        )


def test_an_unreadable_entry_waits_whole(store: LogStore, quarantine: Quarantine) -> None:
    """As it came, and as many residents of its home count as not covered as it has rows."""
    entry = replace(ENTRY, codec=9, row_count=3, rows=b"\xff what is this")
    _add(quarantine, store, _change("a"))
    with store.engine.begin() as connection:
        for _ in range(2):
            quarantine.add_entry(
                connection, peer=PEER, entry=entry, cause="ENTRY_UNREADABLE", now_ms=10
            )
        _, item = quarantine.waiting(connection)
        assert quarantine.entry(connection, item) == replace(entry, origin_sequence=0)
        assert quarantine.residents_by_home(connection) == {HOME: 1 + 3}
        assert quarantine.by_cause(connection) == {"OLD_HOME_EPOCH": 1, "ENTRY_UNREADABLE": 1}
    assert (item.whole_entry, item.row_count, item.attempts) == (True, 3, 2)
    assert (item.table, item.resident_id) == ("", "")


def test_a_row_comes_back_as_an_entry_of_its_own(store: LogStore, quarantine: Quarantine) -> None:
    """Without its transaction's number: the log may hold the rest of that entry."""
    _add(quarantine, store, _change("a"))
    with store.engine.begin() as connection:
        [item] = quarantine.waiting(connection)
        entry = quarantine.entry(connection, item)
    assert decode_changes(entry.codec, entry.rows) == [_change("a")]
    assert (entry.origin_node, entry.origin_epoch, entry.origin_sequence) == ("141002001", 3, 0)


def test_an_attempt_in_vain_is_counted(store: LogStore, quarantine: Quarantine) -> None:
    """With its cause of now and the time of the next; a closed item is left alone."""
    _add(quarantine, store, _change("a"))
    with store.engine.begin() as connection:
        [item] = quarantine.waiting(connection)
        again = {"cause": "HOME_NOT_HERE", "now_ms": 50, "retry_at_ms": 90}
        quarantine.postpone(connection, item.item_id, **again)  # type: ignore[arg-type]
        [item] = quarantine.waiting(connection, due_ms=90)
        assert (item.cause, item.attempts, item.last_at) == ("HOME_NOT_HERE", 2, 50)
        quarantine.close(connection, item.item_id, QuarantineExit.DISCARDED, 60, "wrong person")
        quarantine.postpone(connection, item.item_id, **again)  # type: ignore[arg-type]
        closed = quarantine.item(connection, item.item_id)
    assert closed is not None
    assert (closed.attempts, closed.closed_as, closed.reason) == (2, "discarded", "wrong person")
    assert closed.retry_at is None


def test_pauses_double_from_a_minute_to_six_hours() -> None:
    """However long something waits."""
    assert [retry_after_ms(n) // 60_000 for n in (1, 2, 3, 9, 10, 99)] == [1, 2, 4, 256, 360, 360]
