"""Numbers are contiguous, only for what has committed, and of the store's present life."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
from sqlalchemy import Connection, select

from replication.changelog import SequencerFencedError, read_transaction, write_transaction
from tests.contracts.changelog.stores import NODE, LogStore, entry


def test_numbers_are_contiguous(store: LogStore) -> None:
    """What rolls back gives its numbers back: those that stay are 1, 2, 3 and so on."""
    for number in range(30):
        store.append(entry(f"{number}a"), entry(f"{number}b"))
        with store.engine.connect() as connection:
            store.log.append(connection, [entry("aborted")])
            connection.rollback()
    assert store.durable_head() == 60
    assert store.sequences() == list(range(1, 61))
    assert store.keys() == [f"{number}{half}" for number in range(30) for half in "ab"]


def test_a_transactions_entries_keep_their_order(store: LogStore) -> None:
    """Numbers follow the order of appending within a transaction and between them."""
    store.append(entry("a"), entry("b"), entry("c"))
    store.append(entry("d"))
    store.durable_head()
    assert store.keys() == ["a", "b", "c", "d"]


def test_asking_for_the_head_changes_nothing(store: LogStore) -> None:
    """Without new entries it is the same head."""
    assert store.durable_head() == 0
    store.append(entry("a"))
    assert [store.durable_head(), store.durable_head()] == [1, 1]


def test_a_restart_goes_on_where_it_was(store: LogStore) -> None:
    """A commit has its number, whether or not anybody asked for the head after it."""
    store.append(entry("a"))
    store.durable_head()
    store.append(entry("b"), entry("c"))
    restarted = store.again()
    assert restarted.durable_head() == 3
    assert restarted.keys() == ["a", "b", "c"]
    restarted.append(entry("d"))
    assert restarted.durable_head() == 4


def test_the_sequence_goes_on_in_a_new_life_of_the_store(store: LogStore) -> None:
    """After a restore the epoch is new and the numbers continue, so no (epoch, number) recurs."""
    store.append(entry("a"), entry("b"))
    store.durable_head()
    restored = store.again(store_epoch=2)
    restored.append(entry("c"))
    assert restored.durable_head() == 3
    origins = [(e.origin_epoch, e.origin_sequence) for e in restored.read().entries]
    assert origins == [(1, 1), (1, 2), (2, 3)]


def test_an_older_life_of_the_store_cannot_take_over(store: LogStore) -> None:
    """A process that still believes in the store before the restore is refused at its start."""
    store.again(store_epoch=2)
    with pytest.raises(SequencerFencedError):
        store.again(store_epoch=1)


def test_a_sequencer_of_an_older_life_is_fenced(store: LogStore) -> None:
    """It was running when a newer life took over: its append fails, row and entry together."""
    store.append(entry("before"))
    newer = store.again(store_epoch=2)
    with pytest.raises(SequencerFencedError):
        store.durable_head()
    with pytest.raises(SequencerFencedError):
        store.append(entry("late"))
    newer.append(entry("after"))
    assert newer.durable_head() == 2
    assert newer.keys() == ["before", "after"]


def test_what_an_earlier_release_left_is_numbered_first(store: LogStore) -> None:
    """It numbered after the commit. More than one pass, with holes in the row ids, in order."""
    keys = [str(number) for number in range(1205)]
    store.leave_unnumbered(*(entry(key) for key in keys[:600]))
    store.append(entry("numbered"))
    store.leave_unnumbered(*(entry(key) for key in keys[600:]))
    started = store.again()
    started.append(entry("new"))
    assert started.durable_head() == 1207
    assert started.keys() == ["numbered", *keys, "new"]
    assert started.sequences() == list(range(1, 1208))


def test_what_was_left_before_a_restore_is_of_the_new_life(store: LogStore) -> None:
    """The former life may have numbered it otherwise: its origin is where it got its number."""
    store.leave_unnumbered(entry("waiting"), entry("relayed", origin=("141002001", 1, 9)))
    restored = store.again(store_epoch=2)
    t = restored.tables.change_log
    with read_transaction(restored.engine) as connection:
        rows = connection.execute(
            select(
                t.c.epoch, t.c.sequence, t.c.origin_node, t.c.origin_epoch, t.c.origin_sequence
            ).order_by(t.c.sequence)
        ).all()
    assert [tuple(row) for row in rows] == [(2, 1, NODE, 2, 1), (2, 2, "141002001", 1, 9)]


def test_two_starts_at_once_number_it_once(store: LogStore) -> None:
    """The one that was overtaken finds its fence gone, and fails."""
    store.leave_unnumbered(entry("a"), entry("b"))
    begun = 0

    def overtaken() -> AbstractContextManager[Connection]:
        nonlocal begun
        begun += 1
        if begun == 2:
            store.again()
        return write_transaction(store.engine)

    with pytest.raises(SequencerFencedError):
        store.sequencer.take_over(overtaken)
    assert store.sequences() == [1, 2]
