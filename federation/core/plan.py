"""A question in SQL to a LogicalPlan: one SELECT over one dataset, by allow-list.

Every node makes its plan from the text itself and compares digests; what a node runs is rendered
from the plan (node_sql), never the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlglot import exp

from federation.core.aggregates import MOMENT_KINDS, SUM_KINDS, Aggregate, AggregateKind
from federation.core.datasets import DATASETS, ColumnClass, Dataset
from federation.core.evaluate import EVALUATED
from federation.core.expressions import (
    AggregateRef,
    Call,
    ColumnRef,
    Expression,
    GroupRef,
    canonical,
    depends_on_aggregates,
    replace,
    walk,
)
from federation.core.functions import OPERATORS
from federation.core.model import Basis, ColumnType
from federation.core.parse import parse_select
from federation.core.refusals import refuse, shown_name
from federation.core.translate import Translator, check_arguments
from federation.errors import Refusal

__all__ = ["LogicalPlan", "OrderKey", "Output", "PartialSpec", "make_plan"]

_NAME_MAX = 64
_CLAUSES = frozenset(
    {"expressions", "from_", "where", "group", "having", "order", "limit", "offset"}
)
_CLAUSE_REFUSALS = {
    "with_": Refusal.CTE,
    "joins": Refusal.JOIN,
    "laterals": Refusal.JOIN,
    "distinct": Refusal.DISTINCT,
    "qualify": Refusal.WINDOW_FUNCTION,
    "windows": Refusal.WINDOW_FUNCTION,
}


@dataclass(frozen=True, slots=True)
class Output:
    """One selected expression over the group's keys and aggregates."""

    name: str
    expression: Expression

    @property
    def type(self) -> ColumnType:
        """The column's type; a bare NULL shows as text."""
        return self.expression.type or ColumnType.STRING


@dataclass(frozen=True, slots=True)
class OrderKey:
    """One key of ORDER BY."""

    expression: Expression
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class PartialSpec:
    """What a site computes over one argument; slot 0 counts rows and has none."""

    slot: int
    argument: Expression | None
    has_sum: bool
    has_moments: bool


