"""What a log promises to those who append and those who read."""

from __future__ import annotations

import pytest
from sqlalchemy import event, func, select, update

from replication.changelog import (
    DuplicateEntryError,
    LogPrunedError,
    OriginKey,
    read_transaction,
    write_transaction,
)
from replication.core.model import Form, Lane
from tests.contracts.changelog.stores import NODE, LogStore, SealBrokenError, entry, key_of


def test_gives_back_what_was_appended(store: LogStore) -> None:
    """Every field of an entry survives, and an entry made here names this log as its origin."""
    store.append(entry("临汾", Lane.CARE))
    store.durable_head()
    [found] = store.read().entries
    given = entry("临汾", Lane.CARE)
    assert found.rows == given.rows
    assert (found.sequence, found.origin_node) == (1, NODE)
    assert (found.origin_epoch, found.origin_sequence) == (1, 1)
    assert (found.lane, found.home_node, found.form) == (Lane.CARE, given.home_node, Form.FULL)
    assert (found.codec, found.schema_version, found.row_count) == (1, 1, 1)
    assert found.committed_at_ms == given.committed_at_ms


def test_keeps_the_origin_of_what_is_relayed(store: LogStore) -> None:
    """A relayed entry keeps where it comes from; a withheld origin reads as 0."""
    store.append(
        entry("a", origin=("141002001", 3, 17)),
        entry("b", origin=("141002001", 3, 0)),
        entry("c", origin=("141002001", 3, 0)),
    )
    store.durable_head()
    origins = [(e.origin_node, e.origin_epoch, e.origin_sequence) for e in store.read().entries]
    assert origins == [("141002001", 3, 17), ("141002001", 3, 0), ("141002001", 3, 0)]


def test_refuses_an_entry_of_an_origin_twice(store: LogStore) -> None:
    """The second entry of one origin and form fails its transaction; another form does not."""
    origin = ("141002001", 3, 17)
    store.append(entry("a", origin=origin))
    with pytest.raises(DuplicateEntryError):
        store.append(entry("again", origin=origin))
    store.append(entry("index", origin=origin, form=Form.INDEX))
    store.durable_head()
    assert store.keys() == ["a", "index"]
    assert store.sequences() == [1, 2]


def test_says_which_origins_it_knows(store: LogStore) -> None:
    """`known` finds the entries that an apply must not repeat."""
    store.append(entry("a", origin=("141002001", 3, 17)))
    asked = [OriginKey("141002001", 3, number, Form.FULL) for number in range(1, 600)]
    with read_transaction(store.engine) as connection:
        assert store.log.known(connection, asked) == {asked[16]}
        assert store.log.known(connection, []) == frozenset()


def test_a_rollback_leaves_no_entry_and_no_number(store: LogStore) -> None:
    """An entry lives and dies with the transaction it stands for."""
    with store.engine.connect() as connection:
        store.log.append(connection, [entry("lost")])
        connection.rollback()
    store.append(entry("kept"))
    assert store.durable_head() == 1
    assert store.keys() == ["kept"]


def test_reads_a_lane_and_tells_how_far_it_looked(store: LogStore) -> None:
    """A slice that ends the lane reaches the head of the whole log, not the lane's last entry."""
    lanes = [Lane.BULK, Lane.CARE, Lane.BULK, Lane.IDENTITY, Lane.CARE, Lane.BULK]
    for number, lane in enumerate(lanes, start=1):
        store.append(entry(str(number), lane))
    store.durable_head()
    care = store.read(0, Lane.CARE)
    assert [key_of(e) for e in care.entries] == ["2", "5"]
    assert (care.scanned_to, care.head) == (6, 6)
    assert [key_of(e) for e in store.read(2, Lane.BULK).entries] == ["3", "6"]
    assert [key_of(e) for e in store.read(3).entries] == ["4", "5", "6"]
    nothing = store.read(0, Lane.CONTROL)
    assert (nothing.entries, nothing.scanned_to) == ((), 6)


def test_a_slice_stops_at_its_limits(store: LogStore) -> None:
    """Bytes, entries and up_to each end a slice, and the next one goes on from scanned_to."""
    store.append(*(entry(str(number), padding=100) for number in range(10)))
    store.durable_head()
    size = len(entry("0", padding=100).rows)
    by_bytes = store.read(bytes_max=2 * size + 1)
    assert (len(by_bytes.entries), by_bytes.scanned_to, by_bytes.head) == (3, 3, 10)
    by_count = store.read(3, entries_max=4)
    assert (len(by_count.entries), by_count.scanned_to) == (4, 7)
    bounded = store.read(3, Lane.BULK, up_to=5)
    assert (len(bounded.entries), bounded.scanned_to, bounded.head) == (2, 5, 5)
    assert len(store.read(7).entries) == 3


