"""Reads for a caller: scoped in the statement, audited in the same transaction.

Rows held in another form than full are for counting, never for showing. What is not there and what
is outside the caller's scope give the same answer and the same audit entry.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from heapq import nlargest
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
    union_all,
)

from node.merging.links import group, groups
from node.records.model import NewIdentifier
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.errors import PageTokenError
from node.storage.model import Page, StoredRecord, StoredResident
from node.storage.scope import SCOPE_FORMS, ScopeForm, form_of, seen_residents, visible
from node.storage.shapes import is_row_id
from node.storage.specs import IDENTIFIERS, RECORD_TABLES, RESIDENTS, TABLES, TableSpec
from node.storage.tables import REPLICATED
from replication.core.model import Form, Version

__all__ = ["Reader", "named_id", "resident_read"]

_PAGE_MAX: Final = 500
_TOKEN_MAX: Final = 400
"""Longer than any that was given, and too short to be nested beyond the decoder's depth."""
_RECORDS: Final = "records"
_R = REPLICATED[RESIDENTS.name]
_I = REPLICATED[IDENTIFIERS.name]


class Reader:
    """Reads what is held in full."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store
        self._residents = _built(_resident_query)
        self._finds = _built(_find_query)
        self._records = {spec.name: _built(_record_query, spec) for spec in RECORD_TABLES}
        self._timelines = {spec.name: _built(_timeline_query, spec) for spec in RECORD_TABLES}
        self._tables_of = _tables_of_id()
        self._identifiers = _identifiers_query()

    def resident(self, caller: Caller, resident_id: str) -> StoredResident | None:
        """See Storage.resident."""
        scope = self._store.scopes.parameters(caller)
        named = named_id(resident_id)

        def work(connection: Connection) -> StoredResident | None:
            found = self.held(connection, caller, {**scope, "id": named}) if named else None
            found = found and self._with_group(connection, found, caller, scope)
            self._store.auditor.write(connection, caller, resident_read(named, found is not None))
            return found

        return self._store.transactions.write(work)

    def held(
        self, connection: Connection, caller: Caller, wanted: Mapping[str, Any]
    ) -> StoredResident | None:
        """A resident in the caller's transaction, who owes the audit; `wanted`: scope and id."""
        row = connection.execute(self._residents[form_of(caller)], wanted).mappings().first()
        return None if row is None else self._resident(connection, row)

    def find_resident(self, caller: Caller, system: str, value: str) -> StoredResident | None:
        """See Storage.find_resident."""
        scope = self._store.scopes.parameters(caller)
        wanted = {
            **scope,
            "system": system,
            "value_index": self._store.blind_index.index(system, value),
        }

        def work(connection: Connection) -> StoredResident | None:
            query = self._finds[form_of(caller)]
            row = connection.execute(query, wanted).mappings().first()
            found = None if row is None else self._resident(connection, row)
            found = found and self._with_group(connection, found, caller, scope)
            # The value itself is never written down; that somebody looked is.
            if found is None:
                deed = Deed(Action.FIND, IDENTIFIERS.name, Outcome.NOT_FOUND, 0)
            else:
                held = found.resident_id
                deed = Deed(Action.FIND, IDENTIFIERS.name, Outcome.DONE, 1, held, held)
            self._store.auditor.write(connection, caller, deed)
            return found

        return self._store.transactions.write(work)

    def record(self, caller: Caller, record_id: str) -> StoredRecord | None:
        """See Storage.record."""
        scope = self._store.scopes.parameters(caller)
        named = named_id(record_id)

        def work(connection: Connection) -> StoredRecord | None:
            found = None
            if named is not None:
                found = self._record(connection, caller, {**scope, "id": named})
            outcome = Outcome.DONE if found else Outcome.NOT_FOUND
            whose = found.resident_id if found else None
            deed = Deed(Action.READ, _RECORDS, outcome, int(bool(found)), named, whose)
            self._store.auditor.write(connection, caller, deed)
            return found

        return self._store.transactions.write(work)

    def timeline(self, caller: Caller, resident_id: str, *, size: int, token: str) -> Page:
        """See Storage.timeline."""
        size = min(max(size, 1), _PAGE_MAX)
        if token:
            self._store.auditor.gate.refuse_bulk()
        scope = self._store.scopes.parameters(caller)
        named = named_id(resident_id)
        before = _decode_token(token, resident_id)

        def work(connection: Connection) -> Page:
            page = {"size": size + 1, "before_date": before[0], "before_id": before[1]}
            members = self._members(connection, caller, scope, named)
            rows = nlargest(
                size + 1,
                (
                    row
                    for each in sorted(members)
                    for row in self._timeline(connection, caller, {**scope, **page, "id": each})
                ),
                key=lambda each: each[:2],
            )
            records = tuple(self._stored(spec, row) for _, _, spec, row in rows[:size])
            self._store.auditor.write(connection, caller, *_timeline_reads(named, records))
            more = len(rows) > size
            last = rows[size - 1] if more else None
            return Page(records, _encode_token(last[0], last[1], resident_id) if last else "")

        return self._store.transactions.write(work)

    def _members(
        self,
        connection: Connection,
        caller: Caller,
        scope: Mapping[str, Any],
        named: str | None,
    ) -> frozenset[str]:
        """Ids whose records are shown for one: his own alone to whoever does not see him."""
        if named is None:
            return frozenset()
        members = group(self._store, connection, named).members
        if len(members) > 1 and not seen_residents(connection, caller, scope, [named]):
            return frozenset({named})
        return members

    def _with_group(
        self,
        connection: Connection,
        found: StoredResident,
        caller: Caller,
        scope: Mapping[str, Any],
    ) -> StoredResident:
        whose = groups(self._store, connection, [found.resident_id]).get(found.resident_id)
        if whose is None:
            return found
        seen = seen_residents(connection, caller, scope, whose.members)
        return replace(found, group=whose.shown_to(seen))

    def _timeline(
        self, connection: Connection, caller: Caller, wanted: Mapping[str, Any]
    ) -> Iterator[tuple[str, str, TableSpec, RowMapping]]:
        """The newest of one id, table by table."""
        form = form_of(caller)
        for spec in RECORD_TABLES:
            for row in connection.execute(self._timelines[spec.name][form], wanted).mappings():
                yield str(row["sorted_by"]), str(row["row_id"]), spec, row

    def _record(
        self, connection: Connection, caller: Caller, wanted: Mapping[str, Any]
    ) -> StoredRecord | None:
        for (table,) in connection.execute(self._tables_of, {"id": wanted["id"]}):
            query = self._records[table][form_of(caller)]
            row = connection.execute(query, wanted).mappings().first()
            if row is not None:
                return self._stored(TABLES[table], row)
        return None

    def _stored(self, spec: TableSpec, row: RowMapping) -> StoredRecord:
        return StoredRecord(
            table=spec.name,
            record_id=row["row_id"],
            resident_id=row["resident_id"],
            version=Version(row["version_epoch"], row["version_number"]),
            author_node=row["author_node"],
            home_node=row["home_node"],
            home_epoch=row["home_epoch"],
            recorded_at=row["recorded_at"],
            deleted=bool(row["deleted"]),
            values=self._store.cells.open(spec, row),
        )

    def _resident(self, connection: Connection, row: RowMapping) -> StoredResident:
        cells: dict[str, Any] = self._store.cells.open(RESIDENTS, row)
        held = connection.execute(self._identifiers, {"id": row["row_id"]})
        open_cell = self._store.cells.open_cell
        identifiers = tuple(
            NewIdentifier(system, str(open_cell(IDENTIFIERS.name, "value", row_id, value)))
            for row_id, system, value in held
        )
        return StoredResident(
            resident_id=row["row_id"],
            version=Version(row["version_epoch"], row["version_number"]),
            author_node=row["author_node"],
            home_node=row["home_node"],
            home_epoch=row["home_epoch"],
            recorded_at=row["recorded_at"],
            identifiers=identifiers,
            deleted=bool(row["deleted"]),
            **cells,
        )


