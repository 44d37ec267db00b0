"""Applying a peer's batch: guarded by version, owned by one author, relayed, once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from hierarchy_config.model import NodeId
from node.storage import CHANGELOG, ApplyOutcome
from node.storage.errors import BatchOrderError
from node.storage.tables import AUDIT, REPLICATED
from node.storage.upsert import guarded_upsert
from replication.changelog import (
    CursorWentBackError,
    LinkState,
    Quarantine,
    read_transaction,
    write_transaction,
)
from replication.core.config import PeerRole
from replication.core.model import (
    SCHEMA_VERSION,
    Form,
    Lane,
    LogEntry,
    Operation,
    RowChange,
    Version,
)
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    batch_of,
    change,
    count,
    log_entry,
    send,
)


@pytest.fixture
def township(region: Region) -> NodeStore:
    """The node that villages send to."""
    return region.node(TOWNSHIP)


def _from_village(township: NodeStore, *entries: LogEntry, lane: Lane = Lane.BULK) -> ApplyOutcome:
    return send(township, VILLAGE, PeerRole.CHILD, *entries, lane=lane)


def _held(node: NodeStore, table: str = "observations") -> list[tuple[str, Version, object]]:
    t = REPLICATED[table]
    with read_transaction(node.engine) as connection:
        rows = connection.execute(select(t).order_by(t.c.row_id)).mappings().all()
    return [
        (row["row_id"], Version(row["version_epoch"], row["version_number"]), row.get("value"))
        for row in rows
    ]


def _causes(node: NodeStore) -> list[str]:
    quarantine = CHANGELOG.quarantine
    with read_transaction(node.engine) as connection:
        return list(connection.execute(select(quarantine.c.cause)).scalars())


def test_rows_cursor_and_relayed_entry_are_one(township: NodeStore) -> None:
    """What is applied goes on under its origin, and the cursor says so."""
    outcome = _from_village(township, log_entry(change(), change(row=2), sequence=7))

    assert outcome == ApplyOutcome(2, 0, 0)
    assert count(township, "observations") == 2
    assert township.cursor(VILLAGE, Lane.BULK).number == 1
    [relayed] = township.entries()
    assert (relayed.origin_node, relayed.origin_epoch, relayed.origin_sequence) == (VILLAGE, 1, 7)
    assert relayed.rows == log_entry(change(), change(row=2)).rows


def test_an_older_version_that_arrives_later_changes_nothing(township: NodeStore) -> None:
    """Version decides, not the order of arrival, and a stale row is not relayed again."""
    newer = change(version=(1, 3), values={"value": 3.0})
    older = change(version=(1, 2), values={"value": 2.0})

    assert _from_village(township, log_entry(newer, sequence=3)) == ApplyOutcome(1, 0, 0)
    assert _from_village(township, log_entry(older, sequence=2)) == ApplyOutcome(0, 1, 0)

    assert _held(township) == [(newer.row_id, Version(1, 3), 3.0)]
    assert len(township.entries()) == 1


def test_versions_of_one_row_in_one_batch_end_at_the_greatest(township: NodeStore) -> None:
    """In whatever order a batch holds them."""
    versions = [
        log_entry(change(version=(1, n), values={"value": float(n)}), sequence=n)
        for n in (2, 4, 3, 1)
    ]

    assert _from_village(township, *versions) == ApplyOutcome(2, 2, 0)
    assert _held(township) == [(change().row_id, Version(1, 4), 4.0)]


def test_the_statement_itself_guards_the_version(township: NodeStore) -> None:
    """Even a writer that judged by old knowledge cannot put an older version over a newer."""
    _from_village(township, log_entry(change(version=(2, 5), values={"value": 5.0})))
    table = REPLICATED["observations"]
    with read_transaction(township.engine) as connection:
        row = dict(connection.execute(select(table)).mappings().one())

    def write(epoch: int, number: int) -> list[tuple[str, Version, object]]:
        new = {**row, "version_epoch": epoch, "version_number": number, "value": float(number)}
        with write_transaction(township.engine) as connection:
            guarded_upsert(connection, table, [new])
        return _held(township)

    unchanged = [(row["row_id"], Version(2, 5), 5.0)]
    assert write(2, 4) == unchanged
    assert write(2, 5) == unchanged
    assert write(1, 9) == unchanged
    assert write(2, 6) == [(row["row_id"], Version(2, 6), 6.0)]
    assert write(3, 1) == [(row["row_id"], Version(3, 1), 1.0)]


def test_a_retraction_is_a_version(township: NodeStore) -> None:
    """The row stays as a tombstone, and what is older than it stays out."""
    gone = change(version=(1, 2), operation=Operation.DELETE, values={})

    _from_village(township, log_entry(change()))
    _from_village(township, log_entry(gone, sequence=2))
    _from_village(township, log_entry(change(), sequence=3))

    found = township.storage.record(township.caller(), gone.row_id)
    assert found is not None
    assert (found.deleted, found.version) == (True, Version(1, 2))
    assert township.storage.counts().rows["observations"] == 0


def test_the_rest_of_an_entry_goes_on_without_its_origins_number(township: NodeStore) -> None:
    """The number names the part relayed first; a second part under it would be taken for it."""
    unknown_author = change(row=2, author=COUNTY)
    _from_village(township, log_entry(change(), unknown_author, sequence=7))
    _from_village(township, log_entry(change(), change(row=2), change(row=3), sequence=7))

    first, second = township.entries()
    assert (first.origin_sequence, first.row_count) == (7, 1)
    assert (second.origin_sequence, second.row_count) == (0, 2)


REJECTED: list[tuple[str, Lane, RowChange]] = [
    ("AUTHOR_NOT_BELOW", Lane.BULK, change(row=1, author=COUNTY)),
    (
        "IDENTITY_NOT_FROM_HOME",
        Lane.IDENTITY,
        change("residents", resident=2, home=VILLAGE_2, values={}),
    ),
    ("TABLE_UNKNOWN", Lane.BULK, change("referrals", row=3)),
    ("LANE_MISMATCH", Lane.BULK, change("residents", resident=4, values={"name": "张三"})),
    ("LANE_MISMATCH", Lane.IDENTITY, change(row=5)),
    ("ROW_MALFORMED", Lane.BULK, change(row=6, values={"value": "high"})),
    ("ROW_MALFORMED", Lane.BULK, change(row=7, values={"code": "x" * 65})),
    ("ROW_MALFORMED", Lane.BULK, replace(change(), row_id="张三")),
    ("FORM_NOT_IN_POLICY", Lane.BULK, change(row=9, form=Form.DEIDENTIFIED)),
]


def test_rows_of_a_non_owner_wait_in_the_quarantine(township: NodeStore) -> None:
    """Each with its cause, the rest of the batch goes on, and the cursor moves."""
    for number, (cause, lane, row) in enumerate(REJECTED, start=1):
        before = _causes(township)
        good = change(
            "residents" if lane is Lane.IDENTITY else "observations",
            row=100 + number,
            resident=100 + number,
            values={},
        )
        outcome = _from_village(
            township,
            log_entry(row, lane=lane, sequence=2 * number),
            log_entry(good, lane=lane, sequence=2 * number + 1),
            lane=lane,
        )

        assert outcome == ApplyOutcome(1, 0, 1)
        assert sorted(_causes(township)) == sorted([*before, cause])
    assert len(township.entries()) == len(REJECTED)
    assert township.storage.quarantined() == len(REJECTED)


def test_a_quarantined_row_is_kept_whole_and_sealed(township: NodeStore) -> None:
    """It can be tried again; until then nobody reads it in the database."""
    row = change("residents", home=VILLAGE_2, values={"name": "王五六七"})
    _from_village(township, log_entry(row, lane=Lane.IDENTITY), lane=Lane.IDENTITY)

    keeper: Quarantine = township.storage.quarantine
    with read_transaction(township.engine) as connection:
        [waiting] = keeper.waiting(connection)
        kept = keeper.change(connection, waiting)
        [payload] = connection.execute(select(CHANGELOG.quarantine.c.payload)).scalars()

    assert kept == row
    assert "王五六七".encode() not in bytes(payload)


def test_another_author_may_not_take_a_row_over(township: NodeStore) -> None:
    """A village that names a sibling's row id as its own is refused, whatever the version."""
    _from_village(township, log_entry(change()))
    stolen = change(author=VILLAGE_2, home=VILLAGE_2, version=(9, 9))

    outcome = send(
        township, VILLAGE_2, PeerRole.CHILD, log_entry(stolen, origin=VILLAGE_2, sequence=1)
    )

    assert outcome == ApplyOutcome(0, 0, 1)
    assert _causes(township) == ["AUTHOR_CHANGED"]
    assert _held(township) == [(change().row_id, Version(1, 1), 120.0)]


