"""Bundles: whole or not at all, once a request, versions that only rise."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from node.records.model import NewRecord
from node.storage import CHANGELOG
from node.storage.errors import (
    BundleError,
    DuplicateIdentifierError,
    HomeElsewhereError,
    NotAuthorError,
    RecordMismatchError,
    RepeatedRowError,
    RequestIdReusedError,
    RowIdError,
    UnknownColumnError,
    UnknownResidentError,
)
from node.storage.tables import APPLIED_REQUESTS, AUDIT, REPLICATED
from replication.changelog import read_transaction
from replication.core.config import PeerRole
from replication.core.model import Lane, Version
from tests.contracts.storage.region import (
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    bundle,
    change,
    count,
    log_entry,
    observation,
    person,
    send,
)

RESIDENT = "00000000-0000-7000-8000-00000000000a"
RECORD = "00000000-0000-7000-8000-00000000000b"


def _everything(node: NodeStore) -> dict[str, int]:
    tables = [*REPLICATED.values(), CHANGELOG.change_log, AUDIT, APPLIED_REQUESTS]
    with read_transaction(node.engine) as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in tables
        }


def test_a_bundle_is_rows_and_log_and_audit_together(village: NodeStore) -> None:
    """One resident, one identifier and two records: four row versions, two lanes, one audit."""
    stored = village.storage.put_bundle(
        village.caller(),
        bundle(
            "request-1",
            person(resident_id=RESIDENT),
            observation(RESIDENT),
            observation(RESIDENT, 131.0),
        ),
    )

    assert stored.acknowledged == 4
    assert stored.resident_ids == (RESIDENT,)
    assert len(set(stored.record_ids)) == 2
    assert not stored.repeated
    held = _everything(village)
    assert (held["residents"], held["identifiers"], held["observations"]) == (1, 1, 2)
    assert (held["change_log"], held["audit"], held["applied_requests"]) == (2, 1, 1)
    assert sorted(row.table for row in village.changes()) == [
        "identifiers",
        "observations",
        "observations",
        "residents",
    ]
    assert [(e.lane, e.home_node, e.origin_node) for e in village.entries()] == [
        (Lane.IDENTITY, VILLAGE, VILLAGE),
        (Lane.BULK, VILLAGE, VILLAGE),
    ]


_KNOWN = person(resident_id=RESIDENT)
_REFUSED = [
    (bundle("request-2", observation(RECORD)), "UNKNOWN_RESIDENT", "records[0].resident_id"),
    (
        bundle("request-2", person(), observation(RECORD)),
        "UNKNOWN_RESIDENT",
        "records[0].resident_id",
    ),
    (bundle("request-2", person(home_node=TOWNSHIP)), "HOME_ELSEWHERE", "residents[0].home_node"),
    (
        bundle("request-2", person(), person()),
        "DUPLICATE_IDENTIFIER",
        "residents[1].identifiers[0].value",
    ),
    (
        bundle("request-2", _KNOWN, person("", resident_id=RESIDENT)),
        "ROW_REPEATED",
        "residents[1].resident_id",
    ),
    (bundle("request-2", observation("张三")), "UNKNOWN_RESIDENT", "records[0].resident_id"),
    (
        bundle("request-2", _KNOWN, observation(RESIDENT, record_id="张三")),
        "ROW_ID_INVALID",
        "records[0].record_id",
    ),
    (
        bundle("request-2", _KNOWN, NewRecord(None, "observations", RESIDENT, {"colour": 1})),
        "UNKNOWN_COLUMN",
        "records[0].colour",
    ),
    (
        bundle("request-2", _KNOWN, NewRecord(None, "x", RESIDENT, {})),
        "UNKNOWN_COLUMN",
        "records[0].table",
    ),
]


def test_a_refused_bundle_leaves_nothing(village: NodeStore) -> None:
    """No row, log entry, audit entry or answered request; and the error tells no value."""
    before = _everything(village)

    for refused, code, position in _REFUSED:
        with pytest.raises(BundleError) as error:
            village.storage.put_bundle(village.caller(), refused)

        assert (error.value.code, error.value.positions) == (code, (position,))
        assert _everything(village) == before
        assert "14260119800101001X" not in f"{error.value}{error.value.hint}"


def test_the_same_request_gives_the_first_answer(village: NodeStore) -> None:
    """A client that lost the answer asks again and nothing is stored twice."""
    asked = bundle("request-1", person(resident_id=RESIDENT), observation(RESIDENT))
    first = village.storage.put_bundle(village.caller(), asked)
    rows = _everything(village)

    again = village.storage.put_bundle(village.caller(), asked)

    assert again.repeated
    assert (again.resident_ids, again.record_ids, again.acknowledged) == (
        first.resident_ids,
        first.record_ids,
        first.acknowledged,
    )
    # What is written is the audit of the repetition.
    assert _everything(village) == {**rows, "audit": rows["audit"] + 1}


def test_a_request_id_with_another_body_is_refused(village: NodeStore) -> None:
    """Answering it with the first answer would lose the second change silently."""
    village.storage.put_bundle(village.caller(), bundle("request-1", person()))

    with pytest.raises(RequestIdReusedError):
        village.storage.put_bundle(village.caller(), bundle("request-1", person(name="李四")))


def test_request_ids_belong_to_their_principal(village: NodeStore) -> None:
    """Another client's request of the same id neither sees that answer nor is refused by it."""
    village.storage.put_bundle(village.caller(), bundle("request-1", person()))

    other = village.storage.put_bundle(
        village.caller(name="other"), bundle("request-1", person("142601198001010028"))
    )

    assert not other.repeated


