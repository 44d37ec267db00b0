"""Expressions over a group's keys and aggregates, computed here with DuckDB's meaning.

Three-valued logic; NaN equals itself and is greater than any other number; division by zero is an
infinity or NaN; ROUND goes half away from zero. A whole result outside 64 bits is null.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from federation.core.expressions import AggregateRef, Call, ColumnRef, Expression, GroupRef, Literal
from federation.core.model import Cell

__all__ = ["EVALUATED", "evaluate", "sort_key"]

_INTEGER_END = 2**63
_Number = int | float


def sort_key(value: Cell) -> tuple[int, float | int | str]:
    """A total order within one type: numbers with NaN last, text by code point, false before true.

    Null has no place in it.
    """
    if isinstance(value, float) and math.isnan(value):
        return (1, 0)
    return (0, value if value is not None else 0)


def _number(value: Cell) -> _Number:
    return value if isinstance(value, int | float) else math.nan


def _arithmetic(compute: Callable[[_Number, _Number], _Number]) -> Callable[..., Cell]:
    def apply(left: Cell, right: Cell) -> Cell:
        if left is None or right is None:
            return None
        try:
            return _within(compute(_number(left), _number(right)))
        except OverflowError:
            return math.inf

    return apply


def _within(value: _Number) -> Cell:
    if isinstance(value, int) and not -_INTEGER_END <= value < _INTEGER_END:
        return None
    return value


def _divide(left: _Number, right: _Number) -> _Number:
    if right != 0:
        return left / right
    if left == 0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _whole_divide(left: _Number, right: _Number) -> _Number:
    quotient = abs(int(left)) // abs(int(right))
    return quotient if (left < 0) == (right < 0) else -quotient


def _modulo(left: _Number, right: _Number) -> _Number:
    remainder = abs(int(left)) % abs(int(right))
    return remainder if left >= 0 else -remainder


def _round(value: Cell, digits: Cell = 0) -> Cell:
    if value is None or not isinstance(value, float) or not math.isfinite(value):
        return value
    factor = 10.0 ** _number(digits)
    scaled = abs(value) * factor
    if not math.isfinite(scaled):
        return value
    whole = math.floor(scaled)
    rounded = whole + 1 if scaled - whole >= 0.5 else whole
    return math.copysign(rounded / factor, value)


def _whole(direction: Callable[[float], int]) -> Callable[[Cell], Cell]:
    def apply(value: Cell) -> Cell:
        if value is None:
            return None
        number = float(_number(value))
        return float(direction(number)) if math.isfinite(number) else number

    return apply


def _compare(test: Callable[..., bool]) -> Callable[[Cell, Cell], Cell]:
    def apply(left: Cell, right: Cell) -> Cell:
        if left is None or right is None:
            return None
        return test(sort_key(left), sort_key(right))

    return apply


_equal = _compare(operator.eq)


def _in(value: Cell, *choices: Cell) -> Cell:
    return _or(*(_equal(value, choice) for choice in choices))


def _and(*values: Cell) -> Cell:
    if any(value is False for value in values):
        return False
    return None if any(value is None for value in values) else True


def _or(*values: Cell) -> Cell:
    if any(value is True for value in values):
        return True
    return None if any(value is None for value in values) else False


def _not(value: Cell) -> Cell:
    return None if value is None else not value


def _negate(value: Cell) -> Cell:
    return None if value is None else -_number(value)


def _abs(value: Cell) -> Cell:
    return None if value is None else abs(_number(value))


def _case(*parts: Cell) -> Cell:
    for condition, value in zip(parts[:-1:2], parts[1:-1:2], strict=True):
        if condition is True:
            return value
    return parts[-1]


def _coalesce(*values: Cell) -> Cell:
    return next((value for value in values if value is not None), None)


def _nullif(left: Cell, right: Cell) -> Cell:
    return None if _equal(left, right) is True else left


def _least(*values: Cell) -> Cell:
    return min((value for value in values if value is not None), key=sort_key, default=None)


def _greatest(*values: Cell) -> Cell:
    return max((value for value in values if value is not None), key=sort_key, default=None)


def _to_number(value: Cell) -> Cell:
    return None if value is None else float(_number(value))


EVALUATED: Mapping[str, Callable[..., Cell]] = MappingProxyType(
    {
        "add": _arithmetic(operator.add),
        "subtract": _arithmetic(operator.sub),
        "multiply": _arithmetic(operator.mul),
        "divide": _arithmetic(_divide),
        "whole_divide": _arithmetic(_whole_divide),
        "modulo": _arithmetic(_modulo),
        "negate": _negate,
        "abs": _abs,
        "round": _round,
        "floor": _whole(math.floor),
        "ceil": _whole(math.ceil),
        "least": _least,
        "greatest": _greatest,
        "to_number": _to_number,
        "equal": _equal,
        "not_equal": _compare(operator.ne),
        "less": _compare(operator.lt),
        "less_equal": _compare(operator.le),
        "greater": _compare(operator.gt),
        "greater_equal": _compare(operator.ge),
        "in": _in,
        "is_null": lambda value: value is None,
        "and": _and,
        "or": _or,
        "not": _not,
        "case": _case,
        "coalesce": _coalesce,
        "nullif": _nullif,
    }
)
"""Operators that are computed after aggregation."""


def evaluate(expression: Expression, keys: Sequence[Cell], aggregates: Sequence[Cell]) -> Cell:
    """The value of an expression over one group."""
    match expression:
        case Literal():
            return expression.value
        case GroupRef():
            return keys[expression.index]
        case AggregateRef():
            return aggregates[expression.index]
        case Call():
            arguments = [evaluate(part, keys, aggregates) for part in expression.arguments]
            return EVALUATED[expression.operator](*arguments)
        case ColumnRef():
            raise KeyError(expression.name)  # the planner left no column over a group
