"""The rows of this room: found, written and amended in the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select

from node.clock import format_ms
from node.consent.errors import AccessUnknownError
from node.errors import InvalidRequestError, NotFoundError
from node.security.caller import Caller
from node.storage.context import StoreContext
from node.storage.errors import RequestIdReusedError
from node.storage.rows import RowMaker
from node.storage.scope import form_of, has_place, placed
from node.storage.shapes import is_row_id
from node.storage.specs import IDENTIFIERS, RESIDENTS, TableSpec
from node.storage.stored import stored_change
from node.storage.tables import REPLICATED
from node.storage.upsert import guarded_upsert
from node.storage.writes import log_entries
from replication.core.model import (
    SCHEMA_VERSION,
    Form,
    Operation,
    RowChange,
    Value,
    Version,
    next_version,
)

__all__ = ["AccessRows", "HomeOf"]

_NONE_YET: Final = Version(1, 0)
_R: Final = REPLICATED[RESIDENTS.name]
_I: Final = REPLICATED[IDENTIFIERS.name]

# Built once: composing a statement costs more than running it on SQLite.
_HOME: Final = (
    select(_R.c.row_id, _R.c.home_node, _R.c.home_epoch, _R.c.author_node)
    .where(
        _R.c.row_id == bindparam("id"),
        _R.c.form == Form.FULL.value,
        _R.c.deleted.is_(False),
    )
    .with_for_update(read=True)
)
_CARRIES: Final = {
    large: select(_R.c.row_id)
    .join(_I, _I.c.resident_id == _R.c.row_id)
    .where(
        _I.c.value_index == bindparam("value_index"),
        _I.c.system == bindparam("system"),
        _I.c.deleted.is_(False),
        _I.c.form == Form.FULL.value,
        _R.c.form == Form.FULL.value,
        _R.c.deleted.is_(False),
        placed(_R, large=large),
    )
    .order_by(_R.c.recorded_at, _R.c.row_id)
    .limit(1)
    for large in (False, True)
}


@dataclass(frozen=True, slots=True)
class HomeOf:
    """A resident who is held here in full, and where his home is."""

    resident_id: str
    node: str
    epoch: int


class AccessRows:
    """Rows of consents, relations, grants and reviews."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store
        self._maker = RowMaker(store.cells, store.blind_index)

    def home(self, connection: Connection, caller: Caller, resident_id: str) -> HomeOf:
        """The home of a resident whom the caller's node may know; no move before the commit.

        Raises:
            InvalidRequestError: It is no id of a resident.
            NotFoundError: He is not held here in full, or has no place in the caller's scope.
        """
        if not is_row_id(resident_id):
            raise InvalidRequestError("resident_id is not a UUID")
        row = connection.execute(_HOME, {"id": resident_id}).first()
        if row is None or not has_place(
            caller, home_node=row.home_node, author_node=row.author_node
        ):
            raise NotFoundError("no such resident here")
        moved = self._store.homes.newest(connection, [resident_id]).get(resident_id)
        if moved is not None and moved.home_epoch > row.home_epoch:
            return HomeOf(resident_id, moved.home_node, moved.home_epoch)
        return HomeOf(resident_id, row.home_node, row.home_epoch)

    def carrying(
        self,
        connection: Connection,
        caller: Caller,
        scope: Mapping[str, Any],
        identifier: tuple[str, str],
    ) -> str:
        """The resident who carries an identifier, by the whole value of it.

        Raises:
            NotFoundError: Nobody does whom the caller's node may know.
        """
        system, value = identifier
        wanted = {
            **scope,
            "system": system,
            "value_index": self._store.blind_index.index(system, value),
        }
        found = connection.execute(_CARRIES[form_of(caller).large], wanted).scalar()
        if found is None:
            raise NotFoundError("no such resident here")
        return str(found)

    def request_row_id(self, caller: Caller, spec: TableSpec, request_id: str) -> str:
        """The id of what a request writes, the same each time it comes. Nobody else can tell it.

        Raises:
            InvalidRequestError: It has no id.
        """
        if not request_id:
            raise InvalidRequestError("request_id is required")
        # Of this life of the store: what a former one wrote and lost is not written twice.
        life = self._store.changelog.store_epoch
        said = f"{spec.name}|{caller.principal}|{request_id}|{life}"
        digest = self._store.blind_index.index("fenhe.access.request", said)
        # UUID version 8 (RFC 9562): of this program's own making.
        return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-a{digest[17:20]}-{digest[20:32]}"

    def repeated(
        self, connection: Connection, spec: TableSpec, row_id: str, said: Mapping[str, Value]
    ) -> RowChange | None:
        """What the same request wrote before; None: it comes for the first time.

        Raises:
            RequestIdReusedError: It wrote something else.
        """
        held = self.find(connection, spec, row_id)
        if held is None:
            return None
        if any((held.values.get(name) or "") != (value or "") for name, value in said.items()):
            raise RequestIdReusedError("used before with another body", ["request_id"])
        return held

    def find(self, connection: Connection, spec: TableSpec, row_id: str) -> RowChange | None:
        """A row that is held here, locked until the commit."""
        t = REPLICATED[spec.name]
        query = select(t).where(t.c.row_id == row_id, t.c.form == Form.FULL.value)
        row = connection.execute(query.with_for_update()).mappings().first()
        return None if row is None else stored_change(self._store.cells, spec.name, row)

    def held(self, connection: Connection, spec: TableSpec, row_id: str) -> RowChange:
        """A row that is held here, locked until the commit.

        Raises:
            AccessUnknownError: It is not.
        """
        found = self.find(connection, spec, row_id) if is_row_id(row_id) else None
        if found is None:
            raise AccessUnknownError(f"no such row of {spec.name} here")
        return found

    def of_resident(
        self,
        connection: Connection,
        spec: TableSpec,
        resident_id: str,
        *,
        after: str,
        limit: int,
    ) -> list[RowChange]:
        """Rows of a resident by id, after an id."""
        t = REPLICATED[spec.name]
        query = (
            select(t)
            .where(
                t.c.resident_id == resident_id,
                t.c.form == Form.FULL.value,
                t.c.deleted.is_(False),
                t.c.row_id > after,
            )
            .order_by(t.c.row_id)
            .limit(limit)
        )
        rows = connection.execute(query).mappings()
        return [stored_change(self._store.cells, spec.name, row) for row in rows]

    def by_id(
        self, connection: Connection, spec: TableSpec, row_ids: Collection[str]
    ) -> dict[str, RowChange]:
        """Rows by their ids."""
        t = REPLICATED[spec.name]
        query = select(t).where(t.c.row_id.in_(sorted(row_ids)), t.c.form == Form.FULL.value)
        rows = connection.execute(query).mappings()
        return {row["row_id"]: stored_change(self._store.cells, spec.name, row) for row in rows}

    def put(
        self,
        connection: Connection,
        spec: TableSpec,
        home: HomeOf,
        row_id: str,
        values: Mapping[str, Value],
    ) -> RowChange:
        """Write a new row of this node's, and log it."""
        change = RowChange(
            table=spec.name,
            row_id=row_id,
            resident_id=home.resident_id,
            version=next_version(_NONE_YET, self._store.changelog.store_epoch),
            operation=Operation.PUT,
            author_node=self._store.node_id,
            home_node=home.node,
            home_epoch=home.epoch,
            schema_version=SCHEMA_VERSION,
            recorded_at=format_ms(self._store.clock.now_ms()),
            form=Form.FULL,
            values=_given(values),
        )
        self._write(connection, change)
        return change

    def amend(
        self, connection: Connection, held: RowChange, values: Mapping[str, Value]
    ) -> RowChange:
        """Write the next version of a row that this node wrote, and log it.

        Raises:
            RecoveringError: A newer version may have been lost.
        """
        self._store.recovery.refuse()
        version = next_version(held.version, self._store.changelog.store_epoch)
        change = replace(held, version=version, values=_given({**held.values, **values}))
        self._write(connection, change)
        return change

    def _write(self, connection: Connection, change: RowChange) -> None:
        row = self._maker.row(change)
        guarded_upsert(connection, REPLICATED[change.table], [row])
        entries = log_entries(self._store, [change], self._store.clock.now_ms())
        self._store.changelog.append(connection, entries)


def _given(values: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if value not in {None, ""}}