def test_the_same_request_at_once_is_stored_once(village: NodeStore) -> None:
    """Two connections, one request id: one stores, the other gets its answer."""
    asked = bundle("request-1", person(resident_id=RESIDENT), observation(RESIDENT))

    with ThreadPoolExecutor(4) as pool:
        put = village.storage.put_bundle
        answers = [
            each.result() for each in [pool.submit(put, village.caller(), asked) for _ in range(4)]
        ]

    assert sorted(each.repeated for each in answers) == [False, True, True, True]
    assert len({each.record_ids for each in answers}) == 1
    assert (count(village, "residents"), count(village, "observations")) == (1, 1)


def test_the_same_identity_number_at_once_is_registered_once(village: NodeStore) -> None:
    """The unique claim decides, not the look before it."""

    def register(name: str) -> str:
        try:
            village.storage.put_bundle(village.caller(), bundle(f"request-{name}", person()))
        except DuplicateIdentifierError:
            return "refused"
        return "stored"

    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(register, "abcd"))

    assert outcomes == ["refused", "refused", "refused", "stored"]
    assert count(village, "residents") == 1


def test_an_amendment_is_the_next_version_of_the_same_row(village: NodeStore) -> None:
    """The author's correction replaces the row and is logged as a version of it."""
    caller = village.caller()
    village.storage.put_bundle(
        caller, bundle("request-1", person(resident_id=RESIDENT), observation(RESIDENT, 182.0))
    )
    [record_id] = [row.row_id for row in village.changes() if row.table == "observations"]

    amended = village.storage.put_bundle(
        caller, bundle("request-2", observation(RESIDENT, 128.0, record_id=record_id))
    )

    assert amended.record_ids == (record_id,)
    found = village.storage.record(caller, record_id)
    assert found is not None
    assert (found.version, found.values["value"]) == (Version(1, 2), 128.0)
    versions = [row.version for row in village.changes() if row.row_id == record_id]
    assert versions == [Version(1, 1), Version(1, 2)]


def test_an_amendment_in_a_later_life_is_above_all_of_the_lives_before(region: Region) -> None:
    """What a store gave away before it was put back, it may not know: no number comes twice."""
    first = region.node(VILLAGE)
    again = NodeStore(
        VILLAGE, region.another(VILLAGE).engine, region.tree, region.clock, 77, store_epoch=2
    )
    numbers = []
    for village in (first, again):
        caller = village.caller()
        [resident] = village.storage.put_bundle(caller, bundle("one-1", person())).resident_ids
        put = village.storage.put_bundle(caller, bundle("two-1", observation(resident)))
        [record] = put.record_ids
        amended = observation(resident, 130.0, record_id=record)
        village.storage.put_bundle(caller, bundle("three-1", amended))
        held = village.storage.record(caller, record)
        assert held is not None
        numbers.append(held.version.number)

    assert numbers[0] == 2
    assert numbers[1] > 1 << 20


def test_amending_a_resident_keeps_his_identifiers(village: NodeStore) -> None:
    """A changed phone number, with the identity number sent along: one new row version."""
    caller = village.caller()
    village.storage.put_bundle(caller, bundle("request-1", person(resident_id=RESIDENT)))

    amended = village.storage.put_bundle(
        caller, bundle("request-2", person(resident_id=RESIDENT, phone="13800000000"))
    )

    assert amended.acknowledged == 1
    found = village.storage.resident(caller, RESIDENT)
    assert found is not None
    assert (found.phone, found.version) == ("13800000000", Version(1, 2))
    assert [each.value for each in found.identifiers] == ["14260119800101001X"]