def test_an_entry_under_a_siblings_name_is_refused(township: NodeStore) -> None:
    """Else the sibling's own entry of that number would be taken for a repetition."""
    row = change(author=VILLAGE_2, home=VILLAGE_2)
    forged = log_entry(row, origin=VILLAGE, sequence=1)

    outcome = send(township, VILLAGE_2, PeerRole.CHILD, forged)

    assert outcome == ApplyOutcome(0, 0, 1)
    assert _causes(township) == ["ORIGIN_NOT_BELOW"]
    assert _from_village(township, log_entry(change(row=2), sequence=1)) == ApplyOutcome(1, 0, 0)


def test_rows_of_an_old_home_epoch_are_refused(township: NodeStore) -> None:
    """After a move the old home's rows are proposals, not writes."""
    moved = change("residents", home_epoch=2, values={"sex": "male"})
    _from_village(township, log_entry(moved, lane=Lane.IDENTITY), lane=Lane.IDENTITY)

    outcome = _from_village(township, log_entry(change(home_epoch=1)))

    assert outcome == ApplyOutcome(0, 0, 1)
    assert _causes(township) == ["HOME_EPOCH_OLD"]


def test_a_batch_applied_before_changes_nothing(township: NodeStore) -> None:
    """A commit whose answer was lost is asked for again."""
    entry = log_entry(change())
    start = township.cursor(VILLAGE, Lane.BULK)
    _from_village(township, entry)
    reached = township.cursor(VILLAGE, Lane.BULK)
    batch, _ = batch_of(start, [entry], reached.covers_to)

    again = township.storage.apply_batch(VILLAGE, PeerRole.CHILD, batch, reached)

    assert again == ApplyOutcome(0, 0, 0)
    assert len(township.entries()) == 1


