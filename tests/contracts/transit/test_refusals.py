"""What a handler of letters refuses: nothing of it stays, and the lane goes on."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from sqlalchemy import Connection

from node.storage.errors import StorageBusyError
from node.storage.tables import CHANGELOG
from node.transit import Letter, SentLetter
from node.transit.errors import TransitError
from node.transit.model import RECEIPT
from replication.changelog import NewEntry, StoreState, read_transaction
from replication.core.mailbox import PostState
from replication.core.model import SCHEMA_VERSION, Form, Lane
from tests.contracts.transit.region import COUNTY, OTHER_COUNTY, VILLAGE, KeyedNode, KeyedRegion
from tests.contracts.transit.test_letters import BACK, THERE, causes, kept, post, taking

_FACT = "written_by_a_handler"


class _RefusedError(TransitError):
    """Raised once everything is written."""

    code: ClassVar[str] = "REFUSED_LATE"


def _log_entry(node: KeyedNode) -> NewEntry:
    return NewEntry(
        origin_node=node.node_id,
        origin_epoch=node.log.store_epoch,
        origin_sequence=None,
        lane=Lane.BULK,
        home_node=node.node_id,
        form=Form.FULL,
        codec=1,
        schema_version=SCHEMA_VERSION,
        committed_at_ms=1,
        row_count=0,
        rows=b"[]",
    )


def _write(node: KeyedNode, connection: Connection) -> None:
    StoreState(CHANGELOG).save(connection, _FACT, "yes")
    node.post.log(connection, [_log_entry(node)])


def _written(node: KeyedNode) -> bool:
    with read_transaction(node.engine) as connection:
        fact = _FACT in StoreState(CHANGELOG).load(connection)
    logged = any(
        entry.origin_node == node.node_id and entry.form is Form.FULL for entry in node.entries()
    )
    assert fact is logged
    return fact


@pytest.mark.parametrize("says", ["a code", "an error"])
def test_nothing_of_a_refused_letter_stays(region: KeyedRegion, says: str) -> None:
    """The handler had written rows and log entries before it found out."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)

    def refuse(connection: Connection, _letter: Letter) -> str:
        _write(county, connection)
        if says == "an error":
            raise _RefusedError("found out late")
        return _RefusedError.code

    county.post.on_letter("note", refuse)
    letter_id = post(village)
    region.travel(*THERE)
    region.travel(*BACK)
    assert not _written(county)
    assert causes(county) == {"REFUSED_LATE": 1}
    assert kept(village, letter_id).parcel.code == "REFUSED_LATE"

    def take(connection: Connection, _letter: Letter) -> str:
        _write(county, connection)
        return ""

    county.post.on_letter("note", take)
    post(village)
    region.travel(*THERE)
    assert _written(county)


def test_nothing_of_a_letter_not_believed_on_its_way_stays(region: KeyedRegion) -> None:
    """It goes on to its addressee."""
    village, relay, county = region.node(VILLAGE), region.node(COUNTY), region.node(OTHER_COUNTY)

    def refuse(connection: Connection, _letter: Letter) -> None:
        _write(relay, connection)
        raise _RefusedError("found out late")

    relay.post.on_passing("note", refuse)
    taken = taking(county)
    post(village, open_letter=True)
    region.travel(*THERE)
    assert not _written(relay)
    assert len(taken) == 1


def test_a_letter_to_the_node_itself_leaves_nothing_if_it_is_refused(region: KeyedRegion) -> None:
    """What else its transaction wrote is kept."""
    county = region.node(OTHER_COUNTY)

    def refuse(connection: Connection, _letter: Letter) -> str:
        _write(county, connection)
        raise _RefusedError("found out late")

    county.post.on_letter("note", refuse)
    letter_id = post(county)
    assert not _written(county)
    assert kept(county, letter_id).parcel.state is PostState.REFUSED


