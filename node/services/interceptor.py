"""What every call passes: who is calling, may he, and how an error leaves.

One interceptor, outermost. It identifies the peer by its certificate, asks the method table
(node/security/methods.py), hands the Caller to the handler, and turns every exception into a
status of the catalogue. What is unknown becomes INTERNAL with a reference number: its text stays
in this node's log. Public reads depend on it: no handler checks identities itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from federation.errors import QueryRefusedError
from hierarchy_config.errors import FenheError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.errors import InvalidRequestError, public_status
from node.joining.knocks import address_of
from node.limits import CallGate, LimitError
from node.logs import get_logger
from node.people.errors import SessionEndedError
from node.people.sessions import OpenSession
from node.records.faults import Fault
from node.security.caller import Caller, CallerKind, caller_for
from node.security.errors import PeerIdentityError
from node.security.identity import KnownPeers, NameJudge, PeerIdentity
from node.security.methods import (
    PURPOSE_HEADER,
    authorize,
    default_purpose,
    purpose_of,
    roles_for,
)
from node.services.open_calls import OpenCalls
from node.services.wire import faults_out
from node.storage.errors import BundleError

_Asked = TypeVar("_Asked")
_Said = TypeVar("_Said")
Shown = Mapping[str, Iterable[bytes]]

__all__ = [
    "CallContext",
    "GuardInterceptor",
    "SessionJudge",
    "Shown",
    "bearer_of",
    "current_call",
    "short_text",
]

_TEXT_BYTES_MAX: Final = 3_000

_CALL: ContextVar[CallContext] = ContextVar("fenhe_call")
_ASKS: ContextVar[Caller | PeerIdentity | None] = ContextVar("fenhe_asks", default=None)
"""Who makes the call, as far as he has proven it; for the audit of a refusal."""
_REFUSALS: Final = frozenset({"PEER_IDENTITY", "SIGNATURE_INVALID", "SESSION_ENDED"})
"""Refusals beside those of permission. A sign-in that fails leaves its own deed."""
_WORKSTATIONS: Final = frozenset({CallerKind.CLIENT, CallerKind.OPERATOR, CallerKind.STAFF})


@dataclass(frozen=True, slots=True)
class CallContext:
    """Who makes the call that is being handled."""

    caller: Caller
    identity: PeerIdentity
    channel: Caller
    """Whoever holds the connection's certificate; the caller himself, unless he has signed in."""

    session: OpenSession | None = None
    """The session whose token came with the call."""


def current_call() -> CallContext:
    """The call being handled in this task; a LookupError outside of one is a defect."""
    return _CALL.get()


