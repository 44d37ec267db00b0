"""Stores a bundle: rows, log entries, audit and the request's answer, in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from hierarchy_config.errors import FenheError
from node.clock import format_ms
from node.records.model import Bundle
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.errors import RequestIdReusedError, StorageBusyError
from node.storage.lookups import Lookups
from node.storage.model import BundleRequest, BundleResult
from node.storage.pieces import encoded_pieces
from node.storage.planning import BundlePlan, PlannedRow, plan_bundle
from node.storage.rows import RowMaker
from node.storage.scope import form_of
from node.storage.specs import TABLES
from node.storage.tables import APPLIED_REQUESTS, REPLICATED
from node.storage.transactions import ChangedMeanwhileError
from replication.changelog import NewEntry, Together
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


@dataclass(frozen=True, slots=True)
class _Request:
    caller: Caller
    bundle: Bundle
    body: str

    @property
    def key(self) -> tuple[str, str]:
        return self.caller.principal, self.bundle.request_id


class BundleWriter:
    """Writes what is authored here."""

    def __init__(
        self,
        store: StoreContext,
        maker: RowMaker,
        post: Callable[[Connection, Sequence[RowChange]], None],
    ) -> None:
        """`post`: sends rows whose home lies outside this subtree to it."""
        self._store = store
        self._maker = maker
        self._post = post

    def put(self, caller: Caller, bundle: Bundle) -> BundleResult:
        """See Storage.put_bundle."""
        self._prepare(caller)
        request = _Request(caller, bundle, self._body_index(bundle))
        return self._store.transactions.write(lambda connection: self._put(connection, request))

    def put_all(self, asked: Sequence[BundleRequest]) -> list[BundleResult | Exception]:
        """See Storage.put_bundles.

        Together they are written as if no request were a repeat: the table's key says if one is,
        and then, as for every other fault, those without an answer are put one by one.
        """
        for each in asked:
            self._prepare(each.caller)
        requests = [_Request(a.caller, a.bundle, self._body_index(a.bundle)) for a in asked]
        firsts: dict[tuple[str, str], _Request] = {}
        for request in requests:
            firsts.setdefault(request.key, request)
        together = [request for request in requests if firsts[request.key] is request]
        answers = self._together(together)
        outcomes: list[BundleResult | Exception] = []
        for request in requests:
            # A repeat within the gathering finds the first one's answer in the table.
            first = firsts[request.key] is request
            answer = answers.get(request.key) if first else None
            outcomes.append(answer or self._alone(request))
        return outcomes

    def put_beside(
        self, caller: Caller, bundle: Bundle, beside: Callable[[Together, BundleResult], None]
    ) -> BundleResult:
        """See Storage.put_beside."""
        self._prepare(caller)

        def work(connection: Connection) -> BundleResult:
            now_ms = self._store.clock.now_ms()
            lookups = Lookups(connection)
            plan = plan_bundle(self._store, lookups, caller, bundle, now_ms, own_tables_only=True)
            result = BundleResult(plan.resident_ids, plan.record_ids, len(plan.rows))
            together = Together(connection)
            beside(together, result)
            self._write_rows(together, [(caller, plan)], now_ms)
            return result

        return self._store.transactions.write(work)

    def _prepare(self, caller: Caller) -> None:
        """Store a large scope that the plan will ask for: not while it has the database's lock."""
        if form_of(caller).staff:
            self._store.scopes.parameters(caller)

    def _together(self, requests: Sequence[_Request]) -> dict[tuple[str, str], BundleResult]:
        """Answers by request of those that were stored in one transaction; maybe none."""
        try:
            return self._store.transactions.write(
                lambda connection: self._put_planned(connection, requests), attempts=1
            )
        except (StorageBusyError, SQLAlchemyError):
            # One of them is at fault, or the database is: put alone, each learns which.
            return {}

    def _alone(self, request: _Request) -> BundleResult | Exception:
        try:
            return self._store.transactions.write(lambda connection: self._put(connection, request))
        except Exception as error:  # noqa: BLE001  # raised again to the one who asked
            return error

    def _put(self, connection: Connection, request: _Request) -> BundleResult:
        answered = self._answered(connection, request.caller, request.bundle, request.body)
        if answered is not None:
            deed = Deed(Action.PUT, "bundle", Outcome.REPEATED, answered.acknowledged)
            self._store.auditor.write(connection, request.caller, deed)
            return answered
        now_ms = self._store.clock.now_ms()
        lookups = Lookups(connection)
        plan = plan_bundle(self._store, lookups, request.caller, request.bundle, now_ms)
        return self._write(connection, [(request, plan)], now_ms)[0]

    def _put_planned(
        self, connection: Connection, requests: Sequence[_Request]
    ) -> dict[tuple[str, str], BundleResult]:
        now_ms = self._store.clock.now_ms()
        lookups = Lookups(connection)
        lookups.prefetch(request.bundle for request in requests)
        planned: list[tuple[_Request, BundlePlan]] = []
        for request in requests:
            # It may be a repeat, whose rows are there already: put alone, it is looked up first.
            with suppress(FenheError):
                plan = plan_bundle(self._store, lookups, request.caller, request.bundle, now_ms)
                planned.append((request, plan))
        if not planned:
            return {}
        results = self._write(connection, planned, now_ms)
        return {request.key: result for (request, _), result in zip(planned, results, strict=True)}

    def _write(
        self, connection: Connection, planned: Sequence[tuple[_Request, BundlePlan]], now_ms: int
    ) -> list[BundleResult]:
        """Requests first: the key of one that was answered meanwhile stops everything."""
        results = [
            BundleResult(plan.resident_ids, plan.record_ids, len(plan.rows)) for _, plan in planned
        ]
        requests = [request for request, _ in planned]
        together = Together(connection)
        _remember(together, requests, results, format_ms(now_ms))
        self._write_rows(together, [(each.caller, plan) for each, plan in planned], now_ms)
        return results

    def _write_rows(
        self, together: Together, planned: Sequence[tuple[Caller, BundlePlan]], now_ms: int
    ) -> None:
        """Rows, audit, log and letters, behind what waits in `together`; all of it is sent."""
        connection = together.connection
        rows = [row for _, plan in planned for row in plan.rows]
        self._insert(together, [row.change for row in rows if row.replaces is None])
        self._amend(connection, [row for row in rows if row.replaces is not None])
        deeds = [(caller, _deeds(plan)) for caller, plan in planned]
        self._store.auditor.write_all(together, deeds)
        entries = log_entries(self._store, (row.change for row in rows), now_ms)
        entries += self._letters(connection, [row.change for row in rows])
        self._store.changelog.append(connection, entries, before=together)

    def _letters(self, connection: Connection, changes: Sequence[RowChange]) -> list[NewEntry]:
        """Log entries of the letters that take rows to homes outside this node's subtree."""
        below = self._store.hierarchy.subtree(self._store.node_id)
        away = [change for change in changes if change.home_node not in below]
        if not away:
            return []
        with self._store.post.gathering(connection) as letters:
            self._post(connection, away)
        return letters

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
                        *((each.home_node, each.home_epoch) if each.home_node else ()),
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

    def _insert(self, together: Together, changes: Sequence[RowChange]) -> None:
        by_table: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for change in changes:
            by_table[change.table].append(self._maker.row(change, claims=True))
        for table, rows in by_table.items():
            together.add(_INSERTS[table], rows)

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


def _remember(
    together: Together,
    requests: Sequence[_Request],
    results: Sequence[BundleResult],
    applied_at: str,
) -> None:
    rows = []
    for request, result in zip(requests, results, strict=True):
        answer = {
            "resident_ids": result.resident_ids,
            "record_ids": result.record_ids,
            "acknowledged": result.acknowledged,
        }
        rows.append(
            {
                "principal": request.caller.principal,
                "request_id": request.bundle.request_id,
                "body_index": request.body,
                "response": json.dumps(answer),
                "applied_at": applied_at,
            }
        )
    together.add(_REMEMBER, rows)


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
