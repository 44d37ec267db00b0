"""sqlglot's tree to the planner's expressions, by an allow-list of node types.

A node type that has no handler here is refused; an argument of a node that its handler does not
name is refused too. Columns resolve against one dataset; identifiers are refused wherever they
stand, except in COUNT(DISTINCT resident_id).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping

from sqlglot import exp

from federation.core.aggregates import Aggregate, AggregateKind, aggregate_of
from federation.core.datasets import RESIDENT_COLUMN, ColumnClass, Dataset, DatasetColumn
from federation.core.expressions import (
    AggregateRef,
    ColumnRef,
    Expression,
    Literal,
)
from federation.core.functions import call, date_literal
from federation.core.model import ColumnType
from federation.core.refusals import refuse, shown_name
from federation.errors import Refusal

__all__ = ["Translator", "check_arguments", "column_of"]

_NUMBER_MAX = 10**15
_TEXT_MAX = 200

_BINARY: Mapping[type[exp.Expression], str] = {
    exp.Add: "add",
    exp.Sub: "subtract",
    exp.Mul: "multiply",
    exp.Div: "divide",
    exp.IntDiv: "whole_divide",
    exp.Mod: "modulo",
    exp.EQ: "equal",
    exp.NEQ: "not_equal",
    exp.LT: "less",
    exp.LTE: "less_equal",
    exp.GT: "greater",
    exp.GTE: "greater_equal",
    exp.And: "and",
    exp.Or: "or",
    exp.Like: "like",
    exp.ILike: "ilike",
    exp.DPipe: "concat",
    exp.Nullif: "nullif",
    exp.Left: "left",
    exp.Right: "right",
}

_UNARY: Mapping[type[exp.Expression], str] = {
    exp.Not: "not",
    exp.Abs: "abs",
    exp.Floor: "floor",
    exp.Ceil: "ceil",
    exp.Lower: "lower",
    exp.Upper: "upper",
    exp.Trim: "trim",
    exp.Length: "length",
    exp.Year: "year",
    exp.Quarter: "quarter",
    exp.Month: "month",
    exp.Week: "week",
    exp.Day: "day",
}

_VARIADIC: Mapping[type[exp.Expression], str] = {
    exp.Coalesce: "coalesce",
    exp.Least: "least",
    exp.Greatest: "greatest",
}

_CASTS: Mapping[exp.DType, str] = {
    exp.DType.INT: "to_integer",
    exp.DType.DOUBLE: "to_number",
    exp.DType.FLOAT: "to_number",
    exp.DType.VARCHAR: "to_text",
    exp.DType.TEXT: "to_text",
}

_REFUSED: tuple[tuple[tuple[type[exp.Expression], ...], Refusal], ...] = (
    ((exp.Window,), Refusal.WINDOW_FUNCTION),
    ((exp.Filter,), Refusal.AGGREGATE_FILTER),
    ((exp.Subquery, exp.Select, exp.SetOperation, exp.Exists), Refusal.SUBQUERY),
    ((exp.Parameter, exp.Placeholder, exp.SessionParameter), Refusal.PARAMETER),
    ((exp.Star,), Refusal.STAR),
    (
        (
            exp.Min,
            exp.Max,
            exp.ArgMin,
            exp.ArgMax,
            exp.Median,
            exp.Quantile,
            exp.ApproxQuantile,
            exp.PercentileCont,
            exp.PercentileDisc,
            exp.WithinGroup,
        ),
        Refusal.MIN_MAX,
    ),
    ((exp.Distinct,), Refusal.DISTINCT),
)

_HARMLESS = frozenset(
    {"big_int", "typed", "safe", "date_part_boundary", "ignore_nulls", "is_string"}
)
"""What the parser notes about the dialect; changes nothing here."""


def check_arguments(node: exp.Expression, *known: str) -> None:
    """Refuse a node that carries more than its handler looks at."""
    for name, value in node.args.items():
        if value and name not in known and name not in _HARMLESS and not name.startswith("_"):
            refuse(
                Refusal.FUNCTION_NOT_ALLOWED,
                f"{node.key.upper()} is used with an option that is not planned.",
            )


def _identifier(node: exp.Expression | str | None) -> str:
    if isinstance(node, exp.Identifier):
        return str(node.this)
    return str(node or "")


def column_of(dataset: Dataset, relation: str, node: exp.Column) -> DatasetColumn:
    """The dictionary's column that the node names."""
    check_arguments(node, "this", "table")
    if isinstance(node.this, exp.Star):
        refuse(Refusal.STAR)
    qualifier = _identifier(node.args.get("table")).lower()
    if qualifier not in ("", relation):
        refuse(Refusal.UNKNOWN_TABLE, f"There is no dataset {shown_name(qualifier)} in FROM.")
    name = _identifier(node.this).lower()
    column = dataset.by_name.get(name)
    if column is None:
        near = difflib.get_close_matches(name, dataset.by_name, n=1)
        listed = ", ".join(
            known.name
            for known in dataset.columns
            if known.column_class is not ColumnClass.IDENTIFIER
        )
        hint = f"Perhaps {near[0]}." if near else f"Its columns: {listed}."
        text = f"{dataset.name} has no column {shown_name(name)}."
        refuse(Refusal.UNKNOWN_COLUMN, text, hint=hint)
    return column


