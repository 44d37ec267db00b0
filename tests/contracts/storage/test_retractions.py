"""The author takes a record back: a tombstone that goes wherever the record went."""

from __future__ import annotations

from typing import cast

import pytest

from node.records.model import NewRecord
from node.storage.errors import (
    BundleError,
    NotAuthorError,
    RecordMismatchError,
    UnknownRecordError,
)
from replication.core.model import Operation, Version
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    TOWNSHIP,
    VILLAGE,
    NodeStore,
    Region,
    bundle,
    observation,
    person,
)

NOBODY = "01900000-0000-7000-8000-00000000dead"


def stored(village: NodeStore) -> tuple[str, str]:
    """A resident with one observation, of his home: their ids."""
    caller = village.caller()
    put = village.storage.put_bundle(caller, bundle("request-1", person()))
    [resident_id] = put.resident_ids
    put = village.storage.put_bundle(caller, bundle("request-2", observation(resident_id)))
    return resident_id, put.record_ids[0]


def retracted(record_id: str, resident_id: str) -> NewRecord:
    """What takes the record back."""
    return NewRecord(record_id, "", resident_id, {}, retracted=True)


def retract(node: NodeStore, record_id: str, resident_id: str, request_id: str = "gone-001") -> int:
    """Retract at a node; how many row versions were made durable."""
    gone = bundle(request_id, retracted(record_id, resident_id))
    result = node.storage.put_bundle(node.caller(), gone)
    assert result.record_ids == (record_id,)
    return result.acknowledged


def shown(node: NodeStore, resident_id: str) -> list[object]:
    """The values on a resident's timeline."""
    page = node.storage.timeline(node.caller(), resident_id)
    return [record.values["value"] for record in page.records]


def gone_from_columns(node: NodeStore, after: int) -> int:
    """Observations that the columnar replica is told to forget since a sequence."""
    node.durable_head()
    changes = node.storage.columnar_changes(after, 100)
    assert not changes.rows.get("observations")
    return len(changes.deleted.get("observations", ()))


def test_a_retracted_record_is_a_tombstone_without_values(village: NodeStore) -> None:
    """Version after version: it leaves the timeline, its id still says that it was retracted."""
    resident_id, record_id = stored(village)
    before = village.durable_head()
    assert retract(village, record_id, resident_id) == 1

    assert shown(village, resident_id) == []
    found = village.storage.record(village.caller(), record_id)
    assert found is not None
    assert (found.deleted, found.version) == (True, Version(1, 2))
    assert set(found.values.values()) == {None}
    last = village.changes()[-1]
    assert (last.operation, last.row_id, last.values) == (Operation.DELETE, record_id, {})
    assert gone_from_columns(village, before) == 1
    assert village.storage.counts().rows["observations"] == 0


def test_the_tombstone_rises_to_the_city(region: Region) -> None:
    """In full to the county, as a pseudonym's to the city; nobody counts the record any more."""
    village = region.node(VILLAGE)
    resident_id, record_id = stored(village)
    path = (VILLAGE, TOWNSHIP, COUNTY, CITY)
    region.ship_up(*path)
    heads = {node_id: region.node(node_id).durable_head() for node_id in path}
    assert region.node(CITY).storage.counts().rows["observations"] == 1

    retract(village, record_id, resident_id)
    region.ship_up(*path)

    for node_id in path:
        node = region.node(node_id)
        assert node.storage.counts().rows["observations"] == 0
        assert gone_from_columns(node, heads[node_id]) == 1
        assert node.storage.quarantined() == 0
    assert shown(region.node(COUNTY), resident_id) == []


def test_the_tombstone_goes_down_to_the_home(region: Region) -> None:
    """A township takes back what it wrote about a villager."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    [resident_id] = village.storage.put_bundle(
        village.caller(), bundle("request-1", person())
    ).resident_ids
    region.ship(village, township)
    [record_id] = township.storage.put_bundle(
        township.caller(), bundle("request-2", observation(resident_id, 141.0))
    ).record_ids
    region.ship(township, village)
    assert shown(village, resident_id) == [141.0]
    head = village.durable_head()

    retract(township, record_id, resident_id)
    region.ship(township, village)

    assert shown(village, resident_id) == []
    assert gone_from_columns(village, head) == 1
    with pytest.raises(NotAuthorError):
        retract(village, record_id, resident_id, "gone-002")


def test_an_amendment_brings_a_record_back(village: NodeStore) -> None:
    """With the values it gives; retracting once more is one more version."""
    resident_id, record_id = stored(village)
    retract(village, record_id, resident_id)
    assert retract(village, record_id, resident_id, "gone-002") == 1
    again = bundle("back-001", observation(resident_id, 119.0, record_id=record_id))
    village.storage.put_bundle(village.caller(), again)

    assert shown(village, resident_id) == [119.0]
    found = village.storage.record(village.caller(), record_id)
    assert found is not None
    assert (found.deleted, found.version) == (False, Version(1, 4))


def test_the_same_retraction_again_has_the_same_answer(village: NodeStore) -> None:
    """Retries are safe; under the same request id an amendment is another body."""
    resident_id, record_id = stored(village)
    gone = bundle("gone-001", retracted(record_id, resident_id))
    first = village.storage.put_bundle(village.caller(), gone)
    again = village.storage.put_bundle(village.caller(), gone)
    assert (first.repeated, again.repeated) == (False, True)
    assert again.record_ids == first.record_ids


@pytest.mark.parametrize("fault", [UnknownRecordError, RecordMismatchError])
def test_what_cannot_be_retracted_is_named(village: NodeStore, fault: type[BundleError]) -> None:
    """A record that is not here, or of somebody else; nothing is stored."""
    resident_id, record_id = stored(village)
    put = village.storage.put_bundle(
        village.caller(), bundle("request-3", person("14260119900101001X"))
    )
    wrong = {
        UnknownRecordError: retracted(NOBODY, resident_id),
        RecordMismatchError: retracted(record_id, put.resident_ids[0]),
    }[cast(type[UnknownRecordError], fault)]
    with pytest.raises(fault) as refused:
        village.storage.put_bundle(village.caller(), bundle("gone-001", wrong))
    assert refused.value.positions[0].startswith("records[0]")
    assert shown(village, resident_id) == [128.0]
