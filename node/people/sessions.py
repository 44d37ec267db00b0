"""Sessions: judged at every call, renewed, listed, ended. Reads are answered from memory.

What a session may do is kept until anything of this room changes: the generation rises with every
commit here, and with every entry of the log in the lane of these tables. So a role that is taken
anywhere counts with the next call, and a call costs no statement.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Connection, Row, select, update

from hierarchy_config.model import NodeId
from node.errors import NotFoundError
from node.people.accounts import ACCOUNTS
from node.people.book import PeopleBook
from node.people.deeds import Deeds, Done, Wish
from node.people.errors import SessionEndedError, SessionNeededError
from node.people.model import SessionSeen, SignedIn
from node.people.powers import powers_of
from node.people.proving import SESSIONS
from node.people.tokens import Tokens
from node.security.caller import Caller, CallerKind
from node.security.principal import Principal
from node.security.roles import Role
from node.storage.audit import Action
from node.storage.context import StoreContext
from node.storage.shapes import is_row_id

__all__ = ["Generation", "OpenSession", "Sessions"]

_KEPT_MAX: Final = 10_000
_ENDED: Final = "the session is over"


class Generation:
    """Rises whenever what a session may do could have changed. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0

    def rise(self) -> None:
        """Something changed."""
        with self._lock:
            self._number += 1

    @property
    def number(self) -> int:
        """How often that was."""
        return self._number


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that stands: who it is, as a caller without a purpose yet, and until when.

    `caller` is he in all his roles, over all their divisions: for what he is, never for what he
    may. A call is made by `bound_to` the roles that open it.
    """

    session_id: str
    account_id: str
    channel: str
    caller: Caller
    renew_until_ms: int
    homes: Mapping[Role, frozenset[NodeId]]
    """Of each role the homes below its divisions."""

    _bound: dict[frozenset[Role], Caller] = field(default_factory=dict, repr=False, compare=False)

    def bound_to(self, roles: frozenset[Role]) -> Caller:
        """The caller in those of `roles` that he has, over their homes alone; empty: in all.

        A doctor of a village who counts a county is no doctor of the county.
        """
        found = self._bound.get(roles)
        if found is None:
            kept = self.caller.roles & roles if roles else self.caller.roles
            scope = frozenset[NodeId]().union(*(self.homes[role] for role in kept))
            found = self._bound[roles] = replace(self.caller, roles=kept, scope=scope)
        return found


class Sessions:
    """Judges tokens and manages sessions. Blocks on the database but for what it keeps."""

    def __init__(
        self,
        store: StoreContext,
        book: PeopleBook,
        deeds: Deeds,
        tokens: Tokens,
        generation: Generation,
        *,
        store_epoch: int,
    ) -> None:
        self._store = store
        self._book = book
        self._deeds = deeds
        self._tokens = tokens
        self._generation = generation
        self._store_epoch = store_epoch
        self._kept: dict[str, tuple[tuple[int, str], OpenSession | None]] = {}

    # -- at every call -----------------------------------------------------------------------------

    def kept(self, token: str, channel: str) -> OpenSession | None:
        """The session of a token, from memory; None: it has to be looked up. Does not block.

        Raises:
            SessionEndedError: The token is none, or of another channel, or its session is over.
        """
        now_ms = self._store.clock.now_ms()
        session_id, _ = self._tokens.session_of(token, now_ms)
        found = self._kept.get(session_id)
        if found is None or found[0] != self._state:
            return None
        return _standing(found[1], channel, now_ms)

    def looked_up(self, token: str, channel: str) -> OpenSession:
        """The session of a token, from the tables; kept from then on.

        Raises:
            SessionEndedError: As for `kept`, or it is ended, its account closed, its role gone.
        """
        now_ms = self._store.clock.now_ms()
        session_id, _ = self._tokens.session_of(token, now_ms)
        state = self._state
        found = self._store.transactions.read(lambda opened: self._open(opened, session_id))
        if len(self._kept) >= _KEPT_MAX:
            self._kept.clear()
        # That there is none is kept as well: who shows its token again costs no statement.
        self._kept[session_id] = (state, found)
        return _standing(found, channel, now_ms)

    @property
    def _state(self) -> tuple[int, str]:
        """What is kept holds for this: roles change with the day as well."""
        return self._generation.number, self._book.day

    def _open(self, connection: Connection, session_id: str) -> OpenSession | None:
        query = (
            select(
                SESSIONS.c.account_id,
                SESSIONS.c.channel,
                SESSIONS.c.organization_id,
                SESSIONS.c.renew_until,
                ACCOUNTS.c.staff_id,
            )
            .join_from(SESSIONS, ACCOUNTS, ACCOUNTS.c.account_id == SESSIONS.c.account_id)
            .where(
                SESSIONS.c.session_id == session_id,
                SESSIONS.c.store_epoch == self._store_epoch,
                SESSIONS.c.ended_at.is_(None),
                ACCOUNTS.c.disabled_at.is_(None),
            )
        )
        row = connection.execute(query).first()
        homes = {} if row is None else self._homes(connection, row)
        if row is None or not homes:
            return None
        return OpenSession(
            session_id,
            row.account_id,
            row.channel,
            self._caller(row, homes),
            int(row.renew_until),
            homes,
        )

    def _homes(self, connection: Connection, row: Any) -> dict[Role, frozenset[NodeId]]:
        """His roles of today, with the homes of each; none: he has none there any more."""
        found: dict[Role, frozenset[NodeId]] = {}
        for each in self._book.roles(connection, row.staff_id):
            if each.organization_id == row.organization_id:
                below = self._store.hierarchy.subtree(each.division)
                found[each.role] = found.get(each.role, frozenset()) | below
        return found

    def _caller(self, row: Any, homes: Mapping[Role, frozenset[NodeId]]) -> Caller:
        hierarchy, here = self._store.hierarchy, self._store.node_id
        name = Principal(hierarchy.region, here, CallerKind.STAFF, row.staff_id)
        return Caller(
            CallerKind.STAFF,
            name.spiffe_id,
            here,
            "",
            frozenset[NodeId]().union(*homes.values()),
            frozenset(homes),
            row.organization_id,
            row.staff_id,
            homes.get(Role.ANALYST, frozenset()),
        )

    # -- by their owners and administrators --------------------------------------------------------

    def renew(self, session: OpenSession | None) -> SignedIn:
        """Another token for a session that stands. Raises SessionNeededError: there is none."""
        if session is None:
            raise SessionNeededError("only a session is renewed")
        now_ms = self._store.clock.now_ms()
        token, ends_ms = self._tokens.issue(session.session_id, now_ms, session.renew_until_ms)
        caller = session.caller
        return SignedIn(
            token,
            ends_ms,
            session.session_id,
            session.renew_until_ms,
            caller.staff_id,
            caller.organization_id,
            tuple(sorted(caller.roles)),
        )

    def sign_out(self, caller: Caller, session: OpenSession | None) -> Done:
        """End the session of this call. Raises SessionNeededError: there is none."""
        if session is None:
            raise SessionNeededError("only who has signed in signs out")

        def work(connection: Connection) -> Done:
            self._end(connection, session.session_id, "signed_out")
            return Done(session.session_id)

        return self._deeds.carry_out(Wish(caller, Action.SIGN_OUT, SESSIONS.name), work)

    def end(self, caller: Caller, session_id: str, request_id: str) -> Done:
        """End any session of one's own, or as an administrator of this node's division.

        Raises:
            NotFoundError: There is none of that id, or it is not the asker's business.
        """
        wish = Wish(caller, Action.END, SESSIONS.name, request_id, (session_id,))

        def work(connection: Connection) -> Done:
            query = (
                select(SESSIONS.c.ended_at, ACCOUNTS.c.staff_id)
                .join_from(SESSIONS, ACCOUNTS, ACCOUNTS.c.account_id == SESSIONS.c.account_id)
                .where(SESSIONS.c.session_id == session_id)
            )
            row = connection.execute(query).first() if is_row_id(session_id) else None
            mine = row is not None and caller.staff_id and row.staff_id == caller.staff_id
            if row is None or not (mine or self._manages(connection, caller)):
                raise NotFoundError("there is no session of that id for you")
            if row.ended_at is not None:
                return Done(session_id, count=0)
            self._end(connection, session_id, "ended")
            return Done(session_id)

        return self._deeds.carry_out(wish, work)

    def page(self, caller: Caller, after: str, limit: int, *, ended: bool) -> list[SessionSeen]:
        """Sessions by id, which is by their beginning: all for administrators, else one's own."""
        now_ms = self._store.clock.now_ms()

        def work(connection: Connection) -> list[SessionSeen]:
            query = (
                select(SESSIONS, ACCOUNTS.c.name, ACCOUNTS.c.staff_id)
                .join_from(SESSIONS, ACCOUNTS, ACCOUNTS.c.account_id == SESSIONS.c.account_id)
                .where(SESSIONS.c.session_id > after)
                .order_by(SESSIONS.c.session_id)
                .limit(limit)
            )
            if not self._manages(connection, caller):
                query = query.where(ACCOUNTS.c.staff_id == caller.staff_id)
            if not ended:
                query = query.where(
                    SESSIONS.c.ended_at.is_(None),
                    SESSIONS.c.renew_until > now_ms,
                    SESSIONS.c.store_epoch == self._store_epoch,
                )
            return [self._seen(row, now_ms) for row in connection.execute(query)]

        return self._deeds.read(caller, SESSIONS.name, work)

    def _manages(self, connection: Connection, caller: Caller) -> bool:
        powers = powers_of(connection, self._book, self._store.hierarchy, caller)
        return powers.holds(Role.ADMINISTRATOR, NodeId(self._store.node_id))

    def _end(self, connection: Connection, session_id: str, why: str) -> None:
        connection.execute(
            update(SESSIONS)
            .where(SESSIONS.c.session_id == session_id, SESSIONS.c.ended_at.is_(None))
            .values(ended_at=self._store.clock.now_ms(), ended_because=why)
        )

    def _seen(self, row: Row[Any], now_ms: int) -> SessionSeen:
        state = row.ended_because or "open"
        if row.ended_at is None and row.store_epoch != self._store_epoch:
            state = "restored"
        elif row.ended_at is None and now_ms >= row.renew_until:
            state = "expired"
        return SessionSeen(
            row.session_id,
            row.name,
            row.staff_id,
            row.organization_id,
            row.channel,
            int(row.created_at),
            int(row.renew_until),
            state,
        )


def _standing(session: OpenSession | None, channel: str, now_ms: int) -> OpenSession:
    """The session if it stands, here and now. Raises SessionEndedError."""
    if session is None:
        raise SessionEndedError(_ENDED)
    if session.channel != channel:
        raise SessionEndedError("the token is of another workstation")
    if now_ms >= session.renew_until_ms:
        raise SessionEndedError(_ENDED)
    return session
