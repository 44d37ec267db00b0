"""Care relations, grants and broken glasses for callers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from node.clock import format_ms, today
from node.consent.consents import NOTE_MAX, day_in
from node.consent.errors import (
    AccessAuthorError,
    AccessUnknownError,
    BreakGlassError,
    GrantBorrowedError,
)
from node.consent.model import Broken, Grant, Relation, Wanted, grant_of
from node.consent.rows import AccessRows, HomeOf
from node.consent.words import GrantKind, RelationKind, grantees_of, staff
from node.errors import DeniedError, InvalidRequestError, NotFoundError
from node.security.caller import Caller, CallerKind
from node.security.roles import Role
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.scope import entrusted, is_forbidden, seen_residents
from node.storage.specs import ACCESS_GRANTS, CARE_RELATIONS
from replication.core.model import RowChange

__all__ = ["BREAK_GLASS_MINUTES", "AccessDesk"]

BREAK_GLASS_MINUTES: Final = 30
_REASON_MIN: Final = 4
_MINUTE_MS: Final = 60_000
_HOURS_DEFAULT: Final = 24
_HOURS_MAX: Final = 90 * 24
_RELATION_DAYS_MAX: Final = 5 * 366
_DAYS: Final[Mapping[str, int]] = {RelationKind.CONTRACT: 365, RelationKind.ENCOUNTER: 30}
_GRANTEE: Final = re.compile(r"(staff|organization):[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_ORGANIZATION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")


class AccessDesk:
    """Every method blocks on the database; what it changed is durable when it returns.

    `refuse_writes`: raises while nothing may be written.
    """

    def __init__(self, store: StoreContext, refuse_writes: Callable[[], None]) -> None:
        self._store = store
        self._rows = AccessRows(store)
        self._refuse_writes = refuse_writes

    # -- care relations -------------------------------------------------------------------------

    def relate(self, caller: Caller, wanted: Wanted) -> Relation:
        """Write down that an organization cares for a resident.

        Raises:
            InvalidRequestError: A word or a day of it is none.
            DeniedError: A member of staff names an organization that is not his.
            NotFoundError: No such resident, for all this node may say.
            RequestIdReusedError: The request wrote something else before.
        """
        self._refuse_writes()
        organization_id = _own_organization(caller, wanted.whom)
        from_on, until_on = _period(wanted, today(self._store.clock))
        scope = self._store.scopes.parameters(caller)
        said = {"organization_id": organization_id, "kind": wanted.what}
        row_id = self._rows.request_row_id(caller, CARE_RELATIONS, wanted.request_id)

        def work(connection: Connection) -> Relation:
            home = self._whom(connection, caller, scope, wanted)
            held = self._rows.repeated(connection, CARE_RELATIONS, row_id, said)
            if held is not None:
                self._audit(connection, caller, Action.RELATE, held, Outcome.REPEATED)
                return Relation.of(held)
            values = {
                **said,
                "from_on": from_on,
                "until_on": until_on,
                "opened_by": caller.principal,
            }
            row = self._rows.put(connection, CARE_RELATIONS, home, row_id, values)
            self._audit(connection, caller, Action.RELATE, row)
            return Relation.of(row)

        return self._store.transactions.write(work)

    def end_relation(self, caller: Caller, relation_id: str) -> Relation:
        """End a relation that was written here.

        Raises:
            AccessUnknownError: None of that id, or of another organization.
            AccessAuthorError: It was written at another node.
        """
        self._refuse_writes()

        def work(connection: Connection) -> Relation:
            held = self._rows.held(connection, CARE_RELATIONS, relation_id)
            _refuse_others(caller, str(held.values.get("organization_id") or ""))
            return Relation.of(self._ended(connection, caller, held, "ended"))

        return self._store.transactions.write(work)

    # -- grants ---------------------------------------------------------------------------------

    def grant(self, caller: Caller, wanted: Wanted) -> Grant:
        """Let somebody see a resident whom the caller's organization sees by itself.

        Raises:
            InvalidRequestError: The grantee, the hours or the reason is none.
            NotFoundError: No such resident, or not for this caller.
            GrantBorrowedError: He sees him by a grant or a broken glass alone.
            RequestIdReusedError: The request wrote something else before.
        """
        self._refuse_writes()
        hours = wanted.hours or _HOURS_DEFAULT
        if not _GRANTEE.fullmatch(wanted.whom):
            raise InvalidRequestError("grantee is staff:ID or organization:ID")
        if wanted.whom in grantees_of(caller):
            raise InvalidRequestError("grantee is somebody else, of another organization")
        if not 1 <= hours <= _HOURS_MAX:
            raise InvalidRequestError(f"hours are 1 to {_HOURS_MAX}")
        reason = _reason(wanted.reason)
        scope = self._store.scopes.parameters(caller)
        said = {"grantee": wanted.whom, "kind": GrantKind.CONSULTATION.value, "reason": reason}
        row_id = self._rows.request_row_id(caller, ACCESS_GRANTS, wanted.request_id)

        def work(connection: Connection) -> Grant:
            home = self._rows.home(connection, caller, wanted.resident_id)
            if not seen_residents(connection, caller, scope, [home.resident_id]):
                raise NotFoundError("no such resident here")
            if not entrusted(connection, caller, scope, home.resident_id):
                raise GrantBorrowedError("you see him by a grant or a broken glass alone")
            row = self._granted(connection, caller, home, (row_id, said), hours * 60, Action.GRANT)
            return grant_of(row)

        return self._store.transactions.write(work)

    def revoke_grant(self, caller: Caller, grant_id: str) -> Grant:
        """End a grant that was written here.

        Raises:
            AccessUnknownError: None of that id, or of another organization.
            AccessAuthorError: It was written at another node.
        """
        self._refuse_writes()

        def work(connection: Connection) -> Grant:
            held = self._rows.held(connection, ACCESS_GRANTS, grant_id)
            _refuse_others(caller, str(held.values.get("granted_for") or ""))
            return grant_of(self._ended(connection, caller, held, "revoked"))

        return self._store.transactions.write(work)

    def break_glass(self, caller: Caller, wanted: Wanted) -> Broken:
        """Let the caller see one resident for half an hour, whatever consents say.

        The grant travels to the resident's home, which reviews it.

        Raises:
            BreakGlassError: The caller is no person.
            InvalidRequestError: There is no reason.
            NotFoundError: No such resident, for all this node may say.
            RequestIdReusedError: The request wrote something else before.
        """
        self._refuse_writes()
        if caller.kind is not CallerKind.STAFF or not caller.staff_id:
            raise BreakGlassError("a glass is broken by somebody who has signed in")
        reason = _reason(wanted.reason)
        scope = self._store.scopes.parameters(caller)
        said = {
            "grantee": staff(caller.staff_id),
            "kind": GrantKind.BREAK_GLASS.value,
            "reason": reason,
        }
        row_id = self._rows.request_row_id(caller, ACCESS_GRANTS, wanted.request_id)

        def work(connection: Connection) -> Broken:
            home = self._rows.home(connection, caller, wanted.resident_id)
            overrides = is_forbidden(connection, scope, home.resident_id)
            row = self._granted(
                connection,
                caller,
                home,
                (row_id, said),
                BREAK_GLASS_MINUTES,
                Action.BREAK_GLASS,
            )
            return Broken(grant_of(row), overrides)

        return self._store.transactions.write(work)

    def listed(
        self, caller: Caller, resident_id: str, *, after: str, limit: int
    ) -> tuple[list[Relation], list[Grant]]:
        """Relations and grants of a resident by id.

        Raises:
            NotFoundError: No such resident, for all this node may say.
        """

        def work(connection: Connection) -> tuple[list[Relation], list[Grant]]:
            self._rows.home(connection, caller, resident_id)
            relations, grants = (
                self._rows.of_resident(connection, spec, resident_id, after=after, limit=limit)
                for spec in (CARE_RELATIONS, ACCESS_GRANTS)
            )
            count = len(relations) + len(grants)
            deed = Deed(
                Action.READ, ACCESS_GRANTS.name, Outcome.DONE, count, resident_id=resident_id
            )
            self._store.auditor.write(connection, caller, deed)
            return [Relation.of(row) for row in relations], [grant_of(row) for row in grants]

        return self._store.transactions.write(work)

    # -- common to them -------------------------------------------------------------------------

    def _whom(
        self, connection: Connection, caller: Caller, scope: Mapping[str, Any], wanted: Wanted
    ) -> HomeOf:
        resident_id = wanted.resident_id
        if not resident_id:
            if not all(wanted.identifier):
                raise InvalidRequestError("resident_id or an identifier is required")
            resident_id = self._rows.carrying(connection, caller, scope, wanted.identifier)
        return self._rows.home(connection, caller, resident_id)

    def _granted(
        self,
        connection: Connection,
        caller: Caller,
        home: HomeOf,
        request: tuple[str, Mapping[str, str]],
        minutes: int,
        action: Action,
    ) -> RowChange:
        """The grant of a request (its row id, what it says)."""
        row_id, said = request
        held = self._rows.repeated(connection, ACCESS_GRANTS, row_id, said)
        if held is not None:
            self._audit(connection, caller, action, held, Outcome.REPEATED)
            return held
        now_ms = self._store.clock.now_ms()
        values = {
            **said,
            "from_at": format_ms(now_ms),
            "until_at": format_ms(now_ms + minutes * _MINUTE_MS),
            "granted_by": caller.principal,
            "granted_for": caller.organization_id,
        }
        row = self._rows.put(connection, ACCESS_GRANTS, home, row_id, values)
        self._audit(connection, caller, action, row)
        return row

    def _ended(
        self, connection: Connection, caller: Caller, held: RowChange, how: str
    ) -> RowChange:
        """The row with its end; `how`: "ended" or "revoked", as its columns call it."""
        if held.author_node != self._store.node_id:
            raise AccessAuthorError(f"it was written at {held.author_node}")
        if held.values.get(f"{how}_at"):
            self._audit(connection, caller, Action.REVOKE, held, Outcome.REPEATED)
            return held
        ended = {
            f"{how}_at": format_ms(self._store.clock.now_ms()),
            f"{how}_by": caller.principal,
        }
        row = self._rows.amend(connection, held, ended)
        self._audit(connection, caller, Action.REVOKE, row)
        return row

    def _audit(
        self,
        connection: Connection,
        caller: Caller,
        action: Action,
        row: RowChange,
        outcome: Outcome = Outcome.DONE,
    ) -> None:
        glass = row.row_id if action is Action.BREAK_GLASS else None
        deed = Deed(action, row.table, outcome, 1, row.row_id, row.resident_id, glass)
        self._store.auditor.write(connection, caller, deed)


def _own_organization(caller: Caller, named: str) -> str:
    """The organization that cares: the caller's, or the one that a clinic's system names."""
    if caller.kind is CallerKind.STAFF:
        if not caller.organization_id or named not in {"", caller.organization_id}:
            raise DeniedError(
                "a member of staff opens relations of his own organization",
                hint="Name no organization, or sign in as staff of the one you mean.",
            )
        return caller.organization_id
    if not _ORGANIZATION.fullmatch(named):
        raise InvalidRequestError("organization_id is required")
    return named


def _refuse_others(caller: Caller, organization_id: str) -> None:
    """A member of staff ends what is his organization's; an administrator, anybody's."""
    if caller.kind is not CallerKind.STAFF or Role.ADMINISTRATOR in caller.roles:
        return
    if not organization_id or organization_id != caller.organization_id:
        raise AccessUnknownError("no such row here")


def _period(wanted: Wanted, day: date) -> tuple[str, str]:
    """First and last day of a relation."""
    if wanted.what not in _DAYS:
        raise InvalidRequestError(f"kind is one of {', '.join(_DAYS)}")
    from_on = day_in("from_on", wanted.from_on) or day.isoformat()
    first = date.fromisoformat(from_on)
    last = day_in("until_on", wanted.until_on)
    until = date.fromisoformat(last) if last else first + timedelta(_DAYS[wanted.what])
    if not timedelta(0) <= until - first <= timedelta(_RELATION_DAYS_MAX):
        raise InvalidRequestError("until_on is not within five years from from_on")
    return from_on, until.isoformat()


def _reason(text: str) -> str:
    reason = text.strip()
    if not _REASON_MIN <= len(reason) <= NOTE_MAX:
        raise InvalidRequestError(f"a reason has {_REASON_MIN} to {NOTE_MAX} characters")
    return reason
