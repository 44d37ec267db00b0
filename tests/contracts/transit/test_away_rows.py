"""Records written away from home: kept by their author, sealed to the home, climbing from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from federation.columnar import ColumnarLimits, ColumnarReplica, SiteColumn
from node.columnar_feed import StorageSource
from node.records.model import NewRecord
from node.security.caller import CallerKind
from node.storage.errors import HomeUnknownError, NotAuthorError, UnknownResidentError
from node.storage.model import BundleResult, StoredRecord
from node.storage.tables import REPLICATED, TRANSIT
from replication.changelog import read_transaction, write_transaction
from replication.core.codec import encode_changes
from replication.core.mailbox import PostState
from replication.core.model import Version
from tests.contracts.storage.region import bundle, change, observation, person
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
BACK = tuple(reversed(OUT))


def away(resident_id: str, value: float = 128.0, **more: Any) -> NewRecord:
    """A systolic blood pressure of somebody whose home is the village."""
    plain = observation(resident_id, value, record_id=more.pop("record_id", None))
    said = {"home_node": VILLAGE} | more
    return NewRecord(plain.record_id, plain.table, plain.resident_id, plain.values, **said)


def put(node: KeyedNode, request_id: str, *rows: Any) -> BundleResult:
    """Store a bundle."""
    return node.storage.put_bundle(node.caller(), bundle(request_id, *rows))


@pytest.fixture
def met(region: KeyedRegion) -> tuple[KeyedNode, KeyedNode, str]:
    """The other county, the village, and a resident of the village; each knows the other's key."""
    author, home = region.node(OTHER_COUNTY), region.node(VILLAGE)
    author.knows(home)
    home.knows(author)
    [resident_id] = put(home, "register-1", person()).resident_ids
    region.travel(*BACK)
    return author, home, resident_id


def held(node: KeyedNode, record_id: str) -> StoredRecord | None:
    """The record as a caller of the node sees it."""
    return node.storage.record(node.caller(), record_id)


def rows_of(node: KeyedNode, table: str = "observations") -> list[Any]:
    """The rows that the node's table has, whoever may see them."""
    with read_transaction(node.engine) as connection:
        return list(connection.execute(select(REPLICATED[table])).all())


def state(node: KeyedNode, record_id: str) -> list[PostState]:
    """Of the letters that carry a record, the newest version last."""
    with read_transaction(node.engine) as connection:
        return [sent.parcel.state for sent in node.post.outbox.of_row(connection, record_id)]


def test_it_arrives_at_home_and_climbs_by_policy_from_there(
    region: KeyedRegion, met: tuple[KeyedNode, KeyedNode, str]
) -> None:
    """At the author and the home it is the author's row; nobody on the way has it before."""
    author, home, resident_id = met
    [record_id] = put(author, "visit-001", away(resident_id)).record_ids

    region.travel(*OUT)
    for relay in (CITY, COUNTY, TOWNSHIP):
        assert not rows_of(region.node(relay))
    arrived = held(home, record_id)
    assert arrived is not None
    assert (arrived.author_node, arrived.home_node, arrived.home_epoch) == (
        OTHER_COUNTY,
        VILLAGE,
        1,
    )
    assert state(author, record_id) == [PostState.SENT]

    region.travel(*BACK)
    assert state(author, record_id) == [PostState.CONFIRMED]
    for above in (TOWNSHIP, COUNTY):
        assert held(region.node(above), record_id) is not None
    assert [row.form for row in rows_of(region.node(CITY))] == []
    assert author.storage.quarantined() == 0
    assert region.node(COUNTY).storage.quarantined() == 0


def test_its_author_sees_it_and_nobody_beside_him(
    region: KeyedRegion, met: tuple[KeyedNode, KeyedNode, str]
) -> None:
    """Reads by id and timelines at the author include it; the resident stays unknown there."""
    author, _, resident_id = met
    [record_id] = put(author, "visit-001", away(resident_id)).record_ids
    region.travel(*OUT)
    region.travel(*BACK)

    assert held(author, record_id) is not None
    page = author.storage.timeline(author.caller(), resident_id)
    assert [record.record_id for record in page.records] == [record_id]
    assert author.storage.resident(author.caller(), resident_id) is None
    city = region.node(CITY)
    assert city.storage.record(city.caller(CallerKind.OPERATOR), record_id) is None
    assert not city.storage.timeline(city.caller(), resident_id).records


