"""One contract for both ways of numbering: contiguous, only what has committed, one owner."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from replication.changelog import SequencerFencedError, read_transaction
from tests.contracts.changelog.stores import NODE, SEQUENCERS, LogStore, entry


def test_numbers_are_contiguous_over_many_passes(store: LogStore) -> None:
    """More entries than one pass takes, with holes in the row ids, get 1, 2, 3 and so on."""
    for number in range(30):
        store.append(entry(f"{number}a"), entry(f"{number}b"))
        with store.engine.connect() as connection:
            store.log.append(connection, [entry("aborted")])
            connection.rollback()
    assert store.number() == 60
    assert store.sequences() == list(range(1, 61))
    assert store.keys() == [f"{number}{half}" for number in range(30) for half in "ab"]


def test_a_transactions_entries_keep_their_order(store: LogStore) -> None:
    """Numbers follow the order of appending within a transaction and between them."""
    store.append(entry("a"), entry("b"), entry("c"))
    store.append(entry("d"))
    store.number()
    assert store.keys() == ["a", "b", "c", "d"]


def test_numbering_nothing_changes_nothing(store: LogStore) -> None:
    """A call without new entries returns the same head."""
    assert store.number() == 0
    store.append(entry("a"))
    assert [store.number(), store.number()] == [1, 1]


def test_what_committed_before_a_crash_is_numbered_after_it(store: LogStore) -> None:
    """The process ended between the commit and the number: the next start numbers it."""
    store.append(entry("a"))
    store.number()
    store.append(entry("b"), entry("c"))
    restarted = store.again()
    assert restarted.number() == 3
    assert restarted.keys() == ["a", "b", "c"]
    restarted.append(entry("d"))
    assert restarted.number() == 4


def test_the_sequence_goes_on_in_a_new_life_of_the_store(store: LogStore) -> None:
    """After a restore the epoch is new and the numbers continue, so no (epoch, number) recurs."""
    store.append(entry("a"), entry("b"))
    store.number()
    restored = store.again(store_epoch=2)
    restored.append(entry("c"))
    assert restored.number() == 3
    origins = [(e.origin_epoch, e.origin_sequence) for e in restored.read().entries]
    assert origins == [(1, 1), (1, 2), (2, 3)]


def test_an_entry_numbered_after_a_restore_is_of_the_new_life(relay_store: LogStore) -> None:
    """The former life may have numbered it otherwise: its origin is where it got its number."""
    relay_store.append(entry("waiting"), entry("relayed", origin=("141002001", 1, 9)))
    restored = relay_store.again(store_epoch=2)
    t = restored.tables.change_log
    with read_transaction(restored.engine) as connection:
        rows = connection.execute(
            select(
                t.c.epoch, t.c.sequence, t.c.origin_node, t.c.origin_epoch, t.c.origin_sequence
            ).order_by(t.c.sequence)
        ).all()
    assert [tuple(row) for row in rows] == [(2, 1, NODE, 2, 1), (2, 2, "141002001", 1, 9)]


@pytest.mark.parametrize("other", sorted(SEQUENCERS))
def test_the_way_of_numbering_may_change_between_starts(store: LogStore, other: str) -> None:
    """What one way left unnumbered, the other numbers first."""
    store.append(entry("a"), entry("b"))
    changed = store.again(sequencer=other)
    changed.append(entry("c"))
    assert changed.number() == 3
    assert changed.keys() == ["a", "b", "c"]


def test_an_older_life_of_the_store_cannot_take_over(store: LogStore) -> None:
    """A process that still believes in the store before the restore is refused at its start."""
    store.again(store_epoch=2)
    with pytest.raises(SequencerFencedError):
        store.again(store_epoch=1)


def test_a_sequencer_of_an_older_life_is_fenced(store: LogStore) -> None:
    """It was running when a newer life took over: it neither numbers nor appends numbers."""
    store.append(entry("before"))
    store.number()
    newer = store.again(store_epoch=2)
    with pytest.raises(SequencerFencedError):
        store.number()
    newer.append(entry("after"))
    assert newer.number() == 2
    assert newer.keys() == ["before", "after"]


def test_a_counter_of_an_older_life_appends_nothing(counter_store: LogStore) -> None:
    """Its transaction fails, row and entry together."""
    counter_store.again(store_epoch=2)
    with pytest.raises(SequencerFencedError):
        counter_store.append(entry("late"))
    assert counter_store.keys() == []


def test_the_last_to_take_over_numbers(relay_store: LogStore) -> None:
    """Two processes on one store: the first finds its fence gone and stops, nothing is doubled."""
    relay_store.append(entry("a"))
    second = relay_store.again()
    relay_store.append(entry("b"))
    with pytest.raises(SequencerFencedError):
        relay_store.number()
    assert second.number() == 2
    with pytest.raises(SequencerFencedError):
        relay_store.number()
    assert second.sequences() == [1, 2]
