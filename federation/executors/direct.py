"""The plain executor: coroutines over the children beside one local scan. Every node has it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from federation.core.coverage import Coverage
from federation.core.model import ExecutorKind, PartialAnswer, SiteProgress, SiteProgressState
from federation.errors import FederationError
from federation.executors.stage import (
    Ask,
    Progress,
    SiteAsker,
    Stage,
    StageResult,
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

    async def run(self, stage: Stage, progress: Progress) -> StageResult:
        """See Executor."""
        async with asyncio.TaskGroup() as group:
            asks = [group.create_task(self._ask(stage, ask, progress)) for ask in stage.asks]
            scan = group.create_task(self._scan(stage))
        parts = [task.result() for task in asks]
        if stage.scan:
            parts.append(scan.result())
        if stage.before is not None:
            parts.append(stage.before)
        answer, open_sites = add_up(stage.plan, parts)
        tasks = [f"asked {ask.child}" for ask in stage.asks]
        if stage.scan:
            tasks.append(f"scanned {len(stage.scan)} sites")
        return StageResult(answer, open_sites, tuple(tasks))

    async def _ask(self, stage: Stage, ask: Ask, progress: Progress) -> PartialAnswer:
        progress(SiteProgress(ask.child, SiteProgressState.ASKED))
        answer = await ask_child(self._asker, stage, ask)
        progress(progress_of(ask, answer))
        return answer

    async def _scan(self, stage: Stage) -> PartialAnswer:
        if not stage.scan:
            return lines_only(stage.plan, ())
        sites = frozenset(line.node_id for line in stage.scan)
        try:
            result = await self._scanner.scan(
                stage.plan, sites, stage.cell_count_max, stage.remaining_ms, stage.audience
            )
        except FederationError as error:
            return lines_only(stage.plan, lost_scan(stage.scan, error))
        return counted(stage, result)


def counted(stage: Stage, result: ScanResult) -> PartialAnswer:
    """A scan with the lines of its sites, residents filled in."""
    residents: Mapping[str, int] = result.residents
    lines = tuple(
        replace(line, residents_covered=residents.get(line.node_id, 0)) for line in stage.scan
    )
    return PartialAnswer(result.table, (), Coverage(lines))
