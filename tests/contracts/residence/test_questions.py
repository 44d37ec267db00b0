"""Whose rows wait for a grant is asked for below: a node put above a home later, or put back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select

from hierarchy_config import NodeId
from node.errors import InvalidRequestError
from node.residence.errors import GrantInvalidError
from node.residence.homes import SignedGrant
from node.residence.papers import grants_in, statement_of
from node.residence.questions import GrantQuestion
from node.storage.tables import CHANGELOG, REPLICATED
from replication.core.residence import Grant
from tests.contracts.residence.region import (
    ABOVE,
    CITY,
    COUNTY,
    FAR_TOWNSHIP,
    FAR_VILLAGE,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    MovingNode,
    MovingRegion,
    moving_hierarchy,
)
from tests.contracts.residence.test_damage import retry
from tests.contracts.residence.test_moves import settle


def _regroup(region: MovingRegion) -> None:
    """The other county's township lies in the county from now on."""
    above = [COUNTY if node == FAR_TOWNSHIP else parent for node, parent in ABOVE.items()]
    region.regroup(moving_hierarchy(epoch=2, above=above))


def _moved_on(region: MovingRegion) -> str:
    """He left the county for the other one, and there for a village: of that it has not heard."""
    resident_id = settle(region)
    region.node(CITY).grant(resident_id, OTHER_COUNTY)
    region.flow()
    region.node(OTHER_COUNTY).grant(resident_id, FAR_VILLAGE)
    region.flow()
    county = region.node(COUNTY)
    known = county.read(lambda c: county.residence.known(c, resident_id))
    assert (known.home_node, known.home_epoch) == (OTHER_COUNTY, 2)
    return resident_id


def _states(nodes: Iterable[MovingNode], resident_id: str) -> set[str]:
    moves = [
        node.read(partial(node.residence.moves.of_resident, resident_id=resident_id))
        for node in nodes
    ]
    return {move.state.value for found in moves for move in found}


@pytest.mark.parametrize("has_it", [FAR_TOWNSHIP, FAR_VILLAGE])
def test_a_new_parent_learns_who_was_moved_there_before(
    region: MovingRegion, has_it: NodeId
) -> None:
    """Without it his rows would wait there for ever; the child asks below if it lost it too."""
    resident_id = _moved_on(region)
    _regroup(region)
    township, county = region.node(FAR_TOWNSHIP), region.node(COUNTY)
    if has_it == FAR_VILLAGE:
        (held,) = township.read(lambda c: township.residence.homes.of_resident(c, resident_id))
        township.write(lambda c: township.residence.homes.forget(c, held.grant))
    region.ship(township, county)
    assert county.storage.desk.by_cause()["HOME_NOT_GRANTED"] == 4
    region.flow()
    retry(region, county)
    region.flow()
    assert county.home(resident_id) == (FAR_VILLAGE, 3)
    assert len(county.rows(resident_id)) == 3
    # Letters that were signed under the township's former name are sent again by their authors.
    waiting = {cause for node in region.nodes(*ABOVE) for cause in node.storage.desk.by_cause()}
    assert waiting <= {"LETTER_SIGNATURE"}
    assert _states(region.nodes(*ABOVE), resident_id) == {"settled"}


def test_who_recovers_asks_nothing_and_nobody_asks_without_a_pause(region: MovingRegion) -> None:
    """It does not know enough to judge; and a child that has nothing is not asked every time."""
    _moved_on(region)
    _regroup(region)
    township, county = region.node(FAR_TOWNSHIP), region.node(COUNTY)
    region.ship(township, county)
    county.storage.recovery.active = True
    assert county.questions.wanted() == []
    county.storage.recovery.active = False
    (question,) = county.questions.wanted()
    assert (question.peer, question.home_epoch) == (FAR_TOWNSHIP, 3)
    asked = []
    for _ in range(600):
        region.clock.ms += 1_000
        asked += county.questions.wanted()
    # After 30 s, then 60, 120 and 240 more.
    assert asked == [question] * 4


