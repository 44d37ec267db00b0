"""The tree at work: every row once, every site once, whatever is offline, slow or lying."""

from __future__ import annotations

import pytest

from federation.availability import (
    ExtraMissingError,
    ScopeUnknownError,
    SiteSeedingError,
)
from federation.coordinator import reserve_ms
from federation.core.coverage import Coverage, SiteCoverage, SiteState
from federation.core.model import (
    Answer,
    ExecutorKind,
    Freshness,
    PartialAnswer,
    QueryRequest,
    SiteProgress,
)
from federation.core.partials import empty_table, table_of
from federation.core.plan import make_plan
from federation.errors import ExecutorUnavailableError
from tests.unit.federation.region import (
    ALL,
    BY_SEX,
    CITY,
    COUNTY,
    NOW_MS,
    OTHER_TOWNSHIP,
    OTHER_VILLAGE,
    PEOPLE,
    THIRD_VILLAGE,
    TOWNSHIP,
    VILLAGE,
    AuditFailedError,
    Region,
    ask,
    cells,
    people_of,
    states,
)


async def test_every_row_is_counted_once_at_its_home() -> None:
    """With everything up each node counts its own residents, and all sites are live."""
    region = Region(PEOPLE)
    answer = await ask(region)
    assert cells(answer.table) == ALL
    assert set(states(answer).values()) == {"live"}
    assert len(answer.coverage.sites) == 7
    assert answer.coverage.residents_covered == len(PEOPLE)
    assert answer.coverage.residents_known == len(PEOPLE)
    assert answer.complete
    assert all(scanner.scanned == [frozenset({code})] for code, scanner in region.scanners.items())


async def test_each_node_asks_its_direct_children_only() -> None:
    """The city never asks a village: the question goes down link by link."""
    region = Region(PEOPLE)
    await ask(region)
    assert {child for child, _, _ in region.asked} == set(region.coordinators) - {CITY}
    assert len(region.asked) == 6


@pytest.mark.parametrize("offline", [VILLAGE, TOWNSHIP, COUNTY])
async def test_best_lets_the_nearest_ancestor_stand_in(offline: str) -> None:
    """The whole subtree of an offline child is answered from its parent's copy, dated."""
    region = Region(PEOPLE)
    region.offline = {offline}
    answer = await ask(region)
    assert cells(answer.table) == ALL
    below = region.hierarchy.subtree(region.hierarchy.entry(offline).node_id)  # type: ignore[arg-type]
    parent = region.hierarchy.entry(offline).parent  # type: ignore[arg-type]
    for site in answer.coverage.sites:
        if site.node_id in below:
            assert (site.state, site.answered_by) == (SiteState.REPLICA, parent)
            assert site.as_of_ms == NOW_MS - 60_000
        else:
            assert site.state is SiteState.LIVE
    assert answer.complete


async def test_a_stand_in_counts_only_what_nobody_counted() -> None:
    """A township without analytics is filled in by its county; its villages stay live."""
    region = Region(PEOPLE)
    region.scanners[TOWNSHIP].error = ExtraMissingError("analytics", "duckdb")
    answer = await ask(region)
    assert cells(answer.table) == ALL
    assert states(answer)[TOWNSHIP] == "replica"
    assert states(answer)[VILLAGE] == "live"
    assert region.scanners[COUNTY].scanned[1:] == [frozenset({TOWNSHIP})]


async def test_a_site_without_a_mark_has_no_date_but_counts() -> None:
    """An unknown date is null, not a guess."""
    region = Region(PEOPLE)
    region.offline = {VILLAGE}
    region.indexes[TOWNSHIP].as_of_ms.clear()
    answer = await ask(region)
    site = answer.coverage.site(VILLAGE)
    assert site is not None
    assert site.as_of_ms is None
    assert site.residents_covered == 70


