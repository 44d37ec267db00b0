"""The table of accounts: who signs in at this node, and with what. Blocks.

Secrets are cells sealed for their place. Whoever manages an account must hold every role that its
owner has: with another's password one would have them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, or_, select, update

from node.clock import RandomBytes
from node.errors import InvalidRequestError, NotFoundError
from node.people.book import STAFF, PeopleBook
from node.people.deeds import Deeds, Done, Wish
from node.people.errors import (
    AccountExistsError,
    PasswordWeakError,
    PeopleEndedError,
    SessionNeededError,
    SignInRefusedError,
    TotpRefusedError,
)
from node.people.locks import after_failure, is_locked
from node.people.model import Account, NewAccount
from node.people.passwords import Passwords, refuse_weak
from node.people.powers import powers_of
from node.people.totp import SECRET_BYTES, used_step
from node.security.caller import Caller, CallerKind
from node.storage.audit import Action
from node.storage.context import StoreContext
from node.storage.tables import PEOPLE

__all__ = ["ACCOUNTS", "Accounts", "Secrets", "account_name"]

ACCOUNTS: Final = PEOPLE.accounts
_S: Final = PEOPLE.sessions
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_SUBJECT_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class Secrets:
    """Seals and opens the secret cells of accounts."""

    store: StoreContext

    def sealed(self, column: str, account_id: str, value: str) -> bytes | None:
        """As it is stored."""
        return self.store.cells.seal_cell(ACCOUNTS.name, column, account_id, value)

    def opened(self, column: str, account_id: str, sealed: bytes | None) -> str | None:
        """Clear; None: there is none."""
        kept = None if sealed is None else bytes(sealed)
        value = self.store.cells.open_cell(ACCOUNTS.name, column, account_id, kept)
        return value if isinstance(value, str) else None


# A second way in, of the administrator's choosing, would stay open beside the one that the owner
# knows of, into whatever roles others give him later.
_EITHER: Final = "an account is opened by a password or by an issuer's token, not by both"


class Accounts:
    """Adds, changes and lists."""

    def __init__(
        self,
        store: StoreContext,
        book: PeopleBook,
        deeds: Deeds,
        passwords: Passwords,
        random_bytes: RandomBytes,
    ) -> None:
        self._store = store
        self._book = book
        self._deeds = deeds
        self._passwords = passwords
        self._random_bytes = random_bytes
        self._secrets = Secrets(store)

    # -- by whoever manages them -------------------------------------------------------------------

    def add(self, caller: Caller, new: NewAccount, request_id: str) -> Done:
        """Add an account for one of this node's staff. Takes as long as stretching a password.

        Raises:
            AccountExistsError: The name or the subject is taken.
            PeopleEndedError: He works here no more, or at another node.
            NotYourDivisionError, RoleLackedError: He is not the asker's to manage.
            PasswordWeakError: The password is.
        """
        name = account_name(new.name)
        if not new.password and not new.oidc_subject:
            raise InvalidRequestError("password: is missing, and so is oidc_subject")
        if new.password and new.oidc_subject:
            raise InvalidRequestError(_EITHER)
        if len(new.oidc_subject) > _SUBJECT_MAX or not new.oidc_subject.isascii():
            raise InvalidRequestError(f"oidc_subject: at most {_SUBJECT_MAX} ASCII characters")
        if new.password:
            refuse_weak(new.password, name)
        account_id = self._store.ids.mint()
        phc = self._passwords.stretched(new.password) if new.password else ""
        row = {
            "account_id": account_id,
            "name": name,
            "staff_id": new.staff_id,
            "created_at": self._store.clock.now_ms(),
            "created_by": caller.principal[:200],
            "password": self._secrets.sealed("password", account_id, phc) if phc else None,
            "must_change": bool(phc),
            "failures": 0,
            "locked_until": 0,
            "totp_confirmed": False,
            "totp_step": 0,
            "oidc_subject": new.oidc_subject or None,
        }

        def work(connection: Connection) -> Done:
            self._refuse_unmanaged(connection, caller, new.staff_id)
            taken = or_(ACCOUNTS.c.name == name, ACCOUNTS.c.staff_id == new.staff_id)
            if new.oidc_subject:
                taken = or_(taken, ACCOUNTS.c.oidc_subject == new.oidc_subject)
            if connection.execute(select(ACCOUNTS.c.name).where(taken)).first() is not None:
                raise AccountExistsError("the name, the person or the subject has an account")
            connection.execute(insert(ACCOUNTS).values(row))
            return Done(account_id)

        body = (name, new.staff_id, new.oidc_subject)
        return self._deeds.carry_out(
            Wish(caller, Action.ADD, ACCOUNTS.name, request_id, body), work
        )

    def disable(self, caller: Caller, name: str, request_id: str) -> Done:
        """Close an account, and with it every session of it."""

        def change(connection: Connection, row: Row[Any]) -> dict[str, Any]:
            self._end_sessions(connection, row.account_id, "disabled")
            return {"disabled_at": row.disabled_at or self._store.clock.now_ms()}

        return self._changed(caller, Action.DISABLE, name, request_id, change, ends=True)

    def enable(self, caller: Caller, name: str, request_id: str) -> Done:
        """Open an account again that was disabled."""
        return self._changed(
            caller, Action.ENABLE, name, request_id, lambda *_: {"disabled_at": None}
        )

    def unlock(self, caller: Caller, name: str, request_id: str) -> Done:
        """Forget wrong passwords, and open the lock that they closed."""
        return self._changed(
            caller, Action.UNLOCK, name, request_id, lambda *_: {"failures": 0, "locked_until": 0}
        )

    def set_password(self, caller: Caller, name: str, password: str, request_id: str) -> Done:
        """Set somebody's password; he must take one of his own. Ends his sessions.

        Raises:
            InvalidRequestError: Another issuer's token opens the account.
            PasswordWeakError: The password is.
        """
        refuse_weak(password, account_name(name))
        phc = self._passwords.stretched(password)

        def change(connection: Connection, row: Row[Any]) -> dict[str, Any]:
            if row.oidc_subject:
                raise InvalidRequestError(_EITHER)
            self._end_sessions(connection, row.account_id, "password")
            sealed = self._secrets.sealed("password", row.account_id, phc)
            return {"password": sealed, "must_change": True, "failures": 0, "locked_until": 0}

        return self._changed(caller, Action.PASSWORD, name, request_id, change)

    def remove_totp(self, caller: Caller, name: str, request_id: str) -> Done:
        """Take a second factor away, as when its telephone is lost. Ends his sessions."""

        def change(connection: Connection, row: Row[Any]) -> dict[str, Any]:
            self._end_sessions(connection, row.account_id, "totp")
            return {"totp": None, "totp_confirmed": False}

        return self._changed(caller, Action.TOTP, name, request_id, change)

    def page(self, caller: Caller, after: str, limit: int) -> list[Account]:
        """Accounts of staff that the asker manages, by name."""

        def work(connection: Connection) -> list[Account]:
            powers = powers_of(connection, self._book, self._store.hierarchy, caller)
            powers.refuse_beyond(self._store.node_id)
            query = select(ACCOUNTS).where(ACCOUNTS.c.name > after)
            rows = connection.execute(query.order_by(ACCOUNTS.c.name).limit(limit))
            return [self._out(row) for row in rows]

        return self._deeds.read(caller, ACCOUNTS.name, work)

    # -- by their owners ---------------------------------------------------------------------------

    def change_password(self, caller: Caller, old: str, new: str, request_id: str = "") -> Done:
        """Take another password, which ends every session; wrong old ones are counted.

        A request that comes again is not judged by the old password, which has gone.

        Raises:
            SessionNeededError: The asker has not signed in.
            SignInRefusedError: The old password is wrong.
            PasswordWeakError: The new one is, or is the old one.
        """
        row = self._own(caller)
        refuse_weak(new, row.name)
        wish = Wish(caller, Action.PASSWORD, ACCOUNTS.name, request_id, (row.account_id,))
        if not self._deeds.has_done(wish):
            self._refuse_stranger(caller, Action.PASSWORD, row, old)
            if old == new:
                raise PasswordWeakError("the new password is the old one")
        phc = self._passwords.stretched(new)

        def work(connection: Connection) -> Done:
            self._end_sessions(connection, row.account_id, "password")
            self._set(
                connection,
                row.account_id,
                password=self._secrets.sealed("password", row.account_id, phc),
                must_change=False,
                failures=0,
            )
            return Done(row.account_id)

        return self._deeds.carry_out(wish, work)

    def enrol_totp(self, caller: Caller, password: str, request_id: str = "") -> tuple[str, bytes]:
        """Make a secret for the asker's own account; it counts once a code of it is confirmed.

        Returns the account's name, and the secret, which is shown this once. An account without
        a password, which another issuer opens, needs none. A request that comes again shows what it
        made, until that is confirmed.
        """
        row = self._own(caller)
        if row.password is not None:
            self._refuse_stranger(caller, Action.TOTP, row, password)
        if row.totp_confirmed:
            raise TotpRefusedError(
                "the account has a second factor",
                hint="Have it taken away first: `fenhe account totp NAME --remove`.",
            )
        wish = Wish(caller, Action.TOTP, ACCOUNTS.name, request_id, (row.account_id, "enrol"))
        held = None
        if self._deeds.has_done(wish):
            held = self._secrets.opened("totp", row.account_id, row.totp)
            if held is None:
                raise TotpRefusedError(
                    "what this request made was taken away since",
                    hint="Ask anew, under another request id.",
                )
        secret = bytes.fromhex(held) if held else self._random_bytes(SECRET_BYTES)

        def work(connection: Connection) -> Done:
            sealed = self._secrets.sealed("totp", row.account_id, secret.hex())
            self._set(connection, row.account_id, totp=sealed, totp_confirmed=False, totp_step=0)
            return Done(row.account_id)

        self._deeds.carry_out(wish, work)
        return str(row.name), secret

    def confirm_totp(self, caller: Caller, code: str, request_id: str = "") -> Done:
        """Let the second factor count from now on. Raises TotpRefusedError."""
        account_id = self._own(caller).account_id

        def work(connection: Connection) -> Done:
            row = connection.execute(
                select(ACCOUNTS).where(ACCOUNTS.c.account_id == account_id).with_for_update()
            ).one()
            secret = self._secrets.opened("totp", account_id, row.totp)
            now_ms = self._store.clock.now_ms()
            step = secret and used_step(bytes.fromhex(secret), code, now_ms, row.totp_step)
            if not step or row.totp_confirmed:
                raise TotpRefusedError("that code confirms nothing")
            self._set(connection, account_id, totp_confirmed=True, totp_step=step)
            return Done(account_id)

        wish = Wish(caller, Action.TOTP, ACCOUNTS.name, request_id, (account_id, "confirm"))
        return self._deeds.carry_out(wish, work)

    # -- odds and ends -----------------------------------------------------------------------------

    def _changed(
        self,
        caller: Caller,
        action: Action,
        name: str,
        request_id: str,
        change: Callable[[Connection, Row[Any]], dict[str, Any]],
        *,
        ends: bool = False,
    ) -> Done:
        """Change an account that the asker manages. `ends`: it only takes something away."""
        name = account_name(name)

        def work(connection: Connection) -> Done:
            query = select(ACCOUNTS).where(ACCOUNTS.c.name == name).with_for_update()
            row = connection.execute(query).first()
            powers = powers_of(connection, self._book, self._store.hierarchy, caller)
            powers.refuse_beyond(self._store.node_id)
            if row is None:
                raise NotFoundError("there is no account of that name here")
            if not ends:
                held = self._book.roles(connection, row.staff_id)
                powers.refuse_lacking((each.role, each.division) for each in held)
            self._set(connection, row.account_id, **change(connection, row))
            return Done(row.account_id)

        wish = Wish(caller, action, ACCOUNTS.name, request_id, (name,))
        return self._deeds.carry_out(wish, work)

    def _refuse_unmanaged(self, connection: Connection, caller: Caller, staff_id: str) -> None:
        member = self._book.one(connection, STAFF, staff_id)
        here = self._store.node_id
        if member is None or member.home_node not in caller.scope:
            raise NotFoundError("no such row of staff here, or not for you")
        powers = powers_of(connection, self._book, self._store.hierarchy, caller)
        powers.refuse_beyond(here)
        if member.home_node != here:
            raise PeopleEndedError(
                f"he works at {member.home_node}",
                hint="Accounts never leave their node: add his at the node where he works.",
            )
        if self._book.ended(connection, [member]):
            raise PeopleEndedError("he works here no more")
        held = self._book.roles(connection, staff_id)
        powers.refuse_lacking((each.role, each.division) for each in held)

    def _own(self, caller: Caller) -> Row[Any]:
        if caller.kind is not CallerKind.STAFF or not caller.roles:
            raise SessionNeededError("this is for somebody's own account")
        query = select(ACCOUNTS).where(ACCOUNTS.c.staff_id == caller.staff_id)
        row = self._store.transactions.read(lambda connection: connection.execute(query).first())
        if row is None:
            raise SessionNeededError("this is for somebody's own account")
        return row

    def _refuse_stranger(
        self, caller: Caller, action: Action, row: Row[Any], password: str
    ) -> None:
        """Refuse who has a session and not its password: somebody left it open, or lost it.

        Raises:
            SignInRefusedError: The password is wrong, which was counted, or the account locked.
        """
        kept = self._secrets.opened("password", row.account_id, row.password)
        fits = self._passwords.fits(password, kept)
        if fits and not is_locked(row.locked_until, self._store.clock.now_ms()):
            return

        def wrong(connection: Connection) -> None:
            found = connection.execute(
                select(ACCOUNTS).where(ACCOUNTS.c.account_id == row.account_id).with_for_update()
            ).one()
            self._set(
                connection, row.account_id, **after_failure(found, self._store.clock.now_ms())
            )

        if not fits:
            self._store.transactions.write(wrong)
        self._deeds.note_refused(caller, action, ACCOUNTS.name, row.account_id)
        raise SignInRefusedError("the password is wrong, or the account is locked")

    def _set(self, connection: Connection, account_id: str, **values: Any) -> None:
        connection.execute(
            update(ACCOUNTS).where(ACCOUNTS.c.account_id == account_id).values(**values)
        )

    def _end_sessions(self, connection: Connection, account_id: str, why: str) -> None:
        connection.execute(
            update(_S)
            .where(_S.c.account_id == account_id, _S.c.ended_at.is_(None))
            .values(ended_at=self._store.clock.now_ms(), ended_because=why)
        )

    def _out(self, row: Row[Any]) -> Account:
        return Account(
            row.account_id,
            row.name,
            row.staff_id,
            int(row.created_at),
            row.disabled_at is not None,
            int(row.locked_until),
            int(row.failures),
            bool(row.must_change),
            row.password is not None,
            bool(row.totp_confirmed),
            row.oidc_subject or "",
        )


def account_name(text: str) -> str:
    """The name of an account as it is kept. Raises InvalidRequestError: it cannot be one."""
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            "name: 1 to 64 of a-z, 0-9, dot, hyphen and underscore, with none of them at an end"
        )
    return name