def test_a_granter_put_back_with_its_rows_takes_those_of_the_new_home(
    region: MovingRegion,
) -> None:
    """It has lost what it granted itself; its rows without a name wait for that too."""
    resident_id = settle(region)
    city, other = region.node(CITY), region.node(OTHER_COUNTY)
    backup = city.read(_everything)
    granted = city.grant(resident_id, FAR_VILLAGE)
    region.flow()
    assert _homes(city) == {FAR_VILLAGE}
    city.write(lambda c: city.residence.homes.forget(c, granted.grant))
    city.write(lambda c: city.residence.moves.drop(c, resident_id, 2))
    city.write(partial(_put_all_back, backup))
    assert (_homes(city), city.home(resident_id)) == ({VILLAGE}, (VILLAGE, 1))
    city.store_epoch = 2
    city.storage = city.open_storage_again()
    city.write(lambda c: c.execute(delete(CHANGELOG.link_inbound)))
    sent = CHANGELOG.link_outbound
    for county in region.nodes(COUNTY, OTHER_COUNTY):
        county.write(lambda c: c.execute(delete(sent).where(sent.c.peer == CITY)))
    region.say_all_again()
    region.ship(other, city)
    assert city.storage.desk.by_cause()["HOME_NOT_GRANTED"] >= 4
    region.flow()
    retry(region, city)
    assert (_homes(city), city.home(resident_id)) == ({FAR_VILLAGE}, (FAR_VILLAGE, 2))
    assert (city.waiting(), _states(region.nodes(*ABOVE), resident_id)) == (0, {"settled"})


_Tables = dict[str, list[dict[str, Any]]]


def _everything(connection: Connection) -> _Tables:
    return {
        name: [dict(row) for row in connection.execute(select(t)).mappings()]
        for name, t in REPLICATED.items()
    }


def _put_all_back(backup: _Tables, connection: Connection) -> None:
    for name, t in REPLICATED.items():
        connection.execute(delete(t))
        if backup[name]:
            connection.execute(insert(t), backup[name])


def _homes(node: MovingNode) -> set[str]:
    """Whose observations the node has, by home."""
    return {row["home_node"] for row in node.read(_everything)["observations"]}


def _signed(region: MovingRegion, grant: Grant) -> SignedGrant:
    """As its granter says it."""
    statement = statement_of(grant)
    granter = region.node(NodeId(grant.granted_by))
    signature, chain = granter.residence._seal.sign(statement)  # noqa: SLF001
    return SignedGrant(grant, statement, signature, chain)


@pytest.mark.parametrize(
    ("granter", "old", "new", "epoch"),
    [
        # Its own word about its own villages: it is believed there without, and nowhere else.
        (TOWNSHIP, VILLAGE_2, VILLAGE, 9),
        # Somebody else's home, wherever the grant is from.
        (CITY, VILLAGE, FAR_VILLAGE, 9),
        # Later than what its rows say.
        (CITY, FAR_VILLAGE, VILLAGE, 10),
    ],
)
def test_a_child_has_nothing_learned_but_what_its_rows_wait_for(
    region: MovingRegion, granter: NodeId, old: NodeId, new: NodeId, epoch: int
) -> None:
    """Whoever answers may be lying, with true papers of others too."""
    resident_id = settle(region)
    county = region.node(COUNTY)
    signed = _signed(region, Grant(resident_id, epoch, new, old, granter, region.clock.ms, 1))
    question = GrantQuestion(TOWNSHIP, resident_id, 9)
    assert not county.write(partial(county.questions.take, question, [signed]))
    assert county.read(lambda c: county.residence.homes.of_resident(c, resident_id)) == []


def test_a_grant_from_elsewhere_is_of_who_was_above_the_home_known_here(
    region: MovingRegion,
) -> None:
    """A former county's word about somebody who never lived in it, given by the child it had."""
    resident_id = settle(region)
    _regroup(region)
    county = region.node(COUNTY)
    told = Grant(resident_id, 9, FAR_VILLAGE, OTHER_COUNTY, OTHER_COUNTY, region.clock.ms, 1)
    question = GrantQuestion(FAR_TOWNSHIP, resident_id, 9)
    signed = _signed(region, told)
    with pytest.raises(GrantInvalidError):
        county.write(partial(county.questions.take, question, [signed]))
    forged = replace(signed, grant=replace(told, from_node=VILLAGE, granted_by=CITY))
    with pytest.raises(GrantInvalidError):
        county.write(partial(county.questions.take, question, [forged]))
    assert county.home(resident_id) == (VILLAGE, 1)


def test_a_parent_hears_nothing_of_who_does_not_live_below(region: MovingRegion) -> None:
    """Not even whether he is known; and what is no question is refused."""
    resident_id = settle(region)
    region.node(CITY).grant(resident_id, FAR_VILLAGE)
    region.flow()
    for node, expected in ((TOWNSHIP, 0), (FAR_TOWNSHIP, 1)):
        asked = region.node(node)
        question = GrantQuestion.read(node, GrantQuestion(node, resident_id, 2).body())
        grants, towards = asked.read(partial(asked.questions.held, question=question))
        assert (len(grants), towards) == (expected, None)
    for body in (b"", b"[]", b'{"resident_id":1,"home_epoch":2}', b'{"resident_id":"x"}'):
        with pytest.raises(InvalidRequestError):
            GrantQuestion.read(TOWNSHIP, body)
    for body in (b"", b"7", b"[1]", b'["{}"]'):
        with pytest.raises(GrantInvalidError):
            grants_in(body)
