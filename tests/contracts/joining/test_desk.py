"""What an operator is told, refused, and told again."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from hierarchy_config import NodeId
from node.errors import InvalidRequestError
from node.joining.code import read_code
from node.joining.desk import DeskGround, InviteDesk, Wanted
from node.joining.errors import DoorClosedError, InviteNotChildError
from node.security.caller import local_operator
from node.security.folders import NodeFolder
from tests.contracts.joining.place import HIERARCHY, HandClock, Place
from tests.unit.security.region import (
    CITY,
    COUNTY,
    OTHER_COUNTY,
    SIBLING,
    TOWNSHIP,
    VILLAGE,
)


def closed() -> str:
    """A door that is not open."""
    raise DoorClosedError("closed")


def desk(place: Place, clock: HandClock, node: NodeId = TOWNSHIP, **changed: Any) -> InviteDesk:
    """The desk of a node."""
    root = NodeFolder(place.folders[node]).tls.root.read_bytes()
    ground = DeskGround(
        node, HIERARCHY, root, lambda: "0.0.0.0:4511", lambda: ":4510", lambda _: False
    )
    return InviteDesk(replace(ground, **changed), place.invitations, os.urandom, clock)


def test_a_repeated_request_gets_the_same_code(place: Place) -> None:
    """A line that broke before the code was read; ten minutes later it is another request."""
    clock = HandClock()
    made = desk(place, clock)
    wanted = Wanted(VILLAGE, request_id="one")
    first = made.invite(place.operator, wanted)
    assert first.replaced
    assert made.invite(place.operator, wanted) == first
    assert made.invite(local_operator(CITY, HIERARCHY), wanted).code != first.code
    clock.ms += 11 * 60_000
    again = made.invite(place.operator, wanted)
    assert again.code != first.code
    assert again.code not in repr(again)
    assert made.withdraw(place.operator, VILLAGE)
    assert made.invite(place.operator, wanted).code != again.code
    assert len(place.invitations.page("", 9)) == 5


def test_the_code_joins_and_the_child_is_told_the_address(place: Place) -> None:
    """What is printed is what the machine needs."""
    made = desk(place, HandClock()).invite(place.operator, Wanted(VILLAGE, address="10.1.1.1"))
    assert made.door == "10.1.1.1:4511"
    code = read_code(made.code)
    assert place.join(code=code).parent_endpoint == "10.1.1.1:4510"


@pytest.mark.parametrize(
    ("said", "door"),
    [
        ("", ":4511"),
        ("fen.example:99", "fen.example:4511"),
        ("[2001:db8::1]:99", "[2001:db8::1]:4511"),
    ],
)
def test_the_door_is_where_the_node_is(place: Place, said: str, door: str) -> None:
    """Without an address the host is left to whoever reads the code out."""
    wanted = Wanted(VILLAGE, address=said)
    assert desk(place, HandClock()).invite(place.operator, wanted).door == door


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(VILLAGE, minutes=10_081),
        Wanted(VILLAGE, address="a b"),
        Wanted(VILLAGE, address="host:0"),
        Wanted(VILLAGE, address="host:65536"),
        Wanted(VILLAGE, address="x" * 300),
        Wanted(VILLAGE, pseudonym_from=COUNTY),
        Wanted(VILLAGE, new_pseudonym_key=True),
    ],
)
def test_what_is_out_of_range_invites_nobody(place: Place, wanted: Wanted) -> None:
    """Nothing is stored, and the open invitation stays."""
    with pytest.raises(InvalidRequestError):
        desk(place, HandClock()).invite(place.operator, wanted)
    assert [each.state for each in place.invitations.page("", 9)] == ["open"]


@pytest.mark.parametrize("node", [TOWNSHIP, COUNTY, CITY, "999999", ""])
def test_only_a_child_is_invited(place: Place, node: str) -> None:
    """Not itself, not its parent, not an unknown place."""
    with pytest.raises(InviteNotChildError):
        desk(place, HandClock()).invite(place.operator, Wanted(NodeId(node)))


def test_behind_a_closed_door_nobody_is_invited(place: Place) -> None:
    """The code could not be used."""
    with pytest.raises(DoorClosedError):
        desk(place, HandClock(), door=closed).invite(place.operator, Wanted(SIBLING))


def test_a_county_is_told_where_its_key_comes_from(place: Place) -> None:
    """From a county of the same city, or it is the first; one linked before is never the first."""
    city = desk(place, HandClock(), CITY)
    for wanted in (
        Wanted(COUNTY),
        Wanted(COUNTY, pseudonym_from=COUNTY),
        Wanted(COUNTY, pseudonym_from=VILLAGE),
        Wanted(COUNTY, pseudonym_from=OTHER_COUNTY, new_pseudonym_key=True),
    ):
        with pytest.raises(InvalidRequestError):
            city.invite(place.operator, wanted)
    city.invite(place.operator, Wanted(COUNTY, new_pseudonym_key=True))
    lent = city.invite(place.operator, Wanted(COUNTY, pseudonym_from=OTHER_COUNTY))
    assert lent.invitation.pseudonym == OTHER_COUNTY
    known = desk(place, HandClock(), CITY, is_known=lambda _: True)
    with pytest.raises(InvalidRequestError):
        known.invite(place.operator, Wanted(COUNTY, new_pseudonym_key=True))
