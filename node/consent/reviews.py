"""The queue in which a resident's home looks at every glass that was broken over him.

A broken glass is a grant like any other, which travels to the home as every row about him does.
That it waits there is an alarm (node/watch/alarms.py). What was found of it is a row of the home's,
under the grant's id, which rises as policy says, so that whoever broke the glass learns it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Select, bindparam, exists, func, not_, select

from node.clock import format_ms
from node.consent.consents import NOTE_MAX
from node.consent.errors import AccessUnknownError, ConsentNotAtHomeError, OwnReviewError
from node.consent.model import Grant, Review, grant_of
from node.consent.rows import AccessRows
from node.consent.words import BREAK_GLASS, Finding, staff
from node.errors import InvalidRequestError
from node.security.caller import Caller, CallerKind
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.specs import ACCESS_GRANTS, ACCESS_REVIEWS
from node.storage.stored import stored_change
from node.storage.tables import REPLICATED
from replication.core.model import Form

__all__ = ["ReviewDesk", "glasses_waiting"]

_G: Final = REPLICATED[ACCESS_GRANTS.name]
_V: Final = REPLICATED[ACCESS_REVIEWS.name]


def _broken(*what: Any, closed_too: bool) -> Select[Any]:
    """Glasses broken over residents whose home is here."""
    looked_at = exists().where(_V.c.row_id == _G.c.row_id, _V.c.form == Form.FULL.value)
    query = select(*what).where(
        _G.c.home_node == bindparam("here"),
        _G.c.kind == BREAK_GLASS,
        _G.c.form == Form.FULL.value,
        _G.c.deleted.is_(False),
    )
    return query if closed_too else query.where(not_(looked_at))


_WAITING: Final = _broken(func.count(), closed_too=False)
_PAGES: Final = {
    closed_too: _broken(_G, closed_too=closed_too)
    .where(_G.c.row_id > bindparam("after"))
    .order_by(_G.c.row_id)
    .limit(bindparam("size"))
    for closed_too in (False, True)
}


def glasses_waiting(connection: Connection, here: str) -> int:
    """Glasses broken over residents of a home that nobody has looked at."""
    return int(connection.execute(_WAITING, {"here": here}).scalar_one())


class ReviewDesk:
    """Every method blocks on the database; what it changed is durable when it returns."""

    def __init__(self, store: StoreContext, refuse_writes: Callable[[], None]) -> None:
        self._store = store
        self._rows = AccessRows(store)
        self._refuse_writes = refuse_writes

    def listed(self, caller: Caller, *, closed_too: bool, after: str, limit: int) -> list[Review]:
        """Glasses broken over residents whose home is here."""
        wanted = {"here": self._store.node_id, "after": after, "size": limit}

        def work(connection: Connection) -> list[Review]:
            rows = connection.execute(_PAGES[closed_too], wanted).mappings().all()
            grants = [
                grant_of(stored_change(self._store.cells, ACCESS_GRANTS.name, row)) for row in rows
            ]
            ids = [each.grant_id for each in grants]
            found = self._rows.by_id(connection, ACCESS_REVIEWS, ids)
            deed = Deed(Action.READ, ACCESS_REVIEWS.name, Outcome.DONE, len(grants))
            about = [
                Deed(Action.READ, ACCESS_REVIEWS.name, Outcome.DONE, 1, g.grant_id, g.resident_id)
                for g in grants
            ]
            self._store.auditor.write(connection, caller, deed, *about)
            return [Review.of(grant, found.get(grant.grant_id)) for grant in grants]

        return self._store.transactions.write(work)

    def close(self, caller: Caller, grant_id: str, finding: str, note: str) -> Review:
        """Say what was found of a broken glass. The same finding again changes nothing.

        Raises:
            InvalidRequestError: It is no finding, or the note is too long.
            AccessUnknownError: No such glass was broken, or another finding closed it.
            ConsentNotAtHomeError: The resident's home is another node.
            OwnReviewError: The caller broke it himself.
        """
        self._refuse_writes()
        if finding not in set(Finding):
            raise InvalidRequestError(f"finding is one of {', '.join(Finding)}")
        if len(note) > NOTE_MAX:
            raise InvalidRequestError(f"a note has at most {NOTE_MAX} characters")

        def work(connection: Connection) -> Review:
            row = self._rows.held(connection, ACCESS_GRANTS, grant_id)
            grant = grant_of(row)
            if not grant.is_broken_glass:
                raise AccessUnknownError("it is a grant like others, which nobody reviews")
            if _broke(caller, grant):
                raise OwnReviewError("the glass was broken by you")
            home = self._rows.home(connection, caller, row.resident_id)
            if home.node != self._store.node_id:
                raise ConsentNotAtHomeError(f"the resident's home is {home.node}")
            held = self._rows.find(connection, ACCESS_REVIEWS, grant_id)
            if held is not None and held.values.get("finding") != finding:
                raise AccessUnknownError("another finding has closed it")
            deed = Deed(
                Action.REVIEW,
                ACCESS_REVIEWS.name,
                Outcome.DONE if held is None else Outcome.REPEATED,
                1,
                grant_id,
                row.resident_id,
            )
            self._store.auditor.write(connection, caller, deed)
            if held is None:
                # It may have been closed, and that be lost.
                self._store.recovery.refuse()
                values = {
                    "finding": finding,
                    "note": note,
                    "closed_at": format_ms(self._store.clock.now_ms()),
                    "closed_by": caller.principal,
                }
                held = self._rows.put(connection, ACCESS_REVIEWS, home, grant_id, values)
            return Review.of(grant, held)

        return self._store.transactions.write(work)


def _broke(caller: Caller, grant: Grant) -> bool:
    """Whether the caller broke this glass: by his name, which holds his node, or by his staff id.

    The operator breaks none, and may close any.
    """
    if caller.kind is CallerKind.OPERATOR:
        return False
    mine = bool(caller.staff_id) and grant.grantee == staff(caller.staff_id)
    return mine or caller.principal == grant.granted_by
