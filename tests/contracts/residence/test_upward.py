"""Who is put above a resident's home later, or put back, is told from below who was moved there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select

from hierarchy_config import NodeId
from hierarchy_config.hierarchy import Hierarchy
from node.residence.homes import SignedGrant
from node.residence.papers import TOLD, statement_of, told_out
from node.storage.resend import Wanted
from node.storage.tables import REPLICATED
from replication.core.config import PeerRole
from replication.core.model import Form, Hello, Lane
from replication.core.residence import Grant
from tests.contracts.residence.region import (
    ABOVE,
    CITY,
    COUNTY,
    FAR_TOWNSHIP,
    FAR_VILLAGE,
    OTHER_COUNTY,
    TOWNSHIP,
    TOWNSHIP_2,
    VILLAGE,
    VILLAGE_3,
    MovingNode,
    MovingRegion,
    moving_hierarchy,
)
from tests.contracts.residence.test_damage import retry
from tests.contracts.residence.test_moves import settle


def _regroup(region: MovingRegion) -> None:
    """The other county's township lies in the county from now on."""
    before = moving_hierarchy()
    moved = replace(before.nodes[FAR_TOWNSHIP], parent=COUNTY)
    region.regroup(Hierarchy("linfen", 2, {**before.nodes, FAR_TOWNSHIP: moved}))


def _meets(node: MovingNode, parent: NodeId, epoch: int = 1) -> None:
    """The link to the parent comes up, in that life of its store."""
    hello = Hello(parent, 1, 2, 2, epoch, f"life {epoch}", 1, 1)
    node.write(partial(node.upward.greeted, peer=parent, hello=hello, _=0))


def _moved_on(region: MovingRegion) -> str:
    """He left the county for the other one, and there for a village: of that it has not heard."""
    resident_id = settle(region)
    region.node(CITY).grant(resident_id, OTHER_COUNTY)
    region.flow()
    region.node(OTHER_COUNTY).grant(resident_id, FAR_VILLAGE)
    region.flow()
    known = region.node(COUNTY).read(lambda c: region.node(COUNTY).residence.known(c, resident_id))
    assert (known.home_node, known.home_epoch) == (OTHER_COUNTY, 2)
    return resident_id


def _states(nodes: Iterable[MovingNode], resident_id: str) -> set[str]:
    moves = [
        node.read(partial(node.residence.moves.of_resident, resident_id=resident_id))
        for node in nodes
    ]
    return {move.state.value for found in moves for move in found}


def test_a_new_parent_learns_who_was_moved_there_before(region: MovingRegion) -> None:
    """Without it his rows would wait there for ever: HOME_NOT_GRANTED."""
    resident_id = _moved_on(region)
    _regroup(region)
    _meets(region.node(FAR_TOWNSHIP), COUNTY)
    region.flow()
    county = region.node(COUNTY)
    retry(region, county)
    region.flow()
    assert county.home(resident_id) == (FAR_VILLAGE, 3)
    assert len(county.rows(resident_id)) == 3
    # Letters that were signed under the township's former name are sent again by their authors.
    waiting = {cause for node in region.nodes(*ABOVE) for cause in node.storage.desk.by_cause()}
    assert waiting <= {"LETTER_SIGNATURE"}
    assert _states(region.nodes(*ABOVE), resident_id) == {"settled"}


def test_without_the_word_from_below_his_rows_wait(region: MovingRegion) -> None:
    """What the test above would find if nobody told: the county believes nothing by itself."""
    resident_id = _moved_on(region)
    _regroup(region)
    region.flow()
    county = region.node(COUNTY)
    retry(region, county)
    assert (county.home(resident_id), county.waiting() > 0) == (None, True)


def test_a_parent_is_told_once_in_each_of_its_lives(region: MovingRegion) -> None:
    """Put back from before the grant, it would refuse who came back to it from elsewhere."""
    resident_id = settle(region)
    region.node(CITY).grant(resident_id, FAR_VILLAGE)
    region.flow()
    back = region.node(CITY).grant(resident_id, VILLAGE_3)
    region.flow()
    teller, county = region.node(TOWNSHIP_2), region.node(COUNTY)
    _meets(teller, COUNTY)
    assert [teller.upward.step(), teller.upward.step()] == [True, False]
    _meets(teller, COUNTY)
    assert not teller.upward.step()

    county.write(lambda c: county.residence.homes.forget(c, back.grant))
    county.write(lambda c: county.residence.moves.drop(c, resident_id, 3))
    _meets(teller, COUNTY, epoch=2)
    region.flow()
    held = county.read(lambda c: county.residence.homes.of_resident(c, resident_id))
    assert [each.grant.home_epoch for each in held] == [2, 3]
    assert region.node(TOWNSHIP).count(resident_id) == 0
    assert _states(region.nodes(*ABOVE), resident_id) == {"settled"}


def test_a_granter_put_back_with_its_rows_takes_those_of_the_new_home(
    region: MovingRegion,
) -> None:
    """The new home's word has come to its former life; the rows it has are of the old home."""
    resident_id = settle(region)
    city, teller = region.node(CITY), region.node(OTHER_COUNTY)
    backup = city.read(_everything)
    assert {row["form"] for row in backup["observations"]} == {"deidentified"}
    granted = city.grant(resident_id, FAR_VILLAGE)
    region.flow()
    assert _homes(city) == {FAR_VILLAGE}
    city.write(lambda c: city.residence.homes.forget(c, granted.grant))
    city.write(lambda c: city.residence.moves.drop(c, resident_id, 2))
    city.write(partial(_put_all_back, backup))
    assert _homes(city) == {VILLAGE}
    _meets(teller, CITY, epoch=2)
    region.flow()
    for row in backup["observations"]:
        wanted = Wanted("observations", row["row_id"], FAR_VILLAGE, Form.DEIDENTIFIED)
        teller.storage.resender.resend(CITY, PeerRole.PARENT, wanted)
    region.flow()
    assert (_homes(city), city.waiting()) == ({FAR_VILLAGE}, 0)
    assert _states(region.nodes(*ABOVE), resident_id) == {"settled"}


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
    signature, chain = region.node(NodeId(grant.granted_by)).residence._seal.sign(statement)  # noqa: SLF001
    return SignedGrant(grant, statement, signature, chain)


@pytest.mark.parametrize("epoch", [2, 9])
def test_a_child_moves_nobody_who_does_not_live_below_it(region: MovingRegion, epoch: int) -> None:
    """A township may grant moves among its villages; he lives in none of them."""
    resident_id = settle(region)
    now_ms = region.clock.ms
    grant = Grant(resident_id, epoch, FAR_TOWNSHIP, FAR_VILLAGE, FAR_TOWNSHIP, now_ms, 1)
    liar, city = region.node(FAR_TOWNSHIP), region.node(CITY)
    body = told_out(_signed(region, grant), settled=True)
    letter = liar.write(
        lambda c: liar.post.send(
            c, to=CITY, kind=TOLD, body=body, lane=Lane.CONTROL, open_letter=True
        )
    )
    region.flow()
    for node in region.nodes(CITY, OTHER_COUNTY, COUNTY, VILLAGE):
        held = node.read(partial(node.residence.homes.of_resident, resident_id=resident_id))
        assert held == []
    assert region.node(VILLAGE).home(resident_id) == (VILLAGE, 1)
    kept = liar.read(lambda c: liar.post.outbox.get(c, letter))
    assert kept.parcel.code == "GRANT_INVALID"
    assert city.state(resident_id) == ""
