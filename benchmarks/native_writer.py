"""One client of MariaDB's own replication: a process that inserts some rows a transaction.

Arguments: URL of the source's database, name of the writer, seconds, rows a transaction,
transactions in all (0: until the time is up).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pymysql
from sqlalchemy import make_url

from benchmarks.bundles import observation_bundles
from benchmarks.crew import wait_for_start, work_for
from node.clock import SystemClock, format_ms, system_ids

_COLUMNS = (
    "row_id, resident_id, version_epoch, version_number, author_node, home_node, home_epoch,"
    " schema_version, recorded_at, form, deleted, code, value, unit, observed_on"
)
_MARKS = ", ".join(["%s"] * 15)
_INSERT = f"INSERT INTO observations ({_COLUMNS}) VALUES ({_MARKS})"  # noqa: S608


@contextmanager
def inserting(url: str, name: str = "native") -> Iterator[Callable[[int], None]]:
    """Inserts so many rows of made-up observations in one transaction, over one connection."""
    address = make_url(url)
    ids = system_ids()
    known = [ids.mint() for _ in range(25)]
    made = observation_bundles(name, known, 1)
    connection = pymysql.connect(
        host=address.host,
        port=address.port or 3306,
        user=address.username,
        password=str(address.password),
        database=address.database,
        autocommit=True,
    )
    node, clock = "141002100200", SystemClock()

    def insert(rows: int) -> None:
        common = (1, 1, node, node, 1, 1, format_ms(clock.now_ms()), "full", False)
        records = [next(made).records[0] for _ in range(rows)]
        # PyMySQL makes one INSERT of many rows, which is the cheapest transaction there is.
        cursor.executemany(
            _INSERT,
            [
                (ids.mint(), record.resident_id, *common, *record.values.values())
                for record in records
            ],
        )

    with connection, connection.cursor() as cursor:
        yield insert


def main(url: str, name: str, seconds: str, rows: str = "1", most: str = "0") -> None:
    """Connect, wait for the word, insert until the time is up."""
    with inserting(url, name) as insert:
        wait_for_start()
        work_for(float(seconds), lambda: insert(int(rows)), int(rows), int(most))


if __name__ == "__main__":
    main(*sys.argv[1:])
