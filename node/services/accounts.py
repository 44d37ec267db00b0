"""AccountService and SessionService: how staff sign in at this node."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc

import protos.fenhe.control.v1.people_pb2 as pb
from node.clock import Clock, format_ms
from node.people.locks import is_locked
from node.people.model import Account, NewAccount, SessionSeen, SignedIn
from node.people.proving import SignIn
from node.people.room import PeopleRoom
from node.people.totp import enrolment_uri, secret_text
from node.services.interceptor import current_call
from node.services.people import added_out, ended_out, page_of, paged
from protos.fenhe.control.v1 import people_pb2_grpc

__all__ = ["AccountServicer", "SessionServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class AccountServicer(people_pb2_grpc.AccountServiceServicer):
    """fenhe.control.v1.AccountService."""

    def __init__(self, room: PeopleRoom, clock: Clock) -> None:
        self._room = room
        self._accounts = room.parts.accounts
        self._clock = clock

    async def AddAccount(self, request: pb.AddAccountRequest, context: Context) -> pb.Added:
        """Add one for somebody who works here."""
        new = NewAccount(request.name, request.staff_id, request.password, request.oidc_subject)
        work = partial(self._accounts.add, current_call().caller, new, request.request_id)
        return added_out(await self._room.stretch(work, changes=True))

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, context: Context
    ) -> pb.ListAccountsResponse:
        """A page of them."""
        size = page_of(request.page_size)
        work = partial(self._accounts.page, current_call().caller, request.after, size + 1)
        shown, more = paged(await self._room.run(work), size)
        return pb.ListAccountsResponse(
            accounts=map(self._out, shown), next_after=shown[-1].name if more else ""
        )

    async def DisableAccount(self, request: pb.AccountRequest, context: Context) -> pb.Ended:
        """Close one."""
        caller = current_call().caller
        # Not refused on a full disk: what takes something away is urgent and small.
        work = partial(self._accounts.disable, caller, request.name, request.request_id)
        return ended_out(await self._room.run(work))

    async def EnableAccount(self, request: pb.AccountRequest, context: Context) -> pb.Ended:
        """Open one again."""
        caller = current_call().caller
        work = partial(self._accounts.enable, caller, request.name, request.request_id)
        return ended_out(await self._room.change(work))

    async def UnlockAccount(self, request: pb.AccountRequest, context: Context) -> pb.Ended:
        """Forget wrong passwords."""
        caller = current_call().caller
        work = partial(self._accounts.unlock, caller, request.name, request.request_id)
        return ended_out(await self._room.change(work))

    async def SetPassword(self, request: pb.SetPasswordRequest, context: Context) -> pb.Ended:
        """Set somebody's."""
        work = partial(
            self._accounts.set_password,
            current_call().caller,
            request.name,
            request.password,
            request.request_id,
        )
        return ended_out(await self._room.stretch(work, changes=True))

    async def RemoveTotp(self, request: pb.AccountRequest, context: Context) -> pb.Ended:
        """Take a second factor away."""
        caller = current_call().caller
        work = partial(self._accounts.remove_totp, caller, request.name, request.request_id)
        return ended_out(await self._room.change(work))

    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Context) -> pb.Ended:
        """Change the asker's own."""
        work = partial(
            self._accounts.change_password,
            current_call().caller,
            request.old_password,
            request.new_password,
            request.request_id,
        )
        return ended_out(await self._room.stretch(work, changes=True))

    async def EnrolTotp(
        self, request: pb.EnrolTotpRequest, context: Context
    ) -> pb.EnrolTotpResponse:
        """Make the asker's own second factor."""
        caller = current_call().caller
        work = partial(self._accounts.enrol_totp, caller, request.password, request.request_id)
        name, secret = await self._room.stretch(work, changes=True)
        issuer = f"Fenhe {caller.node_id}"
        return pb.EnrolTotpResponse(
            uri=enrolment_uri(secret, name, issuer), secret=secret_text(secret)
        )

    async def ConfirmTotp(self, request: pb.ConfirmTotpRequest, context: Context) -> pb.Ended:
        """Let it count."""
        caller = current_call().caller
        work = partial(self._accounts.confirm_totp, caller, request.code, request.request_id)
        return ended_out(await self._room.change(work))

    def _out(self, each: Account) -> pb.Account:
        locked = is_locked(each.locked_until_ms, self._clock.now_ms())
        return pb.Account(
            account_id=each.account_id,
            name=each.name,
            staff_id=each.staff_id,
            created_at=format_ms(each.created_ms),
            disabled=each.disabled,
            locked_until=format_ms(each.locked_until_ms) if locked else "",
            failures=each.failures,
            must_change=each.must_change,
            has_password=each.has_password,
            has_totp=each.has_totp,
            oidc_subject=each.oidc_subject,
        )


class SessionServicer(people_pb2_grpc.SessionServiceServicer):
    """fenhe.control.v1.SessionService."""

    def __init__(self, room: PeopleRoom) -> None:
        self._room = room
        self._sessions = room.parts.sessions

    async def SignIn(self, request: pb.SignInRequest, context: Context) -> pb.Session:
        """Begin a session on this channel."""
        said = SignIn(
            request.name,
            request.password,
            request.code,
            request.oidc_token,
            request.new_password,
            request.organization_id,
        )
        work = partial(self._room.parts.proving.sign_in, current_call().channel, said)
        return _session_out(await self._room.stretch(work))

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.Session:
        """Another token for the session of this call."""
        return _session_out(self._sessions.renew(current_call().session))

    async def SignOut(self, request: pb.SignOutRequest, context: Context) -> pb.Ended:
        """End the session of this call."""
        call = current_call()
        work = partial(self._sessions.sign_out, call.caller, call.session)
        return ended_out(await self._room.run(work))

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """A page of them."""
        size = page_of(request.page_size)
        caller = current_call().caller
        work = partial(self._sessions.page, caller, request.after, size + 1, ended=request.ended)
        shown, more = paged(await self._room.run(work), size)
        return pb.ListSessionsResponse(
            sessions=map(_seen_out, shown), next_after=shown[-1].session_id if more else ""
        )

    async def EndSession(self, request: pb.EndSessionRequest, context: Context) -> pb.Ended:
        """End one's own, or as an administrator any."""
        caller = current_call().caller
        work = partial(self._sessions.end, caller, request.session_id, request.request_id)
        return ended_out(await self._room.run(work))


def _session_out(each: SignedIn) -> pb.Session:
    return pb.Session(
        token=each.token,
        token_ends_at=format_ms(each.token_ends_ms),
        session_id=each.session_id,
        renew_until=format_ms(each.renew_until_ms),
        staff_id=each.staff_id,
        organization_id=each.organization_id,
        roles=each.roles,
    )


def _seen_out(each: SessionSeen) -> pb.SessionSeen:
    return pb.SessionSeen(
        session_id=each.session_id,
        account=each.account,
        staff_id=each.staff_id,
        organization_id=each.organization_id,
        channel=each.channel,
        created_at=format_ms(each.created_ms),
        renew_until=format_ms(each.renew_until_ms),
        state=each.state,
    )
