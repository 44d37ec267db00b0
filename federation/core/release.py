"""The threshold: what is released says nothing of fewer than `cell_count_min` residents.

Applied where an answer leaves the boundary of full copies, and again before the analyst.

Primary suppression only: a row whose group, or one of whose aggregates, rests on 1 … k-1 distinct
residents keeps its key and loses every figure. Groups without a resident are not withheld: a zero
is about nobody. Complementary suppression, dominance and the ledger come on top of this file.
"""

from __future__ import annotations

from dataclasses import replace

from federation.core.coverage import Coverage
from federation.core.merge import blank_rows
from federation.core.model import Cell, PartialAnswer
from federation.core.partials import Role, partial_columns
from federation.core.plan import LogicalPlan

__all__ = ["withhold_all", "withhold_small"]


def withhold_small(plan: LogicalPlan, answer: PartialAnswer, cell_count_min: int) -> PartialAnswer:
    """The answer as a node with this threshold may release it.

    A resident count that is a lower bound below the threshold is withheld too: sites count exactly
    wherever that could matter (partials.needs_exact). Counts each newly withheld row as one cell.
    Doing it twice changes nothing.

    Raises:
        ValueError: The threshold is below 1.
    """
    if cell_count_min < 1:
        raise ValueError("cell_count_min must be at least 1")
    counts = [
        answer.table.column(part.name).values
        for part in partial_columns(plan)
        if part.role is Role.RESIDENTS
    ]
    already = set(answer.suppressed_rows)
    small = [
        index
        for index, row in enumerate(zip(*counts, strict=True))
        if index not in already and any(_is_small(count, cell_count_min) for count in row)
    ]
    hidden = tuple(sorted(already.union(small)))
    coverage: Coverage = replace(
        answer.coverage,
        cells_suppressed=answer.coverage.cells_suppressed + len(small),
        cell_count_min=max(answer.coverage.cell_count_min, cell_count_min),
    )
    return PartialAnswer(blank_rows(plan, answer.table, hidden), hidden, coverage)


def withhold_all(plan: LogicalPlan, answer: PartialAnswer) -> PartialAnswer:
    """The answer with its groups and coverage and no figure; each newly withheld row is a cell."""
    hidden = tuple(range(answer.table.row_count))
    newly = len(hidden) - len(answer.suppressed_rows)
    coverage = replace(answer.coverage, cells_suppressed=answer.coverage.cells_suppressed + newly)
    return PartialAnswer(blank_rows(plan, answer.table, hidden), hidden, coverage)


def _is_small(count: Cell, cell_count_min: int) -> bool:
    return not isinstance(count, int) or 0 < count < cell_count_min
