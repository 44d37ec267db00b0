"""Merging, withholding and finishing answers written out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from federation.core.coverage import Coverage, SiteCoverage, SiteState, merge_coverage
from federation.core.finish import finish
from federation.core.merge import merge_answers
from federation.core.model import Basis, Cell, Column, ColumnType, PartialAnswer, Table
from federation.core.partials import check_answer, empty_table, needs_exact, table_of
from federation.core.plan import LogicalPlan, make_plan
from federation.core.release import withhold_small
from federation.errors import DuplicateSiteError, PartialInvalidError
from tests.unit.federation_core.figures import answer, site

COUNTED = make_plan("SELECT sex, COUNT(*) AS n FROM conditions GROUP BY sex")
MEAN = make_plan("SELECT sex, AVG(value) AS mean, COUNT(*) AS n FROM observations GROUP BY sex")
TOTAL = make_plan("SELECT COUNT(*) AS n, SUM(value) AS total FROM observations")


def _rows(plan: LogicalPlan, part: PartialAnswer) -> list[tuple[Cell, ...]]:
    return list(finish(plan, part).table.rows())


def test_a_site_counted_twice_is_an_error() -> None:
    """Nothing is merged when two answers cover one site."""
    one = answer(COUNTED, "141002", [{"g0": "male", "p0_n": 20}])
    with pytest.raises(DuplicateSiteError):
        merge_answers(COUNTED, [one, one])


def test_small_groups_lose_their_figures_and_keep_their_keys() -> None:
    """A withheld row is a key with nulls, counted once in the coverage."""
    rows: list[dict[str, Cell]] = [
        {"g0": "male", "p0_n": 9},
        {"g0": "female", "p0_n": 10},
        {"g0": None, "p0_n": 0},
    ]
    released = withhold_small(COUNTED, answer(COUNTED, "141002", rows), 10)
    assert released.suppressed_rows == (0,)
    assert next(released.table.rows()) == ("male", None, None, None)
    assert released.coverage.cells_suppressed == 1
    assert released.coverage.cell_count_min == 10
    again = withhold_small(COUNTED, released, 10)
    assert again == released
    finished = finish(COUNTED, released)
    assert list(finished.table.rows()) == [("female", 10), ("male", None), (None, 0)]
    assert finished.suppressed_rows == (1,)
    assert not finished.complete


def test_keys_that_could_be_a_person_are_folded() -> None:
    """Born 1931 in this village is a person's row: withheld groups become one without keys."""
    plan = make_plan("SELECT home, birth_year, COUNT(*) AS n FROM conditions GROUP BY ALL")
    rows: list[dict[str, Cell]] = [
        {"g0": "141002001201", "g1": 1931, "p0_n": 1},
        {"g0": "141002001201", "g1": 1950, "p0_n": 12},
        {"g0": "141002001202", "g1": 1932, "p0_n": 2},
    ]
    released = withhold_small(plan, answer(plan, "141002", rows), 10)
    assert _rows(plan, released) == [("141002001201", 1950, 12), (None, None, None)]
    assert released.coverage.cells_suppressed == 2
    assert withhold_small(plan, released, 10) == released
    merged = merge_answers(plan, [released, _elsewhere(plan)])
    assert merged.table.row_count == 2
    assert len(merged.suppressed_rows) == 1


def test_a_released_row_without_keys_stays_itself() -> None:
    """A genuine group of nulls is not mixed with what is withheld."""
    plan = make_plan("SELECT code, COUNT(*) AS n FROM conditions GROUP BY code")
    rows: list[dict[str, Cell]] = [{"g0": None, "p0_n": 30}, {"g0": "B20", "p0_n": 1}]
    released = withhold_small(plan, answer(plan, "141002", rows), 10)
    assert _rows(plan, released) == [(None, 30)]
    assert released.suppressed_rows == ()
    assert not finish(plan, released).complete


def _elsewhere(plan: LogicalPlan) -> PartialAnswer:
    """Another county's answer, of which everything is withheld."""
    other = withhold_small(
        plan, answer(plan, "141024", [{"g0": "141024001201", "g1": 1940, "p0_n": 3}]), 10
    )
    assert other.suppressed_rows == (0,)
    return other


def test_a_mean_over_too_few_of_many_is_withheld() -> None:
    """Fifty residents in the group do not hide the one whose value is known."""
    row: dict[str, Cell] = {"g0": "male", "p0_n": 50, "p1_n": 1, "p1_sum": 3.0, "p1_residents": 1}
    released = withhold_small(MEAN, answer(MEAN, "141002", [row]), 10)
    assert released.suppressed_rows == (0,)


