"""Everything this node holds in full of one resident; every method in the caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, Table, and_, delete, or_, select, update

from node.security.caller import local_operator
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.purging import note_purged
from node.storage.rows import RowMaker, chunks
from node.storage.specs import (
    ACCESS_REVIEWS,
    ACCESS_TABLES,
    CONSENTS,
    IDENTIFIERS,
    IDENTITY_LINKS,
    RECORD_TABLES,
    RESIDENT_INDEX,
    RESIDENTS,
    TABLES,
)
from node.storage.tables import CHANGELOG, REPLICATED
from node.storage.upsert import guarded_upsert
from node.storage.writes import log_entries
from replication.changelog import QuarantineExit
from replication.core.admission import Cause
from replication.core.model import Audience, Form, Operation, RowChange, Version
from replication.core.residence import Grant, KnownHome

__all__ = ["IDENTITY_TABLES", "ResidentRows"]

IDENTITY_TABLES: Final = frozenset(
    {RESIDENTS.name, IDENTIFIERS.name, CONSENTS.name, ACCESS_REVIEWS.name}
)
# Who may read him goes with him before what is to be read.
_TABLES: Final = (RESIDENTS, IDENTIFIERS, *ACCESS_TABLES, *RECORD_TABLES, IDENTITY_LINKS)
_R: Final = REPLICATED[RESIDENTS.name]
_X: Final = REPLICATED[RESIDENT_INDEX.name]


class ResidentRows:
    """One resident's rows: read, re-homed, written, let go."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store
        self._maker = RowMaker(store.cells, store.blind_index)

    def home(self, connection: Connection, resident_id: str) -> KnownHome | None:
        """His home by the rows held here, in full or as an entry of the main index."""
        found: KnownHome | None = None
        for t in (_R, _X):
            query = select(t.c.home_node, t.c.home_epoch).where(t.c.row_id == resident_id)
            row = connection.execute(query).first()
            if row is not None and (found is None or row.home_epoch > found.home_epoch):
                found = KnownHome(row.home_node, row.home_epoch)
        return found

    def is_held(self, connection: Connection, resident_id: str) -> bool:
        """Whether he is held here in full."""
        full = (_R.c.row_id == resident_id, _R.c.form == Form.FULL.value)
        return connection.execute(select(_R.c.row_id).where(*full)).first() is not None

    def read(
        self, connection: Connection, resident_id: str, *, before_epoch: int | None = None
    ) -> list[RowChange]:
        """Every row held of him in full, clear, locked; `before_epoch`: of an earlier home only."""
        changes: list[RowChange] = []
        for spec in _TABLES:
            t = REPLICATED[spec.name]
            query = select(t).where(t.c.resident_id == resident_id, t.c.form == Form.FULL.value)
            if before_epoch is not None:
                query = query.where(t.c.home_epoch < before_epoch)
            rows = connection.execute(query.order_by(t.c.row_id).with_for_update()).mappings()
            changes.extend(self._change(t, row) for row in rows)
        return changes

    def write(self, connection: Connection, changes: Iterable[RowChange]) -> None:
        """Store rows, each only if it is newer than what is held, and log them as written here."""
        by_table: dict[str, list[RowChange]] = defaultdict(list)
        for change in changes:
            by_table[change.table].append(change)
        for table, group in by_table.items():
            group.sort(key=lambda change: change.row_id)
            made = [self._maker.row(change) for change in group]
            guarded_upsert(connection, REPLICATED[table], made)
        logged = [change for group in by_table.values() for change in group]
        now_ms = self._store.clock.now_ms()
        self._store.post.log(connection, log_entries(self._store, logged, now_ms))

    def rehome(self, connection: Connection, grant: Grant) -> None:
        """Say in every row held of him where he lives now; tell the readers inside this node.

        For a node that is not above the new home: nobody is sent it.
        """
        for spec in _TABLES:
            t = REPLICATED[spec.name]
            connection.execute(
                update(t)
                .where(
                    t.c.resident_id == grant.resident_id,
                    t.c.form == Form.FULL.value,
                    or_(
                        t.c.home_epoch < grant.home_epoch,
                        and_(t.c.home_epoch == grant.home_epoch, t.c.home_node != grant.home_node),
                    ),
                )
                .values(home_node=grant.home_node, home_epoch=grant.home_epoch)
            )
        # The log names the resident alone: an incremental backup copies the tables whole.
        note_purged(connection)
        row = connection.execute(select(_R).where(_R.c.row_id == grant.resident_id)).mappings()
        told = [_light(_R, each, Operation.PUT) for each in row]
        self._tell_inside(connection, told)

    def let_go(self, connection: Connection, grant: Grant, limit: int) -> int:
        """Delete up to `limit` rows of him; how many went. Records this node wrote stay.

        Call again until 0. What waits of him in the quarantine under an old home is closed.
        """
        here, gone = self._store.node_id, 0
        for spec in _TABLES:
            t = REPLICATED[spec.name]
            whose = [t.c.resident_id == grant.resident_id, t.c.form == Form.FULL.value]
            if spec.name not in IDENTITY_TABLES:
                whose.append(t.c.author_node != here)
            query = select(t).where(*whose).order_by(t.c.row_id).limit(limit - gone)
            rows = connection.execute(query.with_for_update()).mappings().all()
            for some in chunks([row["row_id"] for row in rows]):
                connection.execute(delete(t).where(t.c.row_id.in_(some)))
            self._tell_inside(connection, [_light(t, row, Operation.DELETE) for row in rows])
            gone += len(rows)
            if gone >= limit:
                break
        if gone:
            note_purged(connection)
            operator = local_operator(here, self._store.hierarchy, "the resident has moved away")
            deed = Deed(
                Action.PURGE, RESIDENTS.name, Outcome.DONE, gone, resident_id=grant.resident_id
            )
            self._store.auditor.write(connection, operator, deed)
        else:
            self._close_quarantine(connection, grant.resident_id)
        return gone

    def _close_quarantine(self, connection: Connection, resident_id: str) -> None:
        q = CHANGELOG.quarantine
        connection.execute(
            update(q)
            .where(
                q.c.resident_id == resident_id,
                q.c.cause == Cause.HOME_EPOCH_OLD.value,
                q.c.closed_as.is_(None),
            )
            .values(
                closed_as=QuarantineExit.SUPERSEDED.value,
                closed_at=self._store.clock.now_ms(),
                retry_at=None,
            )
        )

    def _tell_inside(self, connection: Connection, changes: Sequence[RowChange]) -> None:
        """Readers inside this node see that rows are other or gone; no peer is sent it."""
        if not changes:
            return
        entries = log_entries(self._store, changes, self._store.clock.now_ms())
        quiet = [replace(entry, audience=Audience.HERE) for entry in entries]
        self._store.post.log(connection, quiet)

    def _change(self, t: Table, row: RowMapping) -> RowChange:
        spec, cells = TABLES[t.name], self._store.cells
        if row["deleted"]:
            return _light(t, row, Operation.DELETE)
        opened = {**cells.open(spec, row), **cells.open_unknown(spec, row)}
        values = {name: value for name, value in opened.items() if value is not None}
        return replace(_light(t, row, Operation.PUT), values=values)


def _light(t: Table, row: RowMapping | dict[str, Any], operation: Operation) -> RowChange:
    """The row without its cells."""
    return RowChange(
        table=t.name,
        row_id=row["row_id"],
        resident_id=row["resident_id"],
        version=Version(row["version_epoch"], row["version_number"]),
        operation=operation,
        author_node=row["author_node"],
        home_node=row["home_node"],
        home_epoch=row["home_epoch"],
        schema_version=row["schema_version"],
        recorded_at=row["recorded_at"],
        form=Form(row["form"]),
        values={},
    )
