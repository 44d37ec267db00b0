"""Two private MariaDB servers, the second replicating from the first: durable, parallel apply.

The source has its binary log synced at each commit; both flush their redo log at each commit; the
replica applies in four threads, optimistically, by GTID, and writes no binary log of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pymysql
from sqlalchemy import make_url
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateIndex, CreateTable

from benchmarks.places import server_configuration
from node.mariadb_server import PrivateMariaDB
from node.storage.tables import REPLICATED

__all__ = ["NativePair", "native_pair"]

_DATABASE: Final = "beside"
_WAIT_S: Final = 120
_SOURCE: Final = """\
log-bin = source
binlog-format = ROW
server-id = 1
"""
_REPLICA: Final = """\
skip-log-bin
server-id = 2
slave-parallel-threads = 4
slave-parallel-mode = optimistic
relay-log = relay
"""


@dataclass(frozen=True)
class NativePair:
    """Both servers' databases by URL, and their processes."""

    source: str
    replica: str
    pids: dict[str, int]

    def wait_until_applied(self) -> None:
        """Return when the replica has everything that the source has committed.

        Raises:
            RuntimeError: It did not get there.
        """
        with _connected(self.source) as source, _connected(self.replica) as replica:
            position = _one(source, "SELECT @@global.gtid_binlog_pos")
            late = _one(replica, f"SELECT MASTER_GTID_WAIT('{position}', {_WAIT_S})")
            if late != 0:
                raise RuntimeError("MariaDB's replica did not catch up")

    def stop_replica(self) -> None:
        """Stop replicating; the source goes on."""
        with _connected(self.replica) as replica, replica.cursor() as cursor:
            cursor.execute("STOP SLAVE")

    def start_replica(self) -> None:
        """Replicate from where it was stopped."""
        with _connected(self.replica) as replica, replica.cursor() as cursor:
            cursor.execute("START SLAVE")

    def rows(self) -> int:
        """Rows at the replica."""
        with _connected(self.replica) as replica:
            return int(_one(replica, "SELECT COUNT(*) FROM observations"))


@contextmanager
def native_pair(folder: Path) -> Iterator[NativePair]:
    """Start both, make the table, replicate; both are stopped on leaving."""
    with ExitStack() as held:
        source = held.enter_context(_server(folder / "source", "village", _SOURCE))
        replica = held.enter_context(_server(folder / "replica", "township", _REPLICA))
        pids = {"source": source.pid or 0, "replica": replica.pid or 0}
        pair = NativePair(
            source.create_database(_DATABASE), replica.create_database(_DATABASE), pids
        )
        for url in (pair.source, pair.replica):
            _make_table(url)
        _replicate(pair)
        yield pair


def _server(folder: Path, profile: str, more: str) -> PrivateMariaDB:
    """A server with the settings of a node of that profile, but for its binary log."""
    text = server_configuration(profile, folder)
    return PrivateMariaDB(folder, configuration=text.replace("skip-log-bin\n", more))


def _make_table(url: str) -> None:
    """The node's own table of observations, indexes included."""
    table, dialect = REPLICATED["observations"], mysql.dialect()
    with _connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(str(CreateTable(table).compile(dialect=dialect)))
        for index in table.indexes:
            cursor.execute(str(CreateIndex(index).compile(dialect=dialect)))


def _replicate(pair: NativePair) -> None:
    """Start where the source stands now: the user and the table exist on both already."""
    address = make_url(pair.source)
    with _connected(pair.source) as source, _connected(pair.replica) as replica:
        position = _one(source, "SELECT @@global.gtid_binlog_pos")
        for statement in (
            f"SET GLOBAL gtid_slave_pos = '{position}'",
            f"CHANGE MASTER TO MASTER_HOST='{address.host}', MASTER_PORT={address.port}",
            f"CHANGE MASTER TO MASTER_USER='{address.username}'",
            f"CHANGE MASTER TO MASTER_PASSWORD='{address.password}'",
            "CHANGE MASTER TO MASTER_USE_GTID=slave_pos",
            "START SLAVE",
        ):
            with replica.cursor() as cursor:
                cursor.execute(statement)


@contextmanager
def _connected(url: str) -> Iterator[pymysql.Connection[Any]]:
    address = make_url(url)
    with closing(
        pymysql.connect(
            host=address.host,
            port=address.port or 3306,
            user=address.username,
            password=str(address.password),
            database=address.database,
            autocommit=True,
        )
    ) as connection:
        yield connection


def _one(connection: pymysql.Connection[Any], statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
    return row[0] if row else None