class Translator:
    """Turns the expressions of one SELECT over one dataset; collects its aggregates in order."""

    def __init__(self, dataset: Dataset, relation: str) -> None:
        self._dataset = dataset
        self._relation = relation
        self._in_aggregate = False
        self._aggregates_allowed = False
        self.aggregates: list[Aggregate] = []
        self.aliases: dict[str, Expression] = {}
        self._handlers: Mapping[type[exp.Expression], Callable[[exp.Expression], Expression]] = {
            exp.Paren: lambda node: self._translate(node.this),
            exp.Column: self._column,
            exp.Literal: self._literal,
            exp.Boolean: lambda node: Literal(bool(node.this), ColumnType.BOOLEAN),
            exp.Null: lambda _node: Literal(None, None),
            exp.Neg: self._negate,
            exp.Is: self._is,
            exp.In: self._in,
            exp.Between: self._between,
            exp.Case: self._case,
            exp.If: self._if,
            exp.Round: self._round,
            exp.Substring: self._substring,
            exp.Cast: self._cast,
            exp.TryCast: self._cast,
            exp.Extract: self._extract,
            exp.TimestampTrunc: self._date_trunc,
            exp.DateTrunc: self._date_trunc,
            exp.DateDiff: self._date_diff,
        }

    def row(self, node: exp.Expression) -> Expression:
        """An expression over one row: WHERE, GROUP BY."""
        self._aggregates_allowed = False
        return self._translate(node)

    def group(self, node: exp.Expression) -> Expression:
        """An expression over one group: SELECT, HAVING, ORDER BY; columns still unresolved."""
        self._aggregates_allowed = True
        return self._translate(node)

    def _translate(self, node: exp.Expression) -> Expression:
        kind = type(node)
        if kind in _BINARY:
            check_arguments(node, "this", "expression")
            return call(_BINARY[kind], self._child(node), self._child(node, "expression"))
        if kind in _UNARY:
            check_arguments(node, "this")
            return call(_UNARY[kind], self._child(node))
        if kind in _VARIADIC:
            check_arguments(node, "this", "expressions")
            rest = [self._translate(part) for part in node.expressions]
            return call(_VARIADIC[kind], self._child(node), *rest)
        handler = self._handlers.get(kind)
        if handler is not None:
            return handler(node)
        aggregate = aggregate_of(node)
        if aggregate is not None:
            return self._aggregate(node, aggregate)
        return self._refused(node)

    def _child(self, node: exp.Expression, name: str = "this") -> Expression:
        child = node.args.get(name)
        if not isinstance(child, exp.Expression):
            refuse(Refusal.SYNTAX, f"{node.key.upper()} lacks an argument.")
        return self._translate(child)

    def _refused(self, node: exp.Expression) -> Expression:
        for kinds, refusal in _REFUSED:
            if isinstance(node, kinds):
                refuse(refusal)
        name = str(node.this) if isinstance(node, exp.Anonymous) else node.key
        text = f"{shown_name(name)} is not on the list of functions."
        refuse(Refusal.FUNCTION_NOT_ALLOWED, text)

    # Leaves.

    def _column(self, node: exp.Expression) -> Expression:
        if not isinstance(node, exp.Column):
            return self._refused(node)
        name = _identifier(node.this).lower()
        if self._aggregates_allowed and name in self.aliases and not node.args.get("table"):
            return self._alias(name)
        column = column_of(self._dataset, self._relation, node)
        if column.column_class is ColumnClass.IDENTIFIER:
            text = f"{column.name} is an identifier."
            refuse(Refusal.IDENTIFIER_SELECTED, text)
        return ColumnRef(column.name, column.type, column.column_class, column.derived)

    def _alias(self, name: str) -> Expression:
        """What an output's name stands for in HAVING; a column of that name would be ambiguous."""
        expression = self.aliases[name]
        is_itself = isinstance(expression, ColumnRef) and expression.name == name
        if name in self._dataset.by_name and not is_itself:
            text = f"{shown_name(name)} is a column and the name of another output."
            refuse(Refusal.DUPLICATE_NAME, text)
        if self._in_aggregate and not is_itself:
            refuse(Refusal.NESTED_AGGREGATE, "An output's name stands inside an aggregate.")
        return expression

    def _literal(self, node: exp.Expression) -> Expression:
        text = str(node.this)
        if node.args.get("is_string"):
            if len(text) > _TEXT_MAX or not text.isprintable():
                refuse(Refusal.LITERAL)
            return Literal(text, ColumnType.STRING)
        if text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= _NUMBER_MAX:
            return Literal(int(text), ColumnType.INTEGER)
        try:
            value = float(text)
        except ValueError:
            refuse(Refusal.LITERAL)
        if not math.isfinite(value) or abs(value) > _NUMBER_MAX:
            refuse(Refusal.LITERAL)
        return Literal(value, ColumnType.NUMBER)

    # Operators whose nodes are shaped in their own way.

    def _negate(self, node: exp.Expression) -> Expression:
        check_arguments(node, "this")
        value = self._child(node)
        if isinstance(value, Literal) and isinstance(value.value, int | float):
            return Literal(-value.value, value.type)
        return call("negate", value)

    def _is(self, node: exp.Expression) -> Expression:
        check_arguments(node, "this", "expression")
        if not isinstance(node.expression, exp.Null):
            refuse(Refusal.FUNCTION_NOT_ALLOWED, "IS is planned with NULL only.")
        return call("is_null", self._child(node))

    def _in(self, node: exp.Expression) -> Expression:
        if node.args.get("query") is not None:
            refuse(Refusal.SUBQUERY)
        check_arguments(node, "this", "expressions")
        values = [self._translate(part) for part in node.expressions]
        if not values or not all(isinstance(value, Literal) for value in values):
            refuse(Refusal.LITERAL, "IN takes a list of literals.")
        return call("in", self._child(node), *values)

    def _between(self, node: exp.Expression) -> Expression:
        check_arguments(node, "this", "low", "high")
        value = self._child(node)
        low, high = self._child(node, "low"), self._child(node, "high")
        return call("and", call("greater_equal", value, low), call("less_equal", value, high))

    def _case(self, node: exp.Expression) -> Expression:
        check_arguments(node, "this", "ifs", "default")
        subject = self._child(node) if node.this is not None else None
        parts: list[Expression] = []
        for branch in node.args.get("ifs") or ():
            check_arguments(branch, "this", "true")
            condition = self._child(branch)
            if subject is not None:
                condition = call("equal", subject, condition)
            parts += [condition, self._child(branch, "true")]
        if not parts:
            refuse(Refusal.SYNTAX, "CASE lacks WHEN.")
        has_else = node.args.get("default") is not None
        parts.append(self._child(node, "default") if has_else else Literal(None, None))
        return call("case", *parts)

    def _if(self, node: exp.Expression) -> Expression:
        check_arguments(node, "this", "true", "false")
        has_else = node.args.get("false") is not None
        otherwise = self._child(node, "false") if has_else else Literal(None, None)
        return call("case", self._child(node), self._child(node, "true"), otherwise)

    def _round(self, node: exp.Expression) -> Expression:
        check_arguments(node, "this", "decimals")
        if node.args.get("decimals") is None:
            return call("round", self._child(node))
        return call("round", self._child(node), self._child(node, "decimals"))

    def _substring(self, node: exp.Expression) -> Expression:
        check_arguments(node, "this", "start", "length")
        names = [name for name in ("start", "length") if node.args.get(name) is not None]
        return call("substring", self._child(node), *(self._child(node, name) for name in names))

    def _cast(self, node: exp.Expression) -> Expression:
        check_arguments(node, "this", "to")
        target = node.args["to"]
        value = self._child(node)
        kind = target.this if isinstance(target, exp.DataType) else exp.DType.UNKNOWN
        if kind is exp.DType.DATE:
            return value if value.type is ColumnType.DATE else date_literal(value)
        if kind not in _CASTS or target.expressions:
            refuse(
                Refusal.FUNCTION_NOT_ALLOWED,
                "CAST is planned to INTEGER, DOUBLE, VARCHAR and, for a literal, DATE.",
            )
        return call(_CASTS[kind], value)

    def _unit(self, node: exp.Expression | None) -> Literal:
        text = str(node.this).lower() if isinstance(node, exp.Var | exp.Literal) else ""
        return Literal(text, ColumnType.STRING)

    def _extract(self, node: exp.Expression) -> Expression:
        check_arguments(node, "this", "expression")
        unit = str(self._unit(node.this).value)
        if unit not in ("year", "quarter", "month", "week", "day"):
            refuse(Refusal.LITERAL, "EXTRACT takes year, quarter, month, week or day.")
        return call(unit, self._child(node, "expression"))

    def _date_trunc(self, node: exp.Expression) -> Expression:
        check_arguments(node, "this", "unit")
        return call("date_trunc", self._unit(node.args.get("unit")), self._child(node))

    def _date_diff(self, node: exp.Expression) -> Expression:
        check_arguments(node, "this", "expression", "unit")
        unit = self._unit(node.args.get("unit"))
        return call("date_diff", unit, self._child(node, "expression"), self._child(node))

    # Aggregates.

    def _aggregate(self, node: exp.Expression, kind: AggregateKind) -> Expression:
        if self._in_aggregate:
            refuse(Refusal.NESTED_AGGREGATE)
        if not self._aggregates_allowed:
            refuse(Refusal.AGGREGATE_MISPLACED)
        aggregate = self._planned(node, kind)
        if aggregate not in self.aggregates:
            self.aggregates.append(aggregate)
        index = self.aggregates.index(aggregate)
        return AggregateRef(index, aggregate.type, aggregate.magnitude)

    def _planned(self, node: exp.Expression, kind: AggregateKind) -> Aggregate:
        check_arguments(node, "this")
        argument = node.this
        if isinstance(argument, exp.Distinct):
            return self._count_residents(argument, kind)
        if kind is AggregateKind.COUNT and isinstance(argument, exp.Star):
            return Aggregate(AggregateKind.COUNT_ROWS, None)
        self._in_aggregate = True
        try:
            value = self._child(node)
        finally:
            self._in_aggregate = False
        if isinstance(value, Literal) and value.type is not None and kind is AggregateKind.COUNT:
            return Aggregate(AggregateKind.COUNT_ROWS, None)
        return Aggregate.over(kind, value)

    def _count_residents(self, node: exp.Distinct, kind: AggregateKind) -> Aggregate:
        parts = node.expressions
        if kind is not AggregateKind.COUNT or len(parts) != 1:
            refuse(Refusal.DISTINCT)
        check_arguments(node, "expressions")
        if not isinstance(parts[0], exp.Column):
            refuse(Refusal.DISTINCT)
        if column_of(self._dataset, self._relation, parts[0]).name != RESIDENT_COLUMN:
            refuse(Refusal.DISTINCT)
        return Aggregate(AggregateKind.COUNT_RESIDENTS, None)
