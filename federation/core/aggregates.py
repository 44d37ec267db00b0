"""The aggregates that can be asked for, and the portable partials each is computed from.

Sums and counts add up. Variance travels as (n, mean, M2), merged by Chan, Golub and LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances", 1979.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlglot import exp

from federation.core.expressions import Call, ColumnRef, Expression, Literal, walk
from federation.core.functions import OPERATORS, call
from federation.core.model import ColumnType
from federation.core.refusals import refuse
from federation.errors import Refusal

__all__ = ["MOMENT_KINDS", "SUM_KINDS", "Aggregate", "AggregateKind", "aggregate_of"]


class AggregateKind(StrEnum):
    """What is computed over a group."""

    COUNT_ROWS = "count_rows"
    COUNT_RESIDENTS = "count_residents"
    COUNT = "count"
    SUM = "sum"
    AVG = "avg"
    VAR_SAMP = "var_samp"
    VAR_POP = "var_pop"
    STDDEV_SAMP = "stddev_samp"
    STDDEV_POP = "stddev_pop"


SUM_KINDS = frozenset({AggregateKind.SUM, AggregateKind.AVG})
MOMENT_KINDS = frozenset(
    {
        AggregateKind.VAR_SAMP,
        AggregateKind.VAR_POP,
        AggregateKind.STDDEV_SAMP,
        AggregateKind.STDDEV_POP,
    }
)
_COUNT_KINDS = frozenset(
    {AggregateKind.COUNT_ROWS, AggregateKind.COUNT_RESIDENTS, AggregateKind.COUNT}
)

_KINDS: Mapping[type[exp.Expression], AggregateKind] = {
    exp.Count: AggregateKind.COUNT,
    exp.Sum: AggregateKind.SUM,
    exp.Avg: AggregateKind.AVG,
    exp.Variance: AggregateKind.VAR_SAMP,
    exp.VariancePop: AggregateKind.VAR_POP,
    exp.Stddev: AggregateKind.STDDEV_SAMP,
    exp.StddevSamp: AggregateKind.STDDEV_SAMP,
    exp.StddevPop: AggregateKind.STDDEV_POP,
}

_COUNT_MAGNITUDE = 2**40
_SUM_MAGNITUDE = 2**53
_SUMMED_MAGNITUDE_MAX = 2**31
"""Whole numbers up to here add up over 2^32 rows within 64 bits; larger are summed as reals."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One aggregate over one argument; None where rows or residents are counted."""

    kind: AggregateKind
    argument: Expression | None

    @classmethod
    def over(cls, kind: AggregateKind, argument: Expression) -> Aggregate:
        """The aggregate of an argument, checked.

        Raises:
            QueryRefusedError: The argument holds a condition, or is no number where one is needed.
        """
        _check_argument(argument)
        if kind is AggregateKind.COUNT:
            return cls(kind, argument)
        if argument.type not in (ColumnType.INTEGER, ColumnType.NUMBER):
            refuse(Refusal.TYPE_MISMATCH, f"{kind.upper()} takes numbers, not {argument.type}.")
        if argument.magnitude > _SUMMED_MAGNITUDE_MAX:
            argument = call("to_number", argument)
        return cls(kind, argument)

    @property
    def type(self) -> ColumnType:
        """The type of the result."""
        if self.kind in _COUNT_KINDS:
            return ColumnType.INTEGER
        if self.kind is AggregateKind.SUM and self.argument is not None:
            return self.argument.type or ColumnType.NUMBER
        return ColumnType.NUMBER

    @property
    def magnitude(self) -> int:
        """Largest absolute value of a whole result that arithmetic over it is planned for."""
        if self.kind in _COUNT_KINDS:
            return _COUNT_MAGNITUDE
        return _SUM_MAGNITUDE if self.type is ColumnType.INTEGER else 0


def _check_argument(argument: Expression) -> None:
    """Arithmetic over columns only: a condition would let a cell speak of fewer residents."""
    for part in walk(argument):
        match part:
            case Call():
                if not OPERATORS[part.operator].in_aggregate:
                    refuse(Refusal.AGGREGATE_ARGUMENT)
                if part.operator == "divide":
                    _check_divisor(part.arguments[1])
            case Literal():
                if part.type is None:
                    refuse(Refusal.AGGREGATE_ARGUMENT, "NULL cannot be aggregated.")
            case _:
                pass
    if not any(isinstance(part, ColumnRef) for part in walk(argument)):
        refuse(Refusal.AGGREGATE_ARGUMENT, "An aggregate needs a column.")


def _check_divisor(divisor: Expression) -> None:
    if not isinstance(divisor, Literal) or not divisor.value:
        refuse(Refusal.ZERO_DIVISOR)


def aggregate_of(node: exp.Expression) -> AggregateKind | None:
    """The kind of aggregate a parsed node is, or None if it is no aggregate planned here."""
    return _KINDS.get(type(node))