def test_a_group_withheld_by_one_county_shows_what_the_other_released() -> None:
    """The answer says that a cell is missing; the merged row is what was released."""
    east = answer(COUNTED, "141002", [{"g0": "male", "p0_n": 30}])
    west = withhold_small(COUNTED, answer(COUNTED, "141024", [{"g0": "male", "p0_n": 4}]), 10)
    merged = merge_answers(COUNTED, [east, west])
    assert merged.suppressed_rows == ()
    assert _rows(COUNTED, merged) == [("male", 30)]
    assert merged.coverage.cells_suppressed == 1
    assert not finish(COUNTED, merged).complete


def test_a_group_that_only_withholders_have_stays_withheld() -> None:
    """Zero from one county and withheld by the other is withheld, never zero."""
    zero = answer(TOTAL, "141002", [{"p0_n": 0, "p1_n": 0}])
    small = withhold_small(TOTAL, answer(TOTAL, "141024", [{"p0_n": 3, "p1_sum": 2.0}]), 10)
    merged = merge_answers(TOTAL, [zero, small])
    assert merged.suppressed_rows == (0,)
    assert _rows(TOTAL, merged) == [(None, None)]


def test_the_strictest_threshold_is_reported() -> None:
    """The coverage carries the largest k among those who released."""
    east = withhold_small(COUNTED, answer(COUNTED, "141002", [{"g0": "male", "p0_n": 30}]), 25)
    west = withhold_small(COUNTED, answer(COUNTED, "141024", [{"g0": "male", "p0_n": 30}]), 10)
    assert merge_answers(COUNTED, [east, west]).coverage.cell_count_min == 25
    with pytest.raises(ValueError, match="at least 1"):
        withhold_small(COUNTED, east, 0)


def test_by_provider_residents_do_not_add_up() -> None:
    """Six people seen at two clinics may be the same six: the cell is withheld."""
    plan = make_plan("SELECT sex, COUNT(*) AS n FROM encounters GROUP BY sex", Basis.PROVIDER)
    parts = [answer(plan, node, [{"g0": "male", "p0_n": 6}]) for node in ("141002", "141024")]
    merged = merge_answers(plan, parts)
    assert merged.table.column("residents").values == (6,)
    assert merged.table.column("residents_exact").values == (False,)
    assert withhold_small(plan, merged, 10).suppressed_rows == (0,)


def test_a_spread_over_an_infinity_is_not_a_number() -> None:
    """A site whose one value is infinite makes the merged spread NaN, as the database has it."""
    plan = make_plan("SELECT VAR_POP(value) AS v FROM observations")
    lone: dict[str, Cell] = {"p0_n": 1, "p1_mean": math.inf, "p1_m2": 0.0}
    other: dict[str, Cell] = {"p0_n": 1, "p1_mean": 120.0, "p1_m2": 0.0}
    parts = [answer(plan, "141002", [lone]), answer(plan, "141024", [other])]
    for ordered in (parts, [answer(plan, "141002", [other]), answer(plan, "141024", [lone])]):
        ((value,),) = _rows(plan, merge_answers(plan, ordered))
        assert isinstance(value, float)
        assert math.isnan(value)
    assert _rows(plan, merge_answers(plan, parts[:1])) == [(0.0,)]


def test_nothing_answered_gives_no_row() -> None:
    """No site, no zero."""
    merged = merge_answers(TOTAL, [])
    assert merged.table == empty_table(TOTAL)
    assert _rows(TOTAL, merged) == []


def test_a_total_over_no_row_is_what_sql_says() -> None:
    """Count zero and sum null, and not withheld."""
    merged = merge_answers(TOTAL, [answer(TOTAL, "141002", [{"p0_n": 0, "p1_n": 0}])])
    assert _rows(TOTAL, withhold_small(TOTAL, merged, 10)) == [(0, None)]


def test_withheld_rows_stay_unless_their_keys_rule_them_out() -> None:
    """HAVING over aggregates cannot judge a withheld row, HAVING over keys can."""
    rows: list[dict[str, Cell]] = [
        {"g0": "female", "p0_n": 3},
        {"g0": "male", "p0_n": 3},
        {"g0": "other", "p0_n": 40},
    ]
    sql = "SELECT sex, COUNT(*) AS n FROM conditions GROUP BY sex HAVING n > 50 AND sex <> 'male'"
    plan = make_plan(sql)
    finished = finish(plan, withhold_small(plan, answer(plan, "141002", rows), 10))
    assert list(finished.table.rows()) == [("female", None)]
    assert finished.suppressed_rows == (0,)


