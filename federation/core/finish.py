"""Merged partials to the table that was asked for: aggregates, HAVING, ORDER BY, LIMIT.

A withheld row keeps its keys and has null for whatever rests on aggregates. It stays unless HAVING
rules it out by its keys alone: it may belong to the answer, and leaving it out in silence would say
otherwise. Rows without ORDER BY come in the order of their keys, so that equal questions have
equal answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from federation.core.aggregates import Aggregate, AggregateKind
from federation.core.evaluate import evaluate, sort_key
from federation.core.expressions import Call, Expression, depends_on_aggregates
from federation.core.model import Cell, Column, ColumnType, PartialAnswer, Table
from federation.core.plan import LogicalPlan

__all__ = ["FinishedTable", "finish"]


@dataclass(frozen=True, slots=True)
class FinishedTable:
    """The table as selected; `suppressed_rows` are ascending row numbers of it.

    `complete` is false if a site is missing or short of known residents, or a cell is withheld.
    """

    table: Table
    suppressed_rows: tuple[int, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class _Group:
    keys: tuple[Cell, ...]
    aggregates: tuple[Cell, ...]
    is_withheld: bool


def finish(plan: LogicalPlan, answer: PartialAnswer) -> FinishedTable:
    """The final table of a merged and released answer."""
    groups = [group for group in _groups(plan, answer) if _is_kept(plan.having, group)]
    groups.sort(key=lambda group: tuple(_ascending(key) for key in group.keys))
    for key in reversed(plan.order):
        _sort(groups, key.expression, descending=key.descending, nulls_first=key.nulls_first)
    end = None if plan.limit is None else plan.offset + plan.limit
    groups = groups[plan.offset : end]
    columns = tuple(
        Column(
            output.name,
            output.type,
            tuple(_typed(output.type, _value(output.expression, group)) for group in groups),
        )
        for output in plan.outputs
    )
    withheld = tuple(index for index, group in enumerate(groups) if group.is_withheld)
    complete = answer.coverage.is_complete and not answer.suppressed_rows
    return FinishedTable(Table(columns), withheld, complete)


def _groups(plan: LogicalPlan, answer: PartialAnswer) -> list[_Group]:
    suppressed = set(answer.suppressed_rows)
    slots = {spec.argument: spec.slot for spec in plan.partials}
    names = answer.table.names
    key_count = len(plan.groups)
    groups: list[_Group] = []
    for index, row in enumerate(answer.table.rows()):
        is_withheld = index in suppressed
        figures = dict(zip(names, row, strict=True))
        values: tuple[Cell, ...] = (None,) * len(plan.aggregates)
        if not is_withheld:
            values = tuple(
                _aggregate(item, figures, f"p{slots[item.argument]}") for item in plan.aggregates
            )
        groups.append(_Group(row[:key_count], values, is_withheld))
    return groups


def _aggregate(aggregate: Aggregate, figures: Mapping[str, Cell], name: str) -> Cell:
    """The aggregate of one group from its partials; null where SQL has null."""
    match aggregate.kind:
        case AggregateKind.COUNT_ROWS | AggregateKind.COUNT:
            return figures[f"{name}_n"]
        case AggregateKind.COUNT_RESIDENTS:
            return figures["residents"]
        case AggregateKind.SUM:
            return figures[f"{name}_sum"]
        case AggregateKind.AVG:
            total, count = figures[f"{name}_sum"], figures[f"{name}_n"]
            if isinstance(total, int | float) and isinstance(count, int):
                return total / count
            return None
        case _:
            return _spread(aggregate.kind, figures[f"{name}_m2"], figures[f"{name}_n"])


def _spread(kind: AggregateKind, m2: Cell, count: Cell) -> Cell:
    is_sample = kind in (AggregateKind.VAR_SAMP, AggregateKind.STDDEV_SAMP)
    if not isinstance(m2, float) or not isinstance(count, int) or count <= int(is_sample):
        return None
    variance = m2 / (count - 1 if is_sample else count)
    if kind in (AggregateKind.STDDEV_SAMP, AggregateKind.STDDEV_POP):
        return math.sqrt(variance) if variance >= 0 else math.nan
    return variance


def _value(expression: Expression, group: _Group) -> Cell:
    if group.is_withheld and depends_on_aggregates(expression):
        return None
    return evaluate(expression, group.keys, group.aggregates)


def _is_kept(having: Expression | None, group: _Group) -> bool:
    if having is None:
        return True
    if not group.is_withheld:
        return evaluate(having, group.keys, group.aggregates) is True
    return all(
        depends_on_aggregates(condition)
        or evaluate(condition, group.keys, group.aggregates) is True
        for condition in _conditions(having)
    )


def _conditions(having: Expression) -> Sequence[Expression]:
    """The conditions that must all hold."""
    if isinstance(having, Call) and having.operator == "and":
        return [part for argument in having.arguments for part in _conditions(argument)]
    return [having]


_SortKey = tuple[int, tuple[int, float | int | str]]


def _ascending(value: Cell) -> _SortKey:
    return (1, (0, 0)) if value is None else (0, sort_key(value))


def _sort(
    groups: list[_Group], expression: Expression, *, descending: bool, nulls_first: bool
) -> None:
    """Sort by one key, stable; withheld figures come last whatever the direction."""
    hides = depends_on_aggregates(expression)
    values = {id(group): _value(expression, group) for group in groups}
    withheld = [group for group in groups if hides and group.is_withheld]
    shown = [group for group in groups if not (hides and group.is_withheld)]
    nulls = [group for group in shown if values[id(group)] is None]
    rest = [group for group in shown if values[id(group)] is not None]
    rest.sort(key=lambda group: sort_key(values[id(group)]), reverse=descending)
    groups[:] = [*nulls, *rest, *withheld] if nulls_first else [*rest, *nulls, *withheld]


def _typed(column_type: ColumnType, value: Cell) -> Cell:
    """The value in its column's type: whole numbers become reals where the column is one."""
    if column_type is ColumnType.NUMBER and isinstance(value, int):
        return float(value)
    return value
