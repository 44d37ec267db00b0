"""As whom a question is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from federation.core.model import Manifest, QueryRequest
from hierarchy_config.model import NodeId
from node.asking import asked_by, audience_of
from node.errors import DeniedError
from node.security.caller import Caller, CallerKind, caller_for
from tests.unit.security.relatives import HIERARCHY

COUNTY, TOWNSHIP, VILLAGE = NodeId("141002"), NodeId("141002001"), NodeId("141002001201")
OTHER_TOWNSHIP, CITY = NodeId("141002002"), NodeId("1410")
ASKED: Final = QueryRequest("SELECT COUNT(*) FROM residents")


def caller(kind: CallerKind, purpose: str, *asks: NodeId) -> Caller:
    """Somebody at the county."""
    made = caller_for(kind, "p", COUNTY, HIERARCHY, purpose)
    return replace(made, asks=frozenset().union(*map(HIERARCHY.subtree, asks)))


def scope_of(asker: Caller, scope: str = "") -> str:
    """What a question is asked of."""
    return asked_by(replace(ASKED, scope=scope), asker, COUNTY, HIERARCHY).scope


def test_an_analyst_on_the_staff_asks_of_his_division_and_below() -> None:
    """Of all of it, if he names nothing; never beside or above it."""
    asker = caller(CallerKind.STAFF, "statistics", TOWNSHIP)
    assert scope_of(asker) == TOWNSHIP
    assert scope_of(asker, VILLAGE) == VILLAGE
    for scope in (COUNTY, OTHER_TOWNSHIP, CITY, "9999"):
        with pytest.raises(DeniedError):
            scope_of(asker, scope)


def test_an_analyst_of_several_divisions_names_one() -> None:
    """There is no one division that they are."""
    asker = caller(CallerKind.STAFF, "statistics", TOWNSHIP, OTHER_TOWNSHIP)
    assert scope_of(asker, OTHER_TOWNSHIP) == OTHER_TOWNSHIP
    with pytest.raises(DeniedError, match="analyst"):
        scope_of(asker)


def test_staff_who_are_analysts_of_nothing_ask_nothing() -> None:
    """Not of the scope in which they read, either."""
    with pytest.raises(DeniedError):
        scope_of(caller(CallerKind.STAFF, "statistics"), COUNTY)


def test_a_certificate_asks_as_before() -> None:
    """Of the node's subtree, or what of it is named."""
    asker = caller(CallerKind.ANALYST, "statistics")
    assert (scope_of(asker), scope_of(asker, TOWNSHIP)) == ("", TOWNSHIP)


@pytest.mark.parametrize(
    ("of_call", "of_question", "expected"),
    [
        ("research", "", "research"),
        ("statistics", "public_health", "public_health"),
        ("operation", "", ""),
        ("operation", "planning", "planning"),
    ],
)
def test_the_purpose_of_the_call_is_that_of_the_question(
    of_call: str, of_question: str, expected: str
) -> None:
    """Unless the question says one; an operator's own is none that a question is asked for."""
    asker = caller(CallerKind.OPERATOR, of_call)
    found = asked_by(replace(ASKED, purpose=of_question), asker, COUNTY, HIERARCHY)
    assert found.purpose == expected


def test_consents_may_name_the_asker_by_organization_and_by_every_division_above() -> None:
    """In the words in which they are written down."""
    manifest = Manifest("q", "p", TOWNSHIP, "research", TOWNSHIP, 1, 1, 0, "d", 1, "a")
    audience = audience_of(manifest, HIERARCHY, "2026-01-02")
    assert audience.purposes == ("any", "research")
    assert audience.recipients == (
        "everyone",
        "organization:a",
        f"division:{TOWNSHIP}",
        f"division:{COUNTY}",
        f"division:{CITY}",
    )
    nobody = audience_of(replace(manifest, purpose="public_health"), HIERARCHY, "2026-01-02")
    assert nobody.purposes == ()
