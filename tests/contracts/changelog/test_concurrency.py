"""Many writers at once, killed writers, and what the counter's lock is for."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from tests.contracts.changelog.stores import LogStore, entry
from tests.contracts.changelog.writers import Reader, Writers
from tests.databases import Database

ROOT = Path(__file__).parents[3]


def test_a_reader_misses_nothing_under_eight_writers(store: LogStore) -> None:
    """Polling by cursor while eight threads commit and abort: every acknowledged entry, once.

    What a reader takes from memory is under the same contract.
    """
    writers, reader = Writers(store), Reader(store)
    writers.run(reader)
    assert writers.aborted
    assert reader.from_memory
    assert sorted(reader.keys) == sorted(writers.acknowledged)
    assert reader.sequences == list(range(1, len(writers.acknowledged) + 1))


def test_numbers_commit_in_their_order(mariadb_database: Database) -> None:
    """While one append is open nobody else gets a number, so none is seen before a lower one.

    The schedule that an auto-increment loses: the first writer commits late, and a reader polls in
    between. It waits for no writer, and the number of one that rolled back is given again.
    """
    store = LogStore(mariadb_database)
    reader = Reader(store)
    counter = select(store.tables.sequencer).with_for_update(nowait=True)
    for end in ("rollback", "commit"):
        with store.engine.connect() as first, store.engine.connect() as second:
            store.log.append(first, [entry(f"first, {end}")])
            with pytest.raises(OperationalError):
                second.execute(counter)
            second.rollback()
            reader.step()
            assert reader.keys == []
            getattr(first, end)()
            second.execute(counter)
            second.rollback()
    store.append(entry("second"))
    reader.step()
    assert reader.keys == ["first, commit", "second"]
    assert reader.sequences == [1, 2]


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
    head = restarted.durable_head()
    keys = restarted.keys()
    assert set(told) <= set(keys)
    assert restarted.sequences() == list(range(1, head + 1))
    assert len(keys) == len(set(keys)) == head