def resident_read(named: str | None, found: bool) -> Deed:
    """What the audit says of a resident's read, wherever his answer came from."""
    outcome = Outcome.DONE if found else Outcome.NOT_FOUND
    return Deed(Action.READ, RESIDENTS.name, outcome, int(found), named, named)


def _timeline_reads(named: str | None, records: Sequence[StoredRecord]) -> list[Deed]:
    """What the audit says of a timeline: one entry for each id whose records were shown."""
    shown = Counter(record.resident_id for record in records)
    # Who was asked for first, whatever was found of him.
    whose = [named, *sorted(shown.keys() - {named})]
    return [
        Deed(Action.TIMELINE, _RECORDS, Outcome.DONE, shown[each or ""], resident_id=each)
        for each in whose
    ]


def named_id(row_id: str) -> str | None:
    """The id if it is one of ours: anything else a caller typed stays out of the audit."""
    return row_id if is_row_id(row_id) else None


# Built once a process: composing a statement costs more than a point read on SQLite.
@cache
def _built(build: Callable[..., Select[Any]], *about: TableSpec) -> Mapping[ScopeForm, Select[Any]]:
    """A query for each form of a scope."""
    return {form: build(form, *about) for form in SCOPE_FORMS}


def _resident_query(form: ScopeForm) -> Select[Any]:
    return select(_R).where(
        _R.c.row_id == bindparam("id"), _R.c.form == Form.FULL.value, visible(_R, form)
    )


