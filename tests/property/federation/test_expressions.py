"""Expressions over aggregates mean here what they mean in the database."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from federation.core.finish import finish
from federation.core.merge import merge_answers
from federation.core.plan import make_plan
from federation.errors import QueryRefusedError, Refusal
from tests.property.federation.pooled import SITES, Region, by_key, same

_ATOMS = st.sampled_from(
    [
        "COUNT(*)",
        "COUNT(value)",
        "SUM(birth_year)",
        "AVG(value)",
        "SUM(value)",
        "0",
        "3",
        "2.5",
        "-7",
    ]
)
_WHOLE = st.sampled_from(["COUNT(*)", "COUNT(value)", "SUM(birth_year)", "17", "-17"])


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["+", "-", "*", "/"])
    compared = st.sampled_from(["<", "<=", "=", "<>", ">", ">="])
    return st.one_of(
        st.builds("({} {} {})".format, inner, binary, inner),
        st.builds("({} // {})".format, _WHOLE, st.sampled_from(["2", "7", "-3"])),
        st.builds("({} % {})".format, _WHOLE, st.sampled_from(["2", "7"])),
        st.builds("round({}, 2)".format, inner),
        st.builds("floor({})".format, inner),
        st.builds("ceil({})".format, inner),
        st.builds("abs({})".format, inner),
        st.builds("(- {})".format, inner),
        st.builds("least({}, {})".format, inner, inner),
        st.builds("greatest({}, {}, {})".format, inner, inner, inner),
        st.builds("coalesce({}, {})".format, inner, inner),
        st.builds("nullif({}, {})".format, inner, inner),
        st.builds(
            "(CASE WHEN {} {} {} THEN {} ELSE {} END)".format, inner, compared, inner, inner, inner
        ),
        st.builds(
            "(CASE WHEN {0} IS NULL OR NOT ({0} IN (3, 12) AND {1} > 2) THEN {1} END)".format,
            inner,
            inner,
        ),
    )


@pytest.fixture(scope="module")
def region() -> Region:
    """Rows with nulls, infinities and NaN."""
    return Region(7, special=True)


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(expression=st.recursive(_ATOMS, _wider, max_leaves=6))
def test_equals_the_database(region: Region, expression: str) -> None:
    """Arithmetic, conditions and rounding after aggregation equal the pooled ones."""
    sql = f"SELECT home AS k, COUNT(*) AS n, {expression} AS f FROM observations GROUP BY home"
    try:
        plan = make_plan(sql)
    except QueryRefusedError as refused:
        assert refused.refusal in (Refusal.NUMBER_TOO_LARGE, Refusal.TYPE_MISMATCH)  # noqa: PT017
        assume(False)
    merged = merge_answers(plan, [region.site(plan, [home], k=None) for home in SITES])
    found = by_key(list(finish(plan, merged).table.rows()), 1)
    for key, figures in by_key(region.pooled(sql), 1).items():
        assert all(same(a, b) for a, b in zip(figures, found[key], strict=True)), (
            key,
            figures,
            found[key],
        )
