"""Consents for callers: written, listed and revoked at the resident's home."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import Final

from sqlalchemy import Connection

from node.clock import format_ms, today
from node.consent.errors import ConsentNotAtHomeError
from node.consent.model import Consent, Wanted
from node.consent.rows import AccessRows, HomeOf
from node.consent.words import DENY, EVERYONE, PERMIT
from node.errors import InvalidRequestError
from node.security.caller import Caller
from node.security.purposes import CONSENT_PURPOSES
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.specs import CONSENTS

__all__ = ["NOTE_MAX", "ConsentDesk", "day_in"]

NOTE_MAX: Final = 200
_RECIPIENT: Final = re.compile(
    rf"{EVERYONE}|organization:[A-Za-z0-9][A-Za-z0-9-]{{0,63}}|division:[0-9]{{4,12}}"
)


class ConsentDesk:
    """Every method blocks on the database; what it changed is durable when it returns.

    `refuse_writes`: raises while nothing may be written.
    """

    def __init__(self, store: StoreContext, refuse_writes: Callable[[], None]) -> None:
        self._store = store
        self._rows = AccessRows(store)
        self._refuse_writes = refuse_writes

    def put(self, caller: Caller, wanted: Wanted) -> Consent:
        """Write down a consent.

        Raises:
            InvalidRequestError: A word or a day of it is none.
            NotFoundError: No such resident, for all this node may say.
            ConsentNotAtHomeError: His home is another node.
            RequestIdReusedError: The request wrote something else before.
        """
        self._refuse_writes()
        _check(wanted)
        # As they are compared: what is read as a day may be written in several ways.
        from_on = day_in("from_on", wanted.from_on) or today(self._store.clock).isoformat()
        until_on = day_in("until_on", wanted.until_on)
        if until_on and until_on < from_on:
            raise InvalidRequestError("until_on is before from_on")
        said = {
            "purpose": wanted.purpose,
            "recipient": wanted.whom,
            "decision": wanted.what,
            "until_on": until_on,
            "note": wanted.reason,
        }
        row_id = self._rows.request_row_id(caller, CONSENTS, wanted.request_id)

        def work(connection: Connection) -> Consent:
            home = self._home(connection, caller, wanted.resident_id)
            held = self._rows.repeated(connection, CONSENTS, row_id, said)
            if held is not None:
                self._audit(connection, caller, Action.CONSENT, Outcome.REPEATED, home, row_id)
                return Consent.of(held)
            values = {**said, "from_on": from_on, "given_to": caller.principal}
            row = self._rows.put(connection, CONSENTS, home, row_id, values)
            self._audit(connection, caller, Action.CONSENT, Outcome.DONE, home, row_id)
            return Consent.of(row)

        return self._store.transactions.write(work)

    def listed(self, caller: Caller, resident_id: str, *, after: str, limit: int) -> list[Consent]:
        """Consents of a resident by id; whoever writes them down must be able to read them.

        Raises:
            NotFoundError: No such resident, for all this node may say.
        """

        def work(connection: Connection) -> list[Consent]:
            self._rows.home(connection, caller, resident_id)
            found = self._rows.of_resident(
                connection, CONSENTS, resident_id, after=after, limit=limit
            )
            deed = Deed(
                Action.READ, CONSENTS.name, Outcome.DONE, len(found), resident_id=resident_id
            )
            self._store.auditor.write(connection, caller, deed)
            return [Consent.of(row) for row in found]

        return self._store.transactions.write(work)

    def revoke(self, caller: Caller, consent_id: str) -> Consent:
        """End a consent, from now on.

        Raises:
            AccessUnknownError: None of that id is held here.
            ConsentNotAtHomeError: The resident's home is another node.
        """
        self._refuse_writes()

        def work(connection: Connection) -> Consent:
            held = self._rows.held(connection, CONSENTS, consent_id)
            home = self._home(connection, caller, held.resident_id)
            if held.values.get("revoked_at"):
                self._audit(connection, caller, Action.REVOKE, Outcome.REPEATED, home, consent_id)
                return Consent.of(held)
            ended = {
                "revoked_at": format_ms(self._store.clock.now_ms()),
                "revoked_by": caller.principal,
            }
            row = self._rows.amend(connection, held, ended)
            self._audit(connection, caller, Action.REVOKE, Outcome.DONE, home, consent_id)
            return Consent.of(row)

        return self._store.transactions.write(work)

    def _home(self, connection: Connection, caller: Caller, resident_id: str) -> HomeOf:
        home = self._rows.home(connection, caller, resident_id)
        if home.node != self._store.node_id:
            raise ConsentNotAtHomeError(f"the resident's home is {home.node}")
        return home

    def _audit(
        self,
        connection: Connection,
        caller: Caller,
        action: Action,
        outcome: Outcome,
        home: HomeOf,
        row_id: str,
    ) -> None:
        deed = Deed(action, CONSENTS.name, outcome, 1, row_id, home.resident_id)
        self._store.auditor.write(connection, caller, deed)


def day_in(name: str, text: str) -> str:
    """A day as it is stored and compared, 2026-03-01, however it is written; "" for none.

    Raises:
        InvalidRequestError: It is no day.
    """
    if not text:
        return ""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise InvalidRequestError(f"{name} is not a day such as 2026-03-01") from None


def _check(wanted: Wanted) -> None:
    if wanted.purpose not in CONSENT_PURPOSES:
        named = ", ".join(sorted(CONSENT_PURPOSES))
        raise InvalidRequestError(f"purpose is one of {named}")
    if wanted.what not in {PERMIT, DENY}:
        raise InvalidRequestError(f"decision is {PERMIT} or {DENY}")
    if not _RECIPIENT.fullmatch(wanted.whom):
        raise InvalidRequestError(
            f"recipient is {EVERYONE}, organization:ID or division:CODE",
            hint="`fenhe hierarchy tree` lists the region's divisions.",
        )
    if len(wanted.reason) > NOTE_MAX:
        raise InvalidRequestError(f"a note has at most {NOTE_MAX} characters")
