"""One client of MariaDB's own replication: a process that inserts some rows a transaction.

Arguments: URL of the source's database, name of the writer, seconds, rows a transaction,
transactions in all (0: until the time is up).
"""

from __future__ import annotations

import sys
from typing import Any

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


def main(url: str, name: str, seconds: str, rows: str = "1", most: str = "0") -> None:
    """Connect, wait for the word, insert until the time is up."""
    address = make_url(url)
    ids = system_ids()
    known = [ids.mint() for _ in range(25)]
    made = observation_bundles(name, known, int(rows))
    connection = pymysql.connect(
        host=address.host,
        port=address.port or 3306,
        user=address.username,
        password=str(address.password),
        database=address.database,
        autocommit=True,
    )
    node, clock = "141002100200", SystemClock()
    wait_for_start()

    def bundle() -> list[tuple[Any, ...]]:
        now = format_ms(clock.now_ms())
        common = (1, 1, node, node, 1, 1, now, "full", False)
        return [
            (ids.mint(), record.resident_id, *common, *record.values.values())
            for record in next(made).records
        ]

    def insert() -> None:
        # PyMySQL makes one INSERT of many rows, which is the cheapest transaction there is.
        cursor.executemany(_INSERT, bundle())

    with connection, connection.cursor() as cursor:
        work_for(float(seconds), insert, int(rows), int(most))


if __name__ == "__main__":
    main(*sys.argv[1:])