def test_refuses_a_gap_in_the_stream(township: NodeStore) -> None:
    """A batch whose predecessor was never applied would hide what is between."""
    _from_village(township, log_entry(change()))
    reached = township.cursor(VILLAGE, Lane.BULK)
    skipped = replace(reached, number=reached.number + 1)
    batch, beyond = batch_of(skipped, [log_entry(change(row=2))], 9)

    with pytest.raises(BatchOrderError):
        township.storage.apply_batch(VILLAGE, PeerRole.CHILD, batch, beyond)

    assert township.cursor(VILLAGE, Lane.BULK) == reached
    assert count(township, "observations") == 1


@pytest.mark.parametrize("is_first", [False, True])
def test_refuses_a_batch_of_a_former_life_of_its_sender(
    township: NodeStore, is_first: bool
) -> None:
    """It may outlive the greeting of the next life, which has been told what is here by then."""
    if not is_first:
        _from_village(township, log_entry(change()))
    reached = township.cursor(VILLAGE, Lane.BULK)
    batch, beyond = batch_of(reached, [log_entry(change(row=2))], 9)
    newer = batch.stream_epoch.sender + 1
    with write_transaction(township.engine) as connection:
        LinkState(CHANGELOG).save_peer_epoch(connection, VILLAGE, newer, "another life")

    with pytest.raises(CursorWentBackError):
        township.storage.apply_batch(VILLAGE, PeerRole.CHILD, batch, beyond)

    assert township.cursor(VILLAGE, Lane.BULK) == reached
    assert count(township, "observations") == (0 if is_first else 1)


