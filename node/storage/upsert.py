"""Insert rows, or replace older versions of them, in one statement a table.

The version guard stands in the statement itself, whatever was read before: a row never changes to
a version that is not greater, but for its home, which only changes to one of a later epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, and_, func, or_
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.sql.dml import Insert

from replication.changelog import Together

__all__ = ["guarded_upsert"]

_VERSION: Final = ("home_epoch", "version_number", "version_epoch")
# Ours alone: which identity numbers were registered here is not the sender's to say.
_KEPT: Final = frozenset({"row_id", "value_claim"})

_statements: dict[tuple[str, str], Insert] = {}


def guarded_upsert(on: Connection | Together, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Write `rows`, complete database rows of `table`, each row id once; or add them to `on`."""
    connection = on.connection if isinstance(on, Together) else on
    key = (connection.dialect.name, table.name)
    statement = _statements.get(key)
    if statement is None:
        build = _for_sqlite if key[0] == "sqlite" else _for_mysql
        statement = _statements[key] = build(table)
    if isinstance(on, Together):
        on.add(statement, rows)
    else:
        connection.execute(statement, list(rows))


def _newer(offered: Any, held: Table) -> ColumnElement[bool]:
    """Order of (version, home epoch), as in replication/core/admission.py's Held."""
    same_epoch = offered.version_epoch == held.c.version_epoch
    same_number = offered.version_number == held.c.version_number
    return or_(
        offered.version_epoch > held.c.version_epoch,
        and_(same_epoch, offered.version_number > held.c.version_number),
        and_(same_epoch, same_number, offered.home_epoch > held.c.home_epoch),
    )


def _for_sqlite(table: Table) -> Insert:
    statement = sqlite.insert(table)
    return statement.on_conflict_do_update(
        index_elements=[table.c.row_id],
        set_={
            column.name: statement.excluded[column.name]
            for column in table.columns
            if column.name not in _KEPT
        },
        where=_newer(statement.excluded, table),
    )


def _for_mysql(table: Table) -> Insert:
    statement = mysql.insert(table)
    newer = _newer(statement.inserted, table)
    names = [c.name for c in table.columns if c.name not in _KEPT and c.name not in _VERSION]
    # MySQL assigns from left to right and compares with what it has just set: versions last, each
    # part before the one it is compared under.
    return statement.on_duplicate_key_update(
        [
            (name, func.if_(newer, statement.inserted[name], table.c[name]))
            for name in (*names, *_VERSION)
        ]
    )
