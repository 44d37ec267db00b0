"""The statements a node makes for itself from the plan; no text that was sent gets into them.

The executor registers two relations: the dataset, holding exactly the rows the site answers for,
and `places` (home, township, county), one row a home. Columns of the dataset are those of the
columnar replica, dates as DATE. Names come from the dictionary; literals are rendered by sqlglot.

Counting distinct residents costs ten times the rest. Where the replica knows the most rows that one
resident has, m, a group of n rows has at least ceil(n / m) residents; only groups whose bound is
below the threshold are counted exactly, by `residents_sql`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

from federation.core.datasets import DATASETS, RESIDENT_COLUMN
from federation.core.expressions import Call, ColumnRef, Expression, Literal
from federation.core.functions import OPERATORS
from federation.core.model import ColumnType
from federation.core.plan import LogicalPlan, PartialSpec

__all__ = ["PLACES", "node_sql", "residents_sql"]

PLACES = "places"
_RESIDENT = f'd."{RESIDENT_COLUMN}"'


def _literal(literal: Literal) -> str:
    value = literal.value
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return f"CAST({value} AS BIGINT)"
        case float():
            # An exponent makes DuckDB read a double; without one it would read a decimal.
            text = repr(value)
            return f"({text})" if "e" in text else f"({text}e0)"
        case str():
            text = exp.Literal.string(value).sql(dialect="duckdb")
            return f"DATE {text}" if literal.type is ColumnType.DATE else text


def _render(expression: Expression) -> str:
    match expression:
        case Literal():
            return _literal(expression)
        case ColumnRef():
            relation = "p" if expression.derived else "d"
            text = f'{relation}."{expression.name}"'
            is_integer = expression.type is ColumnType.INTEGER
            return f"CAST({text} AS BIGINT)" if is_integer else text
        case Call():
            arguments = [_render(argument) for argument in expression.arguments]
            return OPERATORS[expression.operator].render(arguments)
        case _:
            raise TypeError("a group's reference stands in a row's expression")


def _source(plan: LogicalPlan) -> str:
    """FROM and WHERE."""
    text = f'FROM "{plan.dataset}" AS d'
    if plan.needs_places:
        text += f' LEFT JOIN "{PLACES}" AS p ON p."home" = d."home"'
    if plan.where is not None:
        text += f" WHERE {_render(plan.where)}"
    return text


def _group_by(plan: LogicalPlan) -> str:
    positions = ", ".join(str(index + 1) for index in range(len(plan.groups)))
    return f" GROUP BY {positions}" if positions else ""


def _figures(spec: PartialSpec) -> Iterator[str]:
    """The columns of one partial, residents left out."""
    name = f"p{spec.slot}"
    if spec.argument is None:
        yield f"COUNT(*) AS {name}_n"
        return
    argument = _render(spec.argument)
    yield f"COUNT({argument}) AS {name}_n"
    if spec.has_sum:
        is_integer = spec.argument.type is ColumnType.INTEGER
        total = f"CAST(SUM({argument}) AS BIGINT)" if is_integer else f"SUM({argument})"
        yield f"{total} AS {name}_sum"
    if spec.has_moments:
        yield f"AVG({argument}) AS {name}_mean"
        yield f"VAR_POP({argument}) * COUNT({argument}) AS {name}_m2"


def _distinct(argument: Expression | None) -> str:
    if argument is None:
        return f"COUNT(DISTINCT {_RESIDENT})"
    return f"COUNT(DISTINCT CASE WHEN {_render(argument)} IS NOT NULL THEN {_RESIDENT} END)"


def _bound(count: str, rows_per_resident_max: int) -> str:
    if rows_per_resident_max == 1:
        return count
    return f"(({count} + {rows_per_resident_max - 1}) // {rows_per_resident_max})"


def _counts_rows(plan: LogicalPlan) -> bool:
    """Whether a row is a resident, so that counting rows counts residents."""
    return DATASETS[plan.dataset].one_row_per_resident


def _inner(plan: LogicalPlan, *, is_bounded: bool) -> str:
    """The grouped statement; resident counts only where they are counted exactly."""
    columns = [f"{_render(group)} AS g{index}" for index, group in enumerate(plan.groups)]
    for spec in plan.partials:
        columns += _figures(spec)
        if spec.argument is not None and not is_bounded:
            columns.append(f"{_distinct(spec.argument)} AS p{spec.slot}_residents")
    if not is_bounded or (plan.counts_residents and not _counts_rows(plan)):
        columns.append(f"{_distinct(None)} AS residents")
    return f"SELECT {', '.join(columns)} {_source(plan)}{_group_by(plan)}"


def _outer_columns(plan: LogicalPlan, bound: int | None) -> Iterator[str]:
    """The columns of partials.partial_columns, over the inner statement's."""
    counts_exactly = bound is None or plan.counts_residents
    exact = ["TRUE"] if counts_exactly or _counts_rows(plan) else ["FALSE"]
    yield from (f"g{index}" for index in range(len(plan.groups)))
    residents = "residents"
    if bound is not None and (not plan.counts_residents or _counts_rows(plan)):
        residents = _bound("p0_n", bound)
    for spec in plan.partials:
        name = f"p{spec.slot}"
        yield f"{name}_n"
        if spec.argument is None:
            continue
        if spec.has_sum:
            yield f"{name}_sum"
        if spec.has_moments:
            yield f"{name}_mean"
            yield f"{name}_m2"
        if bound is None:
            yield f"{name}_residents"
            continue
        # Each row without a value takes at most one resident away.
        low = f"GREATEST({_bound(f'{name}_n', bound)}, {residents} - (p0_n - {name}_n))"
        yield f"{low} AS {name}_residents"
        if not _counts_rows(plan):
            exact.append(f"{name}_n = p0_n")
    yield f"{residents} AS residents"
    yield f"({' AND '.join(exact)}) AS residents_exact"