async def test_live_names_what_is_missing() -> None:
    """Nobody stands in, the missing rows are missing, and the reason is said."""
    region = Region(PEOPLE)
    region.offline = {TOWNSHIP}
    answer = await ask(region, Freshness.LIVE)
    assert cells(answer.table) == {"female": 8, "male": 8}
    missing = {site.node_id: site for site in answer.coverage.missing}
    assert set(missing) == {TOWNSHIP, VILLAGE, OTHER_VILLAGE}
    assert missing[TOWNSHIP].reason == "it is offline"
    assert missing[VILLAGE].residents_known == 70
    assert missing[VILLAGE].residents_covered == 0
    assert not answer.complete


async def test_replica_asks_nobody() -> None:
    """The own copy answers for every site."""
    region = Region(PEOPLE)
    answer = await ask(region, Freshness.REPLICA)
    assert region.asked == []
    assert cells(answer.table) == ALL
    assert states(answer) == {
        code: "live" if code == CITY else "replica" for code in region.coordinators
    }


async def test_a_child_that_does_not_answer_in_time_is_cut_off() -> None:
    """The rest of the answer arrives within the time, the silent one from the copy."""
    region = Region(PEOPLE)
    region.silent = {VILLAGE}
    answer = await ask(region, timeout_ms=400)
    assert cells(answer.table) == ALL
    assert states(answer)[VILLAGE] == "replica"
    assert states(answer)[OTHER_VILLAGE] == "live"


async def test_time_left_shrinks_at_every_hop() -> None:
    """Each node keeps a reserve for standing in and for the way back."""
    region = Region(PEOPLE)
    await ask(region, timeout_ms=30_000)
    left = {child: remaining for child, _, remaining in region.asked}
    assert 30_000 > left[COUNTY] > left[TOWNSHIP] > left[VILLAGE] > 0
    assert left[COUNTY] == 30_000 - reserve_ms(30_000)


@pytest.mark.parametrize("remaining_ms", [2, 10, 150, 1000, 30_000, 600_000])
def test_the_reserve_leaves_time_for_the_child(remaining_ms: int) -> None:
    """However short the time, at least half goes on."""
    assert 0 < reserve_ms(remaining_ms) <= remaining_ms // 2
    assert reserve_ms(remaining_ms) <= 5_000


async def test_an_answer_that_covers_a_foreign_site_is_refused() -> None:
    """A child cannot count for its sibling: its whole subtree is taken from the copy instead."""
    region = Region(PEOPLE)
    plan = make_plan(BY_SEX)
    lines = (
        SiteCoverage(VILLAGE, SiteState.LIVE, VILLAGE, NOW_MS),
        SiteCoverage(OTHER_VILLAGE, SiteState.LIVE, VILLAGE, NOW_MS),
    )
    region.lies = {VILLAGE: PartialAnswer(empty_table(plan), (), Coverage(lines))}
    answer = await ask(region)
    assert cells(answer.table) == ALL
    assert states(answer)[VILLAGE] == "replica"


async def test_an_answer_that_names_a_site_twice_is_refused() -> None:
    """Counting a site twice is never added up."""
    region = Region(PEOPLE)
    line = SiteCoverage(VILLAGE, SiteState.LIVE, VILLAGE, NOW_MS)
    empty = empty_table(make_plan(BY_SEX))
    region.lies = {VILLAGE: PartialAnswer(empty, (), Coverage((line, line)))}
    answer = await ask(region, Freshness.LIVE)
    site = answer.coverage.site(VILLAGE)
    assert site is not None
    assert site.state is SiteState.MISSING
    assert "invalid" in site.reason


async def test_impossible_figures_are_refused() -> None:
    """More residents than rows is no answer."""
    region = Region(PEOPLE)
    plan = make_plan(BY_SEX)
    table = table_of(plan, [["female"], [3], [9], [True]])
    line = SiteCoverage(VILLAGE, SiteState.LIVE, VILLAGE, NOW_MS)
    region.lies = {VILLAGE: PartialAnswer(table, (), Coverage((line,)))}
    assert states(await ask(region, Freshness.LIVE))[VILLAGE] == "missing"


