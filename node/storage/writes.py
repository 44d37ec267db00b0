"""Stores a bundle: rows, log entries, audit and the request's answer, in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, select, update

from node.clock import format_ms
from node.records.model import Bundle
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.errors import RequestIdReusedError
from node.storage.model import BundleResult
from node.storage.pieces import encoded_pieces
from node.storage.planning import BundlePlan, PlannedRow, plan_bundle
from node.storage.rows import RowMaker
from node.storage.specs import TABLES
from node.storage.tables import APPLIED_REQUESTS, REPLICATED
from node.storage.transactions import ChangedMeanwhileError
from replication.changelog import NewEntry
from replication.core.codec import CODEC_JSON
from replication.core.model import SCHEMA_VERSION, Form, Lane, RowChange

__all__ = ["BundleWriter"]

# Built once: composing a statement costs more than running it on SQLite.
_A = APPLIED_REQUESTS
_ANSWERED: Final = select(_A.c.body_index, _A.c.response).where(
    _A.c.principal == bindparam("principal"), _A.c.request_id == bindparam("request_id")
)
_REMEMBER: Final = insert(APPLIED_REQUESTS)
_INSERTS: Final = {name: insert(table) for name, table in REPLICATED.items()}


class BundleWriter:
    """Writes what is authored here."""

    def __init__(self, store: StoreContext, maker: RowMaker) -> None:
        self._store = store
        self._maker = maker

    def put(self, caller: Caller, bundle: Bundle) -> BundleResult:
        """See Storage.put_bundle."""
        # Before the transaction: a large scope is stored in one of its own.
        self._store.scopes.parameters(caller)
        body = self._body_index(bundle)
        return self._store.transactions.write(
            lambda connection: self._put(connection, caller, bundle, body)
        )

    def _put(
        self, connection: Connection, caller: Caller, bundle: Bundle, body: str
    ) -> BundleResult:
        answered = self._answered(connection, caller, bundle, body)
        if answered is not None:
            deed = Deed(Action.PUT, "bundle", Outcome.REPEATED, answered.acknowledged)
            self._store.auditor.write(connection, caller, deed)
            return answered
        now_ms = self._store.clock.now_ms()
        plan = plan_bundle(self._store, connection, caller, bundle, now_ms)
        self._insert(connection, [row.change for row in plan.rows if row.replaces is None])
        self._amend(connection, [row for row in plan.rows if row.replaces is not None])
        result = BundleResult(plan.resident_ids, plan.record_ids, len(plan.rows))
        self._store.auditor.write(connection, caller, *_deeds(plan))
        request = {
            "principal": caller.principal,
            "request_id": bundle.request_id,
            "body_index": body,
            "applied_at": format_ms(now_ms),
        }
        _remember(connection, request, result)
        self._store.changelog.append(
            connection, log_entries(self._store, (row.change for row in plan.rows), now_ms)
        )
        return result

    def _body_index(self, bundle: Bundle) -> str:
        """A keyed digest of everything but the request id."""
        content = json.dumps(
            [
                [asdict(resident) for resident in bundle.residents],
                [
                    [
                        each.record_id,
                        each.table,
                        each.resident_id,
                        dict(each.values),
                        each.retracted,
                    ]
                    for each in bundle.records
                ],
            ],
            sort_keys=True,
        )
        digest = hashlib.sha256(content.encode()).hexdigest()
        return self._store.blind_index.index("fenhe.request", digest)

    def _answered(
        self, connection: Connection, caller: Caller, bundle: Bundle, body: str
    ) -> BundleResult | None:
        request = {"principal": caller.principal, "request_id": bundle.request_id}
        row = connection.execute(_ANSWERED, request).first()
        if row is None:
            return None
        if row.body_index != body:
            raise RequestIdReusedError("used before with another body", ["request_id"])
        answer = json.loads(row.response)
        return BundleResult(
            tuple(answer["resident_ids"]), tuple(answer["record_ids"]), answer["acknowledged"], True
        )

    def _insert(self, connection: Connection, changes: Sequence[RowChange]) -> None:
        by_table: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for change in changes:
            by_table[change.table].append(self._maker.row(change, claims=True))
        for table, rows in by_table.items():
            connection.execute(_INSERTS[table], rows)

    def _amend(self, connection: Connection, planned: Sequence[PlannedRow]) -> None:
        """Conditional on the version that was read: another writer in between is never undone."""
        by_table: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for each in planned:
            held = each.replaces
            if held is None:
                continue
            row = self._maker.row(each.change)
            row["held_id"] = row.pop("row_id")
            row["held_epoch"], row["held_number"] = held.author_epoch, held.number
            by_table[each.change.table].append(row)
        for table, rows in by_table.items():
            t = REPLICATED[table]
            names = [name for name in rows[0] if not name.startswith("held_")]
            statement = (
                update(t)
                .where(
                    t.c.row_id == bindparam("held_id"),
                    t.c.version_epoch == bindparam("held_epoch"),
                    t.c.version_number == bindparam("held_number"),
                    t.c.author_node == self._store.node_id,
                )
                .values({name: bindparam(name) for name in names})
            )
            if connection.execute(statement, rows).rowcount != len(rows):
                raise ChangedMeanwhileError


def _remember(connection: Connection, request: dict[str, str], result: BundleResult) -> None:
    answer = {
        "resident_ids": result.resident_ids,
        "record_ids": result.record_ids,
        "acknowledged": result.acknowledged,
    }
    connection.execute(_REMEMBER, {**request, "response": json.dumps(answer)})


def log_entries(store: StoreContext, changes: Iterable[RowChange], now_ms: int) -> list[NewEntry]:
    """One entry per (lane, home) of rows authored here; several if they are very many."""
    groups: dict[tuple[Lane, str], list[RowChange]] = defaultdict(list)
    for change in changes:
        groups[TABLES[change.table].lane, change.home_node].append(change)
    return [
        NewEntry(
            origin_node=store.node_id,
            origin_epoch=store.changelog.store_epoch,
            origin_sequence=None,
            lane=lane,
            home_node=home_node,
            form=Form.FULL,
            codec=CODEC_JSON,
            schema_version=SCHEMA_VERSION,
            committed_at_ms=now_ms,
            row_count=len(rows),
            rows=encoded,
        )
        for (lane, home_node), group in groups.items()
        for rows, encoded in encoded_pieces(group)
    ]


def _deeds(plan: BundlePlan) -> list[Deed]:
    """One audit entry for each resident whose data was written."""
    written: dict[str, int] = defaultdict(int)
    for row in plan.rows:
        written[row.change.resident_id] += 1
    return [
        Deed(Action.PUT, "bundle", Outcome.DONE, count, resident_id=resident_id)
        for resident_id, count in written.items()
    ] or [Deed(Action.PUT, "bundle", Outcome.DONE, 0)]
