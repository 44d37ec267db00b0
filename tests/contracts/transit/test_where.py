"""Where a record is: what each node says of it, and to whom."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from hierarchy_config.model import NodeId
from node.records.model import NewRecord
from node.storage.tables import CHANGELOG
from node.transit.carriage import Carriage
from node.transit.tracks import Tracks
from node.transit.where import LETTER_WHERE, ROW_WHERE, RecordWhere, Wherever
from replication.changelog import LinkState, write_transaction
from replication.channel import AskRefusedError, LinkDownError
from replication.core.config import PeerRole
from replication.core.model import Cursor, Lane, Receipt, Request, StreamEpoch
from tests.contracts.storage.region import bundle, observation, person, send
from tests.contracts.transit.region import (
    CITY,
    COUNTY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    KeyedNode,
    KeyedRegion,
)

OUT = (OTHER_COUNTY, CITY, COUNTY, TOWNSHIP, VILLAGE)


@dataclass
class Line:
    """A neighbour's link, as status has it."""

    connected: bool
    delivered_to: dict[Lane, int] = field(default_factory=dict)


@dataclass
class Hub:
    """What a node asks over; every neighbour that is up answers by its own Wherever."""

    here: NodeId
    net: dict[NodeId, Net]
    down: set[NodeId]

    @property
    def states(self) -> dict[NodeId, Line]:
        return {node: Line(node not in self.down) for node in self.net}

    async def ask(self, to: NodeId, method: str, body: bytes, *, remaining_ms: int) -> bytes:
        if to in self.down:
            raise LinkDownError(f"{to} is not connected")
        request = Request(1, (), method, remaining_ms, b"", body)
        return await self.net[to].where.handlers[method](self.here, request)


@dataclass
class Net:
    """A node's two parts that are asked."""

    where: Wherever
    carriage: Carriage


class Whole:
    """All nodes of the region, wired."""

    def __init__(self, region: KeyedRegion, threads: ThreadPoolExecutor) -> None:
        self.region = region
        self.down: set[NodeId] = set()
        self.net: dict[NodeId, Net] = {}
        for code in (*OUT, VILLAGE_2):
            node = region.node(code)
            carriage = Carriage(
                node.engine,
                CHANGELOG,
                node.post,
                hierarchy=node.tree,
                changelog=node.log,
                clock=node.clock,
            )
            tracks = Tracks(
                node.engine,
                CHANGELOG,
                node_id=code,
                changelog=node.log,
                quarantine=node.storage.quarantine,
                inbox=node.post.inbox,
            )
            hub = Hub(code, self.net, self.down)
            where = Wherever(
                node.storage,
                node.post,
                carriage,
                tracks,
                hub,  # type: ignore[arg-type]  # as much of a LinkHub as is asked
                hierarchy=node.tree,
                threads=threads,
            )
            self.net[code] = Net(where, carriage)

    def travel(self, *path: NodeId) -> None:
        """Ship along the path, with receipts, and let every node look at its log."""
        for sender, receiver in itertools.pairwise(path):
            self.region.travel(sender, receiver)
            self._receipt(self.region.node(sender), receiver)
        for code in path:
            self.net[code].carriage.step(self.region.node(code).durable_head())

    def _receipt(self, sender: KeyedNode, receiver: NodeId) -> None:
        head = sender.durable_head()
        for lane in Lane:
            cursor = Cursor(lane, StreamEpoch(1, 1), head, head, b"h")
            with write_transaction(sender.engine) as connection:
                LinkState(CHANGELOG).save_outbound(
                    connection, receiver, cursor, Receipt(cursor), self.region.clock.ms
                )

    def where(self, node: NodeId, record_id: str) -> RecordWhere:
        """As a caller of the node is answered."""
        caller = self.region.node(node).caller()
        found = asyncio.run(self.net[node].where.record(caller, record_id))
        assert found is not None
        return found

    def said(self, node: NodeId, record_id: str) -> list[tuple[str, str, str]]:
        """Each hop: node, place, state."""
        hops = self.where(node, record_id).hops
        return [(hop.node_id, hop.place, hop.state) for hop in hops]


@pytest.fixture
def whole(region: KeyedRegion) -> Iterator[Whole]:
    """The region, wired."""
    with ThreadPoolExecutor(1) as threads:
        yield Whole(region, threads)


