"""What the bundles of one transaction ask of the database, each thing asked once.

Bundles that share a transaction name much the same residents: one statement finds and locks them
all, and what it did not find is remembered as well. Lives as long as its transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, select

from node.records.model import Bundle
from node.storage.rows import HeldRow, chunks, held_rows
from node.storage.shapes import is_row_id
from node.storage.specs import RECORD_TABLES, RESIDENTS
from node.storage.tables import REPLICATED
from replication.core.model import Form

__all__ = ["HeldHome", "Lookups"]

_R = REPLICATED[RESIDENTS.name]

# Built once: composing a statement costs more than running it on SQLite.
_HOMES: Final = (
    select(_R.c.row_id, _R.c.home_node, _R.c.home_epoch, _R.c.author_node)
    .where(
        _R.c.row_id.in_(bindparam("ids", expanding=True)),
        _R.c.form == Form.FULL.value,
        _R.c.deleted.is_(False),
    )
    .order_by(_R.c.row_id)
    .with_for_update(read=True)
)


@dataclass(frozen=True, slots=True)
class HeldHome:
    """A resident's home as it is held; whether a caller may see it is for the planner to say."""

    home_node: str
    home_epoch: int
    author_node: str


class Lookups:
    """Answers from memory what was asked before in this transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._homes: dict[str, HeldHome | None] = {}
        self._held: dict[str, dict[str, HeldRow | None]] = {}

    def prefetch(self, bundles: Iterable[Bundle]) -> None:
        """Find what these bundles will ask for, a statement for each kind."""
        homes: set[str] = set()
        records: set[str] = set()
        residents: set[str] = set()
        for bundle in bundles:
            homes.update(each.resident_id for each in bundle.records)
            records.update(each.record_id for each in bundle.records if each.record_id)
            residents.update(each.resident_id for each in bundle.residents if each.resident_id)
        self.held(RESIDENTS.name, filter(is_row_id, residents))
        self.homes(homes)
        for spec in RECORD_TABLES:
            self.held(spec.name, filter(is_row_id, records))

    def homes(self, resident_ids: Collection[str]) -> dict[str, HeldHome]:
        """Homes of the residents held in full; locked, so that none moves before the commit."""
        known = self._homes
        missing = sorted({each for each in resident_ids if is_row_id(each)} - known.keys())
        for some in chunks(missing):
            known.update(dict.fromkeys(some))
            for row in self.connection.execute(_HOMES, {"ids": some}):
                known[row.row_id] = HeldHome(row.home_node, row.home_epoch, row.author_node)
        found = ((each, known.get(each)) for each in resident_ids)
        return {each: home for each, home in found if home is not None}

    def held(self, table: str, row_ids: Iterable[str]) -> dict[str, HeldRow]:
        """The rows held under these ids, locked until the commit."""
        asked = set(row_ids)
        known = self._held.setdefault(table, {})
        missing = asked - known.keys()
        if missing:
            known.update(dict.fromkeys(missing))
            known.update(held_rows(self.connection, table, missing))
        found = ((each, known[each]) for each in asked)
        return {each: row for each, row in found if row is not None}
