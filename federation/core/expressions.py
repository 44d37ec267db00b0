"""The planner's own expressions: small, typed, frozen; what sqlglot parsed is turned into these.

Node SQL and the digest are made from here, so nothing of the sent text survives into a statement.
An integer expression carries the largest magnitude it can have, so that no node overflows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from federation.core.datasets import ColumnClass
from federation.core.model import Cell, ColumnType

__all__ = [
    "AggregateRef",
    "Call",
    "ColumnRef",
    "Expression",
    "GroupRef",
    "Literal",
    "canonical",
    "depends_on_aggregates",
    "replace",
    "walk",
]


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant; `type` None is the untyped NULL. A date's value is ISO text."""

    value: Cell
    type: ColumnType | None

    @property
    def magnitude(self) -> int:
        """Largest absolute value of an integer; 0 for other types."""
        return abs(self.value) if isinstance(self.value, int) else 0


@dataclass(frozen=True, slots=True)
class ColumnRef:
    """A column of the dataset."""

    name: str
    type: ColumnType
    column_class: ColumnClass
    derived: bool

    @property
    def magnitude(self) -> int:
        """Integer columns are 32-bit."""
        return 2**31 if self.type is ColumnType.INTEGER else 0


@dataclass(frozen=True, slots=True)
class GroupRef:
    """The key number `index` of the group, after aggregation."""

    index: int
    type: ColumnType
    magnitude: int


@dataclass(frozen=True, slots=True)
class AggregateRef:
    """The aggregate number `index` of the group, after aggregation."""

    index: int
    type: ColumnType
    magnitude: int


@dataclass(frozen=True, slots=True)
class Call:
    """An operator of functions.OPERATORS over arguments."""

    operator: str
    arguments: tuple[Expression, ...]
    type: ColumnType
    magnitude: int


Expression = Literal | ColumnRef | GroupRef | AggregateRef | Call


def canonical(expression: Expression) -> str:
    """One text for one meaning: equal expressions have equal text, whatever was typed."""
    match expression:
        case Literal():
            return f"{expression.type or 'null'}:{expression.value!r}"
        case ColumnRef():
            return expression.name
        case GroupRef():
            return f"group[{expression.index}]"
        case AggregateRef():
            return f"aggregate[{expression.index}]"
        case Call():
            arguments = ", ".join(canonical(argument) for argument in expression.arguments)
            return f"{expression.operator}({arguments})"


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and everything below it."""
    stack: list[Expression] = [expression]
    while stack:
        current = stack.pop()
        yield current
        if isinstance(current, Call):
            stack.extend(current.arguments)


def replace(
    expression: Expression, substitute: Callable[[Expression], Expression | None]
) -> Expression:
    """The expression with every topmost part that `substitute` answers for put in its place."""
    found = substitute(expression)
    if found is not None:
        return found
    if not isinstance(expression, Call):
        return expression
    arguments = tuple(replace(argument, substitute) for argument in expression.arguments)
    return Call(expression.operator, arguments, expression.type, expression.magnitude)


def depends_on_aggregates(expression: Expression) -> bool:
    """Whether the value needs the group's aggregates, not its keys alone."""
    return any(isinstance(part, AggregateRef) for part in walk(expression))
