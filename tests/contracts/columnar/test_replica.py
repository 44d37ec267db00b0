"""The contract of the columnar replica: each row once, in its newest version, whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from federation.columnar import ColumnarLimits, ColumnarReplica, SiteColumn, Snapshot
from federation.columnar.engine import open_engine
from federation.columnar.snapshot import open_files
from federation.errors import ColumnarError
from tests.contracts.columnar.source import (
    OTHER_VILLAGE,
    VILLAGE,
    LogByHand,
    observation,
    resident,
    row_id,
)

LIMITS = ColumnarLimits(threads=1, memory_mb=256, segment_rows=1000, segments_max=4)


@pytest.fixture
def log() -> LogByHand:
    """An empty change log."""
    return LogByHand()


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[ColumnarReplica]:
    """An empty replica."""
    opened = open_replica(tmp_path)
    yield opened
    opened.close()


def open_replica(folder: Path, *, source: str = "epoch-1") -> ColumnarReplica:
    """Open the replica of the test, as after a start of the process."""
    return ColumnarReplica.open(folder / "columnar", LIMITS, source=source)


def feed(replica: ColumnarReplica, log: LogByHand) -> None:
    """Feed up to the end of the log, in small steps."""
    while replica.feed_once(log, limit=3) < len(log.entries):
        pass


def values(view: Snapshot, sites: frozenset[str] | None = None) -> list[float]:
    """Values of the observations at some sites."""
    statement = view.select("observations", SiteColumn.HOME, sites)
    return sorted(row[0] for row in view.query(f"SELECT value FROM ({statement})"))


def all_values(replica: ColumnarReplica) -> list[float]:
    """Values of all observations, from a fresh snapshot."""
    with replica.snapshot() as view:
        return values(view)


def test_feeding_the_same_rows_again_changes_nothing(
    replica: ColumnarReplica, log: LogByHand
) -> None:
    """A row that comes twice is one row, in the delta and across segments."""
    log.put("observations", observation(1), observation(2), observation(1))
    feed(replica, log)
    replica.flush()
    log.put("observations", observation(1), observation(2))
    feed(replica, log)
    assert all_values(replica) == [1.0, 2.0]
    replica.flush()
    assert all_values(replica) == [1.0, 2.0]


@pytest.mark.parametrize("stored", [False, True])
def test_the_newest_version_of_a_row_wins(
    replica: ColumnarReplica, log: LogByHand, *, stored: bool
) -> None:
    """An amended row shows its new value only, wherever the old one lies."""
    log.put("observations", observation(1), observation(2))
    feed(replica, log)
    if stored:
        replica.flush()
    log.put("observations", observation(1, value=111.0))
    feed(replica, log)
    assert all_values(replica) == [2.0, 111.0]
    replica.flush()
    assert all_values(replica) == [2.0, 111.0]


@pytest.mark.parametrize("stored", [False, True])
def test_a_deleted_row_is_gone(replica: ColumnarReplica, log: LogByHand, *, stored: bool) -> None:
    """A tombstone takes a row out of the delta and out of segments."""
    log.put("observations", observation(1), observation(2))
    feed(replica, log)
    if stored:
        replica.flush()
    log.delete("observations", row_id(1))
    feed(replica, log)
    assert all_values(replica) == [2.0]
    replica.flush()
    assert all_values(replica) == [2.0]


def test_a_crash_before_the_flush_costs_only_reading_the_log_again(
    tmp_path: Path, log: LogByHand
) -> None:
    """What was not stored is asked for again from the sequence of the last segment."""
    first = open_replica(tmp_path)
    log.put("observations", observation(1))
    feed(first, log)
    first.flush()
    log.put("observations", observation(2), observation(1, value=9.0))
    feed(first, log)
    assert first.sequence == 2
    # No close: the process is gone.
    second = open_replica(tmp_path)
    assert second.sequence == 1
    feed(second, log)
    assert all_values(second) == [2.0, 9.0]
    assert log.asked_after[-1] == 1


def test_closing_makes_the_sequence_durable(tmp_path: Path, log: LogByHand) -> None:
    """After a clean stop nothing is read from the log again, and superseded rows stay so."""
    first = open_replica(tmp_path)
    log.put("observations", observation(1))
    feed(first, log)
    first.flush()
    log.put("observations", observation(1, value=5.0))
    feed(first, log)
    first.close()
    second = open_replica(tmp_path)
    assert second.sequence == 2
    assert all_values(second) == [5.0]


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "removed", "manifest", "schema"])
def test_a_damaged_replica_is_fed_again(tmp_path: Path, log: LogByHand, damage: str) -> None:
    """Whatever cannot be read is derived data: the replica starts at sequence 0 and fills again."""
    first = open_replica(tmp_path)
    log.put("observations", observation(1), observation(2))
    feed(first, log)
    first.close()
    folder = tmp_path / "columnar"
    segment = next(folder.glob("observations-*.parquet"))
    manifest = folder / "manifest.json"
    match damage:
        case "truncated":
            segment.write_bytes(segment.read_bytes()[:-20])
        case "overwritten":
            segment.write_bytes(b"x" * segment.stat().st_size)
        case "removed":
            segment.unlink()
        case "manifest":
            manifest.write_text('{"format": 1')
        case _:
            manifest.write_text(manifest.read_text().replace('"schema": "', '"schema": "0'))
    second = open_replica(tmp_path)
    assert second.sequence == 0
    assert not second.is_caught_up
    feed(second, log)
    assert all_values(second) == [1.0, 2.0]


def test_damage_found_while_reading_leads_to_a_rebuild(
    replica: ColumnarReplica, log: LogByHand
) -> None:
    """A segment that broke under a running node fails its check, and the replica is emptied."""
    log.put("observations", *(observation(number) for number in range(500)))
    feed(replica, log)
    replica.flush()
    assert replica.verify()
    segment = next(replica.folder.glob("observations-*.parquet"))
    data = bytearray(segment.read_bytes())
    data[4:4000] = b"\xff" * 3996
    segment.write_bytes(bytes(data))
    assert not replica.verify()
    assert replica.sequence == 0
    feed(replica, log)
    assert len(all_values(replica)) == 500


def test_another_store_is_another_log(tmp_path: Path, log: LogByHand) -> None:
    """After a restore the log has a new epoch, and rows of the old one must not stay."""
    first = open_replica(tmp_path)
    log.put("observations", observation(1))
    feed(first, log)
    first.close()
    assert open_replica(tmp_path, source="epoch-2").sequence == 0


def test_a_moved_resident_counts_at_the_new_home(replica: ColumnarReplica, log: LogByHand) -> None:
    """The source gives all rows of a resident again, and each site sees only its own."""
    log.put("residents", resident(1), resident(2))
    log.put("observations", observation(1), observation(2))
    feed(replica, log)
    replica.flush()
    log.put("residents", resident(1, home=OTHER_VILLAGE))
    log.put("observations", observation(1, home=OTHER_VILLAGE))
    feed(replica, log)
    replica.flush()
    both = frozenset({VILLAGE, OTHER_VILLAGE})
    with replica.snapshot() as view:
        assert view.residents_by_home(both) == {VILLAGE: 1, OTHER_VILLAGE: 1}
        assert values(view, frozenset({VILLAGE})) == [2.0]
        assert values(view, frozenset({OTHER_VILLAGE})) == [1.0]
        assert values(view, both) == [1.0, 2.0]
        assert values(view, frozenset()) == []


def test_rows_can_be_counted_at_their_author(replica: ColumnarReplica, log: LogByHand) -> None:
    """With basis provider the author's column chooses the rows."""
    log.put("observations", observation(1, author=OTHER_VILLAGE), observation(2))
    feed(replica, log)
    with replica.snapshot() as view:
        view.bind(SiteColumn.AUTHOR, frozenset({OTHER_VILLAGE}))
        assert view.query("SELECT value FROM observations") == [(1.0,)]


