"""The named partials: which columns a site's table has, and whether a table is one.

Column names, in this order (they are on the wire, so they are stable):

    g0 g1 …          the group's keys
    p0_n             rows
    p1_n             rows whose first argument is not null; likewise p2_n …
    p1_sum           their sum, null if there is none
    p1_mean p1_m2    their mean, and the sum of squared distances from it
    p1_residents     distinct residents among those rows
    residents        distinct residents of the group
    residents_exact  false if one of the resident counts is a lower bound

A lower bound is never below 1 where there is a row, so that a threshold on it only errs towards
withholding.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from federation.core.expressions import Expression
from federation.core.model import Cell, Column, ColumnType, PartialAnswer, Table
from federation.core.plan import LogicalPlan
from federation.errors import PartialInvalidError

__all__ = [
    "PartialColumn",
    "Role",
    "check_answer",
    "empty_table",
    "group_keys",
    "needs_exact",
    "partial_columns",
    "table_of",
    "with_exact",
]

Fetched = Cell | dt.date


class Role(StrEnum):
    """What a column of partials holds, which says how it merges."""

    KEY = "key"
    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    M2 = "m2"
    RESIDENTS = "residents"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class PartialColumn:
    """One column; `slot` is the plan's partial that it belongs to, None for keys and residents."""

    name: str
    type: ColumnType
    role: Role
    slot: int | None = None


def partial_columns(plan: LogicalPlan) -> tuple[PartialColumn, ...]:
    """The columns of every partial table of the plan, in order."""
    columns = [
        PartialColumn(f"g{index}", _key_type(group), Role.KEY)
        for index, group in enumerate(plan.groups)
    ]
    for spec in plan.partials:
        name, slot = f"p{spec.slot}", spec.slot
        columns.append(PartialColumn(f"{name}_n", ColumnType.INTEGER, Role.COUNT, slot))
        if spec.argument is None:
            continue
        if spec.has_sum:
            sum_type = spec.argument.type or ColumnType.NUMBER
            columns.append(PartialColumn(f"{name}_sum", sum_type, Role.SUM, slot))
        if spec.has_moments:
            columns.append(PartialColumn(f"{name}_mean", ColumnType.NUMBER, Role.MEAN, slot))
            columns.append(PartialColumn(f"{name}_m2", ColumnType.NUMBER, Role.M2, slot))
        residents = f"{name}_residents"
        columns.append(PartialColumn(residents, ColumnType.INTEGER, Role.RESIDENTS, slot))
    columns.append(PartialColumn("residents", ColumnType.INTEGER, Role.RESIDENTS))
    columns.append(PartialColumn("residents_exact", ColumnType.BOOLEAN, Role.EXACT))
    return tuple(columns)


def _key_type(group: Expression) -> ColumnType:
    return group.type or ColumnType.STRING


def empty_table(plan: LogicalPlan) -> Table:
    """The table without a row."""
    return Table(tuple(Column(part.name, part.type, ()) for part in partial_columns(plan)))


def table_of(plan: LogicalPlan, columns: Sequence[Sequence[Fetched]]) -> Table:
    """The table of what a site's database returned for node_sql: one list a column, in order.

    Raises:
        PartialInvalidError: A list is missing, or holds values of another type.
    """
    parts = partial_columns(plan)
    if len(columns) != len(parts):
        raise PartialInvalidError(f"{len(columns)} columns came for {len(parts)} planned")
    made = tuple(
        Column(part.name, part.type, _cells(part.type, values))
        for part, values in zip(parts, columns, strict=True)
    )
    return Table(made)


def _cells(column_type: ColumnType, values: Sequence[Fetched]) -> tuple[Cell, ...]:
    match column_type:
        case ColumnType.NUMBER:
            return tuple(
                None if value is None else float(value)  # type: ignore[arg-type]
                for value in values
            )
        case ColumnType.DATE:
            return tuple(
                value.isoformat() if isinstance(value, dt.date) else value for value in values
            )
        case _:
            return tuple(values)  # type: ignore[arg-type]


def group_keys(plan: LogicalPlan, table: Table) -> list[tuple[Cell, ...]]:
    """The keys of each row as dictionary keys: NaN, unequal to itself in Python, made equal."""
    count = len(plan.groups)
    if count == 0:
        return [()] * table.row_count
    lists = [
        [_normal(value) for value in column.values]
        if column.type is ColumnType.NUMBER
        else column.values
        for column in table.columns[:count]
    ]
    return list(zip(*lists, strict=True))


def _normal(value: Cell) -> Cell:
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def needs_exact(plan: LogicalPlan, table: Table, cell_count_min: int) -> bool:
    """Whether a lower bound is below the threshold, so that residents_sql must be run.

    `cell_count_min` is the largest threshold that any node above may apply.
    """
    exact = table.column("residents_exact").values
    if all(exact):
        return False
    counts = [
        table.column(part.name).values
        for part in partial_columns(plan)
        if part.role is Role.RESIDENTS
    ]
    return any(
        not is_exact and any(_is_small(count, cell_count_min) for count in row)
        for is_exact, *row in zip(exact, *counts, strict=True)
    )


