"""A federated answer is the pooled answer, whatever the question and the cut into sites."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.core.finish import finish
from federation.core.merge import merge_answers
from federation.core.model import Cell, PartialAnswer
from federation.core.plan import LogicalPlan, make_plan
from federation.core.release import keys_are_public, withhold_small
from tests.property.federation.pooled import SITES, Query, Region, by_key, queries, same

SEEDS = range(6)
_SETTINGS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def regions() -> list[Region]:
    """A few regions of different sizes; the last has infinities and NaN among its values."""
    return [*(Region(seed) for seed in SEEDS), Region(99, special=True)]


def cuts() -> st.SearchStrategy[list[list[str]]]:
    """The homes dealt out to one to five sites."""

    def deal(numbers: list[int]) -> list[list[str]]:
        sites: dict[int, list[str]] = {}
        for home, number in zip(SITES, numbers, strict=True):
            sites.setdefault(number, []).append(home)
        return list(sites.values())

    one_each = st.lists(st.integers(0, 4), min_size=len(SITES), max_size=len(SITES))
    return one_each.map(deal)


def _merged(
    plan: LogicalPlan, region: Region, cut: list[list[str]], k: int | None
) -> PartialAnswer:
    return merge_answers(plan, [region.site(plan, homes, k=k) for homes in cut])


def _assert_same(expected: dict[str, tuple[Cell, ...]], found: dict[str, tuple[Cell, ...]]) -> None:
    assert expected.keys() == found.keys()
    for key, figures in expected.items():
        pairs = zip(figures, found[key], strict=True)
        assert all(same(a, b) for a, b in pairs), (key, figures, found[key])


@_SETTINGS
@given(query=queries(), cut=cuts(), which=st.integers(0, 6), bounded=st.booleans())
def test_equals_pooled_without_a_threshold(
    regions: list[Region], query: Query, cut: list[list[str]], which: int, *, bounded: bool
) -> None:
    """At k = 1 every figure equals the pooled one to 1e-9, groups and nulls included."""
    region, plan = regions[which], make_plan(query.sql)
    merged = withhold_small(plan, _merged(plan, region, cut, 1 if bounded else None), 1)
    finished = finish(plan, merged)
    assert finished.complete
    assert finished.suppressed_rows == ()
    key_count = len(query.groups)
    _assert_same(
        by_key(region.pooled(query.sql), key_count), by_key(list(finished.table.rows()), key_count)
    )


@_SETTINGS
@given(query=queries(), cut=cuts(), which=st.integers(0, 6), bounded=st.booleans())
def test_equals_pooled_under_the_same_suppression(
    regions: list[Region], query: Query, cut: list[list[str]], which: int, *, bounded: bool
) -> None:
    """At k = 10 the same rows are withheld as in the pooled data, and the others are equal."""
    k, key_count = 10, len(query.groups)
    region, plan = regions[which], make_plan(query.sql)
    merged = withhold_small(plan, _merged(plan, region, cut, k if bounded else None), k)
    finished = finish(plan, merged)
    expected = by_key(region.pooled(query.sql), key_count)
    residents = by_key(region.pooled(query.residents), key_count)
    rows = list(finished.table.rows())
    found = by_key(rows, key_count)
    hidden = set(by_key([rows[index] for index in finished.suppressed_rows], key_count))
    small = {key for key, row in residents.items() if any(0 < int(n or 0) < k for n in row)}
    assert merged.coverage.cells_suppressed == len(small)
    assert finished.complete == (not small)
    for key in hidden:
        assert all(figure is None for figure in found[key])
    keyless = by_key([(None,) * key_count], key_count).keys() if key_count else set()
    if keys_are_public(plan):
        assert hidden == small
    else:
        # One row without keys stands for all of them, or none where a released row looks so.
        assert hidden == (
            set() if not small or keyless <= expected.keys() - small else set(keyless)
        )
    _assert_same(
        {key: row for key, row in expected.items() if key not in small},
        {key: row for key, row in found.items() if key not in hidden},
    )


@_SETTINGS
@given(query=queries(), which=st.integers(0, 6), seed=st.integers(0, 10**6))
def test_merge_is_order_free(regions: list[Region], query: Query, which: int, seed: int) -> None:
    """Any order gives the same bits; any grouping on the way up gives the same figures."""
    region, plan = regions[which], make_plan(query.sql)
    answers = [region.site(plan, [home], k=None) for home in SITES]
    shuffled = list(answers)
    random.Random(seed).shuffle(shuffled)
    flat = merge_answers(plan, answers)
    again = merge_answers(plan, shuffled)
    assert repr(flat) == repr(again)
    cut = 1 + seed % (len(SITES) - 1)
    tree = merge_answers(
        plan, [merge_answers(plan, shuffled[:cut]), merge_answers(plan, shuffled[cut:])]
    )
    key_count = len(query.groups)
    _assert_same(
        by_key(list(flat.table.rows()), key_count), by_key(list(tree.table.rows()), key_count)
    )
    assert flat.coverage == tree.coverage


@_SETTINGS
@given(query=queries(), which=st.integers(0, 6), k=st.integers(2, 15))
def test_no_small_group_leaves_a_releasing_node(
    regions: list[Region], query: Query, which: int, k: int
) -> None:
    """What a county releases rests on k residents or none, by the database's own count."""
    region, plan = regions[which], make_plan(query.sql)
    key_count = len(query.groups)
    counties = [SITES[:3], SITES[3:]]
    released = [withhold_small(plan, region.site(plan, homes, k=k), k) for homes in counties]
    shown: dict[str, int] = {}
    for homes, answer in zip(counties, released, strict=True):
        marks = ", ".join(f"'{home}'" for home in homes)
        where = f"home IN ({marks})" + (f" AND {query.where}" if query.where else "")
        inside = Query(query.groups, query.aggregates, query.arguments, where)
        truth = by_key(region.pooled(inside.residents), key_count)
        rows = list(answer.table.rows())
        for index, row in enumerate(rows):
            (key,) = by_key([row], key_count)
            if index in answer.suppressed_rows:
                assert all(cell is None for cell in row[key_count:])
            else:
                assert all(n == 0 or int(n or 0) >= k for n in truth[key])
                shown[key] = shown.get(key, 0) + int(truth[key][0] or 0)
    city = withhold_small(plan, merge_answers(plan, released), k)
    hidden = set(city.suppressed_rows)
    for index, row in enumerate(city.table.rows()):
        (key,) = by_key([row], key_count)
        assert (index in hidden) == (shown.get(key, 0) == 0 and _withheld(released, key, key_count))
    assert city.coverage.cells_suppressed == sum(
        part.coverage.cells_suppressed for part in released
    )
    assert city.coverage.cell_count_min == k