def test_amendments_at_once_all_become_versions(village: NodeStore) -> None:
    """No update is lost: every amendment finds the one before it."""
    caller = village.caller()
    village.storage.put_bundle(
        caller,
        bundle(
            "request-0", person(resident_id=RESIDENT), observation(RESIDENT, 0, record_id=RECORD)
        ),
    )

    def amend(number: int) -> None:
        row = observation(RESIDENT, float(number), record_id=RECORD)
        village.storage.put_bundle(caller, bundle(f"request-{number}", row))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(amend, range(1, 9)))

    found = village.storage.record(caller, RECORD)
    assert found is not None
    assert found.version == Version(1, 9)
    logged = [row.version.number for row in village.changes() if row.row_id == RECORD]
    assert sorted(logged) == list(range(1, 10))


def test_only_the_author_amends(region: Region) -> None:
    """A township holds its villages' rows and may not change them."""
    township = region.node(TOWNSHIP)
    resident = change("residents", resident=1, values={"name": "张三", "sex": "male"})
    record = change(row=2, resident=1)
    send(
        township,
        VILLAGE,
        PeerRole.CHILD,
        log_entry(resident, lane=Lane.IDENTITY),
        lane=Lane.IDENTITY,
    )
    send(township, VILLAGE, PeerRole.CHILD, log_entry(record, sequence=2))

    with pytest.raises(NotAuthorError) as of_record:
        township.storage.put_bundle(
            township.caller(),
            bundle("request-1", observation(resident.resident_id, record_id=record.row_id)),
        )
    with pytest.raises(NotAuthorError) as of_resident:
        township.storage.put_bundle(
            township.caller(), bundle("request-1", person(resident_id=resident.resident_id))
        )

    assert of_record.value.positions == ("records[0].record_id",)
    assert of_resident.value.positions == ("residents[0].resident_id",)


def test_an_amendment_may_not_change_whom_it_is_about(village: NodeStore) -> None:
    """A record moved to another resident would leave the first with nothing to show for it."""
    caller = village.caller()
    other = "00000000-0000-7000-8000-00000000000c"
    second = person("142601198001010028", resident_id=other)
    village.storage.put_bundle(
        caller, bundle("request-1", _KNOWN, second, observation(RESIDENT, record_id=RECORD))
    )
    moved = bundle("request-2", observation(other, record_id=RECORD))
    retyped = bundle("request-3", NewRecord(RECORD, "conditions", RESIDENT, {"code": "I10"}))

    for amendment in (moved, retyped):
        with pytest.raises(RecordMismatchError):
            village.storage.put_bundle(caller, amendment)


def test_a_record_of_a_villager_at_the_township_keeps_his_home(region: Region) -> None:
    """Written where care happens, owned by his home: author township, home village."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    village.storage.put_bundle(village.caller(), bundle("request-1", person(resident_id=RESIDENT)))
    region.ship(village, township)

    stored = township.storage.put_bundle(
        township.caller(), bundle("request-1", observation(RESIDENT))
    )

    found = township.storage.record(township.caller(), stored.record_ids[0])
    assert found is not None
    assert (found.author_node, found.home_node, found.home_epoch) == (TOWNSHIP, VILLAGE, 1)


def test_a_resident_outside_the_callers_scope_is_unknown(region: Region) -> None:
    """Whoever may not see a resident cannot find out by writing for him."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    village.storage.put_bundle(village.caller(), bundle("request-1", person(resident_id=RESIDENT)))
    region.ship(village, township)
    stranger = region.node(VILLAGE_2).caller()

    with pytest.raises(UnknownResidentError):
        township.storage.put_bundle(stranger, bundle("request-1", observation(RESIDENT)))


def test_one_person_is_not_registered_at_two_levels(region: Region) -> None:
    """A township that holds the village's resident refuses his number."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    village.storage.put_bundle(village.caller(), bundle("request-1", person()))
    region.ship(village, township)

    with pytest.raises(DuplicateIdentifierError) as refused:
        township.storage.put_bundle(township.caller(), bundle("request-1", person()))

    assert refused.value.positions == ("residents[0].identifiers[0].value",)


def test_errors_name_all_positions_up_to_a_limit() -> None:
    """Twenty are shown, the rest counted; `positions` has them all."""
    error = UnknownResidentError("unknown", [f"records[{i}]" for i in range(25)])

    assert len(error.positions) == 25
    assert "records[19]" in error.message
    assert "records[20]" not in error.message
    assert error.message.endswith("and 5 more")


def test_codes_of_bundle_errors_differ() -> None:
    """A code stands for one fault."""
    kinds = [
        RequestIdReusedError,
        UnknownResidentError,
        NotAuthorError,
        HomeElsewhereError,
        DuplicateIdentifierError,
        RepeatedRowError,
        RowIdError,
        RecordMismatchError,
        UnknownColumnError,
        BundleError,
    ]

    assert len({kind.code for kind in kinds}) == len(kinds)
