"""Statements sent together: in order, all of them, with the numbers they were promised."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, bindparam, create_engine, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from replication.changelog import (
    ChangeLog,
    DuplicateEntryError,
    LogTail,
    SequencerFencedError,
    Together,
    prepare_engine,
    write_transaction,
)
from replication.changelog.together import SEVERAL_STATEMENTS
from tests.contracts.changelog.stores import HOME, NODE, FakeSealer, LogStore, entry, key_of
from tests.databases import Database


@pytest.fixture
def packets(database: Database) -> Iterator[Engine]:
    """The store's database, on MariaDB with packets of several statements."""
    flags = {} if database.kind == "sqlite" else {"client_flag": SEVERAL_STATEMENTS}
    engine = prepare_engine(create_engine(database.url, connect_args=flags))
    yield engine
    engine.dispose()


def _log(store: LogStore, tail: LogTail | None = None, epoch: int = 1) -> ChangeLog:
    return ChangeLog(
        store.tables,
        node_id=NODE,
        store_epoch=epoch,
        sealer=FakeSealer(),
        numbering=store.sequencer,
        tail=tail,
    )


def _marks(store: LogStore, engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        found = connection.execute(select(store.tables.home_marks)).all()
    return {row.home_node: row.as_of_ms for row in found}


def test_statements_and_entries_go_together(store: LogStore, packets: Engine) -> None:
    """Values of every kind arrive as they are: quotes, percent signs, bytes, other scripts."""
    tail = LogTail()
    log = _log(store, tail)
    t = store.tables
    for number in range(2):
        with write_transaction(packets) as connection:
            together = Together(connection)
            together.add(insert(t.home_marks), [{"home_node": f"m{number}", "as_of_ms": number}])
            state = {"name": f"n{number}", "value": "a';--%s \\ 张三 %"}
            together.add(insert(t.store_state), [state, {"name": f"o{number}", "value": "b"}])
            log.append(connection, [entry(f"{number}-{n}") for n in range(3)], before=together)
    assert store.sequences() == [1, 2, 3, 4, 5, 6]
    assert store.keys() == [f"{number}-{n}" for number in (0, 1) for n in range(3)]
    part = tail.read(after=0, lane=None, bytes_max=1 << 20, up_to=6)
    assert part is not None
    assert part.entries == store.read().entries
    with packets.connect() as connection:
        values = connection.execute(select(t.store_state.c.value)).scalars().all()
    assert sorted(values) == sorted(["a';--%s \\ 张三 %", "b"] * 2)


def test_many_large_entries_keep_their_numbers(store: LogStore, packets: Engine) -> None:
    """More than one statement and one packet hold, after others have raised the row ids."""
    log = _log(store)
    store.append(*(entry(f"before-{n}") for n in range(20)))
    large = [entry(f"{n}-{'x' * 200_000}") for n in range(15)]
    with write_transaction(packets) as connection:
        log.append(connection, large)
    entries = store.read(bytes_max=1 << 30).entries
    assert [each.sequence for each in entries] == list(range(1, 36))
    assert [each.origin_sequence for each in entries] == list(range(1, 36))
    assert [key_of(each).partition("-")[0] for each in entries[20:]] == [str(n) for n in range(15)]


def test_a_statement_that_fails_ends_the_rest(store: LogStore, packets: Engine) -> None:
    """What had been carried out is known, what stands after it was not begun."""
    t = store.tables
    store.append(entry("first"))

    def write(*names: str, log: bool) -> None:
        with write_transaction(packets) as connection:
            together = Together(connection)
            for name in names:
                together.add(insert(t.home_marks), [{"home_node": name, "as_of_ms": 1}])
            double = entry("double", origin=(HOME, 1, 5))
            _log(store).append(connection, [double, double] if log else [double], before=together)

    with pytest.raises(IntegrityError):
        write("a", "a", "b", log=False)
    with pytest.raises(DuplicateEntryError):
        write("c", log=True)
    assert _marks(store, packets) == {}
    write("d", log=False)
    assert _marks(store, packets) == {"d": 1}
    assert store.sequences() == [1, 2]


@pytest.mark.parametrize("appended_before", [0, 3])
def test_another_life_of_the_store_stops_everything(
    store: LogStore, packets: Engine, appended_before: int
) -> None:
    """Nothing that was sent with the entries stays, and it is said for what it is.

    Also on a connection that still holds the head which its last append raised.
    """
    log = _log(store)
    with write_transaction(packets) as connection:
        log.append(connection, [entry(f"before-{n}") for n in range(appended_before)])
    store.again(store_epoch=2)
    t = store.tables

    def append_late() -> None:
        with write_transaction(packets) as connection:
            together = Together(connection)
            together.add(insert(t.home_marks), [{"home_node": "a", "as_of_ms": 1}])
            log.append(connection, [entry("late")], before=together)

    with pytest.raises(SequencerFencedError):
        append_late()
    assert _marks(store, packets) == {}
    assert store.keys() == [f"before-{n}" for n in range(appended_before)]


def test_without_entries_the_rest_is_sent(store: LogStore, packets: Engine) -> None:
    """Rows that were stale leave nothing for the log, and their cursor moves all the same."""
    t = store.tables
    with write_transaction(packets) as connection:
        connection.execute(text("SELECT 1"))
        together = Together(connection)
        together.add(insert(t.home_marks), [{"home_node": "a", "as_of_ms": 1}])
        later = t.home_marks.c.as_of_ms + bindparam("more")
        together.add(update(t.home_marks).values(as_of_ms=later), [{"more": 1}])
        _log(store).append(connection, [], before=together)
    assert _marks(store, packets) == {"a": 2}
