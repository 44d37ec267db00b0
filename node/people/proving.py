"""Signing in: who proves who he is gets a session. One at a time, in a thread of its own. Blocks.

A name that does not exist costs the same work and gets the same answer as a wrong password, a wrong
code, a lock, a disabled account. What an answer tells beyond that is told to those who have proven
who they are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from node.errors import InvalidRequestError
from node.people.accounts import ACCOUNTS, Secrets, account_name
from node.people.book import HeldRole, PeopleBook
from node.people.deeds import Deeds
from node.people.errors import (
    NoRoleTodayError,
    OrganizationNeededError,
    PasswordMustChangeError,
    SignInRefusedError,
)
from node.people.locks import after_failure, is_locked
from node.people.model import SignedIn
from node.people.oidc import Issuer
from node.people.passwords import Passwords, refuse_weak
from node.people.tokens import Tokens
from node.people.totp import used_step
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome
from node.storage.context import StoreContext
from node.storage.tables import PEOPLE

__all__ = ["SESSIONS", "SESSION_MS", "Proof", "Proving", "SignIn"]

SESSIONS: Final = PEOPLE.sessions
SESSION_MS: Final = 12 * 3_600_000
_FORGOTTEN_MS: Final = 30 * 24 * 3_600_000
_REFUSED: Final = "the name, the password or the code is wrong, or the account is closed"


@dataclass(frozen=True, slots=True)
class SignIn:
    """What somebody shows. Either a name with a password, or another issuer's token."""

    name: str = ""
    password: str = field(default="", repr=False)
    code: str = field(default="", repr=False)
    oidc_token: str = field(default="", repr=False)
    new_password: str = field(default="", repr=False)
    organization_id: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found out before the transaction, where it takes long.

    `seen`: the sealed password that was compared with; if the account has another by then, nothing
    was proven.
    """

    fits: bool
    seen: bytes | None = None
    fresh: str = field(default="", repr=False)
    digest: str = ""


class _End(StrEnum):
    REFUSED = "refused"
    MUST_CHANGE = "must_change"
    NO_ROLE = "no_role"
    WHICH = "which"


@dataclass(frozen=True, slots=True)
class _Judged:
    """What came of a sign-in: a session and its owner, or why there is none."""

    end: _End | None
    session_id: str = ""
    staff_id: str = ""
    organization_id: str = ""
    roles: tuple[HeldRole, ...] = ()


class Proving:
    """Judges."""

    def __init__(
        self,
        store: StoreContext,
        book: PeopleBook,
        deeds: Deeds,
        passwords: Passwords,
        tokens: Tokens,
        *,
        issuer: Issuer | None,
        store_epoch: int,
    ) -> None:
        self._store = store
        self._book = book
        self._deeds = deeds
        self._passwords = passwords
        self._tokens = tokens
        self._issuer = issuer
        self._store_epoch = store_epoch
        self._secrets = Secrets(store)

    def sign_in(self, channel: Caller, said: SignIn) -> SignedIn:
        """Begin a session on a channel. Durable on return, and so is every failure.

        Raises:
            SignInRefusedError: Whatever was wrong.
            PasswordMustChangeError, OrganizationNeededError, NoRoleTodayError: All was right.
            PasswordWeakError: The new password is.
            OidcError: A token cannot be judged here, or now.
        """
        if said.new_password:
            refuse_weak(said.new_password, said.name or "\0")
        row, proof = self._by_token(said) if said.oidc_token else self._by_password(said)
        account_id = "" if row is None else str(row.account_id)
        judged = self._store.transactions.write(
            lambda connection: self._judge(connection, channel, said, account_id, proof)
        )
        if judged.end is not None:
            raise _error_of(judged)
        now_ms = self._store.clock.now_ms()
        until_ms = now_ms + SESSION_MS
        token, ends_ms = self._tokens.issue(judged.session_id, now_ms, until_ms)
        return SignedIn(
            token,
            ends_ms,
            judged.session_id,
            until_ms,
            judged.staff_id,
            judged.organization_id,
            tuple(sorted({each.role.value for each in judged.roles})),
        )

    # -- what takes long ---------------------------------------------------------------------------

    def _by_password(self, said: SignIn) -> tuple[Row[Any] | None, Proof]:
        try:
            name = account_name(said.name)
        except InvalidRequestError:
            # No account can have it: it is unknown like any other.
            name = ""
        row = self._account(ACCOUNTS.c.name == name)
        sealed = None if row is None or row.password is None else bytes(row.password)
        kept = None if row is None else self._secrets.opened("password", row.account_id, sealed)
        if not self._passwords.fits(said.password, kept):
            return row, Proof(fits=False)
        fresh = said.new_password
        if not fresh and kept is not None and self._passwords.is_outdated(kept):
            fresh = said.password
        stretched = self._passwords.stretched(fresh) if fresh else ""
        return row, Proof(True, sealed, stretched)

    def _by_token(self, said: SignIn) -> tuple[Row[Any] | None, Proof]:
        issuer = self._issuer or Issuer.off()
        subject = issuer.subject_of(said.oidc_token)
        if subject is None:
            return None, Proof(fits=False)
        row = self._account(ACCOUNTS.c.oidc_subject == subject)
        digest = hashlib.sha256(said.oidc_token.encode("utf-8", "replace")).hexdigest()
        return row, Proof(row is not None, digest=digest)

    def _account(self, which: Any) -> Row[Any] | None:
        query = select(ACCOUNTS).where(which)
        return self._store.transactions.read(lambda connection: connection.execute(query).first())

    # -- the transaction ---------------------------------------------------------------------------

    def _judge(
        self, connection: Connection, channel: Caller, said: SignIn, account_id: str, proof: Proof
    ) -> _Judged:
        now_ms = self._store.clock.now_ms()
        query = select(ACCOUNTS).where(ACCOUNTS.c.account_id == account_id).with_for_update()
        row = connection.execute(query).first()
        step = None if row is None else self._step(row, said, now_ms)
        if row is None or step is None or not self._is_proven(connection, row, proof, now_ms):
            # The same statements, whether there is such an account or not.
            figures = {} if row is None else after_failure(row, now_ms)
            self._save(connection, account_id, figures or {"failures": 0})
            self._note(connection, channel, Outcome.REFUSED, account_id or None)
            return _Judged(_End.REFUSED)
        judged = self._admitted(connection, row, said, proof)
        if judged.end is not None:
            self._note(connection, channel, Outcome.REFUSED, account_id)
            return judged
        figures = {"failures": 0, "locked_until": 0, "totp_step": step}
        changes: dict[str, Any] = dict(figures)
        if proof.fresh:
            changes["password"] = self._secrets.sealed("password", account_id, proof.fresh)
        if said.new_password and not said.oidc_token:
            changes["must_change"] = False
        self._save(connection, account_id, changes)
        self._begin(connection, channel, judged, account_id, proof)
        return judged

    def _step(self, row: Row[Any], said: SignIn, now_ms: int) -> int | None:
        """The last step used after this sign-in; None: the second factor is wrong."""
        if not row.totp_confirmed:
            return int(row.totp_step)
        secret = self._secrets.opened("totp", row.account_id, row.totp)
        if secret is None:
            return None
        return used_step(bytes.fromhex(secret), said.code, now_ms, int(row.totp_step))

    def _is_proven(self, connection: Connection, row: Row[Any], proof: Proof, now_ms: int) -> bool:
        is_open = row.disabled_at is None and not is_locked(row.locked_until, now_ms)
        if not proof.fits or not is_open:
            return False
        if proof.digest:
            used = select(SESSIONS.c.session_id).where(SESSIONS.c.proof_digest == proof.digest)
            return connection.execute(used).first() is None
        return row.password is not None and bytes(row.password) == proof.seen

    def _admitted(
        self, connection: Connection, row: Row[Any], said: SignIn, proof: Proof
    ) -> _Judged:
        """For what he signs in, now that it is known who he is."""
        if row.must_change and not said.new_password and not proof.digest:
            return _Judged(_End.MUST_CHANGE)
        held = self._book.roles(connection, row.staff_id)
        organizations = sorted({each.organization_id for each in held})
        chosen = said.organization_id or (organizations[0] if len(organizations) == 1 else "")
        if not organizations or (chosen and chosen not in organizations):
            return _Judged(_End.NO_ROLE)
        if not chosen:
            return _Judged(_End.WHICH, organization_id=", ".join(organizations))
        mine = tuple(each for each in held if each.organization_id == chosen)
        return _Judged(None, self._store.ids.mint(), row.staff_id, chosen, mine)

    def _begin(
        self,
        connection: Connection,
        channel: Caller,
        judged: _Judged,
        account_id: str,
        proof: Proof,
    ) -> None:
        now_ms = self._store.clock.now_ms()
        old = delete(SESSIONS).where(SESSIONS.c.renew_until < now_ms - _FORGOTTEN_MS)
        connection.execute(old)
        connection.execute(
            insert(SESSIONS).values(
                session_id=judged.session_id,
                account_id=account_id,
                store_epoch=self._store_epoch,
                channel=channel.principal[:200],
                organization_id=judged.organization_id,
                created_at=now_ms,
                renew_until=now_ms + SESSION_MS,
                proof_digest=proof.digest or None,
            )
        )
        self._note(connection, channel, Outcome.DONE, account_id)

    def _note(
        self, connection: Connection, channel: Caller, outcome: Outcome, account_id: str | None
    ) -> None:
        deed = Deed(Action.SIGN_IN, ACCOUNTS.name, outcome, 1, object_id=account_id)
        self._store.auditor.write(connection, channel, deed)

    def _save(self, connection: Connection, account_id: str, values: dict[str, Any]) -> None:
        connection.execute(
            update(ACCOUNTS).where(ACCOUNTS.c.account_id == account_id).values(values)
        )


def _error_of(judged: _Judged) -> Exception:
    match judged.end:
        case _End.MUST_CHANGE:
            return PasswordMustChangeError("the password was set by somebody else")
        case _End.NO_ROLE:
            return NoRoleTodayError("there is no role for this account at that organization today")
        case _End.WHICH:
            return OrganizationNeededError(f"one of the organizations {judged.organization_id}")
        case _:
            return SignInRefusedError(_REFUSED)