async def test_a_site_that_an_answer_leaves_out_is_missing() -> None:
    """Nobody is silently absent, and under best the copy fills in."""
    region = Region(PEOPLE)
    empty = empty_table(make_plan(BY_SEX))
    region.lies = {TOWNSHIP: PartialAnswer(empty, (), Coverage())}
    live = await ask(region, Freshness.LIVE)
    assert {site.node_id for site in live.coverage.missing} == {TOWNSHIP, VILLAGE, OTHER_VILLAGE}
    assert cells((await ask(region)).table) == ALL


async def test_a_seeding_site_is_not_counted() -> None:
    """A half-filled replica would be silent loss; the ancestor answers."""
    region = Region(PEOPLE)
    region.scanners[VILLAGE].error = SiteSeedingError()
    live = await ask(region, Freshness.LIVE)
    assert states(live)[VILLAGE] == "seeding"
    best = await ask(region)
    assert states(best)[VILLAGE] == "replica"
    assert cells(best.table) == ALL


async def test_nobody_stands_in_for_a_site_that_refuses() -> None:
    """A refusal is the site's right; a copy must not go round it."""
    region = Region(PEOPLE)
    region.refuses = {VILLAGE: SiteState.DENIED}
    answer = await ask(region)
    assert states(answer)[VILLAGE] == "denied"
    assert cells(answer.table) == {"female": 13, "male": 16}


async def test_where_nobody_can_stand_in_the_first_reason_stays() -> None:
    """The county's own trouble does not hide that the township was offline."""
    region = Region(PEOPLE)
    region.offline = {TOWNSHIP}
    for code in (COUNTY, CITY):
        region.scanners[code].error = SiteSeedingError()
    answer = await ask(region)
    site = answer.coverage.site(TOWNSHIP)
    assert site is not None
    assert (site.state, site.reason) == (SiteState.MISSING, "it is offline")


async def test_small_cells_are_withheld_where_the_full_boundary_is_left() -> None:
    """Inside the county exact partials move; the city never sees a cell below the threshold."""
    people = people_of({VILLAGE: (6, 3), THIRD_VILLAGE: (6, 3), CITY: (0, 20)})
    region = Region(people, cell_count_min=10)
    answer = await ask(region)
    # The county's 12 women pass, its 6 men do not; the city's own 20 men do.
    assert cells(answer.table) == {"female": 12, "male": 20}
    assert answer.coverage.cells_suppressed == 1
    assert answer.coverage.cell_count_min == 10
    assert not answer.complete


async def test_the_answer_is_released_again_at_the_asker() -> None:
    """A cell that is small over the whole scope shows its key and no figure."""
    region = Region(people_of({VILLAGE: (30, 3)}), cell_count_min=10)
    answer = await ask(region, at=COUNTY)
    assert cells(answer.table) == {"female": 30, "male": None}
    assert answer.suppressed_rows == (1,)


async def test_the_strictest_contributor_decides() -> None:
    """One village's larger threshold holds for the cells that it takes part in."""
    region = Region(PEOPLE, overrides={VILLAGE: 50})
    answer = await ask(region, at=COUNTY)
    assert answer.coverage.cell_count_min == 50
    assert cells(answer.table) == {"female": None, "male": 56}


async def test_the_asker_can_only_raise_the_threshold() -> None:
    """A question for k = 1 at a node with k = 10 gets k = 10."""
    region = Region(PEOPLE, cell_count_min=10)
    request = QueryRequest(BY_SEX, cell_count_min=1)
    *_, answer = [event async for event in region.runner(COUNTY).run(request, "analyst")]
    assert isinstance(answer, Answer)
    assert answer.coverage.cell_count_min == 10


@pytest.mark.parametrize("scope", [VILLAGE, TOWNSHIP, OTHER_TOWNSHIP, COUNTY])
async def test_any_node_below_can_be_the_scope(scope: str) -> None:
    """The question passes through the nodes in between without counting their rows."""
    region = Region(PEOPLE)
    answer = await ask(region, scope=scope)
    inside = region.hierarchy.subtree(scope)  # type: ignore[arg-type]
    expected = [person for person in PEOPLE if person.home in inside]
    assert sum(cells(answer.table).values()) == len(expected)  # type: ignore[arg-type]
    assert set(states(answer)) == set(inside)
    assert set(states(answer).values()) == {"live"}


