"""Every reason to refuse a question is reached by a question, and says what is allowed instead."""

from __future__ import annotations

import pytest

from federation.core.model import Basis
from federation.core.plan import make_plan
from federation.core.refusals import REFUSALS
from federation.errors import QueryRefusedError, Refusal

_LONG = "SELECT COUNT(*) FROM residents WHERE sex = '" + "x" * 9000 + "'"
_DEEP = "SELECT COUNT(*) FROM residents WHERE " + " OR ".join(["sex = 'male'"] * 100)
_MANY = "SELECT COUNT(*) FROM residents WHERE birth_year IN (" + ",".join("1" * 501) + ")"
_OVERFLOW = "SELECT birth_year * birth_year * birth_year AS y, COUNT(*) FROM residents GROUP BY 1"
_TRUNC = "SELECT sex, YEAR(deceased_on) AS y, COUNT(*) FROM residents GROUP BY sex, deceased_on"

EXAMPLES: list[tuple[Refusal, str]] = [
    (Refusal.SYNTAX, ""),
    (Refusal.SYNTAX, "SELECT COUNT(* FROM residents"),
    (Refusal.SYNTAX, "SELECT 'unclosed FROM residents"),
    (Refusal.SYNTAX, "SELECT COUNT(*) FROM residents GROUP BY 'a'"),
    (Refusal.TOO_LONG, _LONG),
    (Refusal.TOO_DEEP, _DEEP),
    (Refusal.TOO_DEEP, "SELECT " + "(" * 2000 + "1" + ")" * 2000 + " FROM residents"),
    (Refusal.TOO_MANY_LITERALS, _MANY),
    (Refusal.MULTIPLE_STATEMENTS, "SELECT COUNT(*) FROM residents; SELECT COUNT(*) FROM residents"),
    (Refusal.NOT_SELECT, "DROP TABLE residents"),
    (Refusal.NOT_SELECT, "COPY residents TO 'x'"),
    (Refusal.NOT_SELECT, "PRAGMA database_list"),
    (Refusal.SET_OPERATION, "SELECT COUNT(*) FROM residents UNION SELECT COUNT(*) FROM residents"),
    (Refusal.CTE, "WITH r AS (SELECT * FROM residents) SELECT COUNT(*) FROM r"),
    (Refusal.SUBQUERY, "SELECT COUNT(*) FROM (SELECT * FROM residents) AS r"),
    (Refusal.SUBQUERY, "SELECT COUNT(*) FROM residents WHERE sex IN (SELECT sex FROM residents)"),
    (Refusal.SUBQUERY, "SELECT COUNT(*) FROM residents WHERE EXISTS (SELECT 1)"),
    (Refusal.JOIN, "SELECT COUNT(*) FROM residents, observations"),
    (Refusal.JOIN, "SELECT COUNT(*) FROM residents JOIN conditions USING (resident_id)"),
    (Refusal.NO_DATASET, "SELECT COUNT(*)"),
    (Refusal.UNKNOWN_TABLE, "SELECT COUNT(*) FROM identifiers"),
    (Refusal.UNKNOWN_TABLE, "SELECT COUNT(*) FROM main.residents"),
    (Refusal.UNKNOWN_TABLE, "SELECT COUNT(*) FROM read_csv('/etc/passwd')"),
    (Refusal.UNKNOWN_TABLE, "SELECT COUNT(*) FROM '/etc/passwd'"),
    (Refusal.UNKNOWN_TABLE, "SELECT COUNT(x.sex) FROM residents AS r"),
    (Refusal.UNKNOWN_COLUMN, "SELECT name, COUNT(*) FROM residents GROUP BY name"),
    (Refusal.UNKNOWN_COLUMN, "SELECT COUNT(*) FROM residents WHERE value > 3"),
    (Refusal.STAR, "SELECT * FROM residents"),
    (Refusal.STAR, "SELECT residents.* FROM residents"),
    (Refusal.IDENTIFIER_SELECTED, "SELECT resident_id, COUNT(*) FROM residents GROUP BY 1"),
    (Refusal.IDENTIFIER_SELECTED, "SELECT COUNT(*) FROM residents WHERE resident_id = 'a'"),
    (Refusal.IDENTIFIER_SELECTED, "SELECT COUNT(*) FROM residents ORDER BY row_id"),
    (Refusal.IDENTIFIER_SELECTED, "SELECT COUNT(resident_id) FROM residents"),
    (Refusal.IDENTIFIER_SELECTED, "SELECT encounter_id FROM conditions"),
    (Refusal.DISTINCT, "SELECT DISTINCT sex FROM residents"),
    (Refusal.DISTINCT, "SELECT COUNT(DISTINCT sex) FROM residents"),
    (Refusal.DISTINCT, "SELECT COUNT(DISTINCT row_id) FROM residents"),
    (Refusal.DISTINCT, "SELECT SUM(DISTINCT birth_year) FROM residents"),
    (Refusal.NO_AGGREGATE, "SELECT sex FROM residents GROUP BY sex"),
    (Refusal.NO_AGGREGATE, "SELECT sex FROM residents GROUP BY sex HAVING COUNT(*) > 5"),
    (Refusal.NOT_GROUPED, "SELECT sex, COUNT(*) FROM residents"),
    (Refusal.NOT_GROUPED, "SELECT COUNT(*) FROM residents GROUP BY sex HAVING county = '1'"),
    (Refusal.NESTED_AGGREGATE, "SELECT SUM(COUNT(*)) FROM residents"),
    (Refusal.AGGREGATE_MISPLACED, "SELECT COUNT(*) FROM residents WHERE COUNT(*) > 1"),
    (Refusal.AGGREGATE_MISPLACED, "SELECT COUNT(*) FROM residents GROUP BY 1"),
    (Refusal.AGGREGATE_ARGUMENT, "SELECT SUM(CASE WHEN sex = 'male' THEN 1 END) FROM residents"),
    (Refusal.AGGREGATE_ARGUMENT, "SELECT COUNT(NULLIF(sex, 'male')) FROM residents"),
    (Refusal.AGGREGATE_ARGUMENT, "SELECT SUM(FLOOR(value / 300)) FROM observations"),
    (Refusal.AGGREGATE_FILTER, "SELECT COUNT(*) FILTER (WHERE sex = 'male') FROM residents"),
    (Refusal.MIN_MAX, "SELECT MIN(value) FROM observations"),
    (Refusal.MIN_MAX, "SELECT MAX(birth_year) FROM residents"),
    (Refusal.MIN_MAX, "SELECT MEDIAN(value) FROM observations"),
    (Refusal.MEASURE_GROUPED, "SELECT value, COUNT(*) FROM observations GROUP BY value"),
    (Refusal.MEASURE_GROUPED, "SELECT ROUND(value), COUNT(*) FROM observations GROUP BY 1"),
    (Refusal.GROUPING_SETS, "SELECT sex, COUNT(*) FROM residents GROUP BY ROLLUP (sex)"),
    (Refusal.GROUPING_SETS, "SELECT sex, COUNT(*) FROM residents GROUP BY CUBE (sex)"),
    (Refusal.GROUPING_SETS, "SELECT COUNT(*) FROM residents GROUP BY GROUPING SETS ((sex), ())"),
    (Refusal.WINDOW_FUNCTION, "SELECT COUNT(*) OVER () FROM residents"),
    (Refusal.WINDOW_FUNCTION, "SELECT ROW_NUMBER() OVER (ORDER BY sex) FROM residents"),
    (Refusal.WINDOW_FUNCTION, "SELECT COUNT(*) FROM residents QUALIFY COUNT(*) OVER () > 1"),
    (Refusal.FUNCTION_NOT_ALLOWED, "SELECT COUNT(*), version() FROM residents"),
    (Refusal.FUNCTION_NOT_ALLOWED, "SELECT STRING_AGG(sex, ',') FROM residents"),
    (Refusal.FUNCTION_NOT_ALLOWED, "SELECT COUNT(*) FROM residents WHERE getenv('HOME') = 'x'"),
    (Refusal.FUNCTION_NOT_ALLOWED, "SELECT COUNT(*) FROM residents WHERE sex IS TRUE"),
    (Refusal.FUNCTION_NOT_ALLOWED, "SELECT COUNT(*) FROM residents WHERE deceased_on < now()"),
    (Refusal.CLAUSE_NOT_ALLOWED, "SELECT COUNT(*) FROM residents USING SAMPLE 10"),
    (Refusal.PARAMETER, "SELECT COUNT(*) FROM residents WHERE sex = ?"),
    (Refusal.PARAMETER, "SELECT COUNT(*) FROM residents WHERE sex = $1"),
    (Refusal.TYPE_MISMATCH, "SELECT COUNT(*) FROM observations WHERE code = 8480"),
    (Refusal.TYPE_MISMATCH, "SELECT AVG(code) FROM observations"),
    (Refusal.TYPE_MISMATCH, "SELECT COUNT(*) FROM residents WHERE sex"),
    (Refusal.LITERAL, "SELECT COUNT(*) FROM observations WHERE observed_on > '2020-13-01'"),
    (Refusal.LITERAL, "SELECT COUNT(*) FROM observations WHERE value > 1e300"),
    (Refusal.LITERAL, "SELECT COUNT(*) FROM residents WHERE sex = 'a\x07'"),
    (Refusal.LITERAL, "SELECT COUNT(*) FROM residents LIMIT 1 + 1"),
    (Refusal.NUMBER_TOO_LARGE, _OVERFLOW),
    (Refusal.ZERO_DIVISOR, "SELECT birth_year % 0 AS y, COUNT(*) FROM residents GROUP BY 1"),
    (Refusal.ZERO_DIVISOR, "SELECT AVG(1 / (birth_year - 1950)) FROM residents"),
    (Refusal.AFTER_AGGREGATION, _TRUNC),
    (Refusal.DUPLICATE_NAME, "SELECT COUNT(*) AS n, AVG(birth_year) AS n FROM residents"),
    (Refusal.DUPLICATE_NAME, "SELECT UPPER(sex) AS sex, COUNT(*) FROM residents GROUP BY sex"),
]


