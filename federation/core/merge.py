"""Partial answers to one partial answer: order-free, each site once, counts exact.

Answers are added up in the order of their first site, so that the same answers give the same bits
whatever order they arrived in; another grouping of the same sites differs by rounding only.
Means and squared distances merge by Chan, Golub and LeVeque (1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from federation.core.coverage import merge_coverage
from federation.core.model import Basis, Cell, Column, PartialAnswer, Table
from federation.core.partials import Role, group_keys, partial_columns
from federation.core.plan import LogicalPlan

__all__ = ["blank_rows", "merge_answers"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Part:
    """One table, and for each of its rows the merged row that it adds to."""

    table: Table
    matched: list[int]
    withheld: frozenset[int]

    def rows(self) -> list[int]:
        """The merged rows of the rows that hold figures."""
        return self._shown(self.matched)

    def values(self, name: str) -> Sequence[Cell]:
        """A column's figures, in the order of `rows`."""
        return self._shown(self.table.column(name).values)

    def _shown(self, items: Sequence[_T]) -> list[_T]:
        if not self.withheld:
            return list(items)
        return [item for index, item in enumerate(items) if index not in self.withheld]


def merge_answers(plan: LogicalPlan, answers: Sequence[PartialAnswer]) -> PartialAnswer:
    """Add up answers of disjoint sites.

    A group that one site withheld shows what the others released; it is withheld here only if
    nothing else was counted for it. `coverage.cells_suppressed` keeps the number of withheld cells.

    Raises:
        DuplicateSiteError: A site is covered twice. Nothing is merged.
    """
    coverage = merge_coverage(answer.coverage for answer in answers)
    ordered = sorted(answers, key=_first_site)
    rows: dict[tuple[Cell, ...], int] = {}
    keys: list[tuple[Cell, ...]] = []
    parts: list[_Part] = []
    withheld: set[int] = set()
    for answer in ordered:
        matched = [rows.setdefault(key, len(rows)) for key in group_keys(plan, answer.table)]
        _collect_new_keys(plan, answer.table, matched, keys)
        withheld.update(matched[index] for index in answer.suppressed_rows)
        parts.append(_Part(answer.table, matched, frozenset(answer.suppressed_rows)))
    columns = _add_up(plan, parts, len(keys))
    key_columns = list(zip(*keys, strict=True)) if keys else [()] * len(plan.groups)
    table = _table(plan, key_columns, columns)
    residents = columns["residents"]
    hidden = sorted(row for row in withheld if not residents[row])
    return PartialAnswer(blank_rows(plan, table, hidden), tuple(hidden), coverage)


def blank_rows(plan: LogicalPlan, table: Table, hidden: Iterable[int]) -> Table:
    """The table with nulls for every figure of the hidden rows; their keys stay."""
    gone = set(hidden)
    if not gone:
        return table
    columns = list(table.columns[: len(plan.groups)])
    for column in table.columns[len(plan.groups) :]:
        values = tuple(
            None if index in gone else value for index, value in enumerate(column.values)
        )
        columns.append(Column(column.name, column.type, values))
    return Table(tuple(columns))


def _first_site(answer: PartialAnswer) -> str:
    return min((site.node_id for site in answer.coverage.sites), default="")


def _collect_new_keys(
    plan: LogicalPlan, table: Table, matched: Sequence[int], keys: list[tuple[Cell, ...]]
) -> None:
    """Append the keys, as they were sent, of the rows that this table is the first to have."""
    columns = [column.values for column in table.columns[: len(plan.groups)]]
    for index, row in enumerate(matched):
        if row == len(keys):
            keys.append(tuple(values[index] for values in columns))


def _table(
    plan: LogicalPlan, keys: Sequence[tuple[Cell, ...]], columns: dict[str, list[Cell]]
) -> Table:
    made: list[Column] = []
    for index, part in enumerate(partial_columns(plan)):
        values = keys[index] if part.role is Role.KEY else tuple(columns[part.name])
        made.append(Column(part.name, part.type, values))
    return Table(tuple(made))


