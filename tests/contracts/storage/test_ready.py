"""A SELECT that is compiled once gives what SQLAlchemy gives, whatever its parameters hold."""

from __future__ import annotations

import pytest
from sqlalchemy import bindparam, insert, select

from node.storage.ready import ReadySelect, padded
from node.storage.tables import SCOPE_HOMES
from replication.changelog import read_transaction, write_transaction
from tests.databases import Database
from tests.schema import migrated

HOMES = ["1410", "141002", "141002001", "a%s", "%(scope)s", "it's", ":key", "?", "\\"]
QUERY = (
    select(SCOPE_HOMES.c.home_node)
    .where(
        SCOPE_HOMES.c.scope_key == bindparam("key"),
        SCOPE_HOMES.c.home_node.in_(bindparam("homes", expanding=True)),
        SCOPE_HOMES.c.home_node != "1410",
    )
    .order_by(SCOPE_HOMES.c.home_node)
)


@pytest.mark.parametrize("count", [0, 1, 2, 3, len(HOMES)])
def test_gives_what_the_statement_gives(database: Database, count: int) -> None:
    """For lists of every length, twice each: compiled, and kept."""
    migrated(database.engine)
    with write_transaction(database.engine) as connection:
        for key in ("k", "k'%"):
            rows = [{"scope_key": key, "home_node": home} for home in HOMES]
            connection.execute(insert(SCOPE_HOMES), rows)
    ready = ReadySelect(QUERY)
    with read_transaction(database.engine) as connection:
        for key in ("k", "k'%", "none", "k"):
            wanted = {"key": key, "homes": HOMES[:count], "unused": "x"}
            expected = connection.execute(QUERY, wanted).scalars().all()
            assert ready.execute(connection, wanted).scalars().all() == expected
            assert len(expected) == (0 if key == "none" else max(0, count - 1))


@pytest.mark.parametrize(("given", "length"), [(1, 1), (2, 2), (3, 4), (5, 8), (64, 64)])
def test_lengths_are_powers_of_two(given: int, length: int) -> None:
    """So that a statement has few texts; no value is added or lost."""
    values = [str(each) for each in range(given)]
    assert len(padded(values)) == length
    assert set(padded(values)) == set(values)