class SessionJudge(Protocol):
    """Knows the sessions of this node: node/people's room."""

    async def session(self, token: str, channel: str) -> OpenSession:
        """The session of a token that came over a channel. Raises SessionEndedError."""


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """Identity, permission and errors of every method."""

    def __init__(
        self,
        node_id: NodeId,
        hierarchy: Hierarchy,
        incident: Callable[[], str],
        count: CallCounter,
        former: NameJudge | None = None,
        *,
        clock: Clock | None = None,
        calls: OpenCalls | None = None,
        gate: CallGate | None = None,
        sessions: SessionJudge | None = None,
        denied: DeniedTo = lambda _caller, _method, _code: None,
    ) -> None:
        """`incident` makes reference numbers; `count(method, status)` feeds the metrics.

        Args:
            node_id: This node.
            hierarchy: The epoch in force.
            incident: See above.
            count: See above.
            former: Decides over callers whose certificate is of a former name.
            clock: Whose time ends certificates, on connections too that were open before; None at
                the door, where nobody shows one.
            calls: Decides over those whose key is revoked, now or while their call lasts.
            gate: Bounds how much is asked; None lets everything in.
            sessions: Judges tokens of those who have signed in; None takes none.
            denied: Told of each call that is refused; must not block.
        """
        self._clock = clock
        self._denied = denied
        self._gate = gate
        self._peers = KnownPeers(hierarchy, former)
        self._calls = calls
        self._sessions = sessions
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._incident = incident
        self._count = count
        self._log = get_logger("rpc")

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Asked, _Said] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Asked, _Said] | None:
        """Wrap the method's handler; an unknown method is left to gRPC's UNIMPLEMENTED."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._plain(method, handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(
                self._plain(method, handler.stream_unary),
                handler.request_deserializer,
                handler.response_serializer,
            )
        # A single message is read inside the guard: gRPC itself calls one that cannot be read an
        # INTERNAL error, and reads it before it is known whether the caller may send any.
        decode = handler.request_deserializer
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._plain(method, handler.unary_stream, decode),
                None,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._plain(method, handler.unary_unary, decode),
            None,
            handler.response_serializer,
        )

    def _plain(self, method: str, inner: Any, read: Callable[[Any], Any] | None = None) -> Any:
        async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with self._guard(method, context):
                # A stream is an async generator, or a coroutine that writes by itself (health).
                result = inner(request if read is None else read(request), context)
                if hasattr(result, "__aiter__"):
                    async for message in result:
                        await context.write(message)
                    return None
                return await result

        return handle

    @contextlib.asynccontextmanager
    async def _guard(
        self, method: str, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[None]:
        try:
            shown = self._shown(context)
            with self._open(shown):
                await self._enter(method, context, shown)
                with self._passing(method, context):
                    yield
        except FenheError as error:
            self._count(method, error.code)
            if _is_refusal(error):
                self._denied(_ASKS.get(), method, error.code)
            await _abort(context, error)
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except DecodeError:
            unread = InvalidRequestError("the message cannot be read as one of this method")
            self._count(method, unread.code)
            await _abort(context, unread)
        except Exception as error:
            incident = self._incident()
            self._count(method, "INTERNAL")
            self._log.error("unexpected error", method=method, incident=incident, exc_info=error)
            await context.abort(
                grpc.StatusCode.INTERNAL,
                f"Internal error, reference {incident}. Give this number to the node's operator.",
            )
        else:
            self._count(method, "OK")

    def _shown(self, context: grpc.aio.ServicerContext[Any, Any]) -> Shown:
        """What the connection has shown of its peer; gRPC makes it anew each time it is asked."""
        return context.auth_context()

    def _open(self, shown: Shown) -> contextlib.AbstractContextManager[None]:
        """Keep an eye on the caller's keys for as long as the call lasts."""
        if self._calls is None:
            return contextlib.nullcontext()
        return self._calls.watched(self._calls.chain_of(shown))

    def _passing(
        self, method: str, context: grpc.aio.ServicerContext[Any, Any]
    ) -> contextlib.AbstractContextManager[None]:
        """A place among the calls under way, if the node has limits."""
        if self._gate is None:
            return contextlib.nullcontext()
        identity = current_call().identity
        address = address_of(context.peer())
        return self._gate.passing(method, identity.kind, identity.principal, address)

    async def _enter(
        self, method: str, context: grpc.aio.ServicerContext[Any, Any], shown: Shown
    ) -> None:
        """Let the call in, or raise; whoever handles it asks `current_call` who makes it."""
        _CALL.set(await self._admit(method, context, shown))

    async def _admit(
        self, method: str, context: grpc.aio.ServicerContext[Any, Any], shown: Shown
    ) -> CallContext:
        identity = self._peers.identify(shown)
        _ASKS.set(identity)
        with self._judging(method, context, identity):
            self._refuse_ended(identity)
            return await self._judge(method, context, identity)

    def _judging(
        self,
        method: str,
        context: grpc.aio.ServicerContext[Any, Any],
        identity: PeerIdentity,
    ) -> contextlib.AbstractContextManager[None]:
        """What is refused costs too: else a token that is over is looked up as often as shown."""
        if self._gate is None:
            return contextlib.nullcontext()
        address = address_of(context.peer())
        return self._gate.judging(method, identity.kind, identity.principal, address)

    async def _judge(
        self, method: str, context: grpc.aio.ServicerContext[Any, Any], identity: PeerIdentity
    ) -> CallContext:
        metadata = context.invocation_metadata() or ()
        stated = _stated_purpose(metadata)
        channel = caller_for(
            identity.kind,
            identity.principal,
            identity.node_id,
            self._hierarchy,
            purpose_of(method, identity.kind, stated),
        )
        channel = replace(channel, default_purpose=default_purpose(method))
        token = bearer_of(metadata)
        if token is None:
            authorize(method, identity, self._node_id, self._hierarchy)
            return CallContext(channel, identity, channel)
        # A token is shown: who shows it is its owner or nobody, never the certificate.
        session = await self._session(token, identity)
        _ASKS.set(session.caller)
        bound = session.bound_to(roles_for(method))
        purpose = purpose_of(method, bound.kind, stated)
        caller = replace(bound, purpose=purpose, default_purpose=channel.default_purpose)
        acting = replace(
            identity, kind=caller.kind, name=caller.staff_id, principal=caller.principal
        )
        authorize(method, acting, self._node_id, self._hierarchy, caller.roles)
        return CallContext(caller, acting, channel, session)

    def _refuse_ended(self, identity: PeerIdentity) -> None:
        """TLS looks at a certificate's end once, and a connection may be open for years."""
        ends_ms = identity.not_after.timestamp() * 1000
        if self._clock is not None and ends_ms <= self._clock.now_ms():
            raise PeerIdentityError(
                "the peer's certificate has ended",
                hint="Renew it, then connect anew: an open connection keeps the old one.",
            )

    async def _session(self, token: str, identity: PeerIdentity) -> OpenSession:
        """The session of a token on a workstation's connection. Raises SessionEndedError."""
        is_workstation = identity.kind in _WORKSTATIONS and identity.node_id == self._node_id
        if self._sessions is None or not is_workstation:
            raise SessionEndedError("a session is taken from a workstation of this node alone")
        return await self._sessions.session(token, identity.principal)


