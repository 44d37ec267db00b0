"""Letters in a node's log: erased once handed on, kept for a neighbour who knows none."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import Connection, select, update

from hierarchy_config.model import NodeId
from node.storage.tables import CHANGELOG, TRANSIT
from node.transit import Letter, SentLetter
from node.transit.carriage import Carriage, next_hop
from node.transit.service import KEYS_CHAIN, TransitService
from replication.changelog import LinkState, read_transaction, write_transaction
from replication.channel import AskRefusedError, LinkDownError
from replication.core.mailbox import PostState
from replication.core.model import Cursor, Hello, Lane, Request, StreamEpoch
from tests.contracts.transit.region import (
    CITY,
    COUNTY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    KeyedNode,
    KeyedRegion,
    authorities,
)

THERE = (VILLAGE, TOWNSHIP, COUNTY, CITY, OTHER_COUNTY)


def carriage_of(node: KeyedNode) -> Carriage:
    """As the running node has it."""
    return Carriage(
        node.engine,
        CHANGELOG,
        node.post,
        hierarchy=node.tree,
        changelog=node.log,
        clock=node.clock,
    )


def post(node: KeyedNode, to: NodeId = OTHER_COUNTY) -> str:
    """Write a letter."""
    with write_transaction(node.engine) as connection:
        return node.post.send(connection, to=to, kind="note", body=b"body")


def kept(node: KeyedNode, letter_id: str) -> SentLetter:
    """The letter as its author has it."""
    with read_transaction(node.engine) as connection:
        found = node.post.outbox.get(connection, letter_id)
    assert found is not None
    return found


def confirm(node: KeyedNode, peer: NodeId, covers_to: int, lane: Lane = Lane.BULK) -> None:
    """A receipt of a neighbour."""
    cursor = Cursor(lane, StreamEpoch(1, 1), covers_to, covers_to, b"h")
    with write_transaction(node.engine) as connection:
        LinkState(CHANGELOG).save_outbound(connection, peer, cursor)


def greet(
    node: KeyedNode, carriage: Carriage, peer: NodeId, *, protocol: int = 2, epoch: int = 1
) -> None:
    """A neighbour's link comes up; it was in epoch 1 before."""
    chain = authorities().node(peer).chain_pem
    hello = Hello(peer, 1, protocol, 1, epoch, "life", 1, 1, signing_certificate=chain)
    with write_transaction(node.engine) as connection:
        carriage.greeted(connection, peer, hello, 1)


def payloads(node: KeyedNode) -> list[int]:
    """Numbers of letters that have their payload."""
    return [entry.sequence for entry in node.entries() if entry.rows]


def holds(node: KeyedNode, carriage: Carriage, letter_id: str, to: NodeId = OTHER_COUNTY) -> bool:
    """Whether the carriage finds the village's letter."""
    with read_transaction(node.engine) as connection:
        return carriage.find(connection, letter_id, VILLAGE, to)


def into(taken: list[bytes]) -> Callable[[Connection, Letter], str]:
    """A handler that accepts every letter."""

    def handler(_connection: Connection, letter: Letter) -> str:
        taken.append(letter.body)
        return ""

    return handler


@pytest.mark.parametrize(
    ("here", "to", "hop"),
    [
        (VILLAGE, OTHER_COUNTY, TOWNSHIP),
        (TOWNSHIP, VILLAGE_2, VILLAGE_2),
        (COUNTY, VILLAGE_2, TOWNSHIP),
        (CITY, VILLAGE, COUNTY),
        (CITY, CITY, None),
        (VILLAGE, NodeId("999999"), None),
    ],
)
def test_a_letter_goes_by_the_shortest_way(
    region: KeyedRegion, here: NodeId, to: NodeId, hop: NodeId | None
) -> None:
    """Down if the addressee is below, else up."""
    assert next_hop(region.tree, here, to) == hop


def test_a_letter_is_erased_after_the_next_nodes_receipt(region: KeyedRegion) -> None:
    """Not before, and of several only those that it covers."""
    village = region.node(VILLAGE)
    village.knows(region.node(OTHER_COUNTY))
    first, second = post(village), post(village)
    carriage = carriage_of(village)
    assert carriage.step(village.durable_head()) == 0
    assert holds(village, carriage, first)

    confirm(village, TOWNSHIP, 1)
    assert carriage.step(village.durable_head()) == 1
    assert payloads(village) == [2]
    assert not holds(village, carriage, first)
    assert holds(village, carriage, second)
    confirm(village, TOWNSHIP, 2)
    assert carriage.step(village.durable_head()) == 1
    assert carriage.count == 0


