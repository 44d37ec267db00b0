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
from collections.abc import Sequence
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
    "group_key",
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


def group_key(keys: Sequence[Cell]) -> tuple[Cell, ...]:
    """The keys as a dictionary's key: NaN, which Python holds unequal to itself, made equal."""
    if any(isinstance(key, float) and math.isnan(key) for key in keys):
        return tuple("NaN" if isinstance(key, float) and math.isnan(key) else key for key in keys)
    return tuple(keys)


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
    lists = [_cells(part.type, values) for part, values in zip(wanted, columns, strict=True)]
    exact = {group_key(row[:key_count]): row[key_count:] for row in zip(*lists, strict=True)}
    keys = [column.values for column in table.columns[:key_count]]
    rows = zip(*keys, strict=True) if keys else iter([()] * table.row_count)
    found = [exact.get(group_key(row)) for row in rows]
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


_PYTHON_TYPES: dict[ColumnType, tuple[type, ...]] = {
    ColumnType.STRING: (str,),
    ColumnType.DATE: (str,),
    ColumnType.INTEGER: (int,),
    ColumnType.NUMBER: (float,),
    ColumnType.BOOLEAN: (bool,),
}


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
        allowed = (*_PYTHON_TYPES[column.type], type(None))
        if any(type(value) not in allowed for value in column.values):
            raise PartialInvalidError(f"{column.name} holds values of another type")
    rows = list(table.rows())
    suppressed = set(answer.suppressed_rows)
    if len(suppressed) != len(answer.suppressed_rows) or not suppressed <= set(range(len(rows))):
        raise PartialInvalidError("a withheld row is not in the table")
    key_count = len(plan.groups)
    if len({group_key(row[:key_count]) for row in rows}) != len(rows):
        raise PartialInvalidError("a group stands twice")
    for index, row in enumerate(rows):
        figures = dict(zip((part.name for part in parts), row, strict=True))
        if index in suppressed:
            if any(value is not None for value in row[key_count:]):
                raise PartialInvalidError("a withheld row holds figures")
        else:
            _check_figures(parts, figures)


def _check_figures(parts: Sequence[PartialColumn], figures: dict[str, Cell]) -> None:
    """Refuse counts that no rows could have."""
    total = figures["p0_n"]
    if not isinstance(total, int) or total < 0 or figures["residents_exact"] is None:
        raise PartialInvalidError("a count of rows is missing or negative")
    for part in parts:
        value = figures[part.name]
        rows = total if part.slot is None else figures[f"p{part.slot}_n"]
        match part.role:
            case Role.COUNT:
                if not isinstance(value, int) or not 0 <= value <= total:
                    raise PartialInvalidError(f"{part.name} is no count of the group's rows")
            case Role.RESIDENTS:
                within = isinstance(value, int) and isinstance(rows, int) and value <= rows
                if not within or (value == 0) != (rows == 0):
                    raise PartialInvalidError(f"{part.name} is no count of residents")
            case Role.SUM | Role.MEAN | Role.M2:
                if (value is None) != (rows == 0):
                    raise PartialInvalidError(f"{part.name} does not fit its count")
            case Role.KEY | Role.EXACT:
                pass
