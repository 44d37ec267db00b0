"""What every call passes, in one process: certificates that end, and calls that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from node.limits import CallGate, CallLimits
from node.people.errors import SessionEndedError
from node.people.sessions import OpenSession
from node.security.caller import CallerKind
from node.security.certificates import Validity
from node.security.principal import Principal
from node.services.interceptor import GuardInterceptor
from tests.unit.limits.test_limits import GET, HandClock
from tests.unit.security.region import HIERARCHY, NOW, TOWNSHIP, create

ENDS = NOW + timedelta(days=365)
DESK = Principal("linfen", TOWNSHIP, CallerKind.CLIENT, "desk")
ANALYST = Principal("linfen", TOWNSHIP, CallerKind.ANALYST, "desk")


def shown_by(who: Principal) -> Mapping[str, tuple[bytes, ...]]:
    """What a connection has shown: a certificate of a year."""
    region = create(HIERARCHY)
    held = region.leaf(region.authorities[TOWNSHIP], who, Validity(NOW, ENDS))
    pem = held.chain_pem.partition(b"-----END CERTIFICATE-----\n")
    return {
        "peer_spiffe_id": (who.spiffe_id.encode(),),
        "x509_pem_cert": (pem[0] + pem[1],),
        "x509_pem_cert_chain": (held.chain_pem,),
    }


class Call:
    """One call over a connection."""

    def __init__(self, shown: Mapping[str, tuple[bytes, ...]], token: str = "") -> None:
        self.said = ""
        self._shown = shown
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def auth_context(self) -> Mapping[str, tuple[bytes, ...]]:
        return self._shown

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def peer(self) -> str:
        return "ipv4:10.0.0.1:50000"

    async def abort(self, _code: grpc.StatusCode, text: str, _trailing: Any = ()) -> None:
        self.said = text.partition(":")[0]
        raise grpc.aio.AbortError


class Judge:
    """Knows no session, and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0

    async def session(self, token: str, channel: str) -> OpenSession:
        self.asked += 1
        raise SessionEndedError("the session is over")


class Guarded:
    """A node's guard, with a method behind it that answers."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.clock.at = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1000)
        self.judge = Judge()
        self.guard = GuardInterceptor(
            TOWNSHIP,
            HIERARCHY,
            lambda: "an incident",
            lambda _method, _code: None,
            clock=self.clock,
            gate=CallGate(CallLimits(10, 8, 6), self.clock),
            sessions=self.judge,
        )

    async def call(self, call: Call) -> str:
        async def answers(_request: object, _context: object) -> str:
            return "OK"

        async def found(_details: object) -> Any:
            return grpc.unary_unary_rpc_method_handler(answers)

        details = cast(grpc.HandlerCallDetails, SimpleNamespace(method=GET))
        handler = await self.guard.intercept_service(found, details)
        assert handler is not None
        try:
            return str(await cast(Any, handler).unary_unary(b"", call))
        except grpc.aio.AbortError:
            return call.said


async def test_a_certificate_that_ends_ends_on_an_open_connection_too() -> None:
    """Nobody shakes hands again; the next call is refused all the same."""
    guarded, shown = Guarded(), shown_by(DESK)
    assert await guarded.call(Call(shown)) == "OK"
    guarded.clock.at = int(ENDS.timestamp() * 1000) - 1
    assert await guarded.call(Call(shown)) == "OK"
    guarded.clock.at += 1
    assert await guarded.call(Call(shown)) == "PEER_IDENTITY"


@pytest.mark.parametrize(
    ("who", "token", "code"),
    [(DESK, "over", "SESSION_ENDED"), (ANALYST, "", "DENIED")],
)
async def test_calls_that_are_refused_are_limited_too(
    who: Principal, token: str, code: str
) -> None:
    """After a burst nothing is looked up any more, until the time that is said has passed."""
    guarded, shown = Guarded(), shown_by(who)
    assert [await guarded.call(Call(shown, token)) for _ in range(50)] == [code] * 50
    asked = guarded.judge.asked
    assert await guarded.call(Call(shown, token)) == "RATE_LIMITED"
    assert guarded.judge.asked == asked
    guarded.clock.at += 101
    assert await guarded.call(Call(shown, token)) == code


async def test_calls_that_are_let_in_take_nothing_from_those_that_are_refused() -> None:
    """A program that is in order does not find itself shut out by one call that is not."""
    guarded, shown = Guarded(), shown_by(DESK)
    for _ in range(49):
        assert await guarded.call(Call(shown)) == "OK"
    for _ in range(50):
        assert await guarded.call(Call(shown, "over")) == "SESSION_ENDED"
    assert await guarded.call(Call(shown, "over")) == "RATE_LIMITED"
