"""The authorization matrix: every method × kind × role × relation × level, as reviewed by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import pytest

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.errors import DeniedError, PurposeError
from node.security.caller import CallerKind
from node.security.identity import PeerIdentity
from node.security.methods import (
    DOOR_METHODS,
    METHODS,
    DataLevel,
    Relation,
    authorize,
    purpose_of,
)
from node.security.purposes import CONSENT_PURPOSES, Purpose
from node.security.roles import Role
from tests.unit.security.permissions import expected_rules
from tests.unit.security.region import GOOD
from tests.unit.security.relatives import HIERARCHY, STANDS
from tests.unit.security.test_methods import own_methods

EXPECTED: Final = expected_rules()
NAMES: Final = sorted(METHODS.keys() | DOOR_METHODS)

CALLERS: Final = (
    *((kind, "") for kind in CallerKind),
    *((CallerKind.STAFF, role) for role in Role),
)


def _cells() -> Iterator[tuple[str, CallerKind, str, str, str, str]]:
    for method, (kind, role), here in itertools.product(NAMES, CALLERS, STANDS):
        for relation, caller in STANDS[here].items():
            yield method, kind, role, here, relation, caller


def _gets_through(method: str, kind: CallerKind, role: str, here: str, caller: str) -> bool:
    peer = PeerIdentity(kind, NodeId(caller), "", "spiffe://…", "00", GOOD.not_after)
    roles = frozenset({Role(role)}) if role else frozenset()
    try:
        authorize(method, peer, NodeId(here), HIERARCHY, roles)
    except FenheError:
        return False
    return True


def test_every_cell_is_as_reviewed() -> None:
    """More than ten thousand, each against a file that no code made."""
    count, wrong = 0, []
    for method, kind, role, here, relation, caller in _cells():
        level = HIERARCHY.entry(NodeId(here)).level
        expected = EXPECTED[method].admits(kind.value, role, relation, level.value)
        count += 1
        if _gets_through(method, kind, role, here, caller) != expected:
            wrong.append((method, kind.value, role, relation, level.value, expected))
    assert wrong == []
    assert count > 10_000


def test_every_method_of_every_proto_was_reviewed() -> None:
    """A method that is new fails here until a reviewer has written down who may call it."""
    assert own_methods() - EXPECTED.keys() == set()
    assert EXPECTED.keys() == METHODS.keys() | DOOR_METHODS


@pytest.mark.parametrize("method", sorted(METHODS))
def test_data_and_purposes_are_as_reviewed(method: str) -> None:
    """What passes through a method, and for what it may be called."""
    rule, expected = METHODS[method], EXPECTED[method]
    assert (int(rule.data), rule.purposes) == (expected.data, expected.purposes)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_named_persons_are_for_those_at_this_node_who_need_them(method: str) -> None:
    """No analyst, no executor, nobody from elsewhere, no member of staff without a role."""
    rule = METHODS[method]
    if rule.data < DataLevel.PERSONAL or rule.child_only:
        return
    assert rule.relation is Relation.HERE
    assert rule.kinds <= {CallerKind.CLIENT, CallerKind.STAFF, CallerKind.OPERATOR}
    assert rule.roles
    assert Role.OPERATOR not in rule.roles
    assert Role.ANALYST not in rule.roles


@pytest.mark.parametrize("method", sorted(METHODS))
def test_states_a_purpose_among_those_of_the_method(method: str) -> None:
    """What a caller states is taken if the method is for it; else he learns what it is for."""
    rule = METHODS[method]
    for kind in CallerKind:
        own = {Purpose.OPERATION} if kind is CallerKind.OPERATOR else set()
        allowed = own | set(rule.purposes)
        assert purpose_of(method, kind, "") in allowed
        for purpose in Purpose:
            if purpose in allowed:
                assert purpose_of(method, kind, purpose.value) is purpose
            else:
                with pytest.raises(PurposeError):
                    purpose_of(method, kind, purpose.value)


def test_an_unknown_purpose_is_not_repeated() -> None:
    """What was typed may be anything, and is in no error."""
    with pytest.raises(PurposeError) as raised:
        purpose_of("/fenhe.care.v1.RecordService/Get", CallerKind.CLIENT, "张三 139")
    assert "张三" not in str(raised.value)
    with pytest.raises(DeniedError):
        purpose_of("/fenhe.care.v1.RecordService/Delete", CallerKind.CLIENT, "")


def test_who_reads_records_reads_them_for_what_consents_speak_of() -> None:
    """No purpose of a care method escapes a consent by having another name."""
    for method, rule in METHODS.items():
        if method.startswith(("/fenhe.care.", "/fenhe.empi.")):
            assert set(rule.purposes) <= CONSENT_PURPOSES


def test_staff_learn_which_role_they_lack() -> None:
    """The next step is in the denial."""
    peer = PeerIdentity(CallerKind.STAFF, NodeId("141002"), "", "…", "00", GOOD.not_after)
    with pytest.raises(DeniedError, match="doctor, nurse") as raised:
        authorize(
            "/fenhe.care.v1.RecordService/Get",
            peer,
            NodeId("141002"),
            HIERARCHY,
            frozenset({Role.OPERATOR}),
        )
    assert "Sign in" in raised.value.hint