def written(whole: Whole, author: NodeId = OTHER_COUNTY) -> tuple[str, str]:
    """A resident of the village, and a record of him by another node."""
    home, writer = whole.region.node(VILLAGE), whole.region.node(author)
    writer.knows(home)
    home.knows(writer)
    put = home.storage.put_bundle(home.caller(), bundle("register-1", person()))
    [resident_id] = put.resident_ids
    whole.travel(*reversed(OUT))
    plain = observation(resident_id)
    record = NewRecord(None, plain.table, resident_id, plain.values, home_node=VILLAGE)
    stored = writer.storage.put_bundle(writer.caller(), bundle("visit-001", record))
    return resident_id, stored.record_ids[0]


def test_every_node_of_the_way_is_named_with_what_it_has(whole: Whole) -> None:
    """Before it leaves, half-way, at home, and after it has climbed."""
    _, record_id = written(whole)
    whole.net[OTHER_COUNTY].carriage.step(whole.region.node(OTHER_COUNTY).durable_head())
    assert whole.said(OTHER_COUNTY, record_id) == [
        (OTHER_COUNTY, "author", "stored"),
        (CITY, "relay", "waiting"),
    ]
    whole.travel(OTHER_COUNTY, CITY, COUNTY)
    whole.down.add(TOWNSHIP)
    half_way = whole.where(OTHER_COUNTY, record_id)
    assert [(hop.node_id, hop.state) for hop in half_way.hops] == [
        (OTHER_COUNTY, "stored"),
        (CITY, "passed"),
        (COUNTY, "stored"),
        (TOWNSHIP, "waiting"),
    ]
    assert half_way.hops[-1].cause == f"no link between {COUNTY} and {TOWNSHIP}"

    whole.down.clear()
    whole.travel(COUNTY, TOWNSHIP, VILLAGE)
    whole.travel(*reversed(OUT))
    assert whole.said(OTHER_COUNTY, record_id) == [
        (OTHER_COUNTY, "author", "stored"),
        (CITY, "relay", "passed"),
        (COUNTY, "relay", "passed"),
        (TOWNSHIP, "relay", "passed"),
        (VILLAGE, "home", "confirmed"),
        (TOWNSHIP, "copy", "confirmed"),
        (COUNTY, "copy", "confirmed"),
        (CITY, "copy", "confirmed"),
    ]


def test_the_receipt_counts_though_nobody_can_be_asked(whole: Whole) -> None:
    """What the author holds outweighs a link that is down."""
    _, record_id = written(whole)
    whole.travel(*OUT)
    whole.travel(*reversed(OUT))
    whole.down.add(CITY)
    found = whole.where(OTHER_COUNTY, record_id)
    assert [(hop.node_id, hop.state) for hop in found.hops] == [
        (OTHER_COUNTY, "stored"),
        (CITY, "unreachable"),
        (VILLAGE, "confirmed"),
    ]
    assert found.letter is not None
    assert found.letter.proof is not None


def test_a_missing_key_is_said(whole: Whole) -> None:
    """Nothing has left the author then."""
    author = whole.region.node(OTHER_COUNTY)
    resident = "00000000-0000-4000-8000-000000000077"
    plain = observation(resident)
    record = NewRecord(None, plain.table, resident, plain.values, home_node=VILLAGE)
    [record_id] = author.storage.put_bundle(author.caller(), bundle("visit-001", record)).record_ids
    found = whole.where(OTHER_COUNTY, record_id)
    assert [(hop.node_id, hop.state) for hop in found.hops[1:]] == [(VILLAGE, "waiting")]
    assert "key" in found.hops[-1].cause


def test_a_letter_in_a_quarantine_is_found_there(whole: Whole) -> None:
    """With the cause in words."""
    _, record_id = written(whole)
    author, city = whole.region.node(OTHER_COUNTY), whole.region.node(CITY)
    entry = author.entries()[-1]
    # As a city with another region file would judge it.
    send(city, COUNTY, PeerRole.CHILD, replace(entry, origin_sequence=77))
    with write_transaction(author.engine) as connection:
        head = Cursor(Lane.BULK, StreamEpoch(1, 1), 99, 99, b"h")
        LinkState(CHANGELOG).save_outbound(connection, CITY, head)
    whole.net[OTHER_COUNTY].carriage.step(author.durable_head())
    hop = whole.where(OTHER_COUNTY, record_id).hops[1]
    assert (hop.node_id, hop.state) == (CITY, "quarantined")
    assert "not below" in hop.cause