@pytest.mark.parametrize(("refusal", "sql"), EXAMPLES)
def test_refuses_with_the_reason_and_the_nearest_form(refusal: Refusal, sql: str) -> None:
    """Each question is refused for its own reason, with a sentence and a hint."""
    with pytest.raises(QueryRefusedError) as caught:
        make_plan(sql)
    assert caught.value.refusal is refusal, caught.value
    assert caught.value.message
    assert caught.value.hint


def test_refuses_distinct_people_by_provider() -> None:
    """People seen at two providers do not add up, so the count is refused on that basis."""
    sql = "SELECT COUNT(DISTINCT resident_id) FROM encounters"
    make_plan(sql, Basis.RESIDENCE)
    with pytest.raises(QueryRefusedError) as caught:
        make_plan(sql, Basis.PROVIDER)
    assert caught.value.refusal is Refusal.DISTINCT_BY_PROVIDER


def test_every_refusal_is_catalogued_and_tested() -> None:
    """No reason without words, none without a question that reaches it."""
    assert set(REFUSALS) == set(Refusal)
    reached = {refusal for refusal, _ in EXAMPLES} | {Refusal.DISTINCT_BY_PROVIDER}
    assert reached == set(Refusal)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM residents WHERE \"张三丰 110101199003071233\" = 'a'",
        "SELECT COUNT(*) FROM residents WHERE sex = '张三丰 110101199003071233' AND name = 'x'",
        "SELECT COUNT(*) FROM residents WHERE observed_on > '张三丰 110101199003071233'",
        'SELECT "张三丰 110101199003071233"(sex), COUNT(*) FROM residents',
        'SELECT COUNT(*) FROM "张三丰 110101199003071233"',
    ],
)
def test_a_refusal_repeats_nothing_that_may_be_a_persons(sql: str) -> None:
    """Quoted names and literals never appear in a message or hint."""
    with pytest.raises(QueryRefusedError) as caught:
        make_plan(sql)
    said = caught.value.message + caught.value.hint
    assert "张三丰" not in said
    assert "110101199003071233" not in said