def _is_small(count: Cell, cell_count_min: int) -> bool:
    return isinstance(count, int) and 0 < count < cell_count_min


def with_exact(plan: LogicalPlan, table: Table, columns: Sequence[Sequence[Fetched]]) -> Table:
    """The table with the counts of residents_sql in place of the lower bounds.

    `columns` are the lists that residents_sql returned: the keys, then every resident count.
    """
    parts = partial_columns(plan)
    wanted = [part for part in parts if part.role in (Role.KEY, Role.RESIDENTS)]
    key_count = len(plan.groups)
    counted = Table(
        tuple(
            Column(part.name, part.type, _cells(part.type, values))
            for part, values in zip(wanted, columns, strict=True)
        )
    )
    rows = zip(*(column.values for column in counted.columns[key_count:]), strict=True)
    exact = dict(zip(group_keys(plan, counted), rows, strict=True))
    found = [exact.get(key) for key in group_keys(plan, table)]
    position = {part.name: index for index, part in enumerate(wanted[key_count:])}
    made: list[Column] = []
    for part, column in zip(parts, table.columns, strict=True):
        values = column.values
        if part.role is Role.EXACT:
            values = tuple(
                old if row is None else True for old, row in zip(values, found, strict=True)
            )
        elif part.role is Role.RESIDENTS:
            at = position[part.name]
            values = tuple(
                old if row is None else row[at] for old, row in zip(values, found, strict=True)
            )
        made.append(Column(column.name, column.type, values))
    return Table(tuple(made))


def check_answer(plan: LogicalPlan, answer: PartialAnswer) -> None:
    """Refuse an answer that is not one to this plan; call it on whatever came from a peer.

    Raises:
        PartialInvalidError: Other columns or types, a negative count, more residents than rows, a
            group twice, or figures in a row that is said to be withheld.
    """
    parts = partial_columns(plan)
    table = answer.table
    named = tuple((column.name, column.type) for column in table.columns)
    if named != tuple((part.name, part.type) for part in parts):
        raise PartialInvalidError("the columns are not those of the plan")
    for column in table.columns:
        if not set(map(type, column.values)) <= _PYTHON_TYPES[column.type]:
            raise PartialInvalidError(f"{column.name} holds values of another type")
    suppressed = frozenset(answer.suppressed_rows)
    known = suppressed <= set(range(table.row_count))
    if len(suppressed) != len(answer.suppressed_rows) or not known:
        raise PartialInvalidError("a withheld row is not in the table")
    if len(set(group_keys(plan, table))) != table.row_count:
        raise PartialInvalidError("a group stands twice")
    for part, column in zip(parts, table.columns, strict=True):
        if part.role is not Role.KEY:
            _check_withheld(column, suppressed)
            _check_figures(part, table, suppressed)


def _check_withheld(column: Column, suppressed: Set[int]) -> None:
    if any(column.values[index] is not None for index in suppressed):
        raise PartialInvalidError("a withheld row holds figures")


def _check_figures(part: PartialColumn, table: Table, suppressed: Set[int]) -> None:
    """Refuse a column with a figure that no rows could have."""
    counted = "p0_n" if part.slot is None or part.role is Role.COUNT else f"p{part.slot}_n"
    pairs = zip(table.column(part.name).values, table.column(counted).values, strict=True)
    is_possible = _POSSIBLE[part.role]
    for index, (value, rows) in enumerate(pairs):
        if not is_possible(value, rows) and index not in suppressed:
            raise PartialInvalidError(f"{part.name} does not fit the rows it is said to come from")


def _is_count(value: Cell, rows: Cell) -> bool:
    return isinstance(value, int) and isinstance(rows, int) and 0 <= value <= rows


def _is_resident_count(value: Cell, rows: Cell) -> bool:
    return _is_count(value, rows) and (value == 0) == (rows == 0)


def _is_figure(value: Cell, rows: Cell) -> bool:
    return (value is None) == (rows == 0)


_POSSIBLE: Mapping[Role, Callable[[Cell, Cell], bool]] = {
    Role.COUNT: _is_count,
    Role.SUM: _is_figure,
    Role.MEAN: _is_figure,
    Role.M2: _is_figure,
    Role.RESIDENTS: _is_resident_count,
    Role.EXACT: lambda value, _rows: value is not None,
}

_PYTHON_TYPES: Mapping[ColumnType, frozenset[type]] = {
    ColumnType.STRING: frozenset({str, type(None)}),
    ColumnType.DATE: frozenset({str, type(None)}),
    ColumnType.INTEGER: frozenset({int, type(None)}),
    ColumnType.NUMBER: frozenset({float, type(None)}),
    ColumnType.BOOLEAN: frozenset({bool, type(None)}),
}
