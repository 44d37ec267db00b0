"""A change of this room: once a request, in one transaction with its rows, log entries and audit.

What is refused is written down as well, in a transaction of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from sqlalchemy import Connection, bindparam, insert, select

from node.clock import format_ms
from node.errors import InvalidRequestError
from node.people.errors import PeopleError
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.errors import RequestIdReusedError
from node.storage.rows import RowMaker
from node.storage.tables import APPLIED_REQUESTS, REPLICATED
from node.storage.writes import log_entries
from replication.core.model import SCHEMA_VERSION, Form, Operation, RowChange, Value, Version

__all__ = ["Deeds", "Done", "Wish"]

T = TypeVar("T")

_REQUEST_ID_MAX: Final = 64
_A = APPLIED_REQUESTS
_ANSWERED: Final = select(_A.c.body_index, _A.c.response).where(
    _A.c.principal == bindparam("principal"), _A.c.request_id == bindparam("request_id")
)
_INSERTS: Final = {name: insert(table) for name, table in REPLICATED.items()}


@dataclass(frozen=True, slots=True)
class Wish:
    """Who wants what. `body` tells one wish under a request id from another; no secret in it."""

    caller: Caller
    action: Action
    table: str
    request_id: str = ""
    body: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.request_id) > _REQUEST_ID_MAX:
            raise InvalidRequestError(f"request_id: at most {_REQUEST_ID_MAX} characters")


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it: the id of what was made or changed, and rows that are to travel."""

    object_id: str
    rows: Sequence[RowChange] = ()
    count: int = 1
    repeated: bool = field(default=False)


class Deeds:
    """Carries wishes out. Blocks on the database."""

    def __init__(self, store: StoreContext, changed: Callable[[], None]) -> None:
        """`changed`: called after every commit."""
        self._store = store
        self._maker = RowMaker(store.cells, store.blind_index)
        self._changed = changed

    def carry_out(self, wish: Wish, work: Callable[[Connection], Done]) -> Done:
        """Do it, once for a request id. Durable on return.

        `work` may run several times and touches nothing but the connection.

        Raises:
            RequestIdReusedError: The request id was used for another wish.
            PeopleError: As `work` raises it; that it was refused is in the audit.
        """
        try:
            done = self._store.transactions.write(lambda opened: self._once(opened, wish, work))
        except PeopleError:
            self.note_refused(wish.caller, wish.action, wish.table)
            raise
        self._changed()
        return done

    def has_done(self, wish: Wish) -> bool:
        """Whether the wish was carried out under its request id; `carry_out` then changes nothing.

        Raises:
            RequestIdReusedError: The request id was used for another wish.
        """
        if not wish.request_id:
            return False
        body = self._body(wish)
        return self._store.transactions.read(
            lambda connection: self._answered(connection, wish, body) is not None
        )

    def note_refused(
        self, caller: Caller, action: Action, table: str, object_id: str | None = None
    ) -> None:
        """Write down that somebody was refused."""
        deed = Deed(action, table, Outcome.REFUSED, 0, object_id=object_id)
        self._store.transactions.write(
            lambda connection: self._store.auditor.write(connection, caller, deed)
        )

    def read(
        self, caller: Caller, table: str, work: Callable[[Connection], Sequence[T]]
    ) -> list[T]:
        """Read, with its audit entry."""

        def reading(connection: Connection) -> list[T]:
            found = list(work(connection))
            deed = Deed(Action.READ, table, Outcome.DONE, len(found))
            self._store.auditor.write(connection, caller, deed)
            return found

        return self._store.transactions.write(reading)

    def new_row(
        self, table: str, organization_id: str, home: str, values: Mapping[str, Value], row_id: str
    ) -> RowChange:
        """A row that is written here."""
        return RowChange(
            table=table,
            row_id=row_id,
            resident_id=organization_id,
            version=Version(1, 1),
            operation=Operation.PUT,
            author_node=self._store.node_id,
            home_node=home,
            home_epoch=1,
            schema_version=SCHEMA_VERSION,
            recorded_at=format_ms(self._store.clock.now_ms()),
            form=Form.FULL,
            values={name: value for name, value in values.items() if value},
        )

    def _once(self, connection: Connection, wish: Wish, work: Callable[[Connection], Done]) -> Done:
        body = self._body(wish)
        answered = self._answered(connection, wish, body) if wish.request_id else None
        done = answered or work(connection)
        outcome = Outcome.REPEATED if done.repeated else Outcome.DONE
        deed = Deed(wish.action, wish.table, outcome, done.count, object_id=done.object_id)
        self._store.auditor.write(connection, wish.caller, deed)
        if answered is not None:
            return answered
        now_ms = self._store.clock.now_ms()
        if wish.request_id:
            connection.execute(
                insert(_A).values(
                    principal=wish.caller.principal,
                    request_id=wish.request_id,
                    body_index=body,
                    response=json.dumps({"object_id": done.object_id, "count": done.count}),
                    applied_at=format_ms(now_ms),
                )
            )
        for change in done.rows:
            connection.execute(_INSERTS[change.table], [self._maker.row(change)])
        if done.rows:
            entries = log_entries(self._store, done.rows, now_ms)
            self._store.changelog.append(connection, entries)
        return done

    def _body(self, wish: Wish) -> str:
        text = json.dumps([wish.action, wish.table, *wish.body])
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self._store.blind_index.index("fenhe.request", digest)

    def _answered(self, connection: Connection, wish: Wish, body: str) -> Done | None:
        key = {"principal": wish.caller.principal, "request_id": wish.request_id}
        row = connection.execute(_ANSWERED, key).first()
        if row is None:
            return None
        if row.body_index != body:
            raise RequestIdReusedError("used before with another body", ["request_id"])
        said = json.loads(row.response)
        return Done(str(said["object_id"]), (), int(said["count"]), repeated=True)
