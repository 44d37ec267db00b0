"""Rows for the columnar replica: current, joined with what questions group by, never identifying.

The replica asks for the changes after a sequence of the log, from 0 for all of them. When a
resident's own row changed, all of his records come again, because they carry his sex, birth year
and home. Canaries are left out: no question counts them. Consents that forbid come with, so that
whoever counts leaves out whom he has to at the very sequence that he counts at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Select, select

from node.consent.words import DENY
from node.records.canaries import is_canary
from node.storage.context import StoreContext
from node.storage.logged import read_log
from node.storage.model import ColumnarChanges, ColumnarRows
from node.storage.rows import chunks
from node.storage.specs import CONSENTS, RECORD_TABLES, RESIDENTS, Leaving, TableSpec
from node.storage.tables import REPLICATED
from node.storage.transforms import month_of
from replication.core.codec import decode_changes
from replication.core.model import Form, Value

__all__ = ["COLUMNAR_DATASETS", "ColumnarSource"]

COLUMNAR_DATASETS: Final[tuple[TableSpec, ...]] = (RESIDENTS, *RECORD_TABLES, CONSENTS)

_BYTES_MAX: Final = 8 << 20
_R = REPLICATED[RESIDENTS.name]
_OF_RESIDENT: Final = frozenset({"sex", "birth_year"})
# De-identified copies have the month only. A replica that kept the day would answer a question
# otherwise at the county than at the city.
_MONTHS: Final = frozenset(
    column.name
    for spec in COLUMNAR_DATASETS
    for column in spec.columns
    if column.leaving is Leaving.MONTH
)


class ColumnarSource:
    """Reads the log and the current rows it speaks of."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store
        self._queries = {spec.name: _joined(spec) for spec in COLUMNAR_DATASETS}

    def changes(self, after: int, limit: int, up_to: int | None = None) -> ColumnarChanges:
        """See Storage.columnar_changes."""

        def work(connection: Connection) -> ColumnarChanges:
            part = read_log(
                self._store,
                connection,
                after=after,
                lane=None,
                bytes_max=_BYTES_MAX,
                entries_max=limit,
                up_to=up_to,
            )
            touched: dict[str, set[str]] = defaultdict(set)
            for entry in part.entries:
                if entry.form is Form.SEALED:
                    continue
                for change in decode_changes(entry.codec, entry.rows):
                    if is_canary(change.resident_id):
                        continue
                    touched[change.table].add(change.row_id)
            return self._current(connection, touched, part.scanned_to, part.head)

        return self._store.transactions.read(work)

    def rows(self, dataset: str, after: str, limit: int) -> ColumnarRows:
        """See Storage.columnar_rows."""
        t = REPLICATED[dataset]
        query = self._queries[dataset].where(t.c.row_id > after).order_by(t.c.row_id).limit(limit)

        def work(connection: Connection) -> ColumnarRows:
            found = list(connection.execute(query).mappings())
            live = tuple(
                _shown(row)
                for row in found
                if _is_live(dataset, row) and not is_canary(row["resident_id"])
            )
            return ColumnarRows(tuple(row["row_id"] for row in found), {dataset: live})

        return self._store.transactions.read(work)

    def _current(
        self, connection: Connection, touched: Mapping[str, set[str]], up_to: int, head: int
    ) -> ColumnarChanges:
        residents = touched.get(RESIDENTS.name, set())
        rows: dict[str, tuple[Mapping[str, Value], ...]] = {}
        deleted: dict[str, tuple[str, ...]] = {}
        for spec in COLUMNAR_DATASETS:
            found: dict[str, RowMapping] = {}
            t = REPLICATED[spec.name]
            query = self._queries[spec.name]
            if spec.name != RESIDENTS.name:
                for some in chunks(sorted(residents)):
                    found.update(_by_id(connection, query.where(t.c.resident_id.in_(some))))
            missing = sorted(touched.get(spec.name, set()) - found.keys())
            for some in chunks(missing):
                found.update(_by_id(connection, query.where(t.c.row_id.in_(some))))
            # What the log spoke of and is not here any more was purged with its home.
            purged = touched.get(spec.name, set()) - found.keys()
            dead = {key for key, row in found.items() if not _is_live(spec.name, row)}
            gone = tuple(sorted(dead | purged))
            live = tuple(_shown(found[key]) for key in sorted(found.keys() - dead))
            if live:
                rows[spec.name] = live
            if gone:
                deleted[spec.name] = gone
        return ColumnarChanges(up_to, head, rows, deleted)


def _joined(spec: TableSpec) -> Select[Any]:
    t = REPLICATED[spec.name]
    own = [t.c[column.name] for column in spec.open_columns if column.name not in _OF_RESIDENT]
    common = [t.c.row_id, t.c.resident_id, t.c.author_node, t.c.form, t.c.deleted]
    if spec.name == RESIDENTS.name:
        return select(*common, _R.c.sex, _R.c.birth_year, t.c.home_node.label("home"), *own)
    current_home = _R.c.home_node.label("current_home")
    return select(
        *common, _R.c.sex, _R.c.birth_year, t.c.home_node.label("home"), current_home, *own
    ).select_from(t.outerjoin(_R, _R.c.row_id == t.c.resident_id))


def _is_live(dataset: str, row: RowMapping) -> bool:
    """Whether the replica has a row: no deleted one, and no consent that forbids nothing."""
    if row["deleted"]:
        return False
    return dataset != CONSENTS.name or (row["decision"] == DENY and row["revoked_at"] is None)


def _by_id(connection: Connection, query: Select[Any]) -> Iterable[tuple[str, RowMapping]]:
    return ((row["row_id"], row) for row in connection.execute(query).mappings())


def _shown(row: RowMapping) -> dict[str, Value]:
    """The row as the replica stores it; the resident's home of today, not of the record's day."""
    shown = {name: value for name, value in row.items() if name not in {"deleted", "author_node"}}
    current_home = shown.pop("current_home", None)
    if current_home is not None:
        shown["home"] = current_home
    shown["author"] = row["author_node"]
    for name in _MONTHS & shown.keys():
        day = shown[name]
        shown[name] = month_of(day) if isinstance(day, str) else None
    return shown
