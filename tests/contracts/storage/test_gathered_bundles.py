"""Bundles that share a transaction: each has its own answer, audit and fault."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, select

from node.records.model import Bundle
from node.storage import BundleRequest
from node.storage.errors import (
    DuplicateIdentifierError,
    RequestIdReusedError,
    UnknownResidentError,
)
from node.storage.model import BundleResult
from node.storage.tables import APPLIED_REQUESTS, AUDIT, CHANGELOG
from replication.changelog import read_transaction
from replication.core.model import Lane, Version
from tests.contracts.storage.region import (
    TOWNSHIP,
    VILLAGE,
    NodeStore,
    Region,
    bundle,
    count,
    observation,
    person,
)

RESIDENT = "00000000-0000-7000-8000-00000000000a"
OTHER = "00000000-0000-7000-8000-00000000000c"
RECORD = "00000000-0000-7000-8000-00000000000b"


@pytest.fixture
def known(village: NodeStore) -> NodeStore:
    """A village with one resident."""
    village.storage.put_bundle(village.caller(), bundle("request-0", person(resident_id=RESIDENT)))
    return village


def _put(node: NodeStore, *bundles: Bundle) -> list[BundleResult | Exception]:
    return node.storage.put_bundles([BundleRequest(node.caller(), each) for each in bundles])


def _stored(outcome: BundleResult | Exception) -> BundleResult:
    assert isinstance(outcome, BundleResult), outcome
    return outcome


def _rows(node: NodeStore, table: str) -> int:
    tables = {"audit": AUDIT, "requests": APPLIED_REQUESTS, "log": CHANGELOG.change_log}
    with read_transaction(node.engine) as connection:
        return len(connection.execute(select(tables[table])).all())


def test_bundles_together_are_one_transaction_and_one_log_entry(known: NodeStore) -> None:
    """Three bundles of one home: three answers and audits, one entry with their rows in order."""
    audits, commits = _rows(known, "audit"), []
    event.listen(known.engine, "commit", lambda _connection: commits.append(1))

    outcomes = _put(known, *(bundle(f"request-{n}", observation(RESIDENT, n)) for n in (1, 2, 3)))

    assert len(commits) == 1
    ids = [_stored(each).record_ids for each in outcomes]
    assert [len(each) for each in ids] == [1, 1, 1]
    assert _rows(known, "audit") == audits + 3
    [entry] = [each for each in known.entries() if each.lane is Lane.BULK]
    assert entry.row_count == 3
    logged = [row.row_id for row in known.changes() if row.table == "observations"]
    assert logged == [row_id for each in ids for row_id in each]


def test_a_bundle_at_fault_fails_alone(known: NodeStore) -> None:
    """The others are stored; it leaves no row, audit or answered request."""
    audits = _rows(known, "audit")

    first, faulty, last = _put(
        known,
        bundle("request-1", observation(RESIDENT)),
        bundle("request-2", observation(OTHER)),
        bundle("request-3", observation(RESIDENT)),
    )

    assert isinstance(faulty, UnknownResidentError)
    assert faulty.positions == ("records[0].resident_id",)
    assert (_stored(first).acknowledged, _stored(last).acknowledged) == (1, 1)
    assert count(known, "observations") == 2
    assert (_rows(known, "audit"), _rows(known, "requests")) == (audits + 2, 3)


def test_a_fault_that_only_the_database_sees_fails_alone(village: NodeStore) -> None:
    """Two register one identity number: planned against the same table, one of them is refused."""
    first, second, third = _put(
        village,
        bundle("request-1", person()),
        bundle("request-2", person()),
        bundle("request-3", person("142601198001010028")),
    )

    assert isinstance(second, DuplicateIdentifierError)
    assert _stored(first).acknowledged == _stored(third).acknowledged == 2
    assert count(village, "residents") == 2


def test_a_request_twice_in_one_gathering_is_stored_once(known: NodeStore) -> None:
    """A client that asks again before the answer gets the first answer; another body is refused."""
    asked = bundle("request-1", observation(RESIDENT))

    first, again, changed, other = _put(
        known,
        asked,
        asked,
        bundle("request-1", observation(RESIDENT, 99.0)),
        bundle("request-2", observation(RESIDENT)),
    )

    assert not _stored(first).repeated
    assert _stored(again).repeated
    assert _stored(again).record_ids == _stored(first).record_ids
    assert isinstance(changed, RequestIdReusedError)
    assert _stored(other).acknowledged == 1
    assert count(known, "observations") == 2


def test_a_request_answered_before_is_answered_in_a_gathering(known: NodeStore) -> None:
    """After a crash between the commit and the answers every client asks again."""
    asked = [bundle(f"request-{n}", observation(RESIDENT, n)) for n in (1, 2, 3)]
    before = [_stored(each) for each in _put(known, *asked)]

    after = _put(known, *asked, bundle("request-4", observation(RESIDENT)))

    assert [_stored(each).repeated for each in after] == [True, True, True, False]
    assert [_stored(each).record_ids for each in after[:3]] == [each.record_ids for each in before]
    assert count(known, "observations") == 4


def test_a_crash_before_the_commit_leaves_nothing_of_any(known: NodeStore) -> None:
    """The transaction is all of them or none, and each may be asked again."""
    asked = [bundle(f"request-{n}", observation(RESIDENT, n)) for n in (1, 2)]
    rows = {table: _rows(known, table) for table in ("audit", "requests", "log")}

    def die(_connection: object) -> None:
        raise KeyboardInterrupt

    event.listen(known.engine, "commit", die)
    with pytest.raises(KeyboardInterrupt):
        _put(known, *asked)
    event.remove(known.engine, "commit", die)

    assert {table: _rows(known, table) for table in rows} == rows
    assert not any(_stored(each).repeated for each in _put(known, *asked))


def test_amendments_in_one_gathering_all_become_versions(known: NodeStore) -> None:
    """Each finds the one before it, in the order they came."""
    _put(known, bundle("request-1", observation(RESIDENT, 0, record_id=RECORD)))

    outcomes = _put(
        known,
        *(bundle(f"request-{n}", observation(RESIDENT, n, record_id=RECORD)) for n in (2, 3, 4)),
    )

    assert all(isinstance(each, BundleResult) for each in outcomes)
    found = known.storage.record(known.caller(), RECORD)
    assert found is not None
    assert (found.version, found.values["value"]) == (Version(1, 4), 4.0)


def test_a_bundle_may_name_a_resident_of_the_one_before(village: NodeStore) -> None:
    """A client registers and writes without waiting: in order it works, as alone it would."""
    outcomes = _put(
        village,
        bundle("request-1", person(resident_id=RESIDENT)),
        bundle("request-2", observation(RESIDENT)),
    )

    assert [_stored(each).acknowledged for each in outcomes] == [2, 1]


def test_each_caller_sees_only_his_own_residents(region: Region) -> None:
    """What one caller's bundle looked up tells the other's nothing."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    village.storage.put_bundle(village.caller(), bundle("request-0", person(resident_id=RESIDENT)))
    region.ship(village, township)
    narrow = township.caller(name="narrow")
    blind = type(narrow)(
        narrow.kind, narrow.principal, narrow.node_id, narrow.purpose, frozenset({TOWNSHIP})
    )

    seen, unseen = township.storage.put_bundles(
        [
            BundleRequest(township.caller(), bundle("request-1", observation(RESIDENT))),
            BundleRequest(blind, bundle("request-1", observation(RESIDENT))),
        ]
    )

    assert _stored(seen).acknowledged == 1
    assert isinstance(unseen, UnknownResidentError)


def test_gatherings_at_once_lose_nothing(known: NodeStore) -> None:
    """Several processes of one store gather at once; some requests are in two of them."""

    def gather(number: int) -> list[BundleResult | Exception]:
        shared = bundle("shared", observation(RESIDENT, record_id=RECORD))
        own = (bundle(f"own-{number}-{n}", observation(RESIDENT, n)) for n in range(4))
        return _put(known, shared, *own)

    with ThreadPoolExecutor(4) as pool:
        outcomes = [each for found in pool.map(gather, range(4)) for each in found]

    assert sum(_stored(each).repeated for each in outcomes) == 3
    assert count(known, "observations") == 17