def test_what_nobody_can_read_waits_and_the_lane_goes_on(village: NodeStore) -> None:
    """What could be neither stored nor passed on is set aside whole; the row behind it arrives."""
    entry = log_entry(change(author=TOWNSHIP))
    broken = {
        "cut": b"[",
        "short": b'[["observations"]]',
        "not UTF-8": b"\xff",
        "deep": b"[" * 50_000,
        "a huge number": entry.rows.replace(b",1,1,", b",1,%d," % 2**70),
        "infinite": entry.rows.replace(b"120.0", b"Infinity"),
        "nested": entry.rows.replace(b"120.0", b'{"nested":1}'),
        "a lone surrogate": entry.rows.replace(b"8480-6", b"\\ud800"),
    }
    assert entry.rows not in broken.values()

    for number, rows in enumerate(broken.values(), 1):
        behind = log_entry(change(author=TOWNSHIP, row=number), origin=TOWNSHIP, sequence=number)
        outcome = send(village, TOWNSHIP, PeerRole.PARENT, replace(entry, rows=rows), behind)
        assert outcome == ApplyOutcome(1, 0, 1)
    assert count(village, "observations") == len(broken)
    assert _causes(village) == ["ENTRY_UNREADABLE"] * len(broken)
    assert village.storage.quarantined_by_home() == {VILLAGE: len(broken)}


def test_columns_of_a_newer_peer_are_kept_and_passed_on(region: Region) -> None:
    """A township one release behind loses nothing of what a village sends to the county."""
    township, county = region.node(TOWNSHIP), region.node(COUNTY)
    newer = replace(
        change(values={"value": 1.5, "interpretation": "H"}), schema_version=SCHEMA_VERSION + 1
    )
    _from_village(township, log_entry(newer))

    [sent] = region.ship(township, county)

    assert b'"interpretation":"H"' in sent.rows
    for node in (township, county):
        table = REPLICATED["observations"]
        with read_transaction(node.engine) as connection:
            row = connection.execute(select(table)).mappings().one()
        assert node.storage.unknown_fields("observations", row) == {"interpretation": "H"}
        assert b"interpretation" not in bytes(row["unknown_fields"])


def test_a_parent_may_send_only_what_lives_here(region: Region) -> None:
    """Down come full records of this subtree's residents, and no identity data."""
    village = region.node(VILLAGE)

    def send_down(row: RowChange, lane: Lane = Lane.BULK) -> ApplyOutcome:
        entry = log_entry(row, lane=lane, origin=row.author_node)
        return send(village, TOWNSHIP, PeerRole.PARENT, entry, lane=lane)

    assert send_down(change(row=1, author=TOWNSHIP)) == ApplyOutcome(1, 0, 0)
    assert send_down(change(row=2, author=TOWNSHIP, home=VILLAGE_2)) == ApplyOutcome(0, 0, 1)
    reduced = change(row=3, author=TOWNSHIP, form=Form.DEIDENTIFIED)
    assert send_down(reduced) == ApplyOutcome(0, 0, 1)
    identity = change("residents", resident=4, author=TOWNSHIP, values={})
    assert send_down(identity, Lane.IDENTITY) == ApplyOutcome(0, 0, 1)
    assert sorted(_causes(village)) == ["FORM_NOT_FULL", "HOME_NOT_HERE", "IDENTITY_NOT_FROM_HOME"]


def test_a_county_that_sends_in_full_is_not_thanked(region: Region) -> None:
    """What policy does not copy to the city is not stored there, even when it is offered."""
    city = region.node(CITY)
    named = change("residents", author=COUNTY, home=COUNTY, values={"name": "张三"})

    outcome = send(
        city,
        COUNTY,
        PeerRole.CHILD,
        log_entry(named, lane=Lane.IDENTITY, origin=COUNTY),
        lane=Lane.IDENTITY,
    )

    assert outcome == ApplyOutcome(0, 0, 1)
    assert _causes(city) == ["FORM_NOT_IN_POLICY"]


def test_applying_writes_no_audit_of_reading(township: NodeStore) -> None:
    """The audit is of people's deeds; replication has its log."""
    _from_village(township, log_entry(change()))

    assert count(township, AUDIT) == 0


def test_links_do_not_share_cursors(region: Region) -> None:
    """Two children's lanes stand each for themselves."""
    township = region.node(TOWNSHIP)
    send(township, VILLAGE, PeerRole.CHILD, log_entry(change()))
    other = change(row=2, author=VILLAGE_2, home=VILLAGE_2)
    send(township, VILLAGE_2, PeerRole.CHILD, log_entry(other, origin=VILLAGE_2))

    assert township.cursor(VILLAGE, Lane.BULK).number == 1
    assert township.cursor(VILLAGE_2, Lane.BULK).number == 1
    assert township.cursor(NodeId(OTHER_COUNTY), Lane.BULK).number == 0