@pytest.mark.parametrize("direction", ["ASC", "DESC", "DESC NULLS FIRST"])
def test_withheld_rows_come_last_when_ordered_by_a_figure(direction: str) -> None:
    """Their place says nothing of their size."""
    sql = f"SELECT sex, COUNT(*) AS n FROM conditions GROUP BY sex ORDER BY n {direction}"
    plan = make_plan(sql)
    rows: list[dict[str, Cell]] = [
        {"g0": key, "p0_n": n} for key, n in (("a", 40), ("b", 2), ("c", 60), ("d", 1))
    ]
    finished = finish(plan, withhold_small(plan, answer(plan, "141002", rows), 10))
    assert finished.suppressed_rows == (2, 3)
    assert [row[0] for row in finished.table.rows()][2:] == ["b", "d"]


def test_coverage_is_complete_only_when_everyone_known_is_counted() -> None:
    """A missing site, an unknown denominator or a shortfall make an answer partial."""
    missing = SiteCoverage("141024", SiteState.MISSING, residents_known=7, reason="no answer")
    assert Coverage((site("141002"),)).is_complete
    assert not Coverage((site("141002"), missing)).is_complete
    assert not Coverage((site("141002", 49, 50),)).is_complete
    assert not Coverage((site("141002", 49, None),)).is_complete
    merged = merge_coverage([Coverage((missing,)), Coverage((site("141002"),), 2, 10)])
    assert [part.node_id for part in merged.sites] == ["141002", "141024"]
    assert (merged.residents_covered, merged.residents_known) == (50, 57)
    assert (merged.cells_suppressed, merged.cell_count_min) == (2, 10)
    assert merged.missing == (missing,)
    assert merged.site("141024") == missing
    assert merged.site("14") is None
    assert Coverage((site("1", 1, None), site("2"))).residents_known is None


def test_a_lower_bound_is_enough_where_it_reaches_the_threshold() -> None:
    """Exact counting is asked for only where a bound is below k."""
    rows: list[dict[str, Cell]] = [{"g0": "male", "p0_n": 60, "residents": 12}]
    rows[0]["residents_exact"] = False
    table = answer(COUNTED, "141002", rows).table
    assert not needs_exact(COUNTED, table, 12)
    assert needs_exact(COUNTED, table, 13)


def _broken(column: str, value: Cell) -> PartialAnswer:
    row: dict[str, Cell] = {"g0": "male", "p0_n": 20, "p1_sum": 1.0}
    return answer(MEAN, "141002", [{**row, column: value}])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("p0_n", -1),
        ("p0_n", None),
        ("p0_n", 2.0),
        ("p0_n", True),
        ("p1_n", 21),
        ("p1_n", 0),
        ("p1_sum", None),
        ("p1_sum", "1"),
        ("residents", 21),
        ("residents", 0),
        ("residents", None),
        ("p1_residents", 0),
        ("residents_exact", None),
        ("g0", 3),
    ],
)
def test_refuses_figures_that_no_rows_could_have(column: str, value: Cell) -> None:
    """A lying or broken site is found before its figures are added."""
    check_answer(MEAN, _broken("g0", "male"))
    with pytest.raises(PartialInvalidError):
        check_answer(MEAN, _broken(column, value))


def test_refuses_a_table_of_another_shape() -> None:
    """Other columns, a group twice, figures in a withheld row, a row that is not there."""
    good = answer(COUNTED, "141002", [{"g0": "male", "p0_n": 20}])
    check_answer(COUNTED, good)
    twice = answer(COUNTED, "141002", [{"g0": "male", "p0_n": 20}] * 2)
    other = Table((Column("g0", ColumnType.INTEGER, (1,)), *good.table.columns[1:]))
    for bad in (
        twice,
        dataclasses.replace(good, table=other),
        dataclasses.replace(good, table=Table(good.table.columns[1:])),
        dataclasses.replace(good, suppressed_rows=(0,)),
        dataclasses.replace(good, suppressed_rows=(1,)),
    ):
        with pytest.raises(PartialInvalidError):
            check_answer(COUNTED, bad)
    with pytest.raises(PartialInvalidError):
        table_of(COUNTED, [["male"]])


def test_a_table_has_columns_of_one_length() -> None:
    """Anything else is a mistake of the caller."""
    with pytest.raises(ValueError, match="differ in length"):
        Table((Column("a", ColumnType.INTEGER, (1,)), Column("b", ColumnType.INTEGER, ())))
    with pytest.raises(KeyError):
        Table(()).column("a")
    assert Table(()).row_count == 0
