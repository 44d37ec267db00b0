"""The plain executor: coroutines over the children beside one local scan. Every node has it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from federation.core.coverage import Coverage
from federation.core.model import ExecutorKind, PartialAnswer, SiteProgress, SiteProgressState
from federation.errors import FederationError
from federation.executors.job import (
    Ask,
    Job,
    JobResult,
    Progress,
    SiteAsker,
    add_up,
    ask_child,
    lines_only,
    lost_scan,
    progress_of,
)
from federation.local import Scanner, ScanResult

__all__ = ["DirectExecutor", "counted"]


class DirectExecutor:
    """Asks all children at once and scans meanwhile, in this process."""

    def __init__(self, asker: SiteAsker, scanner: Scanner) -> None:
        self._asker = asker
        self._scanner = scanner

    @property
    def kind(self) -> ExecutorKind:
        """Always direct."""
        return ExecutorKind.DIRECT

    async def run(self, job: Job, progress: Progress) -> JobResult:
        """See Executor."""
        async with asyncio.TaskGroup() as group:
            asks = [group.create_task(self._ask(job, ask, progress)) for ask in job.asks]
            scan = group.create_task(self._scan(job))
        parts = [task.result() for task in asks]
        if job.scan:
            parts.append(scan.result())
        if job.before is not None:
            parts.append(job.before)
        answer, open_sites = add_up(job.plan, parts)
        tasks = [f"asked {ask.child}" for ask in job.asks]
        if job.scan:
            tasks.append(f"scanned {len(job.scan)} sites")
        return JobResult(answer, open_sites, tuple(tasks))

    async def _ask(self, job: Job, ask: Ask, progress: Progress) -> PartialAnswer:
        progress(SiteProgress(ask.child, SiteProgressState.ASKED))
        answer = await ask_child(self._asker, job, ask)
        progress(progress_of(ask, answer))
        return answer

    async def _scan(self, job: Job) -> PartialAnswer:
        if not job.scan:
            return lines_only(job.plan, ())
        sites = frozenset(line.node_id for line in job.scan)
        try:
            result = await self._scanner.scan(job.plan, sites, job.cell_count_max, job.remaining_ms)
        except FederationError as error:
            return lines_only(job.plan, lost_scan(job.scan, error))
        return counted(job, result)


def counted(job: Job, result: ScanResult) -> PartialAnswer:
    """A scan with the lines of its sites, residents filled in."""
    residents: Mapping[str, int] = result.residents
    lines = tuple(
        replace(line, residents_covered=residents.get(line.node_id, 0)) for line in job.scan
    )
    return PartialAnswer(result.table, (), Coverage(lines))
