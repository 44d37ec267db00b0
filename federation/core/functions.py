"""The allow-list of operators and scalar functions: types, and what each becomes in DuckDB's SQL.

A name that is not in `OPERATORS` cannot be planned. Every rendering is total: no value of a row may
raise at a node, because an error would tell about the row. (Hence whole-number division by written
divisors only, TRY_CAST, and magnitudes that keep integers within 64 bits.)
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from federation.core.expressions import Call, Expression, Literal
from federation.core.model import ColumnType
from federation.core.refusals import refuse
from federation.errors import Refusal

__all__ = ["DATE_UNITS", "MAGNITUDE_MAX", "OPERATORS", "Operator", "call", "date_literal"]

MAGNITUDE_MAX = 2**62
"""No integer expression may exceed it, so that one addition more still fits 64 bits."""

DATE_UNITS = ("year", "quarter", "month", "week", "day")

_NUMERIC = frozenset({ColumnType.INTEGER, ColumnType.NUMBER})
_DATE_TEXT = re.compile(r"\d{4}-\d{2}-\d{2}")

Arguments = tuple[Expression, ...]
Typed = tuple[Arguments, ColumnType, int]
"""Arguments as they will be used, the result's type, the result's magnitude."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One allowed operator: how it is typed, and its text over rendered arguments."""

    infer: Callable[[str, Arguments], Typed]
    render: Callable[[Sequence[str]], str]
    in_aggregate: bool = False
    """May stand in the argument of an aggregate."""
    hides_measure: bool = False
    """Its value tells only a condition about its arguments, so a measure may stand in it."""


def date_literal(text: Expression) -> Literal:
    """The literal text as a date."""
    value = text.value if isinstance(text, Literal) else None
    if not isinstance(value, str) or not _DATE_TEXT.fullmatch(value):
        refuse(Refusal.LITERAL, "A date is written as '2026-01-31'.")
    try:
        dt.date.fromisoformat(value)
    except ValueError:
        refuse(Refusal.LITERAL, "A date literal is not in the calendar.")
    return Literal(value, ColumnType.DATE)


def _magnitude(operator: str, value: int) -> int:
    if value > MAGNITUDE_MAX:
        refuse(Refusal.NUMBER_TOO_LARGE, f"{operator} could leave 64 bits.")
    return value


def _require(operator: str, argument: Expression, types: frozenset[ColumnType]) -> None:
    if argument.type is not None and argument.type not in types:
        wanted = " or ".join(sorted(types))
        refuse(Refusal.TYPE_MISMATCH, f"{operator} takes {wanted}, not {argument.type}.")


def _unify(operator: str, arguments: Arguments) -> tuple[Arguments, ColumnType]:
    """The arguments with one common type; text literals beside dates become dates."""
    types = {argument.type for argument in arguments if argument.type is not None}
    if ColumnType.DATE in types and ColumnType.STRING in types:
        arguments = tuple(
            date_literal(argument)
            if isinstance(argument, Literal) and argument.type is ColumnType.STRING
            else argument
            for argument in arguments
        )
        types = {argument.type for argument in arguments if argument.type is not None}
    if types and types <= _NUMERIC:
        return arguments, ColumnType.NUMBER if ColumnType.NUMBER in types else ColumnType.INTEGER
    if len(types) > 1:
        named = " and ".join(sorted(types))
        refuse(Refusal.TYPE_MISMATCH, f"{operator} mixes {named}.")
    if not types:
        refuse(Refusal.TYPE_MISMATCH, f"{operator} has only NULL arguments.")
    return arguments, types.pop()


def _largest(arguments: Arguments) -> int:
    return max((argument.magnitude for argument in arguments), default=0)


def _infer_sum(operator: str, arguments: Arguments) -> Typed:
    for argument in arguments:
        _require(operator, argument, _NUMERIC)
    _, result = _unify(operator, arguments)
    if result is ColumnType.NUMBER:
        return arguments, result, 0
    total = sum(argument.magnitude for argument in arguments)
    return arguments, result, _magnitude(operator, total)


