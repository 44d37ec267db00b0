"""Values after aggregation, where the database's meaning differs from Python's."""

from __future__ import annotations

import math

import pytest

from federation.core.evaluate import EVALUATED, evaluate
from federation.core.expressions import AggregateRef, GroupRef, Literal
from federation.core.finish import finish
from federation.core.functions import call
from federation.core.merge import merge_answers
from federation.core.model import Cell, ColumnType
from federation.core.plan import make_plan
from tests.unit.federation_core.figures import answer

NAN, INFINITY = math.nan, math.inf


@pytest.mark.parametrize(
    ("operator", "arguments", "expected"),
    [
        ("round", (2.5,), 3.0),
        ("round", (-2.5,), -3.0),
        ("round", (2.675, 2), 2.68),
        ("round", (INFINITY,), INFINITY),
        ("round", (7,), 7),
        ("floor", (-1.5,), -2.0),
        ("ceil", (3,), 3.0),
        ("divide", (1, 0), INFINITY),
        ("divide", (-1, 0), -INFINITY),
        ("divide", (0, 0), NAN),
        ("whole_divide", (-7, 2), -3),
        ("modulo", (-7, 3), -1),
        ("equal", (NAN, NAN), True),
        ("greater", (NAN, INFINITY), True),
        ("less", (NAN, 1.0), False),
        ("greatest", (1, None, NAN), NAN),
        ("least", (None, None), None),
        ("and", (None, False), False),
        ("and", (None, True), None),
        ("or", (None, True), True),
        ("or", (None, False), None),
        ("in", (2, 1, None), None),
        ("not", (None,), None),
        ("case", (None, 1, True, 2, 3), 2),
        ("nullif", (1, 1.0), None),
        ("coalesce", (None, None), None),
        ("add", (2**63 - 1, 1), None),
        ("to_number", (None,), None),
    ],
)
def test_means_what_the_database_means(
    operator: str, arguments: tuple[Cell, ...], expected: Cell
) -> None:
    """Three-valued logic, NaN, division by zero and rounding as in DuckDB."""
    found = EVALUATED[operator](*arguments)
    if isinstance(expected, float) and math.isnan(expected):
        assert isinstance(found, float)
        assert math.isnan(found)
    else:
        assert found == expected
        assert type(found) is type(expected)


def test_reads_keys_and_aggregates() -> None:
    """References index the group's own values."""
    key = GroupRef(0, ColumnType.INTEGER, 10)
    total = AggregateRef(1, ColumnType.NUMBER, 0)
    assert evaluate(call("add", key, total), [3], [None, 0.5]) == 3.5
    assert evaluate(Literal(None, None), [], []) is None


def test_groups_whose_key_is_not_a_number_are_one_group() -> None:
    """NaN is one key, although Python holds it unequal to itself."""
    sql = "SELECT birth_year / (birth_year - 1950) AS k, COUNT(*) AS n FROM residents GROUP BY 1"
    plan = make_plan(sql)
    # Two objects: Python finds one object equal to itself even if its value is not.
    parts = [
        answer(plan, node, [{"g0": float("nan"), "p0_n": 20}]) for node in ("141002", "141024")
    ]
    rows = list(finish(plan, merge_answers(plan, parts)).table.rows())
    assert [row[1] for row in rows] == [40]


def test_floor_of_a_whole_number_is_a_real() -> None:
    """As in the database, so that tables of both agree in type."""
    plan = make_plan("SELECT FLOOR(birth_year) AS y, COUNT(*) AS n FROM residents GROUP BY 1")
    assert plan.outputs[0].type is ColumnType.NUMBER
