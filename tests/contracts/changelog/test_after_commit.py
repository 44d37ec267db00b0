"""What is done after a commit is done for that commit, whoever has its connection by then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from replication.changelog import (
    ChangeLog,
    LogTail,
    after_commit,
    prepare_engine,
    write_transaction,
)
from tests.contracts.changelog.stores import NODE, FakeSealer, LogStore, entry, key_of
from tests.databases import Database

_PATIENCE_S: Final = 30.0


class _OneConnection(QueuePool):
    """A pool of one connection; says when it is in the pool again, before its giver goes on."""

    returned: Callable[[], None] | None = None

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        super()._do_return_conn(record)
        if self.returned is not None:
            self.returned()


@pytest.fixture
def narrow(database: Database) -> Iterator[Engine]:
    """The store's database behind one connection, which is open already."""
    engine = prepare_engine(
        create_engine(database.url, poolclass=_OneConnection, pool_size=1, max_overflow=0)
    )
    engine.connect().close()
    yield engine
    engine.dispose()


def _keys(tail: LogTail, after: int, up_to: int) -> list[str] | None:
    part = tail.read(after=after, lane=None, bytes_max=1 << 20, up_to=up_to)
    return None if part is None else [key_of(each) for each in part.entries]


def test_a_connection_passed_on_takes_no_others_work_along(store: LogStore, narrow: Engine) -> None:
    """The first write is held once it has given its connection back; the second has it and wrote.

    What the first does after its commit is its own alone. Done for the second, which is rolled
    back, it would leave in memory an entry under a number that the third is given.
    """
    tail = LogTail()
    log = ChangeLog(
        store.tables,
        node_id=NODE,
        store_epoch=1,
        sealer=FakeSealer(),
        numbering=store.sequencer,
        tail=tail,
    )
    is_back, second_wrote = threading.Event(), threading.Event()

    def write(key: str) -> None:
        with write_transaction(narrow) as connection:
            log.append(connection, [entry(key)])

    def hold() -> None:
        if not is_back.is_set():
            is_back.set()
            assert second_wrote.wait(_PATIENCE_S)

    assert isinstance(narrow.pool, _OneConnection)
    narrow.pool.returned = hold
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(write, "first")
        try:
            assert is_back.wait(_PATIENCE_S)
            with suppress(KeyError), write_transaction(narrow) as connection:
                log.append(connection, [entry("rolled back")])
                second_wrote.set()
                first.result(_PATIENCE_S)
                assert tail.head == 1
                raise KeyError
        finally:
            second_wrote.set()
    assert _keys(tail, 0, 1) == ["first"]
    assert _keys(tail, 1, 2) is None
    write("third")
    assert _keys(tail, 0, 2) == ["first", "third"]
    assert store.keys() == ["first", "third"]


def test_what_was_rolled_back_or_not_committed_is_not_done(narrow: Engine) -> None:
    """Neither then, nor by the connection's next transaction, nor twice."""
    done: list[str] = []

    def later(said: str) -> Callable[[], None]:
        return lambda: done.append(said)

    with suppress(KeyError), write_transaction(narrow) as connection:
        after_commit(connection, later("rolled back"))
        raise KeyError
    with narrow.begin() as connection:
        after_commit(connection, later("begun elsewhere"))
    with write_transaction(narrow) as connection:
        after_commit(connection, later("one"))
        after_commit(connection, later("two"))
        assert done == []
    with write_transaction(narrow):
        pass
    assert done == ["one", "two"]