def test_what_a_retry_mends_is_no_refusal(region: KeyedRegion) -> None:
    """The whole batch is taken again later."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)

    def lose(connection: Connection, _letter: Letter) -> str:
        _write(county, connection)
        raise StorageBusyError("lost against others")

    county.post.on_letter("note", lose)
    post(village)
    with pytest.raises(StorageBusyError):
        region.travel(*THERE)
    assert not _written(county)
    assert causes(county) == {}
    taken = taking(county)
    region.travel(*THERE)
    assert len(taken) == 1


def test_a_letter_that_is_refused_again_waits_on(region: KeyedRegion) -> None:
    """Trying again is no exit from the quarantine by itself; being sent again is none either."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)
    taking(county, "RESIDENT_UNKNOWN")
    letter_id = post(village)
    region.travel(*THERE)
    [item] = county.storage.desk.waiting(county.caller(), after=0, limit=10)[0]
    for _ in range(2):
        region.clock.ms += 60_000
        released = county.storage.desk.retry(item.item_id)
        assert (released.outcome, released.cause) == ("waiting", "RESIDENT_UNKNOWN")
    assert causes(county) == {"RESIDENT_UNKNOWN": 1}
    taken = taking(county)
    county.storage.desk.retry(item.item_id)
    region.travel(*BACK)
    assert (len(taken), causes(county)) == (1, {})
    assert kept(village, letter_id).parcel.state is PostState.CONFIRMED


def test_another_refusal_of_a_letter_that_waits_is_told_to_its_author(
    region: KeyedRegion,
) -> None:
    """He goes by the last word: a resident who was unknown, and has moved, is written to there."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)
    taking(county, "RESIDENT_UNKNOWN")
    letter_id = post(village)
    region.travel(*THERE)
    region.travel(*BACK)
    assert kept(village, letter_id).parcel.code == "RESIDENT_UNKNOWN"
    [item] = county.storage.desk.waiting(county.caller(), after=0, limit=10)[0]
    taking(county, "RESIDENT_MOVED:141002")
    heads = []
    for _ in range(2):
        region.clock.ms += 60_000
        county.storage.desk.retry(item.item_id)
        heads.append(county.durable_head())
    region.travel(*BACK)
    assert kept(village, letter_id).parcel.code == "RESIDENT_MOVED:141002"
    assert heads[0] == heads[1]


@pytest.mark.parametrize("letter_id", ["\ud800", "每", "", "x" * 4000, 7, None])
def test_a_receipt_for_what_is_no_letter_is_set_aside(region: KeyedRegion, letter_id: Any) -> None:
    """Whatever a peer says, what comes behind it arrives."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)
    body = json.dumps({"letter": letter_id, "outcome": "", "at": "2026-03-01T08:00:00.000Z"})
    post(village, kind=RECEIPT, body=body.encode(), open_letter=True)
    taken = taking(county)
    post(village)
    region.travel(*THERE)
    assert causes(county) == {"LETTER_MALFORMED": 1}
    assert len(taken) == 1


def test_a_receipt_that_its_author_cannot_use_yet_stops_no_lane(region: KeyedRegion) -> None:
    """It waits in the quarantine, and the letter is unconfirmed until it was taken."""
    village, county = region.node(VILLAGE), region.node(OTHER_COUNTY)
    village.knows(county)
    county.knows(village)
    taking(county)

    def refuse(connection: Connection, _letter: SentLetter, _code: str) -> None:
        _write(village, connection)
        raise _RefusedError("found out late")

    village.post.on_receipt("note", refuse)
    letter_id = post(village)
    region.travel(*THERE)
    taken = taking(village)
    post(county, to=VILLAGE)
    region.travel(*BACK)
    assert not _written(village)
    assert causes(village) == {"REFUSED_LATE": 1}
    assert len(taken) == 1
    assert kept(village, letter_id).parcel.state is PostState.SENT

    village.post.on_receipt("note", lambda _connection, _letter, _code: None)
    [item] = village.storage.desk.waiting(village.caller(), after=0, limit=10)[0]
    village.storage.desk.retry(item.item_id)
    assert kept(village, letter_id).parcel.state is PostState.CONFIRMED
    assert causes(village) == {}
