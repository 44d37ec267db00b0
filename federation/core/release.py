"""The threshold: what is released says nothing of fewer than `cell_count_min` residents.

Applied where an answer leaves the boundary of full copies, and again before the analyst.

Primary suppression only: a row whose group, or one of whose aggregates, rests on 1 … k-1 distinct
residents loses every figure. Its key stays where keys are places and sexes, which everybody knows
to exist; any other key could be a person's row ("born 1931, B20, this village"), so such rows are
folded into one without keys. Groups without a resident are not withheld: a zero is about nobody.
Complementary suppression, dominance and the ledger come on top of this file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from federation.core.coverage import Coverage
from federation.core.expressions import ColumnRef, walk
from federation.core.merge import blank_rows
from federation.core.model import Cell, PartialAnswer
from federation.core.partials import Role, partial_columns
from federation.core.plan import LogicalPlan

__all__ = ["keys_are_public", "withhold_all", "withhold_small"]

_PUBLIC_COLUMNS: Final = frozenset({"county", "township", "home", "sex"})


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
    return _folded(plan, PartialAnswer(blank_rows(plan, answer.table, hidden), hidden, coverage))


def keys_are_public(plan: LogicalPlan) -> bool:
    """Whether keys are made of places and sexes alone, which everybody knows to exist."""
    return all(
        part.name in _PUBLIC_COLUMNS
        for group in plan.groups
        for part in walk(group)
        if isinstance(part, ColumnRef)
    )


def _folded(plan: LogicalPlan, answer: PartialAnswer) -> PartialAnswer:
    """The answer with all withheld rows as one without keys, unless the keys are public.

    Where a released row has no keys either, it stays and the withheld ones are only counted.
    """
    if not answer.suppressed_rows or keys_are_public(plan):
        return answer
    hidden = set(answer.suppressed_rows)
    shown = [index for index in range(answer.table.row_count) if index not in hidden]
    keys = [column.values for column in answer.table.columns[: len(plan.groups)]]
    has_keyless = any(all(values[index] is None for values in keys) for index in shown)
    columns = tuple(
        replace(
            column,
            values=(
                *(column.values[index] for index in shown),
                *(() if has_keyless else (None,)),
            ),
        )
        for column in answer.table.columns
    )
    folded = () if has_keyless else (len(shown),)
    return replace(answer, table=replace(answer.table, columns=columns), suppressed_rows=folded)


def withhold_all(plan: LogicalPlan, answer: PartialAnswer) -> PartialAnswer:
    """The answer with its groups and coverage and no figure; each newly withheld row is a cell."""
    hidden = tuple(range(answer.table.row_count))
    newly = len(hidden) - len(answer.suppressed_rows)
    coverage = replace(answer.coverage, cells_suppressed=answer.coverage.cells_suppressed + newly)
    return _folded(plan, PartialAnswer(blank_rows(plan, answer.table, hidden), hidden, coverage))


def _is_small(count: Cell, cell_count_min: int) -> bool:
    return not isinstance(count, int) or 0 < count < cell_count_min
