"""One meaning has one plan, whatever the writing, and what a node runs comes from the plan."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.core.datasets import DATASETS, ColumnClass
from federation.core.explain import merge_steps, privacy_notes
from federation.core.model import Basis, ColumnType
from federation.core.node_sql import node_sql, residents_sql
from federation.core.partials import partial_columns
from federation.core.plan import make_plan

_CONNECTION = duckdb.connect()
DEMO = (
    "SELECT county, sex, COUNT(DISTINCT resident_id) AS people, AVG(value) AS mean_systolic "
    "FROM observations WHERE code = '8480-6' GROUP BY county, sex"
)


@pytest.mark.parametrize(
    "sql",
    [
        DEMO.lower(),
        DEMO.replace(" ", "\n\t ") + " ;",
        DEMO.replace("GROUP BY county, sex", "GROUP BY ALL"),
        DEMO.replace("GROUP BY county, sex", "GROUP BY 1, 2"),
        DEMO.replace("AS people", "AS 人数").replace("AS mean_systolic", ""),
        DEMO.replace("FROM observations", "FROM observations AS o").replace("sex,", "o.sex,"),
        DEMO.replace("county, sex,", "county AS 县, sex,").replace("BY county", "BY 县"),
        "/* a question */ (" + DEMO + ") -- the end",
        DEMO.replace("code = '8480-6'", "(\"code\") = ('8480-6')"),
    ],
)
def test_writing_does_not_change_the_digest(sql: str) -> None:
    """Case, space, names, positions and parentheses are not part of the meaning."""
    assert make_plan(sql).digest == make_plan(DEMO).digest


@pytest.mark.parametrize(
    "sql",
    [
        DEMO.replace("8480-6", "8462-4"),
        DEMO.replace("AVG", "SUM"),
        DEMO.replace("county", "township"),
        DEMO + " LIMIT 3",
        DEMO + " ORDER BY people",
        DEMO + " HAVING COUNT(*) > 3",
        DEMO.replace("observations", "observations").replace("WHERE code = '8480-6' ", ""),
    ],
)
def test_meaning_changes_the_digest(sql: str) -> None:
    """Every clause counts."""
    assert make_plan(sql).digest != make_plan(DEMO).digest


def test_the_basis_is_part_of_the_digest() -> None:
    """Counting at the author is another question."""
    sql = "SELECT COUNT(*) FROM encounters"
    assert make_plan(sql).digest != make_plan(sql, Basis.PROVIDER).digest


def test_columns_and_outputs_of_the_demo() -> None:
    """Names in the order selected, types known before anything runs."""
    plan = make_plan(DEMO)
    named = [(output.name, output.type) for output in plan.outputs]
    assert named == [
        ("county", ColumnType.STRING),
        ("sex", ColumnType.STRING),
        ("people", ColumnType.INTEGER),
        ("mean_systolic", ColumnType.NUMBER),
    ]
    assert plan.columns == {"county", "sex", "code", "value"}
    assert plan.needs_places
    assert plan.counts_residents
    assert [part.name for part in partial_columns(plan)] == [
        "g0",
        "g1",
        "p0_n",
        "p1_n",
        "p1_sum",
        "p1_residents",
        "residents",
        "residents_exact",
    ]


def test_unnamed_outputs_get_names_that_differ() -> None:
    """A column keeps its name, an aggregate gets its function's."""
    plan = make_plan(
        "SELECT sex, COUNT(*), AVG(value), AVG(value) + 1, COUNT(*) FROM observations GROUP BY sex"
    )
    names = [output.name for output in plan.outputs]
    assert names == ["sex", "count", "avg_value", "column_4", "count_2"]


def test_places_are_joined_only_where_they_are_needed() -> None:
    """A question about homes reads the dataset alone."""
    plan = make_plan("SELECT home, COUNT(*) FROM conditions GROUP BY home")
    assert not plan.needs_places
    assert "places" not in node_sql(plan)
    assert "places" in node_sql(make_plan(DEMO))


def test_rows_of_residents_are_residents() -> None:
    """No distinct count where a row is a resident."""
    plan = make_plan(
        "SELECT sex, COUNT(DISTINCT resident_id), COUNT(*) FROM residents GROUP BY sex"
    )
    assert "DISTINCT" not in node_sql(plan)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_a_literal_reaches_the_node_as_it_is_and_as_nothing_else(text: str) -> None:
    """Quotes, comments and backslashes in a literal stay inside it."""
    if not text.isprintable():
        return
    quoted = text.replace("'", "''")
    plan = make_plan(f"SELECT COUNT(*) FROM residents WHERE sex = '{quoted}'")
    connection = _CONNECTION
    connection.execute("CREATE OR REPLACE TABLE residents (resident_id VARCHAR, sex VARCHAR)")
    connection.execute("INSERT INTO residents VALUES ('a', ?), ('b', 'other one')", [text])
    expected = 1 + (text == "other one")
    assert connection.sql(node_sql(plan)).fetchall()[0][0] == expected


def test_nothing_of_the_text_but_literals_gets_into_the_statement() -> None:
    """Names, comments and aliases of the asker are not rendered."""
    sql = 'SELECT sex AS "x; DROP TABLE y", COUNT(*) AS n /* secret */ FROM residents r GROUP BY 1'
    plan = make_plan(sql)
    for statement in (
        node_sql(plan),
        residents_sql(plan, rows_per_resident_max=2, cell_count_min=10),
    ):
        assert "DROP" not in statement
        assert "secret" not in statement


def test_identifiers_of_every_dataset_are_never_in_a_plan() -> None:
    """The dictionary's identifiers cannot be read by any plan but through the distinct count."""
    for dataset in DATASETS.values():
        plan = make_plan(f"SELECT COUNT(DISTINCT resident_id) FROM {dataset.name}")
        assert plan.columns == frozenset()
        assert dataset.by_name["resident_id"].column_class is ColumnClass.IDENTIFIER


def test_a_bound_below_one_is_a_callers_mistake() -> None:
    """There is no resident without a row."""
    with pytest.raises(ValueError, match="at least 1"):
        node_sql(make_plan(DEMO), rows_per_resident_max=0)


def test_explains_the_merge_and_the_privacy() -> None:
    """Sentences for --explain name the partials and the threshold."""
    plan = make_plan(DEMO + " HAVING COUNT(*) > 3 LIMIT 2")
    steps = "\n".join(merge_steps(plan))
    assert "p1_sum" in steps
    assert "HAVING" in steps
    assert "LIMIT" in steps
    assert "<10" in privacy_notes(plan, 10)[0]
    assert "threshold is 1" in privacy_notes(plan, 1)[0]
    by_provider = make_plan("SELECT STDDEV(value) FROM observations", Basis.PROVIDER)
    assert "p1_m2" in "\n".join(merge_steps(by_provider))
    assert "largest" in "\n".join(merge_steps(by_provider))