def _infer_product(operator: str, arguments: Arguments) -> Typed:
    for argument in arguments:
        _require(operator, argument, _NUMERIC)
    _, result = _unify(operator, arguments)
    if result is ColumnType.NUMBER:
        return arguments, result, 0
    left, right = arguments
    return arguments, result, _magnitude(operator, left.magnitude * right.magnitude)


def _infer_division(operator: str, arguments: Arguments) -> Typed:
    for argument in arguments:
        _require(operator, argument, _NUMERIC)
    return arguments, ColumnType.NUMBER, 0


def _infer_whole_division(operator: str, arguments: Arguments) -> Typed:
    value, divisor = arguments
    _require(operator, value, frozenset({ColumnType.INTEGER}))
    if not isinstance(divisor, Literal) or not isinstance(divisor.value, int):
        refuse(Refusal.ZERO_DIVISOR, f"The divisor of {operator} must be a whole number.")
    if divisor.value == 0:
        refuse(Refusal.ZERO_DIVISOR, f"The divisor of {operator} is zero.")
    return arguments, ColumnType.INTEGER, value.magnitude


def _infer_keep(operator: str, arguments: Arguments) -> Typed:
    (value,) = arguments
    _require(operator, value, _NUMERIC)
    return arguments, value.type or ColumnType.NUMBER, value.magnitude


def _infer_float(operator: str, arguments: Arguments) -> Typed:
    (value,) = arguments
    _require(operator, value, _NUMERIC)
    return arguments, ColumnType.NUMBER, 0


def _small_literal(operator: str, argument: Expression, low: int, high: int) -> None:
    value = argument.value if isinstance(argument, Literal) else None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        refuse(
            Refusal.LITERAL, f"{operator} takes a whole number from {low} to {high}, written out."
        )


def _infer_round(operator: str, arguments: Arguments) -> Typed:
    value = arguments[0]
    _require(operator, value, _NUMERIC)
    for digits in arguments[1:]:
        _small_literal(operator, digits, 0, 10)
    return arguments, value.type or ColumnType.NUMBER, value.magnitude


def _infer_unified(operator: str, arguments: Arguments) -> Typed:
    unified, result = _unify(operator, arguments)
    return unified, result, _largest(unified)


def _infer_comparison(operator: str, arguments: Arguments) -> Typed:
    unified, result = _unify(operator, arguments)
    if result is ColumnType.BOOLEAN and operator not in ("equal", "not_equal", "in"):
        refuse(Refusal.TYPE_MISMATCH, f"{operator} does not order true and false.")
    return unified, ColumnType.BOOLEAN, 0


def _infer_logic(operator: str, arguments: Arguments) -> Typed:
    for argument in arguments:
        _require(operator, argument, frozenset({ColumnType.BOOLEAN}))
    return arguments, ColumnType.BOOLEAN, 0


def _infer_is_null(_operator: str, arguments: Arguments) -> Typed:
    return arguments, ColumnType.BOOLEAN, 0


def _infer_like(operator: str, arguments: Arguments) -> Typed:
    value, pattern = arguments
    _require(operator, value, frozenset({ColumnType.STRING}))
    if not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
        refuse(Refusal.LITERAL, "The pattern of LIKE must be written out.")
    return arguments, ColumnType.BOOLEAN, 0


def _infer_case(operator: str, arguments: Arguments) -> Typed:
    """Arguments: condition, value, condition, value, …, value of ELSE."""
    conditions, values = arguments[:-1:2], (*arguments[1:-1:2], arguments[-1])
    _infer_logic(operator, conditions)
    unified, result = _unify(operator, values)
    pairs = [part for pair in zip(conditions, unified[:-1], strict=True) for part in pair]
    return (*pairs, unified[-1]), result, _largest(unified)


