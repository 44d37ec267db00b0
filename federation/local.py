"""What one node computes by itself: the partial table of some sites from its columnar replica.

The statement is made here from the plan; the relations it names hold exactly the rows of the sites
asked for. Runs in threads of its own, as many at once as the profile says, and stops at the
deadline: a statement is interrupted, not abandoned.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from federation.availability import ExtraMissingError, ScanCancelledError, SiteSeedingError
from federation.columnar import (
    ColumnarReplica,
    ReplicaSource,
    SiteColumn,
    Snapshot,
    SnapshotFiles,
)
from federation.core.model import EVERYBODY, Audience, Basis, Table
from federation.core.node_sql import node_sql, residents_sql
from federation.core.partials import needs_exact, partial_columns, table_of, with_exact
from federation.core.plan import LogicalPlan
from federation.errors import ColumnarError, FederationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = [
    "FigureMemory",
    "Loan",
    "LocalSite",
    "ScanResult",
    "Scanner",
    "scan_snapshot",
    "site_column",
]

_FEEDS_MAX = 200
"""Feedings before a live scan at most: a log that grows faster than that is a seeding replica."""

_INTERRUPT_EVERY_S = 0.05
_FIGURES_KEPT = 64

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ScanResult:
    """The partial table of some sites, and residents by home whose data it counts."""

    table: Table
    residents: Mapping[str, int]


class Scanner(Protocol):
    """Whoever computes partials from this node's own rows."""

    async def scan(
        self,
        plan: LogicalPlan,
        sites: frozenset[str],
        cell_count_max: int,
        remaining_ms: int,
        audience: Audience = EVERYBODY,
    ) -> ScanResult:
        """The partials of these sites, without residents who forbid them to the audience.

        Raises:
            ExtraMissingError: This node has no columnar replica.
            SiteSeedingError: The replica does not hold the whole log yet.
            ScanCancelledError: The time was up.
            ColumnarError: The replica cannot be read; it is fed again.
        """
        ...


def site_column(basis: Basis) -> SiteColumn:
    """The column that says at which site a row counts."""
    return SiteColumn.HOME if basis is Basis.RESIDENCE else SiteColumn.AUTHOR


@dataclass(frozen=True, slots=True)
class SiteFigures:
    """What every question about a dataset at some sites needs, whatever it asks.

    `resident_rows_max` is the most rows that one resident can have there.
    """

    resident_rows_max: int
    residents: Mapping[str, int]


class FigureMemory:
    """Figures by data version: they hold until the next change of the log is fed."""

    def __init__(self) -> None:
        self._by_version: dict[tuple[int, str, SiteColumn, frozenset[str]], SiteFigures] = {}

    def figures(
        self, view: Snapshot, dataset: str, column: SiteColumn, sites: frozenset[str]
    ) -> SiteFigures:
        """The figures of a view, counted if nobody has."""
        key = (view.sequence, dataset, column, sites)
        known = self._by_version.get(key)
        if known is None:
            known = SiteFigures(
                view.resident_rows_max(dataset, column, sites), view.residents_by_home(sites)
            )
            if len(self._by_version) >= _FIGURES_KEPT:
                self._by_version.clear()
            self._by_version[key] = known
        return known


def scan_snapshot(
    view: Snapshot,
    plan: LogicalPlan,
    sites: frozenset[str],
    cell_count_max: int,
    memory: FigureMemory,
    audience: Audience = EVERYBODY,
) -> ScanResult:
    """The partials of some sites over one view; resident counts below the threshold are exact.

    Residents of the result are those looked at, whom the audience may not count among them.

    Raises:
        ScanCancelledError: Somebody interrupted the view.
        ColumnarError: A file of the view cannot be read.
    """
    import duckdb

    column = site_column(plan.basis)
    try:
        view.bind(column, sites, [plan.dataset], audience)
        figures = memory.figures(view, plan.dataset, column, sites)
        bound = figures.resident_rows_max
        width = len(partial_columns(plan))
        rows = view.query(node_sql(plan, rows_per_resident_max=bound))
        table = table_of(plan, _columns(rows, width))
        if needs_exact(plan, table, cell_count_max):
            rows = view.query(
                residents_sql(plan, rows_per_resident_max=bound, cell_count_min=cell_count_max)
            )
            if rows:
                table = with_exact(plan, table, _columns(rows, len(rows[0])))
        return ScanResult(table, figures.residents)
    except duckdb.InterruptException:
        raise ScanCancelledError("the scan was cut at its deadline") from None
    except duckdb.Error as error:
        # The library's message may quote a cell.
        raise ColumnarError(f"a scan failed: {type(error).__name__}") from error


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


@dataclass(frozen=True, slots=True)
class Loan:
    """A snapshot as files, and the sites cut into parts of even work. Close it when done."""

    view: Snapshot
    files: SnapshotFiles
    parts: tuple[frozenset[str], ...]

    def close(self) -> None:
        """Give the files back."""
        self.view.close()
        shutil.rmtree(self.files.folder, ignore_errors=True)


def _make_loan(
    view: Snapshot, plan: LogicalPlan, sites: frozenset[str], folder: Path, parts: int
) -> Loan:
    import duckdb

    column = site_column(plan.basis)
    try:
        files = view.export(folder, sorted({plan.dataset, "residents"}), column, sites)
        return Loan(view, files, _partition(view, plan, sites, parts))
    except duckdb.Error as error:
        view.close()
        raise ColumnarError(f"a snapshot could not be lent: {type(error).__name__}") from error