def _withheld(released: list[PartialAnswer], key: str, key_count: int) -> bool:
    """Whether a county withheld the group."""
    for answer in released:
        rows = list(answer.table.rows())
        if key in by_key([rows[index] for index in answer.suppressed_rows], key_count):
            return True
    return False


@_SETTINGS
@given(
    query=queries(),
    which=st.integers(0, 5),
    direction=st.sampled_from(["ASC", "DESC", "ASC NULLS FIRST", "DESC NULLS FIRST"]),
    limit=st.integers(0, 9),
)
def test_having_order_and_limit_equal_pooled(
    regions: list[Region], query: Query, which: int, limit: int, direction: str
) -> None:
    """The same rows in the same order, nulls in the same place."""
    region = regions[which]
    keys = ", ".join(f"{index + 1} {direction}" for index in range(len(query.groups)))
    order = f"ORDER BY COUNT(*) {direction}, {keys}" if keys else "ORDER BY COUNT(*)"
    sql = f"{query.sql} HAVING COUNT(*) % 3 <> 1 {order} LIMIT {limit} OFFSET 1"
    plan = make_plan(sql)
    found = list(finish(plan, _merged(plan, region, [[home] for home in SITES], 1)).table.rows())
    expected = region.pooled(sql)
    assert len(found) == len(expected)
    for left, right in zip(expected, found, strict=True):
        assert all(same(a, b) for a, b in zip(left, right, strict=True)), (expected, found)