def _infer_text(operator: str, arguments: Arguments) -> Typed:
    for argument in arguments:
        _require(operator, argument, frozenset({ColumnType.STRING}))
    return arguments, ColumnType.STRING, 0


def _infer_length(operator: str, arguments: Arguments) -> Typed:
    _infer_text(operator, arguments)
    return arguments, ColumnType.INTEGER, 2**31


def _infer_part(operator: str, arguments: Arguments) -> Typed:
    _infer_text(operator, arguments[:1])
    for position in arguments[1:]:
        _small_literal(operator, position, 0 if operator != "substring" else 1, 1000)
    return arguments, ColumnType.STRING, 0


def _infer_date_part(operator: str, arguments: Arguments) -> Typed:
    (value,) = arguments
    _require(operator, value, frozenset({ColumnType.DATE}))
    return arguments, ColumnType.INTEGER, 10_000


def _unit(operator: str, argument: Expression) -> None:
    if not isinstance(argument, Literal) or argument.value not in DATE_UNITS:
        refuse(Refusal.LITERAL, f"{operator} takes one of {', '.join(DATE_UNITS)}.")


def _infer_date_trunc(operator: str, arguments: Arguments) -> Typed:
    unit, value = arguments
    _unit(operator, unit)
    _require(operator, value, frozenset({ColumnType.DATE}))
    return arguments, ColumnType.DATE, 0


def _infer_date_diff(operator: str, arguments: Arguments) -> Typed:
    unit, *dates = arguments
    _unit(operator, unit)
    unified, result = _unify(operator, tuple(dates))
    if result is not ColumnType.DATE:
        refuse(Refusal.TYPE_MISMATCH, f"{operator} takes dates, not {result}.")
    return (unit, *unified), ColumnType.INTEGER, 2**32


def _infer_to_number(operator: str, arguments: Arguments) -> Typed:
    _require(operator, arguments[0], _NUMERIC)
    return arguments, ColumnType.NUMBER, 0


def _infer_to_integer(operator: str, arguments: Arguments) -> Typed:
    _require(operator, arguments[0], _NUMERIC | {ColumnType.BOOLEAN})
    return arguments, ColumnType.INTEGER, 2**31


def _infer_to_text(operator: str, arguments: Arguments) -> Typed:
    allowed = frozenset({ColumnType.INTEGER, ColumnType.STRING, ColumnType.DATE})
    _require(operator, arguments[0], allowed)
    return arguments, ColumnType.STRING, 0


def _infix(symbol: str) -> Callable[[Sequence[str]], str]:
    return lambda parts: "(" + f" {symbol} ".join(parts) + ")"


def _prefix(name: str) -> Callable[[Sequence[str]], str]:
    return lambda parts: f"{name}({', '.join(parts)})"


def _cast(form: str, sql_type: str) -> Callable[[Sequence[str]], str]:
    return lambda parts: f"{form}({parts[0]} AS {sql_type})"


def _render_case(parts: Sequence[str]) -> str:
    whens = zip(parts[:-1:2], parts[1:-1:2], strict=True)
    body = " ".join(f"WHEN {condition} THEN {value}" for condition, value in whens)
    return f"(CASE {body} ELSE {parts[-1]} END)"


def _render_in(parts: Sequence[str]) -> str:
    return f"({parts[0]} IN ({', '.join(parts[1:])}))"