async def test_a_node_on_the_way_stands_in_for_the_scope() -> None:
    """The nearest ancestor that is up answers for a village that is not."""
    region = Region(PEOPLE)
    region.offline = {VILLAGE}
    answer = await ask(region, scope=VILLAGE)
    site = answer.coverage.site(VILLAGE)
    assert site is not None
    assert (site.state, site.answered_by) == (SiteState.REPLICA, TOWNSHIP)
    assert cells(answer.table) == {"female": 30, "male": 40}


async def test_a_scope_that_is_not_below_is_refused() -> None:
    """A township cannot be asked about its sibling."""
    with pytest.raises(ScopeUnknownError):
        await ask(Region(PEOPLE), at=TOWNSHIP, scope=THIRD_VILLAGE)


async def test_an_executor_that_the_node_lacks_is_refused() -> None:
    """The question is not quietly run by another one."""
    request = QueryRequest(BY_SEX, executor=ExecutorKind.RAY)
    with pytest.raises(ExecutorUnavailableError):
        async for _ in Region(PEOPLE).runner().run(request, "analyst"):
            pass


async def test_progress_names_every_direct_child() -> None:
    """The asker sees who was asked and how it went."""
    region = Region(PEOPLE)
    region.offline = {TOWNSHIP}
    request = QueryRequest(BY_SEX, freshness=Freshness.BEST)
    events = [event async for event in region.runner(COUNTY).run(request, "analyst")]
    steps = {(e.node_id, e.state.value) for e in events if isinstance(e, SiteProgress)}
    assert steps == {
        (TOWNSHIP, "asked"),
        (TOWNSHIP, "missing"),
        (OTHER_TOWNSHIP, "asked"),
        (OTHER_TOWNSHIP, "answered"),
    }


async def test_quarantined_residents_are_not_covered() -> None:
    """At home and where a node stands in; the answer is partial even if an index lags behind."""
    region = Region(PEOPLE)
    region.indexes[VILLAGE].quarantined = {VILLAGE: 2}
    region.indexes[TOWNSHIP].known[VILLAGE] = 68
    answer = await ask(region)
    line = answer.coverage.site(VILLAGE)
    assert line is not None
    assert (line.residents_covered, line.residents_quarantined) == (68, 2)
    assert not answer.complete
    region.offline.add(VILLAGE)
    region.indexes[TOWNSHIP].quarantined = {VILLAGE: 3, THIRD_VILLAGE: 9}
    stood_in = await ask(region)
    line = stood_in.coverage.site(VILLAGE)
    assert line is not None
    assert (line.residents_covered, line.residents_quarantined) == (67, 3)
    other = stood_in.coverage.site(THIRD_VILLAGE)
    assert other is not None
    assert other.residents_quarantined == 0
    assert not stood_in.complete


async def test_explaining_asks_nobody() -> None:
    """The statement, the merge, the sites and the privacy effect come without any work."""
    region = Region(PEOPLE, cell_count_min=10)
    explanation = region.runner().explain(QueryRequest(BY_SEX))
    assert region.asked == []
    assert 'FROM "residents"' in explanation.node_sql
    assert explanation.plan_digest == make_plan(BY_SEX).digest
    assert any(COUNTY in line for line in explanation.sites)
    assert any("<10" in note for note in explanation.privacy)


async def test_every_node_audits_a_question_before_it_counts() -> None:
    """The asker and each node that counts write one entry of the question."""
    region = Region(PEOPLE)
    answer = await ask(region)
    counting = {site.answered_by for site in answer.coverage.sites}
    assert region.noted == [("query-1", "residents")] * len(counting)


async def test_a_question_that_cannot_be_audited_is_not_counted() -> None:
    """Fail closed: no audit, no answer."""
    region = Region(PEOPLE)
    region.audit_fails = True
    with pytest.raises(AuditFailedError):
        await ask(region)