def bearer_of(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The token in a call's metadata; None: there is no `authorization` at all.

    Raises:
        SessionEndedError: There are several, or it is of another scheme: never taken for none.
    """
    shown = [value for key, value in metadata if key.lower() == "authorization"]
    if not shown:
        return None
    text = shown[0]
    scheme, _, token = text.partition(" ") if isinstance(text, str) else ("", "", "")
    if len(shown) > 1 or scheme.lower() != "bearer" or not token:
        raise SessionEndedError("authorization is shown once, as: Bearer TOKEN")
    return token


def _stated_purpose(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """What the caller says the call is for; "" if he says nothing."""
    for name, value in metadata:
        if name == PURPOSE_HEADER and isinstance(value, str):
            return value
    return ""


CallCounter = Callable[[str, str], None]
DeniedTo = Callable[[Caller | PeerIdentity | None, str, str], None]


def _is_refusal(error: FenheError) -> bool:
    is_denied = public_status(error).grpc is grpc.StatusCode.PERMISSION_DENIED
    return is_denied or error.code in _REFUSALS


def short_text(text: str) -> str:
    """A sentence as it may leave.

    What a caller wrote into it moves no cursor, and does not fill the trailer, which is bounded
    (security/tls.py); a status is sent with every byte that is not plain ASCII as three.
    """
    kept: list[str] = []
    size = 0
    for each in text:
        size += 1 if " " <= each <= "~" else 9
        if size > _TEXT_BYTES_MAX:
            kept.append("…")
            break
        kept.append(each if each.isprintable() or each == "\n" else "\ufffd")
    return "".join(kept)


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: FenheError) -> None:
    """End the call with the error's status, its code and hint, and its details if it has any."""
    status = public_status(error).grpc
    trailing: tuple[tuple[str, str | bytes], ...] = (("fenhe-code", error.code),)
    text = f"{error.code}: {error.message}"
    if isinstance(error, QueryRefusedError):
        # The reason is what errors.md lists and what clients may branch on.
        text = f"{error.code}: {error.refusal}: {error.message}"
        trailing += (("fenhe-refusal", error.refusal.value),)
    if isinstance(error, LimitError):
        # The second is what gRPC's own retries obey.
        wait = str(error.wait_ms)
        trailing += (("fenhe-retry-after-ms", wait), ("grpc-retry-pushback-ms", wait))
    text = short_text(text)
    if error.hint:
        text += f" Next: {error.hint}"
    details = getattr(error, "wire_details", None)
    if isinstance(error, BundleError):
        # The storage speaks no protobuf: it says where, and its code and hint say what.
        places = error.positions or ("bundle",)
        details = faults_out(Fault(place, error.code, error.hint) for place in places)
    if details is not None:
        packed = AnyMessage()
        packed.Pack(details)
        rich = rpc_status.to_status(Status(code=status.value[0], message=text, details=[packed]))
        trailing += tuple(rich.trailing_metadata)
    await context.abort(status, text, trailing)
