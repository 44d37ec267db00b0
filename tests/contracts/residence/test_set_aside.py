"""A resident whose row does not open holds up his own move and nobody else's."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import cast

from sqlalchemy import select, update

from node.links.hub import LinkHub
from node.residence.desk import ResidenceDesk
from node.residence.residence import AWAY_MS
from node.storage.tables import REPLICATED
from replication.changelog import write_transaction
from tests.contracts.residence.region import (
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    MovingNode,
    MovingRegion,
)
from tests.contracts.storage.region import observation, person

NUMBERS = ("14260119800101001X", "142601198001010028", "142601198001010036")


def desk_of(node: MovingNode) -> ResidenceDesk:
    """Its desk, with no link up."""
    hub = cast(LinkHub, SimpleNamespace(states={}, hierarchy=node.tree))
    return ResidenceDesk(
        node.storage.context,
        node.residence,
        hub,
        threads=ThreadPoolExecutor(1),
        durable_head=node.durable_head,
        notify=lambda: None,
    )


def flip(node: MovingNode, resident_id: str) -> None:
    """One bit of his sealed name; again: as it was."""
    t = REPLICATED["residents"]
    with write_transaction(node.engine) as connection:
        sealed = connection.execute(select(t.c.name).where(t.c.row_id == resident_id)).scalar_one()
        data = bytearray(sealed)
        data[-1] ^= 1
        connection.execute(update(t).where(t.c.row_id == resident_id).values(name=bytes(data)))


def test_the_moves_of_the_others_go_on(region: MovingRegion) -> None:
    """The township ships in place of a village that is away; his own goes once the row opens."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    people = [person(number) for number in NUMBERS]
    residents = sorted(village.put("register-1", *people).resident_ids)
    village.put("visit-0001", *(observation(each) for each in residents))
    region.flow()
    bad, *others = residents
    flip(township, bad)
    for each in residents:
        township.grant(each, VILLAGE_2)
    township.clock.ms += AWAY_MS
    desk = desk_of(township)

    asyncio.run(desk.pulse())

    assert [township.state(each) for each in residents] == ["granted", "shipping", "shipping"]
    assert dict(township.storage.context.aside.counts()) == {"move": 1}
    assert township.steps.due() == []
    flip(township, bad)
    township.clock.ms += 60_000
    asyncio.run(desk.pulse())
    assert township.state(bad) == "shipping"
    assert dict(township.storage.context.aside.counts()) == {}
    assert {township.state(each) for each in others} == {"shipping"}
