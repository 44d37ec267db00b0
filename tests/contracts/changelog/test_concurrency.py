"""Many writers at once, killed writers, and the loss that numbering after the commit prevents."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.exc import OperationalError

from replication.changelog import read_transaction
from tests.contracts.changelog.stores import LogStore, entry
from tests.contracts.changelog.writers import Reader, Writers
from tests.databases import Database

ROOT = Path(__file__).parents[3]


def test_a_reader_misses_nothing_under_eight_writers(store: LogStore) -> None:
    """Polling by cursor while eight threads commit and abort: every acknowledged entry, once."""
    writers, reader = Writers(store), Reader(store)
    writers.run(reader)
    assert writers.aborted
    assert sorted(reader.keys) == sorted(writers.acknowledged)
    assert reader.sequences == list(range(1, len(writers.acknowledged) + 1))


def test_a_transaction_that_commits_late_is_not_lost(
    mariadb_database: Database,
) -> None:
    """The classic schedule: the lower row id commits after the higher one was read.

    A reader that takes the auto-increment id for a cursor loses the row, which shows that this
    schedule would catch such a log; the reader of sequences gets both.
    """
    store = LogStore(mariadb_database, "relay")
    naive, reader = _NaiveReader(store), Reader(store)
    with store.engine.connect() as early, store.engine.connect() as late:
        store.log.append(early, [entry("early")])
        store.log.append(late, [entry("late")])
        late.commit()
        naive.step()
        reader.step()
        early.commit()
    naive.step()
    reader.step()
    assert naive.seen == 1
    assert reader.keys == ["late", "early"]
    assert reader.sequences == [1, 2]


def test_the_counter_makes_numbers_commit_in_order(mariadb_database: Database) -> None:
    """While one append is open nobody else gets a number, so none becomes visible out of order."""
    store = LogStore(mariadb_database, "counter")
    reader = Reader(store)
    row = select(store.tables.sequencer).with_for_update(nowait=True)
    with store.engine.connect() as first, store.engine.connect() as second:
        store.log.append(first, [entry("first")])
        with pytest.raises(OperationalError):
            second.execute(row)
        second.rollback()
        first.commit()
        second.execute(row)
        second.rollback()
    store.append(entry("second"))
    reader.step()
    assert reader.keys == ["first", "second"]


def test_numbering_does_not_wait_for_open_transactions(mariadb_database: Database) -> None:
    """An append that stays open delays its own entries and nobody else's."""
    store = LogStore(mariadb_database, "relay")
    with store.engine.connect() as slow:
        store.log.append(slow, [entry("slow")])
        store.append(entry("quick"))
        assert store.number() == 1
        assert store.keys() == ["quick"]
        slow.commit()
    assert store.number() == 2


def test_killed_writers_lose_nothing_they_were_told(store: LogStore) -> None:
    """Processes that append and are killed by SIGKILL: each key they printed is in the log."""
    told: list[str] = []
    for name in ("a", "b"):
        writer = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.contracts.changelog.writers",
                store.database.url,
                store.kind,
                name,
            ],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        with writer:
            assert writer.stdout is not None
            told.extend(line.strip() for line in islice(writer.stdout, 20))
            writer.kill()
            # The last line may have been cut by the kill.
            rest = writer.stdout.read()
            told.extend(rest[: rest.rfind("\n") + 1].split())
    restarted = store.again()
    head = restarted.number()
    keys = restarted.keys()
    assert set(told) <= set(keys)
    assert restarted.sequences() == list(range(1, head + 1))
    assert len(keys) == len(set(keys)) == head


class _NaiveReader:
    """Polls `entry_id > last`, which looks right and is not."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._last = 0
        self.seen = 0

    def step(self) -> None:
        with read_transaction(self._store.engine) as connection:
            for entry_id in self._after(connection):
                self.seen += 1
                self._last = entry_id

    def _after(self, connection: Connection) -> list[int]:
        t = self._store.tables.change_log
        later = select(t.c.entry_id).where(t.c.entry_id > self._last).order_by(t.c.entry_id)
        return list(connection.execute(later).scalars())