def test_a_refusal_of_the_home_is_said(whole: Whole) -> None:
    """At the home, with what it means."""
    author, home = whole.region.node(OTHER_COUNTY), whole.region.node(VILLAGE)
    author.knows(home)
    home.knows(author)
    resident = "00000000-0000-4000-8000-000000000077"
    plain = observation(resident)
    record = NewRecord(None, plain.table, resident, plain.values, home_node=VILLAGE)
    [record_id] = author.storage.put_bundle(author.caller(), bundle("visit-001", record)).record_ids
    whole.travel(*OUT)
    whole.travel(*reversed(OUT))
    last = whole.where(OTHER_COUNTY, record_id).hops[-1]
    assert (last.node_id, last.state) == (VILLAGE, "refused")
    assert last.cause.startswith("RESIDENT_UNKNOWN: ")


def test_a_record_of_the_home_itself_climbs(whole: Whole) -> None:
    """By the receipts that each node above has given."""
    home = whole.region.node(VILLAGE)
    [resident_id] = home.storage.put_bundle(
        home.caller(), bundle("register-1", person())
    ).resident_ids
    [record_id] = home.storage.put_bundle(
        home.caller(), bundle("visit-001", observation(resident_id))
    ).record_ids
    home.durable_head()
    assert whole.said(VILLAGE, record_id) == [
        (VILLAGE, "author", "stored"),
        (TOWNSHIP, "copy", "waiting"),
    ]
    whole.travel(VILLAGE, TOWNSHIP, COUNTY)
    assert whole.said(VILLAGE, record_id) == [
        (VILLAGE, "author", "stored"),
        (TOWNSHIP, "copy", "confirmed"),
        (COUNTY, "copy", "confirmed"),
        (CITY, "copy", "waiting"),
    ]


def test_a_record_written_above_the_home_goes_down_and_up(whole: Whole) -> None:
    """As a row, not as a letter."""
    home, county = whole.region.node(VILLAGE), whole.region.node(COUNTY)
    [resident_id] = home.storage.put_bundle(
        home.caller(), bundle("register-1", person())
    ).resident_ids
    whole.travel(VILLAGE, TOWNSHIP, COUNTY)
    [record_id] = county.storage.put_bundle(
        county.caller(), bundle("visit-001", observation(resident_id))
    ).record_ids
    whole.travel(COUNTY, TOWNSHIP, VILLAGE)
    assert whole.said(COUNTY, record_id) == [
        (COUNTY, "author", "stored"),
        (TOWNSHIP, "copy", "confirmed"),
        (VILLAGE, "home", "confirmed"),
        (CITY, "copy", "waiting"),
    ]


@pytest.mark.parametrize(
    ("here", "peer", "sender", "to"),
    [
        (TOWNSHIP, VILLAGE_2, VILLAGE, CITY),
        (TOWNSHIP, VILLAGE_2, OTHER_COUNTY, VILLAGE),
        (CITY, COUNTY, OTHER_COUNTY, CITY),
        (TOWNSHIP, COUNTY, VILLAGE, CITY),
        (TOWNSHIP, COUNTY, VILLAGE, VILLAGE_2),
        (COUNTY, TOWNSHIP, VILLAGE, VILLAGE_2),
    ],
)
def test_nobody_asks_after_a_letter_that_does_not_pass_through_him(
    whole: Whole, here: NodeId, peer: NodeId, sender: NodeId, to: NodeId
) -> None:
    """Not a sibling, not the parent of both ends."""
    body = json.dumps({"letter": "x", "sender": sender, "to": to}).encode()
    with pytest.raises(AskRefusedError, match="does not pass"):
        asked(whole, here, peer, LETTER_WHERE, body)


@pytest.mark.parametrize("method", [LETTER_WHERE, ROW_WHERE])
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"letter": 1, "sender": 2, "to": 3}'])
def test_a_question_that_makes_no_sense_is_refused(whole: Whole, method: str, body: bytes) -> None:
    """With a code."""
    with pytest.raises(AskRefusedError):
        asked(whole, TOWNSHIP, VILLAGE, method, body)


def test_a_sibling_learns_nothing_of_anothers_rows(whole: Whole) -> None:
    """A child asks of homes below it only."""
    question = {"origin": VILLAGE, "epoch": "1", "sequence": "1", "table": "observations"}
    body = json.dumps({**question, "home": VILLAGE}).encode()
    with pytest.raises(AskRefusedError, match="not of the node"):
        asked(whole, TOWNSHIP, VILLAGE_2, ROW_WHERE, body)


def asked(whole: Whole, here: NodeId, peer: NodeId, method: str, body: bytes) -> bytes:
    """The answer of a node to a neighbour's question."""

    async def answer() -> bytes:
        request = Request(1, (), method, 1000, b"", body)
        return await whole.net[here].where.handlers[method](peer, request)

    return asyncio.run(answer())
