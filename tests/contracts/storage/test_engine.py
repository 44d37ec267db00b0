"""A database that could lose what it acknowledged is refused, with what to change."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, text

from node.security.sealing import new_data_key
from node.storage import CHANGELOG, EngineLimits, StoredKeys, check_durability, migrate, open_engine
from node.storage.engine import unsafe_settings
from node.storage.errors import DurabilityError, StorageBusyError
from node.storage.transactions import ChangedMeanwhileError, Transactions
from replication.changelog import LinkState, read_transaction
from tests.contracts.storage.region import FakeClock
from tests.databases import Database
from tests.services.mariadb import MariaDBDatabases

SAFE = {
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_doublewrite": "ON",
    "innodb_flush_method": "O_DIRECT",
    "default_storage_engine": "InnoDB",
}


def test_opens_a_durable_database(database: Database) -> None:
    """Both, as we set them or as our configuration sets them."""
    engine = open_engine(database.url)

    check_durability(engine)
    engine.dispose()


def test_sqlite_is_wal_and_full_on_every_connection(tmp_path: Path) -> None:
    """The settings belong to a connection, so each new one gets them."""
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")

    with read_transaction(engine) as first, read_transaction(engine) as second:
        for connection in (first, second):
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    engine.dispose()


def test_refuses_sqlite_that_cannot_write_ahead(tmp_path: Path) -> None:
    """A database in memory has no log to write ahead; it would forget everything."""
    with pytest.raises(DurabilityError) as refused:
        open_engine("sqlite:///file:nothing?mode=memory&cache=shared&uri=true")

    assert refused.value.code == "DURABILITY_UNSAFE"
    assert "journal_mode is memory, expected wal" in refused.value.message
    assert "local disk" in refused.value.hint


def test_refuses_sqlite_that_another_hand_made_unsafe(tmp_path: Path) -> None:
    """What is checked is what the database says, not what was asked of it."""
    engine = create_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.exec_driver_sql("PRAGMA synchronous = NORMAL")

    with pytest.raises(DurabilityError, match="synchronous is 1, expected 2 or 3"):
        check_durability(engine)
    engine.dispose()


@pytest.mark.mariadb
def test_refuses_a_server_that_flushes_once_a_second(mariadb_database: Database) -> None:
    """It survives every kill and loses hundreds of commits in a power cut."""
    admin = mariadb_database.engine
    with admin.connect() as connection:
        connection.execute(text("SET GLOBAL innodb_flush_log_at_trx_commit = 2"))
    try:
        with pytest.raises(DurabilityError) as refused:
            open_engine(mariadb_database.url)
    finally:
        with admin.connect() as connection:
            connection.execute(text("SET GLOBAL innodb_flush_log_at_trx_commit = 1"))

    assert "innodb_flush_log_at_trx_commit is 2, expected 1" in refused.value.message
    assert "set innodb_flush_log_at_trx_commit=1" in refused.value.hint


def test_each_unsafe_setting_is_named() -> None:
    """All together, each with value found, value expected and remedy; unknown ones are not safe."""
    assert unsafe_settings(SAFE) == ()
    assert unsafe_settings({**SAFE, "innodb_doublewrite": "DETECT_AND_RECOVER"}) == ()

    found = unsafe_settings(
        {
            "innodb_doublewrite": "OFF",
            "innodb_flush_method": "nosync",
            "default_storage_engine": "Aria",
            "debug_no_sync": "ON",
        }
    )

    assert [(each.setting, each.found) for each in found] == [
        ("innodb_flush_log_at_trx_commit", "missing"),
        ("innodb_doublewrite", "OFF"),
        ("innodb_flush_method", "nosync"),
        ("default_storage_engine", "Aria"),
        ("debug_no_sync", "ON"),
    ]
    assert all(each.expected and each.remedy for each in found)


def test_errors_of_the_database_tell_no_values(sqlite_database: Database) -> None:
    """Their text goes to a log."""
    engine = open_engine(sqlite_database.url)
    migrate(engine)

    with pytest.raises(Exception, match="NOT NULL") as failed, engine.begin() as connection:
        connection.execute(
            text("INSERT INTO residents (row_id, sex) VALUES (:id, :sex)"),
            {"id": "赵钱孙李", "sex": "male"},
        )

    assert "赵钱孙李" not in str(failed.value)
    engine.dispose()


def test_work_that_always_loses_ends_in_an_error(sqlite_database: Database) -> None:
    """Bounded attempts, and each is undone."""
    attempts = []

    def lose(connection: object) -> None:
        attempts.append(connection)
        raise ChangedMeanwhileError

    with pytest.raises(StorageBusyError) as error:
        Transactions(sqlite_database.engine, attempts=3).write(lose)

    assert len(attempts) == 3
    assert error.value.retryable


def test_data_keys_are_kept_wrapped_and_one_is_current(database: Database) -> None:
    """A new key seals from now on; the others only open."""
    migrate(database.engine)
    clock = FakeClock()
    keys = StoredKeys(database.engine, clock)
    assert keys.load() == ()
    random_bytes = random.Random(1).randbytes
    first, second = (new_data_key("1410", b"k" * 32, random_bytes) for _ in range(2))

    keys.add_current(first)
    clock.ms += 1
    keys.add_current(second)

    held = keys.load()
    assert [(key.key_id, key.wrapped, key.state) for key in held] == [
        (first.key_id, first.wrapped, "retired"),
        (second.key_id, second.wrapped, "current"),
    ]


@pytest.mark.mariadb
def test_a_connection_is_given_back_without_a_transaction(
    mariadb_databases: MariaDBDatabases,
) -> None:
    """Whether it was committed, rolled back, or its commit never began."""
    with mariadb_databases.fresh() as url:
        engine = open_engine(url, EngineLimits(connections=1))
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE t (a INT)"))

        def die(_connection: object) -> None:
            raise KeyboardInterrupt

        event.listen(engine, "commit", die)
        with suppress(KeyboardInterrupt), engine.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (1)"))
        event.remove(engine, "commit", die)
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO t VALUES (2)"))
        with suppress(KeyError), engine.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (3)"))
            raise KeyError
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (4)"))
        with engine.begin() as connection:
            assert connection.execute(text("SELECT a FROM t")).scalars().all() == [4]
        engine.dispose()


def test_an_update_that_changes_nothing_counts_its_row(database: Database) -> None:
    """A conditional update is judged by the rows it met, not by those it changed."""
    engine = open_engine(database.url, EngineLimits(connections=2))
    migrate(engine)
    links = LinkState(CHANGELOG)

    for _ in range(2):
        with engine.begin() as connection:
            links.save_peer_epoch(connection, "141002", 1, "aa")

    engine.dispose()
