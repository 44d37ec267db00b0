"""What the log keeps in memory of its own commits is what the database would give."""

from __future__ import annotations

from contextlib import suppress

import pytest

from replication.changelog import ChangeLog, LogTail, read_transaction, write_transaction
from replication.core.model import Lane
from tests.contracts.changelog.stores import NODE, FakeSealer, LogStore, entry


@pytest.fixture
def tail() -> LogTail:
    """An empty one."""
    return LogTail()


def _log(store: LogStore, tail: LogTail) -> ChangeLog:
    return ChangeLog(
        store.tables,
        node_id=NODE,
        store_epoch=1,
        sealer=FakeSealer(),
        numbering=store.sequencer,
        tail=tail,
    )


def test_memory_and_database_give_the_same_entries(store: LogStore, tail: LogTail) -> None:
    """Authored here and relayed ones, number and origin included."""
    log = _log(store, tail)
    with write_transaction(store.engine) as connection:
        log.append(connection, [entry("a"), entry("b", origin=("141002001", 1, 9))])
        assert tail.head == 0
    with read_transaction(store.engine) as connection:
        stored = log.read(connection, after=0, lane=None, bytes_max=1 << 20, up_to=2)
        ends = log.lane_heads(connection, 2)
    assert tail.head == 2
    assert tail.read(after=0, lane=None, bytes_max=1 << 20, up_to=2) == stored
    assert {lane: end for lane, end in ends.items() if end} == tail.lanes_after(0, 2)
    assert set(ends) == set(Lane)


def test_what_was_rolled_back_is_not_kept(store: LogStore, tail: LogTail) -> None:
    """The number it had is given again; an aborted connection leaves nothing to the next one."""
    log = _log(store, tail)
    with suppress(KeyError), write_transaction(store.engine) as connection:
        log.append(connection, [entry("aborted")])
        raise KeyError
    with store.engine.connect() as connection:
        log.append(connection, [entry("dropped")])
    with write_transaction(store.engine) as connection:
        log.append(connection, [entry("kept")])
    part = tail.read(after=0, lane=None, bytes_max=1 << 20, up_to=1)
    assert part is not None
    assert [each.sequence for each in part.entries] == [1]
    assert b"kept" in part.entries[0].rows
