"""Finds entries of the audit, newest first, always along an index.

Entries are ordered by the time that stands in them, which is what is asked for; where a clock was
wrong, the place in the chain says the true order. Looking at the audit is a deed, too, and stands
in it before the answer leaves.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, func, or_, select, true

from node.auditing.ground import AuditGround
from node.errors import InvalidRequestError
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome
from node.storage.model import AuditEntry
from node.storage.tables import AUDIT

__all__ = ["AuditSearch", "Found", "FoundPage", "Wanted"]

PAGE_MAX: Final = 500
_TOKEN_MAX: Final = 200
_NAMES: Final = tuple(AuditEntry.__dataclass_fields__)
_COLUMNS: Final = (AUDIT.c.audit_id, *(AUDIT.c[name] for name in _NAMES), AUDIT.c.chain_position)
_OBJECT: Final = "audit"
_ROWS_A_TIME: Final = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for; empty: anything. Times are ISO 8601 UTC as they stand in the entries.

    `grant_id`: of a broken glass; `break_glass`: of any.
    """

    resident_id: str = ""
    principal: str = ""
    action: str = ""
    outcome: str = ""
    since: str = ""
    until: str = ""
    grant_id: str = ""
    break_glass: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """An entry. `position`: in the chain; 0: not linked yet."""

    audit_id: int
    position: int
    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class FoundPage:
    """Newest first; an empty token: no further page."""

    entries: tuple[Found, ...]
    next_token: str


class AuditSearch:
    """Every method blocks on the database."""

    def __init__(self, ground: AuditGround) -> None:
        self._g = ground

    def page(self, caller: Caller, wanted: Wanted, *, size: int, token: str) -> FoundPage:
        """One page; audited.

        Raises:
            InvalidRequestError: The token is not one of a search.
        """
        size = min(max(size, 1), PAGE_MAX)
        query = _query(wanted, _decoded(token)).limit(size + 1)
        resident = wanted.resident_id or None

        def work(connection: Connection) -> FoundPage:
            rows = connection.execute(query).mappings().all()
            found = tuple(map(_found, rows[:size]))
            deed = Deed(Action.SEARCH, _OBJECT, Outcome.DONE, len(found), resident_id=resident)
            self._g.auditor.write(connection, caller, deed)
            return FoundPage(found, _encoded(found[-1]) if len(rows) > size else "")

        return self._g.transactions.write(work)

    def of_resident(
        self, connection: Connection, resident_id: str, limit: int
    ) -> tuple[list[Found], bool]:
        """The newest entries about a resident, and whether there are more; the caller audits."""
        query = _query(Wanted(resident_id=resident_id), None).limit(limit + 1)
        rows = connection.execute(query).mappings().all()
        return [_found(row) for row in rows[:limit]], len(rows) > limit

    def chained(self, wanted: Wanted) -> Iterator[Found]:
        """Every linked entry in the order of the chain, a piece at a time; not audited here."""
        after = 0
        while True:
            query = (
                select(*_COLUMNS)
                .where(AUDIT.c.chain_position > after, _condition(wanted))
                .order_by(AUDIT.c.chain_position)
                .limit(_ROWS_A_TIME)
            )
            rows = self._g.transactions.read(
                lambda connection, query=query: connection.execute(query).mappings().all()  # type: ignore[misc]
            )
            if not rows:
                return
            yield from map(_found, rows)
            after = rows[-1]["chain_position"]


def _query(wanted: Wanted, before: tuple[str, int] | None) -> Select[Any]:
    query = select(*_COLUMNS).where(_condition(wanted))
    if before is not None:
        at, audit_id = before
        # The first half alone would do; the second lets the index begin at the place.
        query = query.where(
            or_(AUDIT.c.at < at, and_(AUDIT.c.at == at, AUDIT.c.audit_id < audit_id)),
            AUDIT.c.at <= at,
        )
    return query.order_by(AUDIT.c.at.desc(), AUDIT.c.audit_id.desc())


def _condition(wanted: Wanted) -> ColumnElement[bool]:
    parts: list[ColumnElement[bool]] = []
    # The narrowest first, and the others so that no planner takes their index instead of its.
    for name, value in (
        ("grant_id", wanted.grant_id),
        ("resident_id", wanted.resident_id),
        ("principal", wanted.principal),
        ("action", wanted.action),
        ("outcome", wanted.outcome),
    ):
        if value:
            column = AUDIT.c[name]
            parts.append((func.coalesce(column, "") if parts else column) == value)
    if wanted.break_glass:
        parts.append(AUDIT.c.grant_id.is_not(None))
    if wanted.since:
        parts.append(AUDIT.c.at >= wanted.since)
    if wanted.until:
        parts.append(AUDIT.c.at < wanted.until)
    return and_(true(), *parts)


def _found(row: RowMapping) -> Found:
    entry = AuditEntry(*(row[name] for name in _NAMES))
    return Found(row["audit_id"], row["chain_position"] or 0, entry)


def _encoded(last: Found) -> str:
    place = json.dumps([last.entry.at, last.audit_id])
    return base64.urlsafe_b64encode(place.encode()).decode()


def _decoded(token: str) -> tuple[str, int] | None:
    if not token:
        return None
    try:
        at, audit_id = json.loads(base64.urlsafe_b64decode(token[:_TOKEN_MAX]))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise InvalidRequestError("the page token is not one of this search") from None
    if not isinstance(at, str) or not at.isascii() or not isinstance(audit_id, int):
        raise InvalidRequestError("the page token is not one of this search")
    return at[:24], min(max(audit_id, 0), 2**62)