def _add_up(plan: LogicalPlan, parts: Sequence[_Part], row_count: int) -> dict[str, list[Cell]]:
    """Each column but the keys, merged."""
    merged: dict[str, list[Cell]] = {}
    by_provider = plan.basis is Basis.PROVIDER
    for column in partial_columns(plan):
        name = column.name
        match column.role:
            case Role.COUNT:
                merged[name] = _sum_counts(parts, name, row_count)
            case Role.RESIDENTS:
                add = _largest_count if by_provider else _sum_counts
                merged[name] = add(parts, name, row_count)
            case Role.SUM:
                merged[name] = _sum_values(parts, name, row_count)
            case Role.EXACT:
                merged[name] = _all_exact(parts, name, row_count, by_provider=by_provider)
            case Role.MEAN:
                merged.update(_moments(parts, f"p{column.slot}", row_count))
            case Role.M2 | Role.KEY:
                pass  # M2 merges together with its mean; keys are rows already
    return merged


def _counts(part: _Part, name: str) -> Iterator[tuple[int, int]]:
    """Merged row and count; a count is never null in a row that holds figures."""
    return zip(part.rows(), cast("Sequence[int]", part.values(name)), strict=True)


def _sum_counts(parts: Sequence[_Part], name: str, row_count: int) -> list[Cell]:
    total = [0] * row_count
    for part in parts:
        for row, value in _counts(part, name):
            total[row] += value
    return list(total)


def _largest_count(parts: Sequence[_Part], name: str, row_count: int) -> list[Cell]:
    """By provider the same resident may be at several sites: the largest count is a lower bound."""
    largest = [0] * row_count
    for part in parts:
        for row, value in _counts(part, name):
            largest[row] = max(value, largest[row])
    return list(largest)


def _sum_values(parts: Sequence[_Part], name: str, row_count: int) -> list[Cell]:
    total: list[int | float | None] = [None] * row_count
    for part in parts:
        values = cast("Sequence[int | float | None]", part.values(name))
        for row, value in zip(part.rows(), values, strict=True):
            if value is not None:
                before = total[row]
                total[row] = value if before is None else before + value
    return list(total)


def _all_exact(
    parts: Sequence[_Part], name: str, row_count: int, *, by_provider: bool
) -> list[Cell]:
    """Whether every contribution was exact; by provider, whether there was one at most."""
    exact = [True] * row_count
    contributions = [0] * row_count
    for part in parts:
        for row, value in zip(part.rows(), part.values(name), strict=True):
            contributions[row] += 1
            if not value:
                exact[row] = False
    if by_provider:
        return [is_exact and n <= 1 for is_exact, n in zip(exact, contributions, strict=True)]
    return list(exact)


def _moments(parts: Sequence[_Part], name: str, row_count: int) -> dict[str, list[Cell]]:
    """Mean and M2 of one slot, by pairwise updating."""
    counts = [0] * row_count
    means = [0.0] * row_count
    squares = [0.0] * row_count
    for part in parts:
        mean_values = cast("Sequence[float]", part.values(f"{name}_mean"))
        m2_values = cast("Sequence[float]", part.values(f"{name}_m2"))
        pairs = _counts(part, f"{name}_n")
        for (row, count), mean, m2 in zip(pairs, mean_values, m2_values, strict=True):
            if count == 0:
                continue  # mean and m2 are null
            before, total = counts[row], counts[row] + count
            distance = mean - means[row] if before else 0.0
            means[row] = means[row] + distance * (count / total) if before else mean
            # A lone infinity has no spread, but beside another value there is none to speak of.
            spread = distance * distance if math.isfinite(distance) else math.nan
            squares[row] += m2 + spread * (before * (count / total))
            counts[row] = total
    empty = [count == 0 for count in counts]
    return {
        f"{name}_mean": [None if no else mean for no, mean in zip(empty, means, strict=True)],
        f"{name}_m2": [None if no else m2 for no, m2 in zip(empty, squares, strict=True)],
    }