@dataclass(frozen=True)
class LogicalPlan:
    """What is asked, with nothing of how it was written but the outputs' names.

    The digest leaves those names out: plans that differ in them alone merge and release alike.
    """

    dataset: str
    basis: Basis
    where: Expression | None
    groups: tuple[Expression, ...]
    aggregates: tuple[Aggregate, ...]
    outputs: tuple[Output, ...]
    having: Expression | None
    order: tuple[OrderKey, ...]
    limit: int | None
    offset: int

    @cached_property
    def canonical(self) -> str:
        """One text for one meaning, a line a part."""
        lines = [f"dataset {self.dataset}", f"basis {self.basis}"]
        if self.where is not None:
            lines.append(f"where {canonical(self.where)}")
        lines += [f"group {canonical(group)}" for group in self.groups]
        for aggregate in self.aggregates:
            argument = "*" if aggregate.argument is None else canonical(aggregate.argument)
            lines.append(f"aggregate {aggregate.kind}({argument})")
        lines += [f"output {canonical(output.expression)}" for output in self.outputs]
        if self.having is not None:
            lines.append(f"having {canonical(self.having)}")
        for key in self.order:
            direction = "descending" if key.descending else "ascending"
            nulls = "first" if key.nulls_first else "last"
            lines.append(f"order {canonical(key.expression)} {direction} nulls {nulls}")
        lines.append(f"limit {self.limit} offset {self.offset}")
        return "\n".join(lines)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical text, hex."""
        return hashlib.sha256(self.canonical.encode("utf-8")).hexdigest()

    @cached_property
    def partials(self) -> tuple[PartialSpec, ...]:
        """What each site computes: the row count, then one entry for each distinct argument."""
        kinds: dict[Expression, set[AggregateKind]] = {}
        for aggregate in self.aggregates:
            if aggregate.argument is not None:
                kinds.setdefault(aggregate.argument, set()).add(aggregate.kind)
        specs = [PartialSpec(0, None, has_sum=False, has_moments=False)]
        for slot, (argument, wanted) in enumerate(kinds.items(), start=1):
            has_sum, has_moments = bool(wanted & SUM_KINDS), bool(wanted & MOMENT_KINDS)
            specs.append(PartialSpec(slot, argument, has_sum, has_moments))
        return tuple(specs)

    @cached_property
    def columns(self) -> frozenset[str]:
        """Columns of the dataset that a site reads, derived ones included."""
        roots = [*self.groups, *(spec.argument for spec in self.partials), self.where]
        parts = (part for root in roots if root is not None for part in walk(root))
        return frozenset(part.name for part in parts if isinstance(part, ColumnRef))

    @property
    def needs_places(self) -> bool:
        """Whether a site must know the township or county of each home."""
        by_name = DATASETS[self.dataset].by_name
        return any(by_name[name].derived for name in self.columns)

    @property
    def counts_residents(self) -> bool:
        """Whether COUNT(DISTINCT resident_id) was asked for, so that it must be exact."""
        return any(item.kind is AggregateKind.COUNT_RESIDENTS for item in self.aggregates)


def make_plan(sql: str, basis: Basis = Basis.RESIDENCE) -> LogicalPlan:
    """Plan the question.

    Raises:
        QueryRefusedError: It is not one that may be asked; nothing else is ever raised.
    """
    tree = parse_select(sql)
    try:
        return _Planner(tree, basis).plan()
    except RecursionError:
        refuse(Refusal.TOO_DEEP)


def _source(tree: exp.Select) -> tuple[Dataset, str]:
    """The dataset after FROM, and the name that qualifies its columns."""
    source = tree.args.get("from_")
    if source is None:
        refuse(Refusal.NO_DATASET)
    table = source.this
    if isinstance(table, exp.Subquery):
        refuse(Refusal.SUBQUERY)
    if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
        refuse(Refusal.UNKNOWN_TABLE)
    if table.args.get("joins"):
        refuse(Refusal.JOIN)
    options = [
        name for name, value in table.args.items() if value and name not in ("this", "alias")
    ]
    name = table.name.lower()
    if options or name not in DATASETS:
        refuse(Refusal.UNKNOWN_TABLE, f"There is no dataset {shown_name(name)}.")
    alias = table.args.get("alias")
    if alias is not None:
        check_arguments(alias, "this")
    return DATASETS[name], (table.alias or name).lower()


def _whole_number(node: exp.Expression | None, clause: str) -> int | None:
    """The literal of LIMIT or OFFSET."""
    if node is None:
        return None
    value = node.expression if isinstance(node, exp.Limit | exp.Offset) else None
    if not isinstance(value, exp.Literal) or value.is_string or not str(value.this).isdigit():
        refuse(Refusal.LITERAL, f"{clause} takes a whole number, written out.")
    check_arguments(node, "expression")
    return int(value.this) if len(value.this) <= 15 else 10**15


class _Planner:
    """Plans one SELECT; each method is one clause, in the order SQL evaluates them."""

    def __init__(self, tree: exp.Select, basis: Basis) -> None:
        self._tree = tree
        self._basis = basis
        self._check_clauses()
        self._dataset, relation = _source(tree)
        self._translator = Translator(self._dataset, relation)
        self._items = self._selected()
        self._groups: tuple[Expression, ...] = ()

    def plan(self) -> LogicalPlan:
        where = self._where()
        self._groups = self._grouped()
        outputs = self._outputs()
        having = self._having()
        order = self._order(outputs)
        aggregates = tuple(self._translator.aggregates)
        if not any(depends_on_aggregates(output.expression) for output in outputs):
            refuse(Refusal.NO_AGGREGATE)
        by_provider = self._basis is Basis.PROVIDER
        if by_provider and any(item.kind is AggregateKind.COUNT_RESIDENTS for item in aggregates):
            refuse(Refusal.DISTINCT_BY_PROVIDER)
        return LogicalPlan(
            dataset=self._dataset.name,
            basis=self._basis,
            where=where,
            groups=self._groups,
            aggregates=aggregates,
            outputs=outputs,
            having=having,
            order=order,
            limit=_whole_number(self._tree.args.get("limit"), "LIMIT"),
            offset=_whole_number(self._tree.args.get("offset"), "OFFSET") or 0,
        )

    def _check_clauses(self) -> None:
        for name, value in self._tree.args.items():
            if value and name not in _CLAUSES:
                refuse(_CLAUSE_REFUSALS.get(name, Refusal.CLAUSE_NOT_ALLOWED))

    def _selected(self) -> list[tuple[str, exp.Expression]]:
        """Name (empty if none was given) and expression of each selected item."""
        items: list[tuple[str, exp.Expression]] = []
        for item in self._tree.expressions:
            if isinstance(item, exp.Alias):
                check_arguments(item, "this", "alias")
                name = item.alias
                if not name.isprintable() or len(name) > _NAME_MAX:
                    refuse(Refusal.LITERAL, "A name is up to 64 printable characters.")
                items.append((name, item.this))
            else:
                items.append(("", item))
        if not items:
            refuse(Refusal.SYNTAX, "Nothing is selected.")
        return items

    def _where(self) -> Expression | None:
        clause = self._tree.args.get("where")
        if clause is None:
            return None
        condition = self._translator.row(clause.this)
        return self._condition(condition, "WHERE")

    def _condition(self, condition: Expression, clause: str) -> Expression:
        if condition.type not in (ColumnType.BOOLEAN, None):
            refuse(Refusal.TYPE_MISMATCH, f"{clause} takes a condition, not {condition.type}.")
        return condition

    def _grouped(self) -> tuple[Expression, ...]:
        clause = self._tree.args.get("group")
        if clause is None:
            return ()
        options = [name for name, value in clause.args.items() if value]
        if "all" in options:
            nodes = [node for _, node in self._items if not _has_aggregate(node)]
        elif options not in ([], ["expressions"]):
            refuse(Refusal.GROUPING_SETS)
        else:
            nodes = [self._group_node(node) for node in clause.expressions]
        keys: dict[Expression, None] = {}
        for node in nodes:
            key = self._translator.row(node)
            has_column = any(isinstance(part, ColumnRef) for part in walk(key))
            if has_column:
                _check_measure(key)
                keys[key] = None
            elif "all" not in options:
                refuse(Refusal.SYNTAX, "GROUP BY names a constant.")
        return tuple(keys)

    def _group_node(self, node: exp.Expression) -> exp.Expression:
        """The expression that a position or an output's name in GROUP BY stands for."""
        if isinstance(node, exp.Literal) and not node.is_string:
            return self._items[self._position(str(node.this), "GROUP BY")][1]
        if isinstance(node, exp.Cube | exp.Rollup | exp.GroupingSets | exp.Tuple):
            refuse(Refusal.GROUPING_SETS)
        if isinstance(node, exp.Column) and not node.table:
            name = node.name.lower()
            for given, item in self._items:
                if given.lower() != name or item == node:
                    continue
                if name in self._dataset.by_name:
                    text = f"{shown_name(name)} is a column and the name of another output."
                    refuse(Refusal.DUPLICATE_NAME, text)
                return item
        return node

    def _position(self, text: str, clause: str) -> int:
        """The index of the selected item that a written position names."""
        position = int(text) if text.isdigit() and len(text) <= 4 else 0
        if not 1 <= position <= len(self._items):
            refuse(Refusal.LITERAL, f"{clause} names a position that is not selected.")
        return position - 1

    def _outputs(self) -> tuple[Output, ...]:
        expressions = [self._translator.group(node) for _, node in self._items]
        names = _output_names(self._items, expressions)
        given = (name.lower() for name, _ in self._items)
        self._translator.aliases = {
            name: expression for name, expression in zip(given, expressions, strict=True) if name
        }
        resolved = [self._over_group(expression) for expression in expressions]
        return tuple(map(Output, names, resolved))

    def _over_group(self, expression: Expression) -> Expression:
        """The expression over the group's keys and aggregates alone."""
        groups = {
            key: GroupRef(i, key.type or ColumnType.STRING, key.magnitude)
            for i, key in enumerate(self._groups)
        }
        found = replace(expression, groups.get)
        for part in walk(found):
            if isinstance(part, ColumnRef):
                refuse(Refusal.NOT_GROUPED, f"{part.name} is neither grouped nor aggregated.")
            if isinstance(part, Call) and part.operator not in EVALUATED:
                text = f"{part.operator} is not computed over aggregates and groups."
                refuse(Refusal.AFTER_AGGREGATION, text)
        return found

    def _having(self) -> Expression | None:
        clause = self._tree.args.get("having")
        if clause is None:
            return None
        condition = self._over_group(self._translator.group(clause.this))
        return self._condition(condition, "HAVING")

    def _order(self, outputs: Sequence[Output]) -> tuple[OrderKey, ...]:
        clause = self._tree.args.get("order")
        if clause is None:
            return ()
        check_arguments(clause, "expressions")
        keys: list[OrderKey] = []
        for item in clause.expressions:
            if not isinstance(item, exp.Ordered):
                refuse(Refusal.SYNTAX)
            check_arguments(item, "this", "desc", "nulls_first")
            expression = self._order_expression(item.this, outputs)
            descending = bool(item.args.get("desc"))
            keys.append(OrderKey(expression, descending, bool(item.args.get("nulls_first"))))
        return tuple(keys)

    def _order_expression(self, node: exp.Expression, outputs: Sequence[Output]) -> Expression:
        if isinstance(node, exp.Literal) and not node.is_string:
            return outputs[self._position(str(node.this), "ORDER BY")].expression
        if isinstance(node, exp.Column) and not node.table:
            for output in outputs:
                if output.name.lower() == node.name.lower():
                    return output.expression
        return self._over_group(self._translator.group(node))