def test_another_lanes_or_neighbours_receipt_erases_nothing(region: KeyedRegion) -> None:
    """A letter down waits for the child, one up for the parent, each in its lane."""
    town = region.node(TOWNSHIP)
    town.knows(region.node(VILLAGE_2))
    post(town, VILLAGE_2)
    carriage = carriage_of(town)
    confirm(town, COUNTY, 9)
    confirm(town, VILLAGE, 9)
    confirm(town, VILLAGE_2, 9, Lane.CARE)
    assert carriage.step(town.durable_head()) == 0
    confirm(town, VILLAGE_2, 9)
    assert carriage.step(town.durable_head()) == 1


def test_a_restart_finds_what_is_still_on_its_way(region: KeyedRegion) -> None:
    """The log is looked through from where all were erased."""
    village = region.node(VILLAGE)
    village.knows(region.node(OTHER_COUNTY))
    letter_id = post(village)
    carriage_of(village).step(village.durable_head())
    again = carriage_of(village)
    again.step(village.durable_head())
    assert again.count == 1
    assert holds(village, again, letter_id)


def test_letters_wait_for_a_neighbour_who_knows_none(region: KeyedRegion) -> None:
    """The link passes them over; once he is upgraded they are logged anew, and then erased."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)
    letter_id = post(village)
    carriage = carriage_of(village)
    greet(village, carriage, TOWNSHIP, protocol=1)
    confirm(village, TOWNSHIP, 1)
    assert carriage.step(village.durable_head()) == 0
    assert payloads(village) == [1]

    greet(village, carriage, TOWNSHIP, protocol=2)
    carriage.step(village.durable_head())
    assert payloads(village) == [2]
    carriage.step(village.durable_head())
    assert holds(village, carriage, letter_id)
    village.entries()
    taken: list[bytes] = []
    county.post.on_letter("note", into(taken))
    with write_transaction(village.engine) as connection:
        connection.execute(CHANGELOG.link_outbound.delete())
    region.travel(*THERE)
    assert taken == [b"body"]
    confirm(village, TOWNSHIP, 2)
    assert carriage.step(village.durable_head()) == 1


def test_a_neighbour_in_a_new_life_is_sent_everything_again(region: KeyedRegion) -> None:
    """At once, whatever the pace was; an ordinary link changes nothing."""
    village = region.node(VILLAGE)
    village.knows(region.node(OTHER_COUNTY))
    letter_id = post(village)
    carriage = carriage_of(village)
    greet(village, carriage, TOWNSHIP, epoch=1)
    assert kept(village, letter_id).parcel.next_ms == region.clock.ms + 60_000
    greet(village, carriage, TOWNSHIP, epoch=2)
    assert kept(village, letter_id).parcel.next_ms == region.clock.ms


def test_a_neighbours_chain_is_learnt_when_its_link_comes_up(region: KeyedRegion) -> None:
    """And another's in its place is not."""
    village = region.node(VILLAGE)
    carriage = carriage_of(village)
    greet(village, carriage, TOWNSHIP)
    hello = Hello(
        COUNTY, 1, 2, 1, 1, "life", 1, 1, signing_certificate=authorities().node(CITY).chain_pem
    )
    with write_transaction(village.engine) as connection:
        carriage.greeted(connection, COUNTY, hello, 1)
    with read_transaction(village.engine) as connection:
        known = connection.execute(select(TRANSIT.certificates.c.node_id)).scalars().all()
    assert known == [TOWNSHIP]


# -- keys over links -----------------------------------------------------------------------------


@dataclass
class Wires:
    """Links between services in one process; `cut` names nodes that cannot be reached."""

    services: dict[NodeId, TransitService] = field(default_factory=dict)
    cut: set[NodeId] = field(default_factory=set)
    asked: list[tuple[NodeId, NodeId]] = field(default_factory=list)