_ARITHMETIC = {
    "add": Operator(_infer_sum, _infix("+"), in_aggregate=True),
    "subtract": Operator(_infer_sum, _infix("-"), in_aggregate=True),
    "multiply": Operator(_infer_product, _infix("*"), in_aggregate=True),
    "divide": Operator(_infer_division, _infix("/"), in_aggregate=True),
    "negate": Operator(_infer_keep, lambda parts: f"(- {parts[0]})", in_aggregate=True),
    "whole_divide": Operator(_infer_whole_division, _infix("//")),
    "modulo": Operator(_infer_whole_division, _infix("%")),
    "abs": Operator(_infer_keep, _prefix("ABS")),
    "round": Operator(_infer_round, _prefix("ROUND")),
    "floor": Operator(_infer_float, _prefix("FLOOR")),
    "ceil": Operator(_infer_float, _prefix("CEIL")),
    "least": Operator(_infer_unified, _prefix("LEAST")),
    "greatest": Operator(_infer_unified, _prefix("GREATEST")),
    "to_number": Operator(_infer_to_number, _cast("CAST", "DOUBLE"), in_aggregate=True),
    "to_integer": Operator(
        _infer_to_integer, lambda parts: f"CAST(TRY_CAST({parts[0]} AS INTEGER) AS BIGINT)"
    ),
    "to_text": Operator(_infer_to_text, _cast("CAST", "VARCHAR")),
}

_CONDITIONS = {
    "equal": Operator(_infer_comparison, _infix("="), hides_measure=True),
    "not_equal": Operator(_infer_comparison, _infix("<>"), hides_measure=True),
    "less": Operator(_infer_comparison, _infix("<"), hides_measure=True),
    "less_equal": Operator(_infer_comparison, _infix("<="), hides_measure=True),
    "greater": Operator(_infer_comparison, _infix(">"), hides_measure=True),
    "greater_equal": Operator(_infer_comparison, _infix(">="), hides_measure=True),
    "in": Operator(_infer_comparison, _render_in, hides_measure=True),
    "like": Operator(_infer_like, _infix("LIKE"), hides_measure=True),
    "ilike": Operator(_infer_like, _infix("ILIKE"), hides_measure=True),
    "is_null": Operator(_infer_is_null, lambda parts: f"({parts[0]} IS NULL)", hides_measure=True),
    "and": Operator(_infer_logic, _infix("AND")),
    "or": Operator(_infer_logic, _infix("OR")),
    "not": Operator(_infer_logic, lambda parts: f"(NOT {parts[0]})"),
    "case": Operator(_infer_case, _render_case),
    "coalesce": Operator(_infer_unified, _prefix("COALESCE")),
    "nullif": Operator(_infer_unified, _prefix("NULLIF")),
}

_TEXT_AND_DATES = {
    "lower": Operator(_infer_text, _prefix("LOWER")),
    "upper": Operator(_infer_text, _prefix("UPPER")),
    "trim": Operator(_infer_text, _prefix("TRIM")),
    "length": Operator(_infer_length, _prefix("LENGTH")),
    "substring": Operator(_infer_part, _prefix("SUBSTRING")),
    "left": Operator(_infer_part, _prefix("LEFT")),
    "right": Operator(_infer_part, _prefix("RIGHT")),
    "concat": Operator(_infer_text, _infix("||")),
    "year": Operator(_infer_date_part, _prefix("YEAR"), in_aggregate=True),
    "quarter": Operator(_infer_date_part, _prefix("QUARTER"), in_aggregate=True),
    "month": Operator(_infer_date_part, _prefix("MONTH"), in_aggregate=True),
    "week": Operator(_infer_date_part, _prefix("WEEK"), in_aggregate=True),
    "day": Operator(_infer_date_part, _prefix("DAY"), in_aggregate=True),
    "date_trunc": Operator(
        _infer_date_trunc, lambda parts: f"CAST(DATE_TRUNC({', '.join(parts)}) AS DATE)"
    ),
    "date_diff": Operator(_infer_date_diff, _prefix("DATE_DIFF"), in_aggregate=True),
}

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {**_ARITHMETIC, **_CONDITIONS, **_TEXT_AND_DATES}
)
"""Every operator by the planner's own name."""


def call(operator: str, *arguments: Expression) -> Call:
    """The typed call, or a refusal saying which type does not fit."""
    typed, result, magnitude = OPERATORS[operator].infer(operator, arguments)
    return Call(operator, typed, result, magnitude)
