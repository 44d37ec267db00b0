"""Which rows a caller may see, as part of the statement that reads them.

A row has its place: its home is in the caller's scope, or the caller's node wrote it. Whoever acts
for a node (a clinic's system, an operator) sees what has its place and is not forbidden by a
consent. A member of staff needs a ground besides: his organization wrote the row, or cares for the
resident today, or somebody granted it. A glass that was broken is ground enough, and is stronger
than a consent that forbids.

Canaries (node/records/canaries.py) are seen by nobody.

A node believes of relations and grants what it wrote itself and what the resident's home wrote: a
child's word opens no other home. A few homes are spelled out; larger sets are kept once in a table
under their hash, because a county's scope has hundreds of homes and a statement should not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Exists,
    Table,
    and_,
    bindparam,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
)

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock, format_ms, today
from node.consent.words import BREAK_GLASS, DENY, grantees_of, recipients_of
from node.records.canaries import are_people
from node.security.caller import Caller, CallerKind
from node.security.purposes import ANY_PURPOSE, CONSENT_PURPOSES
from node.storage.ready import ReadySelect, padded
from node.storage.specs import (
    ACCESS_GRANTS,
    AUTHOR_ORGANIZATION,
    CARE_RELATIONS,
    CONSENTS,
    RESIDENTS,
)
from node.storage.tables import REPLICATED, SCOPE_HOMES
from node.storage.transactions import Transactions
from replication.core.model import Form

__all__ = [
    "SCOPE_FORMS",
    "Glasses",
    "ScopeForm",
    "Scopes",
    "entrusted",
    "form_of",
    "has_place",
    "is_forbidden",
    "placed",
    "seen_residents",
    "visible",
]

_SPELLED_OUT_MAX: Final = 8
_KEYS_KEPT: Final = 1024
_R: Final = REPLICATED[RESIDENTS.name]
_CONSENTS: Final = REPLICATED[CONSENTS.name]
_RELATIONS: Final = REPLICATED[CARE_RELATIONS.name]
_GRANTS: Final = REPLICATED[ACCESS_GRANTS.name]


@dataclass(frozen=True, slots=True)
class ScopeForm:
    """What decides over the text of a condition; all else are its parameters.

    `large`: the homes are looked up in a table rather than spelled out. `staff`: a ground is needed
    beside the row's place.
    """

    large: bool
    staff: bool


SCOPE_FORMS: Final = tuple(
    ScopeForm(large, staff) for large in (False, True) for staff in (False, True)
)
"""Every form there is: a statement is built once for each."""


def form_of(caller: Caller) -> ScopeForm:
    """The form of the conditions on what a caller sees."""
    return ScopeForm(len(caller.scope) > _SPELLED_OUT_MAX, caller.kind is CallerKind.STAFF)


def placed(table: Table, *, large: bool) -> ColumnElement[bool]:
    """Whether a row has its place; for counts, which show nobody's row."""
    if large:
        homes = select(SCOPE_HOMES.c.home_node).where(
            SCOPE_HOMES.c.scope_key == bindparam("scope_key")
        )
        in_scope = table.c.home_node.in_(homes)
    else:
        in_scope = table.c.home_node.in_(bindparam("scope_homes", expanding=True))
    mine = table.c.author_node == bindparam("scope_author")
    return and_(or_(mine, in_scope), are_people(table))


def visible(table: Table, form: ScopeForm) -> ColumnElement[bool]:
    """The condition on `table`; its parameters come from Scopes.parameters."""
    place = placed(table, large=form.large)
    allowed = not_(_forbidden(table))
    if not form.staff:
        return and_(place, allowed)
    ground = or_(_own_ground(table), _granted(table))
    return and_(place, or_(and_(ground, allowed), _granted(table, BREAK_GLASS)))


def _own_ground(table: Table) -> ColumnElement[bool]:
    """The ground of the caller's organization itself, which nobody lent it."""
    mine = table.c[AUTHOR_ORGANIZATION] == bindparam("scope_organization")
    return or_(mine, _cared_for(table))


