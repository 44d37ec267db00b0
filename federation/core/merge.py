"""Partial answers to one partial answer: order-free, each site once, counts exact.

Answers are added up in the order of their first site, so that the same answers give the same bits
whatever order they arrived in; another grouping of the same sites differs by rounding only.
Means and squared distances merge by Chan, Golub and LeVeque (1979).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from federation.core.coverage import merge_coverage
from federation.core.model import Basis, Cell, Column, PartialAnswer, Table
from federation.core.partials import PartialColumn, Role, group_key, partial_columns
from federation.core.plan import LogicalPlan

__all__ = ["merge_answers"]

_Positions = list[int | None]
"""For each row of a table, the merged row that it adds to; None if it is withheld."""


def merge_answers(plan: LogicalPlan, answers: Sequence[PartialAnswer]) -> PartialAnswer:
    """Add up answers of disjoint sites.

    A group that one site withheld shows what the others released; it is withheld here only if
    nothing else was counted for it. `coverage.cells_suppressed` keeps the number of withheld cells.

    Raises:
        DuplicateSiteError: A site is covered twice. Nothing is merged.
    """
    coverage = merge_coverage(answer.coverage for answer in answers)
    ordered = sorted(answers, key=_first_site)
    key_count = len(plan.groups)
    rows: dict[tuple[Cell, ...], int] = {}
    keys: list[tuple[Cell, ...]] = []
    positions: list[_Positions] = []
    withheld: set[int] = set()
    for answer in ordered:
        suppressed = set(answer.suppressed_rows)
        found: _Positions = []
        for index, key in enumerate(_keys(answer.table, key_count)):
            normal = group_key(key)
            row = rows.setdefault(normal, len(rows))
            if row == len(keys):
                keys.append(key)
            is_withheld = index in suppressed
            if is_withheld:
                withheld.add(row)
            found.append(None if is_withheld else row)
        positions.append(found)
    columns = _add_up(plan, [answer.table for answer in ordered], positions, len(keys))
    key_columns = list(zip(*keys, strict=True)) if keys else [()] * key_count
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


def _keys(table: Table, key_count: int) -> Iterable[tuple[Cell, ...]]:
    if key_count == 0:
        return [()] * table.row_count
    return zip(*(column.values for column in table.columns[:key_count]), strict=True)


def _table(
    plan: LogicalPlan, keys: Sequence[tuple[Cell, ...]], columns: dict[str, list[Cell]]
) -> Table:
    made: list[Column] = []
    for index, part in enumerate(partial_columns(plan)):
        values = keys[index] if part.role is Role.KEY else tuple(columns[part.name])
        made.append(Column(part.name, part.type, values))
    return Table(tuple(made))


def _add_up(
    plan: LogicalPlan, tables: Sequence[Table], positions: Sequence[_Positions], row_count: int
) -> dict[str, list[Cell]]:
    """Each column but the keys, merged."""
    merged: dict[str, list[Cell]] = {}
    by_provider = plan.basis is Basis.PROVIDER
    for part in partial_columns(plan):
        pairs = [
            (found, table.column(part.name).values)
            for found, table in zip(positions, tables, strict=True)
        ]
        match part.role:
            case Role.COUNT:
                merged[part.name] = _sum_counts(pairs, row_count)
            case Role.RESIDENTS:
                add = _largest_count if by_provider else _sum_counts
                merged[part.name] = add(pairs, row_count)
            case Role.SUM:
                merged[part.name] = _sum_values(pairs, row_count)
            case Role.EXACT:
                merged[part.name] = _all_exact(pairs, row_count, by_provider=by_provider)
            case Role.MEAN:
                merged.update(_moments(part, tables, positions, row_count))
            case Role.M2 | Role.KEY:
                pass  # M2 merges together with its mean; keys are rows already
    return merged


_Pairs = Sequence[tuple[_Positions, tuple[Cell, ...]]]


def _sum_counts(pairs: _Pairs, row_count: int) -> list[Cell]:
    total = [0] * row_count
    for found, values in pairs:
        for row, value in zip(found, values, strict=True):
            if row is not None and isinstance(value, int):
                total[row] += value
    return list(total)


def _largest_count(pairs: _Pairs, row_count: int) -> list[Cell]:
    """By provider the same resident may be at several sites: the largest count is a lower bound."""
    largest = [0] * row_count
    for found, values in pairs:
        for row, value in zip(found, values, strict=True):
            if row is not None and isinstance(value, int) and value > largest[row]:
                largest[row] = value
    return list(largest)


def _sum_values(pairs: _Pairs, row_count: int) -> list[Cell]:
    total: list[int | float | None] = [None] * row_count
    for found, values in pairs:
        for row, value in zip(found, values, strict=True):
            if row is not None and isinstance(value, int | float):
                before = total[row]
                total[row] = value if before is None else before + value
    return list(total)


def _all_exact(pairs: _Pairs, row_count: int, *, by_provider: bool) -> list[Cell]:
    """Whether every contribution was exact; by provider, whether there was one at most."""
    exact = [True] * row_count
    contributions = [0] * row_count
    for found, values in pairs:
        for row, value in zip(found, values, strict=True):
            if row is not None:
                contributions[row] += 1
                exact[row] = exact[row] and bool(value)
    if by_provider:
        return [is_exact and n <= 1 for is_exact, n in zip(exact, contributions, strict=True)]
    return list(exact)


def _moments(
    part: PartialColumn, tables: Sequence[Table], positions: Sequence[_Positions], row_count: int
) -> dict[str, list[Cell]]:
    """Mean and M2 of one slot, by pairwise updating."""
    name = f"p{part.slot}"
    counts = [0] * row_count
    means = [0.0] * row_count
    squares = [0.0] * row_count
    for found, table in zip(positions, tables, strict=True):
        figures = (table.column(f"{name}_{figure}").values for figure in ("n", "mean", "m2"))
        for row, count, mean, m2 in zip(found, *figures, strict=True):
            if row is None or not isinstance(count, int) or count == 0:
                continue
            if not isinstance(mean, float) or not isinstance(m2, float):
                continue
            before, total = counts[row], counts[row] + count
            distance = mean - means[row] if before else 0.0
            means[row] = means[row] + distance * (count / total) if before else mean
            squares[row] += m2 + distance * distance * (before * (count / total))
            counts[row] = total
    empty = [count == 0 for count in counts]
    return {
        f"{name}_mean": [None if no else mean for no, mean in zip(empty, means, strict=True)],
        f"{name}_m2": [None if no else m2 for no, m2 in zip(empty, squares, strict=True)],
    }