def node_sql(plan: LogicalPlan, *, rows_per_resident_max: int | None = None) -> str:
    """The statement whose columns are those of partials.partial_columns.

    With `rows_per_resident_max`, the most rows that one resident has in the relation, resident
    counts become lower bounds where `residents_exact` is false; without it they are exact.
    COUNT(DISTINCT resident_id), if it was asked for, is exact either way.
    """
    bound = 1 if _counts_rows(plan) else rows_per_resident_max
    if bound is not None and bound < 1:
        raise ValueError("rows_per_resident_max must be at least 1")
    columns = ", ".join(_outer_columns(plan, bound))
    return f"SELECT {columns} FROM ({_inner(plan, is_bounded=bound is not None)}) AS grouped"  # noqa: S608


def residents_sql(plan: LogicalPlan, *, rows_per_resident_max: int, cell_count_min: int) -> str:
    """Keys and exact resident counts of the groups that a bound leaves below the threshold."""
    keys = [f"g{index}" for index in range(len(plan.groups))]
    named = [f"{_render(group)} AS {key}" for group, key in zip(plan.groups, keys, strict=True)]
    specs = [spec for spec in plan.partials if spec.argument is not None]
    flags = [
        f"({_render(spec.argument)} IS NOT NULL) AS a{spec.slot}"
        for spec in specs
        if spec.argument is not None
    ]
    resident = f"{_RESIDENT} AS resident"
    base = f"SELECT {', '.join([*named, *flags, resident])} {_source(plan)}"
    rows_max = (cell_count_min - 1) * rows_per_resident_max
    counts = ["COUNT(*)", *(f"COUNT(*) FILTER (WHERE a{spec.slot})" for spec in specs)]
    small = " OR ".join(f"({count} BETWEEN 1 AND {rows_max})" for count in counts)
    match = " AND ".join(f"base.{key} IS NOT DISTINCT FROM small.{key}" for key in keys)
    exact = [
        *(f"base.{key}" for key in keys),
        *(f"COUNT(DISTINCT CASE WHEN a{spec.slot} THEN resident END)" for spec in specs),
        "COUNT(DISTINCT resident)",
    ]
    if not keys:
        return f"WITH base AS ({base}) SELECT {', '.join(exact)} FROM base"  # noqa: S608
    key_list = ", ".join(keys)
    return (  # names come from the dictionary, literals from sqlglot
        f"WITH base AS NOT MATERIALIZED ({base}), "  # noqa: S608
        f"small AS (SELECT {key_list} FROM base GROUP BY {key_list} HAVING {small}) "
        f"SELECT {', '.join(exact)} FROM base SEMI JOIN small ON {match}"
        f"{_group_by(plan)}"
    )