@dataclass
class Wire:
    """What a service asks its neighbours over."""

    wires: Wires
    here: NodeId

    async def ask(self, to: NodeId, method: str, body: bytes, *, remaining_ms: int) -> bytes:
        self.wires.asked.append((self.here, to))
        if to in self.wires.cut or to not in self.wires.services:
            raise LinkDownError(f"{to} is not connected")
        request = Request(1, (), method, remaining_ms, b"", body)
        return await self.wires.services[to].handlers[method](self.here, request)


def served(region: KeyedRegion, threads: ThreadPoolExecutor, *nodes: NodeId) -> Wires:
    """Services of some nodes, wired together."""
    wires = Wires()
    for code in nodes:
        node = region.node(code)
        wires.services[code] = TransitService(
            node.engine,
            node.post,
            carriage_of(node),
            Wire(wires, code),
            hierarchy=node.tree,
            clock=node.clock,
            threads=threads,
            notify=lambda: None,
            head=node.durable_head,
            aside=node.storage.context.aside,
            delivered=lambda _connection, _lane: 0,
        )
    return wires


@pytest.fixture
def threads() -> ThreadPoolExecutor:
    """One thread: a database connection at a time."""
    return ThreadPoolExecutor(1)


def test_an_addressees_key_is_asked_for_on_the_way_to_it(
    region: KeyedRegion, threads: ThreadPoolExecutor
) -> None:
    """Up to the common ancestor and down; who has passed it on knows it from then on."""
    village = region.node(VILLAGE)
    wires = served(region, threads, *THERE)
    letter_id = post(village)
    asyncio.run(wires.services[VILLAGE].step())

    assert wires.asked == list(itertools.pairwise(THERE))
    assert kept(village, letter_id).parcel.state is PostState.SENT
    wires.asked.clear()
    wires.cut.add(OTHER_COUNTY)
    second = region.node(VILLAGE_2)
    wires.services.update(served(region, threads, VILLAGE_2).services)
    wires.services[VILLAGE_2]._hub = Wire(wires, VILLAGE_2)  # noqa: SLF001
    other = post(second)
    asyncio.run(wires.services[VILLAGE_2].step())
    assert kept(second, other).parcel.state is PostState.SENT
    assert wires.asked == [(VILLAGE_2, TOWNSHIP)]


def test_a_key_that_nobody_gives_is_asked_for_later(
    region: KeyedRegion, threads: ThreadPoolExecutor
) -> None:
    """The letter waits; nothing is asked again before its time."""
    village = region.node(VILLAGE)
    wires = served(region, threads, VILLAGE, TOWNSHIP)
    letter_id = post(village)
    asyncio.run(wires.services[VILLAGE].step())
    waiting = kept(village, letter_id).parcel
    assert (waiting.state, waiting.next_ms) == (
        PostState.WAITING_KEY,
        region.clock.ms + 5_000,
    )
    wires.asked.clear()
    asyncio.run(wires.services[VILLAGE].step())
    assert wires.asked == []


