"""Whom the interceptor hands to a handler: bound to the roles and the purposes of the method."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, Final

import grpc
import pytest

from hierarchy_config.model import NodeId
from node.people.sessions import OpenSession
from node.security.caller import Caller, CallerKind
from node.security.methods import PURPOSE_HEADER
from node.security.principal import Principal
from node.security.roles import Role
from node.services.interceptor import GuardInterceptor, current_call
from tests.unit.security import region as made
from tests.unit.security.region import HIERARCHY, SIBLING, TOWNSHIP, VILLAGE
from tests.unit.security.test_identity import context_of

GET: Final = "/fenhe.empi.v1.ResidentService/Get"
TIMELINE: Final = "/fenhe.care.v1.RecordService/Timeline"
ABOUT: Final = "/fenhe.node.v1.AuditService/AboutResident"
RENEW: Final = "/fenhe.control.v1.SessionService/Renew"
HOMES: Final[Mapping[Role, frozenset[NodeId]]] = {
    Role.DOCTOR: frozenset({VILLAGE}),
    Role.NURSE: frozenset({SIBLING}),
    Role.AUDITOR: HIERARCHY.subtree(TOWNSHIP),
}
WHO: Final = Caller(
    CallerKind.STAFF,
    HIERARCHY.spiffe_id(TOWNSHIP) + "/staff/s",
    TOWNSHIP,
    "",
    HIERARCHY.subtree(TOWNSHIP),
    frozenset(HOMES),
    "org",
    "s",
)


class RefusedError(Exception):
    """The call was ended before its handler."""


class Call:
    """A call over a clinic's connection, as gRPC shows it."""

    def __init__(self, shown: Mapping[str, Iterable[bytes]], *said: tuple[str, str]) -> None:
        self._shown = shown
        self._said = said

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._shown

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._said

    async def abort(self, _status: grpc.StatusCode, text: str, *_more: object) -> None:
        raise RefusedError(text)


class OneSession:
    """Knows one."""

    async def session(self, token: str, channel: str) -> OpenSession:
        assert (token, channel.rpartition("/")[2]) == ("t", "desk")
        return OpenSession("id", "account", channel, WHO, 1, HOMES)


@pytest.fixture(scope="module")
def desk() -> Mapping[str, Iterable[bytes]]:
    """What a workstation's connection shows."""
    region = made.create(HIERARCHY)
    name = Principal("linfen", TOWNSHIP, CallerKind.CLIENT, "desk")
    return context_of(region.leaf(region.authorities[TOWNSHIP], name))


def _admitted(shown: Mapping[str, Iterable[bytes]], method: str, *said: tuple[str, str]) -> Caller:
    """Whom the handler of a call finds."""
    guard = GuardInterceptor(
        TOWNSHIP, HIERARCHY, lambda: "1", lambda *_: None, sessions=OneSession()
    )

    async def handle(_request: object, _context: object) -> Caller:
        return current_call().caller

    async def found(_details: object) -> Any:
        return grpc.unary_unary_rpc_method_handler(handle)

    async def call() -> Caller:
        details: Any = SimpleNamespace(method=method)
        handler: Any = await guard.intercept_service(found, details)
        admitted: Caller = await handler.unary_unary(b"", Call(shown, *said))
        return admitted

    return asyncio.run(call())


SIGNED_IN: Final = ("authorization", "Bearer t")


@pytest.mark.parametrize(
    ("method", "roles", "scope"),
    [
        (TIMELINE, {Role.DOCTOR, Role.NURSE}, {VILLAGE, SIBLING}),
        ("/fenhe.control.v1.AccessService/CreateGrant", {Role.DOCTOR}, {VILLAGE}),
        (ABOUT, {Role.AUDITOR}, {TOWNSHIP, VILLAGE, SIBLING}),
        (RENEW, set(HOMES), {TOWNSHIP, VILLAGE, SIBLING}),
    ],
)
def test_a_call_is_made_in_the_roles_that_open_it_and_over_their_divisions(
    desk: Mapping[str, Iterable[bytes]], method: str, roles: set[Role], scope: set[NodeId]
) -> None:
    """Who audits a township and is doctor of one village is doctor of that village."""
    caller = _admitted(desk, method, SIGNED_IN)
    assert (set(caller.roles), set(caller.scope)) == (roles, scope)
    assert (caller.staff_id, caller.organization_id) == ("s", "org")


def test_who_has_none_of_the_roles_is_refused(desk: Mapping[str, Iterable[bytes]]) -> None:
    """Bound to nothing, he is nobody there."""
    with pytest.raises(RefusedError, match="signed in as administrator"):
        _admitted(desk, "/fenhe.control.v1.StaffService/AddStaff", SIGNED_IN)


@pytest.mark.parametrize("said", [(), (SIGNED_IN,)])
@pytest.mark.parametrize("method", [GET, TIMELINE])
def test_a_stated_purpose_stands_beside_what_the_method_is_for(
    desk: Mapping[str, Iterable[bytes]], method: str, said: tuple[tuple[str, str], ...]
) -> None:
    """For a person and for a clinic's system: a header takes the place of nothing."""
    stated = _admitted(desk, method, (PURPOSE_HEADER, "public_health"), *said)
    assert (stated.purpose, stated.default_purpose) == ("public_health", "treatment")
    plain = _admitted(desk, method, *said)
    assert (plain.purpose, plain.default_purpose) == ("treatment", "treatment")