def has_place(caller: Caller, *, home_node: str, author_node: str) -> bool:
    """Whether a row in hand has its place. Enough to write about a resident, not to read him."""
    return author_node == caller.node_id or home_node in caller.scope


def seen_residents(
    connection: Connection, caller: Caller, scope: Mapping[str, Any], ids: Collection[str]
) -> frozenset[str]:
    """Those of some residents whom the caller sees: the statement's word for rows in hand.

    `scope`: of Scopes.parameters, which is asked before the transaction begins.
    """
    if not ids:
        return frozenset()
    wanted = {**scope, "ids": padded(sorted(ids))}
    return frozenset(_SEEN[form_of(caller)].execute(connection, wanted).scalars())


def entrusted(
    connection: Connection, caller: Caller, scope: Mapping[str, Any], resident_id: str
) -> bool:
    """Whether a member of staff sees a resident because his organization does, by itself.

    Neither by a grant nor through a broken glass: those end, and what he passes on must not
    outlive them.
    """
    wanted = {**scope, "id": resident_id}
    return _ENTRUSTED[form_of(caller).large].execute(connection, wanted).scalar() is not None


def is_forbidden(connection: Connection, scope: Mapping[str, Any], resident_id: str) -> bool:
    """Whether a consent in force forbids the caller of `scope` a resident who is held here."""
    found = connection.execute(_FORBIDDEN, {**scope, "id": resident_id})
    return found.first() is not None


class Glasses:
    """Finds the glass that a caller has broken; asked in the transaction that reads."""

    def __init__(self, node_id: NodeId, clock: Clock) -> None:
        self._here = node_id
        self._clock = clock

    def __call__(self, connection: Connection, caller: Caller, resident_id: str) -> str | None:
        """The newest grant of his under break-glass that is not over; None: there is none."""
        wanted = {
            "id": resident_id,
            "scope_grantees": grantees_of(caller),
            "scope_now": format_ms(self._clock.now_ms()),
            "scope_here": self._here,
        }
        return connection.execute(_GLASS, wanted).scalar()


class Scopes:
    """Makes the parameters of conditions; knows which large scopes the database holds already."""

    def __init__(
        self, transactions: Transactions, *, node_id: NodeId, hierarchy: Hierarchy, clock: Clock
    ) -> None:
        self._transactions = transactions
        self._here = node_id
        self._hierarchy = hierarchy
        self._clock = clock
        self._held: dict[frozenset[NodeId], str] = {}

    def parameters(self, caller: Caller) -> dict[str, Any]:
        """Parameters of `visible`. Stores a large scope first, in a transaction of its own."""
        form = form_of(caller)
        found: dict[str, Any] = {
            "scope_author": caller.node_id,
            "scope_purposes": _purposes(caller),
            "scope_recipients": recipients_of(caller, self._path(caller.node_id)),
            "scope_today": today(self._clock).isoformat(),
        }
        if form.staff:
            found |= {
                # NULL equals nothing: who acts for no organization has written nothing for one.
                "scope_organization": caller.organization_id or None,
                "scope_grantees": grantees_of(caller),
                "scope_now": format_ms(self._clock.now_ms()),
                "scope_here": self._here,
            }
        if form.large:
            key = self._held.get(caller.scope)
            found["scope_key"] = self._store(caller.scope) if key is None else key
        else:
            found["scope_homes"] = sorted(caller.scope)
        return found

    def _path(self, node_id: NodeId) -> tuple[NodeId, ...]:
        return self._hierarchy.path_to_root(node_id) if node_id in self._hierarchy else ()

    def _store(self, homes: frozenset[NodeId]) -> str:
        key = hashlib.sha256(",".join(sorted(homes)).encode()).hexdigest()
        held = select(func.count()).select_from(SCOPE_HOMES).where(SCOPE_HOMES.c.scope_key == key)
        # One transaction writes a scope whole, so that a count above zero is all of it.
        self._transactions.write(
            lambda connection: (
                connection.execute(held).scalar_one()
                or connection.execute(
                    insert(SCOPE_HOMES),
                    [{"scope_key": key, "home_node": home} for home in sorted(homes)],
                ).rowcount
            )
        )
        if len(self._held) >= _KEYS_KEPT:
            self._held.clear()
        self._held[homes] = key
        return key