def test_a_key_that_was_refused_is_not_taken_again(
    region: KeyedRegion, threads: ThreadPoolExecutor
) -> None:
    """Nodes that know only the old one ask on, as far as the addressee."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    wires = served(region, threads, *THERE)
    letter_id = post(village)
    asyncio.run(wires.services[VILLAGE].step())
    county.keyring.held = authorities().node(OTHER_COUNTY)
    region.travel(*THERE)
    region.travel(*reversed(THERE))
    assert kept(village, letter_id).parcel.code == "LETTER_KEY_OLD"

    asyncio.run(wires.services[VILLAGE].step())
    taken: list[bytes] = []
    county.post.on_letter("note", into(taken))
    region.travel(*THERE)
    assert taken == [b"body"]


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"node": 1, "not": ""}', b'{"node": "999999", "not": ""}']
)
def test_a_question_that_makes_no_sense_is_refused(
    region: KeyedRegion, threads: ThreadPoolExecutor, body: bytes
) -> None:
    """With a code, not with an accident."""
    service = served(region, threads, TOWNSHIP).services[TOWNSHIP]
    request = Request(1, (), KEYS_CHAIN, 1000, b"", body)

    async def asked() -> bytes:
        return await service.handlers[KEYS_CHAIN](VILLAGE, request)

    with pytest.raises(AskRefusedError):
        asyncio.run(asked())


def test_a_parent_that_lies_about_a_chain_is_not_believed(
    region: KeyedRegion, threads: ThreadPoolExecutor
) -> None:
    """A chain proves itself or is thrown away."""
    village, town = region.node(VILLAGE), region.node(TOWNSHIP)
    wires = served(region, threads, VILLAGE, TOWNSHIP)
    with write_transaction(town.engine) as connection:
        connection.execute(
            TRANSIT.certificates.insert().values(
                node_id=OTHER_COUNTY,
                key_id="0" * 64,
                chain=authorities().node(COUNTY).chain_pem,
                learnt_at=0,
            )
        )
    letter_id = post(village)
    asyncio.run(wires.services[VILLAGE].step())
    assert kept(village, letter_id).parcel.state is PostState.WAITING_KEY


def test_a_chain_that_holds_no_more_is_asked_for_anew(
    region: KeyedRegion, threads: ThreadPoolExecutor
) -> None:
    """It expired, or its node went to another county; the key may be the same as before."""
    village = region.node(VILLAGE)
    wires = served(region, threads, *THERE)
    letter_id = post(village)
    asyncio.run(wires.services[VILLAGE].step())
    sent = kept(village, letter_id)
    table = TRANSIT.certificates
    foreign = authorities().node(COUNTY).chain_pem
    for node in (village, region.node(TOWNSHIP)):
        with write_transaction(node.engine) as connection:
            connection.execute(update(table).values(chain=foreign))
    # Refused once for another reason than its key, and due again.
    parcel = replace(sent.parcel, code="RECOVERING", next_ms=region.clock.ms)
    with write_transaction(village.engine) as connection:
        village.post.outbox.save(connection, replace(sent, parcel=parcel))
    asyncio.run(wires.services[VILLAGE].step())
    again = kept(village, letter_id)
    assert (again.parcel.state, again.parcel.attempts) == (PostState.SENT, 2)
    assert again.key_id == sent.key_id


DAYS_30 = 30 * 24 * 6
"""Steps of ten minutes."""


def test_a_letter_to_somebody_who_is_away_lies_once_in_each_log(region: KeyedRegion) -> None:
    """Sent again for thirty days; neither its author nor a relay keeps the copies."""
    author, relay, village = region.node(OTHER_COUNTY), region.node(CITY), region.node(VILLAGE)
    author.knows(village)
    post(author, VILLAGE)
    carriages = [carriage_of(node) for node in (author, relay)]
    for n in range(DAYS_30):
        region.clock.ms += 600_000
        author.carry()
        if n == DAYS_30 // 2:
            confirm(author, CITY, author.durable_head())
        if n > DAYS_30 // 2:
            region.ship(author, relay)
            confirm(author, CITY, author.durable_head())
        for node, carriage in zip((author, relay), carriages, strict=True):
            carriage.step(node.durable_head())

    assert [len(payloads(node)) for node in (author, relay)] == [0, 1]
    [kept_entry] = [entry for entry in relay.entries() if entry.rows]
    assert kept_entry.sequence == 1
    assert relay.durable_head() > 10


def test_a_copy_to_another_key_replaces_the_first(region: KeyedRegion) -> None:
    """The addressee could not open the older."""
    author, village = region.node(VILLAGE_2), region.node(VILLAGE)
    author.knows(village)
    letter_id = post(author, VILLAGE)
    carriage = carriage_of(author)
    carriage.step(author.durable_head())
    assert payloads(author) == [1]
    with write_transaction(author.engine) as connection:
        author.post.redirect(connection, letter_id, TOWNSHIP)
    author.knows(region.node(TOWNSHIP))
    region.clock.ms += 600_000
    author.carry()

    carriage.step(author.durable_head())

    assert payloads(author) == [2]


def test_letters_of_one_who_is_away_keep_no_others(region: KeyedRegion) -> None:
    """However many wait for him, what was handed on is erased."""
    town = region.node(TOWNSHIP)
    town.knows(region.node(VILLAGE), region.node(VILLAGE_2))
    for _ in range(5):
        post(town, VILLAGE)
    post(town, VILLAGE_2)
    carriage = Carriage(
        town.engine,
        CHANGELOG,
        town.post,
        hierarchy=town.tree,
        changelog=town.log,
        clock=town.clock,
        remembered_max=3,
    )
    carriage.step(town.durable_head())
    post(town, VILLAGE_2)
    confirm(town, VILLAGE_2, town.durable_head())
    region.clock.ms += 60_000

    carriage.step(town.durable_head())

    assert payloads(town) == [1, 2, 3, 4, 5]