def test_amendments_and_retractions_go_after_it(
    region: KeyedRegion, met: tuple[KeyedNode, KeyedNode, str]
) -> None:
    """By the id alone: the home is that of the row that is held."""
    author, home, resident_id = met
    [record_id] = put(author, "visit-001", away(resident_id)).record_ids
    region.travel(*OUT)
    amended = observation(resident_id, 131.0, record_id=record_id)
    put(author, "visit-002", amended)
    region.travel(*OUT)

    at_home = held(home, record_id)
    assert at_home is not None
    assert (at_home.version, at_home.values["value"]) == (Version(1, 2), 131.0)

    put(author, "visit-003", NewRecord(record_id, "", resident_id, {}, retracted=True))
    region.travel(*OUT)
    gone = held(home, record_id)
    assert gone is not None
    assert (gone.version, gone.deleted) == (Version(1, 3), True)
    region.travel(*BACK)
    assert state(author, record_id) == [PostState.CONFIRMED] * 3
    at_county = held(region.node(COUNTY), record_id)
    assert at_county is not None
    assert at_county.deleted


def test_only_its_author_amends_it(
    region: KeyedRegion, met: tuple[KeyedNode, KeyedNode, str]
) -> None:
    """Not even the home."""
    author, home, resident_id = met
    [record_id] = put(author, "visit-001", away(resident_id)).record_ids
    region.travel(*OUT)
    with pytest.raises(NotAuthorError):
        put(home, "visit-002", observation(resident_id, 140.0, record_id=record_id))


def test_letters_that_overtake_each_other_leave_the_newest_version(
    region: KeyedRegion, met: tuple[KeyedNode, KeyedNode, str]
) -> None:
    """The older one is accepted and changes nothing."""
    author, home, resident_id = met
    with write_transaction(author.engine) as connection:
        connection.execute(TRANSIT.certificates.delete())
    [record_id] = put(author, "visit-001", away(resident_id)).record_ids
    author.knows(home)
    put(author, "visit-002", observation(resident_id, 131.0, record_id=record_id))
    region.travel(*OUT)
    author.carry()
    region.travel(*OUT)

    at_home = held(home, record_id)
    assert at_home is not None
    assert at_home.version == Version(1, 2)
    region.travel(*BACK)
    assert state(author, record_id) == [PostState.CONFIRMED] * 2


def test_a_resident_whom_the_home_does_not_know_is_refused_until_it_does(
    region: KeyedRegion, met: tuple[KeyedNode, KeyedNode, str]
) -> None:
    """The letter waits in the home's quarantine and is taken once he is registered."""
    author, home, _ = met
    stranger = "00000000-0000-4000-8000-000000000077"
    [record_id] = put(author, "visit-001", away(stranger)).record_ids
    region.travel(*OUT)
    region.travel(*BACK)
    assert state(author, record_id) == [PostState.REFUSED]
    assert held(home, record_id) is None

    number = "142601198001010028"
    put(home, "register-2", person(number, resident_id=stranger))
    [item] = home.storage.desk.waiting(home.caller(), after=0, limit=10)[0]
    home.storage.desk.retry(item.item_id)
    region.travel(*BACK)
    assert held(home, record_id) is not None
    assert state(author, record_id) == [PostState.CONFIRMED]


def test_a_resident_who_has_moved_is_followed(
    region: KeyedRegion, met: tuple[KeyedNode, KeyedNode, str]
) -> None:
    """The old home says where he is; the author addresses the letter anew."""
    author, home, _ = met
    second = region.node(VILLAGE_2)
    author.knows(second)
    [moved] = put(second, "register-2", person("142601198001010028")).resident_ids
    home.storage.away.forward = lambda _connection, _resident_id: VILLAGE_2

    [record_id] = put(author, "visit-001", away(moved)).record_ids
    region.travel(*OUT)
    region.travel(*BACK)
    region.travel(*OUT[:-1], VILLAGE_2)

    at_home = held(second, record_id)
    assert at_home is not None
    assert at_home.home_node == VILLAGE_2
    region.travel(VILLAGE_2, *BACK[1:])
    assert state(author, record_id) == [PostState.CONFIRMED]


@pytest.mark.parametrize(
    ("author", "cause"), [(OTHER_COUNTY, ""), (COUNTY, "AUTHOR_NOT_SENDER"), (VILLAGE, "AUTHOR")]
)
def test_a_sender_speaks_only_for_rows_of_his_own(
    region: KeyedRegion, met: tuple[KeyedNode, KeyedNode, str], author: str, cause: str
) -> None:
    """A county may not send a village's rows in its name."""
    sender, home, resident_id = met
    row = change(resident=1, author=author, home=VILLAGE)
    body = encode_changes([row]).replace(row.resident_id.encode(), resident_id.encode())
    with write_transaction(sender.engine) as connection:
        sender.post.send(connection, to=VILLAGE, kind="rows", body=body)
    region.travel(*OUT)
    with read_transaction(home.engine) as connection:
        waiting = list(home.storage.quarantine.by_cause(connection))
    assert (waiting[0] if waiting else "").startswith(cause)
    assert bool(rows_of(home)) is not bool(cause)