def test_an_entry_larger_than_the_limit_comes_alone(store: LogStore) -> None:
    """A reader with a small window still makes progress."""
    store.append(entry("large", padding=5000), entry("small"))
    store.durable_head()
    assert [key_of(e) for e in store.read(bytes_max=10).entries] == ["large"]


def test_a_large_payload_is_not_cut(store: LogStore) -> None:
    """A MySQL BLOB would end at 64 KiB."""
    store.append(entry("large", padding=200_000))
    store.durable_head()
    assert store.read().entries[0].rows == entry("large", padding=200_000).rows


def test_an_empty_log_reads_as_empty(store: LogStore) -> None:
    """Nothing appended: head 0, and a reader ahead of it is not sent back."""
    assert store.read().head == 0
    assert store.read(5).scanned_to == 5


def test_what_is_not_numbered_is_not_read(store: LogStore) -> None:
    """What an earlier release left is counted, and can be read for a backup, until a start."""
    store.leave_unnumbered(entry("a"), entry("b"))
    assert store.keys() == []
    with read_transaction(store.engine) as connection:
        assert store.log.left_unnumbered(connection) == 2
        assert [key_of(e) for e in store.log.left_unnumbered_entries(connection)] == ["a", "b"]
        assert store.log.head(connection) == 0
    started = store.again()
    with read_transaction(started.engine) as connection:
        assert started.log.left_unnumbered(connection) == 0
        assert started.log.head(connection) == 2


def test_a_lane_that_is_pruned_to_its_end_reaches_to_where_the_log_begins(store: LogStore) -> None:
    """How far it went nobody knows, so whoever stands before that place must look."""
    store.append(entry("a"), entry("b"))
    store.append(entry("c", Lane.CARE))
    store.durable_head()
    with write_transaction(store.engine) as connection:
        store.log.prune(connection, 2)
    with read_transaction(store.engine) as connection:
        assert store.log.lane_heads(connection, 3) == {
            Lane.CONTROL: 2,
            Lane.CARE: 3,
            Lane.IDENTITY: 2,
            Lane.BULK: 2,
        }


def test_no_clear_text_lies_in_the_table(store: LogStore) -> None:
    """The payload column holds what the sealer made."""
    store.append(entry("李建国-marker"))
    with read_transaction(store.engine) as connection:
        [payload] = connection.execute(select(store.tables.change_log.c.payload)).scalars()
    assert b"marker" not in bytes(payload)


def test_a_payload_cannot_be_moved_to_another_entry(store: LogStore) -> None:
    """The seal is bound to the entry: a swapped payload does not open."""
    store.append(entry("a"), entry("b"))
    store.durable_head()
    t = store.tables.change_log
    with store.engine.begin() as connection:
        other = connection.execute(select(t.c.payload).where(t.c.sequence == 2)).scalar_one()
        connection.execute(update(t).where(t.c.sequence == 1).values(payload=other))
    with pytest.raises(SealBrokenError):
        store.read()


def test_pruning_is_bounded_and_never_a_silent_gap(store: LogStore) -> None:
    """Entries go in pieces; a reader behind is told, one at the edge reads on."""
    store.append(*(entry(str(number)) for number in range(10)))
    store.durable_head()
    with store.engine.begin() as connection:
        assert store.log.prune(connection, 6, entries_max=4) == 4
        assert store.log.prune(connection, 6, entries_max=4) == 2
        assert store.log.prune(connection, 6, entries_max=4) == 0
        assert store.log.pruned_to(connection) == 6
    with pytest.raises(LogPrunedError):
        store.read(5, Lane.CARE)
    assert [e.sequence for e in store.read(6).entries] == [7, 8, 9, 10]
    store.append(entry("next"))
    assert store.durable_head() == 11


def test_pruning_leaves_what_has_no_number(store: LogStore) -> None:
    """Whatever is asked, only numbered entries go."""
    store.append(entry("a"))
    store.leave_unnumbered(entry("waiting"))
    with store.engine.begin() as connection:
        assert store.log.prune(connection, 1000) == 1
    started = store.again()
    assert started.durable_head() == 2
    assert [key_of(e) for e in started.read(1).entries] == ["waiting"]


def test_one_append_is_one_insert(store: LogStore) -> None:
    """However many entries a transaction has, they cost the counter and one statement."""
    before = _statements(store)
    with store.engine.begin() as connection:
        store.log.append(connection, [entry(str(number)) for number in range(50)])
    assert [each.split()[0].upper() for each in before] == ["UPDATE", "INSERT"]
    with read_transaction(store.engine) as connection:
        rows = select(func.count()).select_from(store.tables.change_log)
        assert connection.execute(rows).scalar_one() == 50


def _statements(store: LogStore) -> list[str]:
    """The statements that the store's engine executes from now on."""
    seen: list[str] = []

    def note(*args: object) -> None:
        if not str(args[2]).startswith(("BEGIN", "PRAGMA")):
            seen.append(str(args[2]))

    event.listen(store.engine, "before_cursor_execute", note)
    return seen