def test_a_snapshot_does_not_move_while_the_replica_is_fed(
    replica: ColumnarReplica, log: LogByHand
) -> None:
    """Rows, flushes and merges after the snapshot leave it as it was, its files included."""
    for number in range(4):
        log.put("observations", observation(number))
        feed(replica, log)
        replica.flush()
    with replica.snapshot() as view:
        for number in range(4, 12):
            log.put("observations", observation(number), observation(0, value=-1.0))
            feed(replica, log)
            replica.flush()
        replica.rebuild()
        assert values(view) == [0.0, 1.0, 2.0, 3.0]
    assert all_values(replica) == []
    assert list(replica.folder.glob("*.parquet")) == []


def test_many_small_segments_are_merged(replica: ColumnarReplica, log: LogByHand) -> None:
    """The number of segments stays bounded, and superseded rows leave the disk."""
    for number in range(20):
        log.put("observations", observation(number), observation(0, value=float(number)))
        feed(replica, log)
        replica.flush()
        assert len(replica.segment_files) <= LIMITS.segments_max
    assert len(list(replica.folder.glob("observations-*.parquet"))) == len(replica.segment_files)
    assert all_values(replica) == sorted([19.0, *map(float, range(1, 20))])


def test_a_large_delta_becomes_a_segment_by_itself(
    replica: ColumnarReplica, log: LogByHand
) -> None:
    """Memory is bounded by segment_rows."""
    log.put("observations", *(observation(number) for number in range(LIMITS.segment_rows)))
    feed(replica, log)
    assert len(replica.segment_files) == 1


