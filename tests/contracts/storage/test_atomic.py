"""Rows, their log entries and the peer's cursor are one transaction: a failure leaves none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import pytest
from sqlalchemy import Connection, event, select, update

from node.storage import CHANGELOG
from node.storage.tables import REPLICATED
from replication.changelog import SequencerFencedError, read_transaction, write_transaction
from replication.core.config import PeerRole
from replication.core.model import Lane, Version
from tests.contracts.storage.region import (
    TOWNSHIP,
    VILLAGE,
    NodeStore,
    Region,
    bundle,
    change,
    log_entry,
    observation,
    person,
    send,
)


class _CommitFailedError(Exception):
    """Stands for whatever ends the process or the connection before the commit."""


@contextmanager
def _the_log_refuses(node: NodeStore) -> Iterator[type[Exception]]:
    """The rows have been written when the counter finds that it is another's."""

    def life(epoch: int) -> None:
        with write_transaction(node.engine) as connection:
            connection.execute(update(CHANGELOG.sequencer).values(store_epoch=epoch))

    life(2)
    yield SequencerFencedError
    life(1)


@contextmanager
def _the_commit_fails(node: NodeStore) -> Iterator[type[Exception]]:
    """Rows and entries have been written."""

    def fail(_connection: Connection) -> None:
        raise _CommitFailedError

    event.listen(node.engine, "commit", fail)
    yield _CommitFailedError
    event.remove(node.engine, "commit", fail)


Failure = Callable[[NodeStore], AbstractContextManager[type[Exception]]]

FAILURES: Final = [
    pytest.param(_the_log_refuses, id="between rows and log"),
    pytest.param(_the_commit_fails, id="after the log"),
]


def _stored(node: NodeStore) -> set[tuple[str, str, Version]]:
    """Table, id and version of every row."""
    found = set()
    with read_transaction(node.engine) as connection:
        for name, t in REPLICATED.items():
            query = select(t.c.row_id, t.c.version_epoch, t.c.version_number)
            for row_id, epoch, number in connection.execute(query):
                found.add((name, str(row_id), Version(epoch, number)))
    return found


def _logged(node: NodeStore) -> set[tuple[str, str, Version]]:
    """The same of every row that the log names."""
    return {(row.table, row.row_id, row.version) for row in node.changes()}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_bundle_is_stored_and_logged_or_neither(region: Region, failure: Failure) -> None:
    """And asked for again it is stored once."""
    village = region.node(VILLAGE)
    known = village.storage.put_bundle(village.caller(), bundle("r-0", person()))
    before = _stored(village)
    asked = bundle("r-1", person("142601197003032222"), observation(known.resident_ids[0]))

    with failure(village) as expected, pytest.raises(expected):
        village.storage.put_bundle(village.caller(), asked)

    assert _stored(village) == _logged(village) == before
    assert village.durable_head() == village.log.tail.head == len(village.entries())
    village.storage.put_bundle(village.caller(), asked)
    village.storage.put_bundle(village.caller(), asked)
    assert _stored(village) == _logged(village)
    assert len(_stored(village)) > len(before) + 1
    assert len(village.changes()) == len(_logged(village))


@pytest.mark.parametrize("failure", FAILURES)
def test_a_batch_is_applied_relayed_and_counted_or_nothing(
    region: Region, failure: Failure
) -> None:
    """The cursor stays with the rows: what the peer sends again is applied as if it were new."""
    township = region.node(TOWNSHIP)
    send(township, VILLAGE, PeerRole.CHILD, log_entry(change()))
    before = _stored(township)
    second = log_entry(change(row=2), change(version=(1, 2)), sequence=2)

    with failure(township) as expected, pytest.raises(expected):
        send(township, VILLAGE, PeerRole.CHILD, second)

    assert _stored(township) == _logged(township) == before
    assert township.cursor(VILLAGE, Lane.BULK).number == 1
    assert township.durable_head() == township.log.tail.head == 1
    outcome = send(township, VILLAGE, PeerRole.CHILD, second)
    assert (outcome.applied, outcome.stale) == (2, 0)
    assert township.cursor(VILLAGE, Lane.BULK).number == 2
    assert _stored(township) == {
        ("observations", change().row_id, Version(1, 2)),
        ("observations", change(row=2).row_id, Version(1, 1)),
    }
    assert _logged(township) == _stored(township) | before