def _purposes(caller: Caller) -> list[str]:
    """Purposes whose consents bind the caller: what he states, and what the method is for.

    A word in a header must not open what is forbidden without it. Every one, if nothing that a
    resident decides over covers what is said: an operator has no use for records, and what nobody
    foresaw is not therefore allowed.
    """
    said = {caller.purpose, caller.default_purpose or caller.purpose}
    if caller.kind is CallerKind.OPERATOR or not said <= CONSENT_PURPOSES:
        return sorted(CONSENT_PURPOSES)
    return sorted({ANY_PURPOSE, *said})


def _forbidden(table: Table) -> Exists:
    """Whether a consent in force forbids the caller the row's resident."""
    c = _CONSENTS.c
    return exists().where(
        *_held(_CONSENTS, table),
        c.decision == DENY,
        c.revoked_at.is_(None),
        c.purpose.in_(bindparam("scope_purposes", expanding=True)),
        c.recipient.in_(bindparam("scope_recipients", expanding=True)),
        *_on_a_day(_CONSENTS),
    )


def _cared_for(table: Table) -> Exists:
    """Whether the caller's organization cares for the row's resident today."""
    c = _RELATIONS.c
    return exists().where(
        *_held(_RELATIONS, table),
        _believed(_RELATIONS, table),
        c.organization_id == bindparam("scope_organization"),
        c.ended_at.is_(None),
        *_on_a_day(_RELATIONS),
    )


def _granted(table: Table, kind: str = "") -> Exists:
    """Whether a grant to the caller is not over; `kind`: of that kind alone."""
    return exists().where(*_grant_counts(table, kind))


def _grant_counts(table: Table, kind: str) -> tuple[ColumnElement[bool], ...]:
    c = _GRANTS.c
    return (
        *_held(_GRANTS, table),
        _believed(_GRANTS, table),
        c.grantee.in_(bindparam("scope_grantees", expanding=True)),
        c.revoked_at.is_(None),
        c.from_at <= bindparam("scope_now"),
        c.until_at > bindparam("scope_now"),
        *((c.kind == kind,) if kind else ()),
    )


def _held(access: Table, table: Table) -> tuple[ColumnElement[bool], ...]:
    return (
        access.c.resident_id == table.c.resident_id,
        access.c.form == Form.FULL.value,
        access.c.deleted.is_(False),
    )


def _believed(access: Table, table: Table) -> ColumnElement[bool]:
    written_by = access.c.author_node
    return or_(written_by == bindparam("scope_here"), written_by == table.c.home_node)


def _on_a_day(access: Table) -> tuple[ColumnElement[bool], ...]:
    until = access.c.until_on
    return (
        access.c.from_on <= bindparam("scope_today"),
        or_(until.is_(None), until >= bindparam("scope_today")),
    )


def _seen_query(form: ScopeForm) -> Any:
    return select(_R.c.row_id).where(
        _R.c.row_id.in_(bindparam("ids", expanding=True)),
        _R.c.form == Form.FULL.value,
        visible(_R, form),
    )


# Built once: composing a statement costs more than running it on SQLite.
_SEEN: Final = {form: ReadySelect(_seen_query(form)) for form in SCOPE_FORMS}
_ENTRUSTED: Final = {
    large: ReadySelect(
        select(_R.c.row_id).where(
            _R.c.row_id == bindparam("id"),
            _R.c.form == Form.FULL.value,
            placed(_R, large=large),
            _own_ground(_R),
            not_(_forbidden(_R)),
        )
    )
    for large in (False, True)
}
_FORBIDDEN: Final = select(_R.c.row_id).where(_R.c.row_id == bindparam("id"), _forbidden(_R))
_GLASS: Final = (
    select(_GRANTS.c.row_id)
    .where(_R.c.row_id == bindparam("id"), *_grant_counts(_R, BREAK_GLASS))
    .order_by(_GRANTS.c.until_at.desc(), _GRANTS.c.row_id)
    .limit(1)
)