def test_changes_that_do_not_fit_are_refused_whole(
    replica: ColumnarReplica, log: LogByHand
) -> None:
    """Neither rows nor the sequence move, and the message holds no cell."""
    log.put("observations", observation(1), observation(2, value="secret words"))
    with pytest.raises(ColumnarError) as caught:
        replica.feed_once(log)
    assert "secret" not in str(caught.value)
    assert replica.sequence == 0
    assert all_values(replica) == []


def test_dates_come_as_days_or_as_text(replica: ColumnarReplica, log: LogByHand) -> None:
    """A time of day is cut off, and text that is no day is unknown."""
    log.put(
        "observations",
        observation(1, observed_on="2026-03-04"),
        observation(2, observed_on="2026-03-04T10:00:00+08:00"),
        observation(3, observed_on="last spring"),
        observation(4, observed_on=None),
    )
    feed(replica, log)
    with replica.snapshot() as view:
        statement = view.select("observations")
        days = view.query(f"SELECT CAST(observed_on AS VARCHAR) FROM ({statement}) ORDER BY value")
    assert days == [("2026-03-04",), ("2026-03-04",), (None,), (None,)]


def test_another_engine_reads_an_exported_snapshot(
    replica: ColumnarReplica, log: LogByHand
) -> None:
    """Segments, delta and superseded rows reach a Ray worker as files."""
    replica.set_places({VILLAGE: ("141002001", "141002")})
    log.put("observations", observation(1), observation(2))
    feed(replica, log)
    replica.flush()
    log.put("observations", observation(1, value=10.0), observation(3, home=OTHER_VILLAGE))
    feed(replica, log)
    home = frozenset({VILLAGE})
    folder = replica.folder / "tmp" / "job-1"
    with replica.snapshot() as view:
        files = view.export(folder, ["observations"], SiteColumn.HOME, home)
        scratch = replica.folder.parent / "worker"
        engine = open_engine(scratch, threads=1, memory_mb=128, readable=[replica.folder])
        with open_files(engine, files) as other:
            other.bind(SiteColumn.HOME, home)
            assert values(other, home) == [2.0, 10.0]
            assert other.query("SELECT count(*) FROM residents") == [(0,)]
            assert other.query("SELECT county FROM observations JOIN places USING (home)") == [
                ("141002",),
                ("141002",),
            ]


def test_a_statement_reaches_nothing_outside_the_folder(
    replica: ColumnarReplica, tmp_path: Path
) -> None:
    """The engine is confined even if a planner were wrong."""
    outside = tmp_path / "outside.csv"
    outside.write_text("a\n1\n")
    for statement in (
        f"SELECT * FROM read_csv('{outside}')",
        f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'other.db'}'",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
        "INSTALL httpfs",
        "SELECT * FROM tmp_path",
    ):
        with replica.snapshot() as view, pytest.raises(duckdb.Error):
            view.query(statement)


def test_a_running_statement_can_be_interrupted(replica: ColumnarReplica) -> None:
    """A deadline ends the work and not only the waiting."""
    view = replica.snapshot()
    timer = threading.Timer(0.2, view.interrupt)
    timer.start()
    with view, pytest.raises(duckdb.InterruptException):
        view.query("SELECT sum(hash(a.range, b.range)) FROM range(200000) a, range(200000) b")
    timer.join()


def test_readers_and_a_feeder_do_not_disturb_each_other(
    replica: ColumnarReplica, log: LogByHand
) -> None:
    """Every snapshot under load holds whole entries: two rows each, summing to a constant."""
    log.put("observations", observation(0, value=100.0), observation(1, value=0.0))
    feed(replica, log)
    failures: list[float] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            total = sum(all_values(replica))
            if total != 100.0:
                failures.append(total)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for step in range(60):
        value = float(step)
        log.put("observations", observation(0, value=100.0 - value), observation(1, value=value))
        feed(replica, log)
        if step % 7 == 0:
            replica.flush()
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_finds_residents_by_how_their_ids_begin(replica: ColumnarReplica, log: LogByHand) -> None:
    """In segments and in what lies beside them; the end of the range is not in it."""
    log.put("residents", resident(1), resident(2))
    log.put("observations", observation(1), observation(2))
    feed(replica, log)
    replica.flush()
    log.put("observations", observation(3, resident_id="ca9a27ee-ca9a-8141-8002-001201aabbcc"))
    feed(replica, log)
    with replica.snapshot() as view:
        found = view.residents_between("ca9a27ee-ca9a-8", "ca9a27ee-ca9a-9")
        assert found == {"observations": ("ca9a27ee-ca9a-8141-8002-001201aabbcc",)}
        assert view.residents_between("ca9a27ee-ca9a-9", "ffff") == {}
        assert set(view.residents_between("0", "1")) == {"residents", "observations"}
