"""Residents held in full, as the values that a model compares. Opens sealed cells.

A row that does not open is set aside, and everybody else is matched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, func, select

from node.aside import ITEM_FAULTS
from node.matching.model import PERSON_FIELDS
from node.records.canaries import are_people
from node.storage.context import StoreContext
from node.storage.rows import chunks
from node.storage.specs import IDENTIFIERS, RESIDENTS
from node.storage.tables import REPLICATED
from replication.core.model import Form

__all__ = ["People", "PeoplePage", "Values", "values_of"]

Values = tuple[str | None, ...]
"""In the order of the model's fields."""

_R: Final = REPLICATED[RESIDENTS.name]
_I: Final = REPLICATED[IDENTIFIERS.name]
_NUMBER: Final = "identity_number"
_SEALED: Final = frozenset(column.name for column in RESIDENTS.sealed)
_NO_EVIDENCE: Final = frozenset({"unstated", "unknown"})
"""Words for a sex that nobody stated: two of them do not agree in anything."""


@dataclass(frozen=True, slots=True)
class PeoplePage:
    """Residents by id. `readable`: their values; `last`: ask on from there, None at the end."""

    readable: Mapping[str, Values]
    unreadable: frozenset[str]
    last: str | None


def values_of(fields: Sequence[str], given: Mapping[str, str | None]) -> Values:
    """What is known of somebody, in the order of a model's fields."""
    found = {name: given.get(name) or None for name in PERSON_FIELDS}
    if found["sex"] in _NO_EVIDENCE:
        found["sex"] = None
    return tuple(found[name] for name in fields)


class People:
    """Reads residents; `fields` are those of the model."""

    def __init__(self, store: StoreContext, fields: Sequence[str]) -> None:
        self._store = store
        self._fields = tuple(fields)
        own = [name for name in self._fields if name != _NUMBER]
        self._cells = select(_R.c.row_id, *(_R.c[name] for name in own)).where(*_held())

    def count(self, connection: Connection) -> int:
        """How many are held."""
        return connection.execute(select(func.count()).select_from(_R).where(*_held())).scalar_one()

    def page(self, after: str, limit: int) -> PeoplePage:
        """The next residents by id."""
        query = self._cells.where(_R.c.row_id > after).order_by(_R.c.row_id).limit(limit)

        def work(connection: Connection) -> PeoplePage:
            rows = connection.execute(query).mappings().all()
            last = str(rows[-1]["row_id"]) if len(rows) == limit else None
            return self._opened(connection, rows, last)

        return self._store.transactions.read(work)

    def of(self, resident_ids: Collection[str]) -> PeoplePage:
        """Those of some residents who are held."""

        def work(connection: Connection) -> PeoplePage:
            rows: list[RowMapping] = []
            for some in chunks(sorted(resident_ids)):
                query = self._cells.where(_R.c.row_id.in_(some))
                rows += connection.execute(query).mappings()
            return self._opened(connection, rows, None)

        return self._store.transactions.read(work)

    def ids(self, after: str, limit: int) -> list[str]:
        """The ids of the next residents."""
        query = select(_R.c.row_id).where(_R.c.row_id > after, *_held())
        return self._store.transactions.read(
            lambda connection: list(
                connection.execute(query.order_by(_R.c.row_id).limit(limit)).scalars()
            )
        )

    def _opened(
        self, connection: Connection, rows: Sequence[RowMapping], last: str | None
    ) -> PeoplePage:
        numbers = self._numbers(connection, [str(row["row_id"]) for row in rows])
        readable: dict[str, Values] = {}
        unreadable: set[str] = set()
        for row in rows:
            resident_id = str(row["row_id"])
            try:
                readable[resident_id] = self._values(row, numbers.get(resident_id))
            except ITEM_FAULTS as error:
                self._store.aside.add(RESIDENTS.name, resident_id, error)
                unreadable.add(resident_id)
        return PeoplePage(readable, frozenset(unreadable), last)

    def _values(self, row: RowMapping, number: tuple[str, bytes] | None) -> Values:
        open_cell = self._store.cells.open_cell
        given: dict[str, Any] = {}
        for name, cell in row.items():
            sealed = name in _SEALED
            resident_id = row["row_id"]
            given[name] = open_cell(_R.name, name, resident_id, cell) if sealed else cell
        if number is not None:
            given[_NUMBER] = open_cell(_I.name, "value", *number)
        return values_of(self._fields, given)

    def _numbers(
        self, connection: Connection, resident_ids: Sequence[str]
    ) -> dict[str, tuple[str, bytes]]:
        """Of each resident who has one, row id and cell of his first identity number."""
        found: dict[str, tuple[str, bytes]] = {}
        for some in chunks(resident_ids) if _NUMBER in self._fields else ():
            query = (
                select(_I.c.resident_id, _I.c.row_id, _I.c.value)
                .where(_I.c.resident_id.in_(some), _I.c.system == _NUMBER)
                .where(_I.c.form == Form.FULL.value, _I.c.deleted.is_(False))
                .order_by(_I.c.row_id)
            )
            for resident_id, row_id, value in connection.execute(query):
                found.setdefault(resident_id, (row_id, value))
        return found


def _held() -> tuple[ColumnElement[bool], ...]:
    return (_R.c.form == Form.FULL.value, _R.c.deleted.is_(False), are_people(_R))