def _find_query(form: ScopeForm) -> Select[Any]:
    """The first registered of those who carry it: two villages may have registered one person."""
    return (
        select(_R)
        .join(_I, _I.c.resident_id == _R.c.row_id)
        .where(
            _I.c.value_index == bindparam("value_index"),
            _I.c.system == bindparam("system"),
            _I.c.deleted.is_(False),
            _I.c.form == Form.FULL.value,
            _R.c.form == Form.FULL.value,
            _R.c.deleted.is_(False),
            visible(_R, form),
        )
        .order_by(_R.c.recorded_at, _R.c.row_id)
        .limit(1)
    )


def _record_query(form: ScopeForm, spec: TableSpec) -> Select[Any]:
    t = REPLICATED[spec.name]
    return select(t).where(
        t.c.row_id == bindparam("id"), t.c.form == Form.FULL.value, visible(t, form)
    )


def _timeline_query(form: ScopeForm, spec: TableSpec) -> Select[Any]:
    """One page of one table, by a key that later inserts do not move."""
    t = REPLICATED[spec.name]
    day: ColumnElement[str] = func.coalesce(
        func.nullif(t.c[spec.care_date], ""), func.substr(t.c.recorded_at, 1, 10)
    )
    earlier = or_(
        bindparam("before_date") == literal(""),
        day < bindparam("before_date"),
        and_(day == bindparam("before_date"), t.c.row_id < bindparam("before_id")),
    )
    return (
        select(t, day.label("sorted_by"))
        .where(
            t.c.resident_id == bindparam("id"),
            t.c.form == Form.FULL.value,
            t.c.deleted.is_(False),
            visible(t, form),
            earlier,
        )
        .order_by(day.desc(), t.c.row_id.desc())
        .limit(bindparam("size"))
    )


@cache
def _identifiers_query() -> Select[Any]:
    return (
        select(_I.c.row_id, _I.c.system, _I.c.value)
        .where(_I.c.resident_id == bindparam("id"), _I.c.deleted.is_(False))
        .where(_I.c.form == Form.FULL.value)
        .order_by(_I.c.row_id)
    )


@cache
def _tables_of_id() -> Select[Any]:
    found: Sequence[Select[Any]] = [
        select(literal(spec.name).label("name")).where(
            REPLICATED[spec.name].c.row_id == bindparam("id")
        )
        for spec in RECORD_TABLES
    ]
    tables = union_all(*found).subquery("tables_of_id")
    return select(tables.c.name)


def _encode_token(day: str, row_id: str, resident_id: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([day, row_id, resident_id]).encode()).decode()


def _decode_token(token: str, resident_id: str) -> tuple[str, str]:
    """Where the page before ended. A made-up token only picks another place in one's own scope."""
    if not token:
        return "", ""
    if len(token) > _TOKEN_MAX:
        raise PageTokenError
    try:
        parts = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError, RecursionError):
        raise PageTokenError from None
    if not (isinstance(parts, list) and len(parts) == 3 and all(isinstance(p, str) for p in parts)):
        raise PageTokenError
    # A lone surrogate or a NUL would be the database's to refuse.
    if not "".join(parts).isascii() or not "".join(parts).isprintable():
        raise PageTokenError
    if parts[2] != resident_id or not parts[0]:
        raise PageTokenError
    return parts[0], parts[1]