def _has_aggregate(node: exp.Expression) -> bool:
    return node.find(exp.AggFunc) is not None


def _check_measure(key: Expression) -> None:
    """Refuse a group key that would show a measure's own value; conditions about it may stand."""
    stack = [key]
    while stack:
        part = stack.pop()
        if isinstance(part, ColumnRef) and part.column_class is ColumnClass.MEASURE:
            refuse(Refusal.MEASURE_GROUPED, f"{part.name} is a measure.")
        if isinstance(part, Call) and not OPERATORS[part.operator].hides_measure:
            stack.extend(part.arguments)


def _default_name(node: exp.Expression, expression: Expression, position: int) -> str:
    """The name of an unnamed output: its column, or its aggregate's function."""
    if isinstance(expression, ColumnRef):
        return expression.name
    if isinstance(expression, AggregateRef):
        if isinstance(node.this, exp.Distinct):
            return "residents"
        column = node.this if isinstance(node.this, exp.Column) else None
        return node.key.lower() if column is None else f"{node.key.lower()}_{column.name.lower()}"
    return f"column_{position + 1}"


def _output_names(
    items: Sequence[tuple[str, exp.Expression]], expressions: Sequence[Expression]
) -> list[str]:
    """One name an output; given ones must differ, made ones give way."""
    taken: set[str] = set()
    for name, _ in items:
        if name and name.lower() in taken:
            refuse(Refusal.DUPLICATE_NAME, f"Two outputs are named {shown_name(name)}.")
        taken.add(name.lower())
    names: list[str] = []
    for position, ((name, node), expression) in enumerate(zip(items, expressions, strict=True)):
        chosen = name or _default_name(node, expression, position)
        while not name and chosen.lower() in taken:
            chosen += "_2"
        taken.add(chosen.lower())
        names.append(chosen)
    return names