def test_a_home_below_or_unknown_is_no_home_elsewhere(
    region: KeyedRegion, met: tuple[KeyedNode, KeyedNode, str]
) -> None:
    """Below, the resident is known or nobody is; and a letter needs a node to go to."""
    author, home, resident_id = met
    stranger = "00000000-0000-4000-8000-000000000077"
    county = region.node(COUNTY)
    with pytest.raises(UnknownResidentError):
        put(county, "visit-001", away(stranger, home_node=VILLAGE))
    with pytest.raises(UnknownResidentError):
        put(author, "visit-001", away(stranger, home_node=None))
    with pytest.raises(HomeUnknownError):
        put(author, "visit-001", away(stranger, home_node="999999"))
    [known] = put(home, "visit-001", away(resident_id, home_node="999999")).record_ids
    found = held(home, known)
    assert found is not None
    assert found.home_node == VILLAGE


def test_to_a_home_above_the_author_it_is_a_letter_as_well(region: KeyedRegion) -> None:
    """A resident of the township, seen in one of its villages."""
    village, town = region.node(VILLAGE), region.node(TOWNSHIP)
    village.knows(town)
    [resident_id] = put(town, "register-1", person()).resident_ids
    [record_id] = put(village, "visit-001", away(resident_id, home_node=TOWNSHIP)).record_ids
    region.travel(VILLAGE, TOWNSHIP)
    assert held(town, record_id) is not None
    region.travel(TOWNSHIP, COUNTY)
    assert held(region.node(COUNTY), record_id) is not None


def test_the_record_is_counted_at_home_only(
    region: KeyedRegion, met: tuple[KeyedNode, KeyedNode, str], tmp_path: Path
) -> None:
    """By residence at the home and wherever it climbed; at its author only as what he wrote."""
    author, home, resident_id = met
    put(author, "visit-001", away(resident_id))
    region.travel(*OUT)
    region.travel(*BACK)

    assert counted(author, tmp_path) == (0, 1)
    assert counted(home, tmp_path) == (1, 0)
    assert counted(region.node(COUNTY), tmp_path) == (1, 0)
    assert counted(region.node(CITY), tmp_path)[0] == 0
    assert author.storage.residents_by_home(author.caller()) == {}


def counted(node: KeyedNode, folder: Path) -> tuple[int, int]:
    """Observations at the homes of the node's subtree, and those written in it."""
    node.durable_head()
    limits = ColumnarLimits(threads=1, memory_mb=256, segment_rows=1000, segments_max=4)
    replica = ColumnarReplica.open(folder / f"columnar-{node.node_id}", limits, source="1")
    try:
        feed = StorageSource(node.storage, node.durable_head)
        while not replica.is_caught_up or replica.sequence < node.durable_head():
            replica.feed_once(feed)
        sites = frozenset(map(str, node.tree.subtree(node.node_id)))
        with replica.snapshot() as view:
            by_home, by_author = (
                len(list(view.query(view.select("observations", column, sites))))
                for column in (SiteColumn.HOME, SiteColumn.AUTHOR)
            )
        return by_home, by_author
    finally:
        replica.close()


def test_a_receipt_for_an_author_below_waits_for_the_parent(region: KeyedRegion) -> None:
    """Else the home could be put back when nobody but the author, who is done, has the row."""
    author, home, above = region.node(VILLAGE), region.node(TOWNSHIP), region.node(COUNTY)
    author.knows(home)
    home.knows(author)
    [resident_id] = put(home, "register-1", person()).resident_ids
    [record_id] = put(author, "visit-001", away(resident_id, home_node=TOWNSHIP)).record_ids
    region.travel(VILLAGE, TOWNSHIP)
    delivered = 0

    def answered() -> int:
        with write_transaction(home.engine) as connection:
            home.post.owed.place(connection)
            return home.post.answer_owed(connection, lambda _: delivered)

    assert held(home, record_id) is not None
    assert answered() == 0
    region.travel(TOWNSHIP, VILLAGE)
    assert state(author, record_id) == [PostState.SENT]
    region.clock.ms += 600_000
    author.carry()
    region.travel(VILLAGE, TOWNSHIP, VILLAGE)
    assert state(author, record_id) == [PostState.SENT]

    region.travel(TOWNSHIP, COUNTY)
    delivered = home.durable_head()
    assert held(above, record_id) is not None
    assert answered() == 1
    assert answered() == 0
    region.travel(TOWNSHIP, VILLAGE)
    assert state(author, record_id) == [PostState.CONFIRMED]
