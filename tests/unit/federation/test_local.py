"""The own node's scan: fed first, exact where it must be, cut at the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.availability import ExtraMissingError, ScanCancelledError, SiteSeedingError
from federation.columnar import ColumnarChanges, ColumnarLimits, ColumnarReplica
from federation.core.model import Basis, Table
from federation.core.plan import make_plan
from federation.local import LocalSite
from tests.contracts.columnar.source import (
    OTHER_VILLAGE,
    VILLAGE,
    LogByHand,
    observation,
    resident,
    row_id,
)

BOTH = frozenset({VILLAGE, OTHER_VILLAGE})
PLAN = make_plan("SELECT home, COUNT(*) AS n, AVG(value) AS mean FROM observations GROUP BY home")


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[ColumnarReplica]:
    """An empty replica."""
    opened = ColumnarReplica.open(tmp_path / "columnar", ColumnarLimits(threads=1, memory_mb=256))
    yield opened
    opened.close()


@pytest.fixture
def log() -> LogByHand:
    """An empty change log."""
    return LogByHand()


@pytest.fixture
def local(replica: ColumnarReplica, log: LogByHand) -> Iterator[LocalSite]:
    """Scans of that replica, fed from that log."""
    made = LocalSite(replica, log, partition_rows_min=1)
    yield made
    made.close()


def by_key(table: Table, name: str) -> dict[object, object]:
    """A column by the first key."""
    keys = table.column("g0").values
    return dict(zip(keys, table.column(name).values, strict=True))


async def test_a_scan_sees_what_was_committed_before_it(local: LocalSite, log: LogByHand) -> None:
    """Nobody has to wait for the feeder: the scan feeds the replica itself."""
    log.put("observations", observation(1), observation(2, home=OTHER_VILLAGE))
    log.put("residents", resident(1), resident(2, home=OTHER_VILLAGE))
    result = await local.scan(PLAN, BOTH, 1, 10_000)
    assert by_key(result.table, "p0_n") == {VILLAGE: 1, OTHER_VILLAGE: 1}
    assert result.residents == {VILLAGE: 1, OTHER_VILLAGE: 1}


async def test_only_the_sites_asked_for_are_counted(local: LocalSite, log: LogByHand) -> None:
    """A stand-in leaves out what others count."""
    log.put("observations", observation(1), observation(2, home=OTHER_VILLAGE))
    result = await local.scan(PLAN, frozenset({OTHER_VILLAGE}), 1, 10_000)
    assert by_key(result.table, "p1_sum") == {OTHER_VILLAGE: 2.0}


async def test_by_provider_the_author_decides(local: LocalSite, log: LogByHand) -> None:
    """The same rows, counted where they were written."""
    log.put("observations", observation(1, author=OTHER_VILLAGE), observation(2))
    plan = make_plan(
        "SELECT author, COUNT(*) AS n FROM observations GROUP BY author", Basis.PROVIDER
    )
    result = await local.scan(plan, frozenset({OTHER_VILLAGE}), 1, 10_000)
    assert by_key(result.table, "p0_n") == {OTHER_VILLAGE: 1}


@pytest.mark.parametrize("is_stored", [False, True])
async def test_residents_of_small_groups_are_counted_exactly(
    local: LocalSite, replica: ColumnarReplica, log: LogByHand, *, is_stored: bool
) -> None:
    """A bound from the rows is enough above the threshold, never below it."""
    same = row_id(1_000_001)
    log.put("observations", *(observation(number, resident_id=same) for number in range(20)))
    log.put(
        "observations",
        *(
            observation(100 + number, home=OTHER_VILLAGE, resident_id=row_id(2_000_000 + number))
            for number in range(12)
        ),
    )
    if is_stored:
        replica.feed_once(log)
        replica.flush()
    result = await local.scan(PLAN, BOTH, 10, 10_000)
    assert by_key(result.table, "residents") == {VILLAGE: 1, OTHER_VILLAGE: 12}


async def test_without_the_extra_it_says_so() -> None:
    """The node then reports no_analytics."""
    with pytest.raises(ExtraMissingError):
        await LocalSite(None, None).scan(PLAN, BOTH, 1, 1000)


class _Endless:
    """A log that is always ahead."""

    def columnar_changes(self, after: int, limit: int) -> ColumnarChanges:
        return ColumnarChanges(after + 1)


async def test_a_replica_that_lags_is_seeding(replica: ColumnarReplica) -> None:
    """Half of the rows would look like all of them."""
    with pytest.raises(SiteSeedingError):
        await LocalSite(replica, _Endless()).scan(PLAN, BOTH, 1, 30_000)


async def test_a_segment_that_broke_is_fed_again(
    local: LocalSite, replica: ColumnarReplica, log: LogByHand
) -> None:
    """One question says that the site is seeding, the next one is answered in full."""
    log.put("observations", *(observation(number) for number in range(300)))
    replica.feed_once(log)
    replica.flush()
    segment = next(replica.folder.glob("observations-*.parquet"))
    segment.write_bytes(b"PAR1" + b"\xff" * (segment.stat().st_size - 8) + b"PAR1")
    with pytest.raises(SiteSeedingError):
        await local.scan(PLAN, BOTH, 1, 10_000)
    result = await local.scan(PLAN, BOTH, 1, 10_000)
    assert by_key(result.table, "p0_n") == {VILLAGE: 300}


class _Slow:
    """A log whose reading takes until it is let go."""

    def __init__(self) -> None:
        self.calls = 0

    def columnar_changes(self, after: int, limit: int) -> ColumnarChanges:
        self.calls += 1
        return ColumnarChanges(after + 1)


async def test_the_deadline_ends_the_work(replica: ColumnarReplica) -> None:
    """A scan that cannot end in time stops, and the thread is free again."""
    local = LocalSite(replica, _Slow(), concurrency=1)
    with pytest.raises(ScanCancelledError):
        await local.scan(PLAN, BOTH, 1, 5)
    replica.rebuild()
    local.close()


async def test_a_cancelled_scan_frees_its_thread(local: LocalSite, log: LogByHand) -> None:
    """The next question does not wait for one that nobody waits for."""
    log.put("observations", observation(1))
    for _ in range(5):
        running = asyncio.create_task(local.scan(PLAN, BOTH, 1, 10_000))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    result = await local.scan(PLAN, BOTH, 1, 10_000)
    assert by_key(result.table, "p0_n") == {VILLAGE: 1}


def lent(replica: ColumnarReplica) -> list[str]:
    """Folders that are lent."""
    return [str(folder) for folder in (replica.folder / "tmp").glob("loan-*")]


async def test_a_loan_is_cut_into_even_parts_and_given_back(
    local: LocalSite, replica: ColumnarReplica, log: LogByHand
) -> None:
    """Each site is in one part, and closing removes the files."""
    homes = [f"14100200120{number}" for number in range(6)]
    rows = [
        observation(100 * index + number, home=home)
        for index, home in enumerate(homes)
        for number in range(10 * (index + 1))
    ]
    log.put("observations", *rows)
    replica.feed_once(log)
    replica.flush()
    loan = await local.lend(PLAN, frozenset(homes), parts=2, remaining_ms=10_000)
    assert sorted(site for part in loan.parts for site in part) == homes
    assert len(loan.parts) == 2
    assert lent(replica) == [loan.files.folder]
    loan.close()
    assert lent(replica) == []
