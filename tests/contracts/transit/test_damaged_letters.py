"""A letter whose body does not open waits and is said; all others go, and its receipt is taken."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, select, update

from hierarchy_config.model import NodeId
from node.storage.tables import CHANGELOG, TRANSIT
from node.transit import Letter
from node.transit.carriage import Carriage
from node.transit.service import TransitService
from replication.changelog import read_transaction, write_transaction
from replication.channel import LinkDownError
from replication.core.mailbox import PostState
from tests.contracts.transit.region import (
    CITY,
    COUNTY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    KeyedNode,
    KeyedRegion,
)

THERE = (VILLAGE, TOWNSHIP, COUNTY, CITY, OTHER_COUNTY)
HOUR_MS = 3_600_000


class Nobody:
    """No link is up."""

    async def ask(self, to: NodeId, method: str, body: bytes, *, remaining_ms: int) -> bytes:
        raise LinkDownError(f"{to} is not connected")


@pytest.fixture
def village(region: KeyedRegion) -> KeyedNode:
    """A village that has the other county's key; the county takes every letter."""
    node, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    node.knows(county)
    county.post.on_letter("note", lambda _connection, _letter: "")
    return node


@pytest.fixture
def service(village: KeyedNode) -> TransitService:
    """Its task of letters."""
    carriage = Carriage(
        village.engine,
        CHANGELOG,
        village.post,
        hierarchy=village.tree,
        changelog=village.log,
        clock=village.clock,
    )
    return TransitService(
        village.engine,
        village.post,
        carriage,
        Nobody(),
        hierarchy=village.tree,
        clock=village.clock,
        threads=ThreadPoolExecutor(1),
        notify=lambda: None,
        head=village.durable_head,
        aside=village.storage.context.aside,
        delivered=lambda _connection, _lane: 0,
    )


def post(node: KeyedNode, count: int) -> list[str]:
    """Letters, logged once."""
    with write_transaction(node.engine) as connection:
        return [
            node.post.send(connection, to=OTHER_COUNTY, kind="note", body=b"body")
            for _ in range(count)
        ]


def flip(node: KeyedNode, letter_id: str) -> None:
    """One bit of a letter's sealed body; again: as it was."""
    t = TRANSIT.out
    with write_transaction(node.engine) as connection:
        sealed = connection.execute(select(t.c.body).where(t.c.letter_id == letter_id)).scalar_one()
        data = bytearray(sealed)
        data[-1] ^= 1
        connection.execute(update(t).where(t.c.letter_id == letter_id).values(body=bytes(data)))


def attempts(node: KeyedNode, letter_id: str) -> int:
    """How often a letter was logged."""
    with read_transaction(node.engine) as connection:
        letter = node.post.outbox.get(connection, letter_id, with_body=False)
    assert letter is not None
    return letter.parcel.attempts


def test_the_others_are_sent_again(village: KeyedNode, service: TransitService) -> None:
    """It is looked at again after an hour, and sent once it opens."""
    letters = post(village, 3)
    flip(village, letters[0])
    village.clock.ms += 120_000

    asyncio.run(service.step())

    assert [attempts(village, each) for each in letters] == [1, 2, 2]
    assert dict(village.storage.context.aside.counts()) == {"letter": 1}
    village.clock.ms += HOUR_MS // 2
    asyncio.run(service.step())
    assert [attempts(village, each) for each in letters] == [1, 3, 3]
    flip(village, letters[0])
    village.clock.ms += HOUR_MS
    asyncio.run(service.step())
    assert attempts(village, letters[0]) == 2
    assert dict(village.storage.context.aside.counts()) == {}


def test_what_nobody_foresaw_of_one_letter_waits_too(
    village: KeyedNode, service: TransitService
) -> None:
    """A handler of this node's own letters that fails with an error of the language."""

    def handler(_connection: Connection, _letter: Letter) -> str:
        raise KeyError("unknown")

    letters = post(village, 2)
    village.post.on_letter("own", handler)
    t = TRANSIT.out
    with write_transaction(village.engine) as connection:
        connection.execute(
            update(t).where(t.c.letter_id == letters[0]).values(to_node=VILLAGE, kind="own")
        )
    village.clock.ms += 120_000

    asyncio.run(service.step())

    assert [attempts(village, each) for each in letters] == [1, 2]
    assert dict(village.storage.context.aside.counts()) == {"letter": 1}


def test_its_receipt_is_taken(region: KeyedRegion, village: KeyedNode) -> None:
    """The addressee has it: what became of it needs no body."""
    [letter_id] = post(village, 1)
    flip(village, letter_id)

    region.travel(*THERE)
    region.travel(*reversed(THERE))

    t = TRANSIT.out
    with read_transaction(village.engine) as connection:
        state = connection.execute(select(t.c.state).where(t.c.letter_id == letter_id)).scalar_one()
    assert state == PostState.CONFIRMED.value