def _partition(
    view: Snapshot, plan: LogicalPlan, sites: frozenset[str], parts: int
) -> tuple[frozenset[str], ...]:
    """The sites in up to `parts` parts of about as many rows each, largest sites first.

    By provider a resident may be at several sites, so
    that only one part counts residents exactly.
    """
    if parts == 1 or len(sites) == 1 or plan.basis is Basis.PROVIDER:
        return (sites,)
    rows = view.site_rows(plan.dataset, site_column(plan.basis), sites)
    loads: list[tuple[int, set[str]]] = [(0, set()) for _ in range(min(parts, len(sites)))]
    for site in sorted(sites, key=lambda site: (-rows.get(site, 0), site)):
        index = min(range(len(loads)), key=lambda at: loads[at][0])
        load, chosen = loads[index]
        chosen.add(site)
        loads[index] = (load + rows.get(site, 0), chosen)
    return tuple(frozenset(chosen) for _, chosen in loads)


class _Cancellation:
    """Interrupts a statement, and any that starts after."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interrupt: Callable[[], None] | None = None
        self.is_set = False

    def watch(self, interrupt: Callable[[], None] | None) -> None:
        with self._lock:
            self._interrupt = interrupt

    def cancel(self) -> None:
        with self._lock:
            self.is_set = True
            if self._interrupt is not None:
                self._interrupt()


class LocalSite:
    """Scans of this node's columnar replica.

    Args:
        replica: None where the analytics extra is missing: every scan then says so.
        source: What feeds the replica; asked before each scan, so that what was acknowledged
            before the question is in the answer.
        concurrency: Scans at once; more wait.
        partition_rows_min: Rows below which a scan is not worth a second worker.
    """

    def __init__(
        self,
        replica: ColumnarReplica | None,
        source: ReplicaSource | None,
        *,
        concurrency: int = 2,
        partition_rows_min: int = 200_000,
        is_seeding: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_seeding = is_seeding
        self._replica = replica
        self._source = source
        self._loans = itertools.count(1)
        self._memory = FigureMemory()
        self._partition_rows_min = partition_rows_min
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="columnar")

    @property
    def replica(self) -> ColumnarReplica | None:
        """The replica, None without the extra."""
        return self._replica

    async def scan(
        self,
        plan: LogicalPlan,
        sites: frozenset[str],
        cell_count_max: int,
        remaining_ms: int,
        audience: Audience = EVERYBODY,
    ) -> ScanResult:
        """See Scanner."""
        cancellation = _Cancellation()

        def count(view: Snapshot) -> ScanResult:
            return scan_snapshot(view, plan, sites, cell_count_max, self._memory, audience)

        def work() -> ScanResult:
            return self._scan(count, cancellation)

        return await self._in_thread(work, cancellation, remaining_ms)

    async def lend(
        self, plan: LogicalPlan, sites: frozenset[str], *, parts: int, remaining_ms: int
    ) -> Loan:
        """A fresh snapshot as files, for workers that scan elsewhere. Raises as Scanner.scan."""
        cancellation = _Cancellation()
        loans: list[Loan] = []

        def work() -> Loan:
            replica = self._fed(cancellation)
            folder = replica.folder / "tmp" / f"loan-{next(self._loans)}"
            view = replica.snapshot()
            most = parts if view.stored_rows(plan.dataset) >= self._partition_rows_min else 1
            loans.append(_make_loan(view, plan, sites, folder, most))
            return loans[0]

        try:
            return await self._in_thread(work, cancellation, remaining_ms)
        except (asyncio.CancelledError, FederationError):
            for loan in loans:
                loan.close()
            raise

    async def check_replica(self) -> bool:
        """Read every segment through; a replica with a damaged one is emptied and fed again."""
        if self._replica is None:
            return True
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._replica.verify)

    def close(self) -> None:
        """Wait for the scans that run."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _in_thread(
        self, work: Callable[[], _Result], cancellation: _Cancellation, remaining_ms: int
    ) -> _Result:
        running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            async with asyncio.timeout(remaining_ms / 1000):
                return await asyncio.shield(running)
        except (asyncio.CancelledError, TimeoutError) as error:
            # An interrupt between two statements is lost, so it is given until the work has ended.
            cancellation.cancel()
            while not (await asyncio.wait([running], timeout=_INTERRUPT_EVERY_S))[0]:
                cancellation.cancel()
            late = running.exception()
            if late is not None and not isinstance(late, FederationError):
                raise late from None
            if isinstance(error, TimeoutError):
                raise ScanCancelledError("the scan was cut at its deadline") from None
            raise

    def _scan(
        self, count: Callable[[Snapshot], ScanResult], cancellation: _Cancellation
    ) -> ScanResult:
        replica = self._fed(cancellation)
        try:
            with replica.snapshot() as view:
                cancellation.watch(view.interrupt)
                try:
                    return count(view)
                finally:
                    cancellation.watch(None)
        except ColumnarError:
            if replica.verify():
                raise
            raise SiteSeedingError from None

    def _fed(self, cancellation: _Cancellation) -> ColumnarReplica:
        """The replica with everything in it that was committed when this was called."""
        replica = self._replica
        if replica is None:
            raise ExtraMissingError("analytics", "duckdb")
        if self._is_seeding():
            raise SiteSeedingError
        if self._source is not None:
            for _ in range(_FEEDS_MAX):
                if cancellation.is_set:
                    raise ScanCancelledError("the scan was cut at its deadline")
                before = replica.sequence
                if replica.feed_once(self._source) == before:
                    break
        if not replica.is_caught_up:
            raise SiteSeedingError
        return replica
