"""What a node checks of a question's manifest, and what the asker's manifest holds it to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation.availability import ConfigEpochMismatchError, ManifestRefusedError
from federation.coordinator import Question
from federation.core.model import Basis, Freshness, Manifest, PartialAnswer, PartialRequest
from federation.core.partials import table_of
from federation.core.plan import make_plan
from federation.errors import PlanMismatchError
from federation.wire import encode_manifest
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
    Region,
    ask,
    cells,
    sign,
    states,
)


def partial_request(site: str) -> PartialRequest:
    """The question of the tests for one subtree."""
    return PartialRequest(BY_SEX, Freshness.BEST, Basis.RESIDENCE, site)


MANIFEST = Manifest(
    query_id="q",
    principal="spiffe://linfen/1410/analyst/li",
    asking_node=CITY,
    purpose="statistics",
    scope=COUNTY,
    cell_count_min=1,
    sites_min=1,
    deadline_ms=NOW_MS,
    plan_digest=make_plan(BY_SEX).digest,
    config_epoch=3,
)


async def test_a_signed_manifest_opens_the_node() -> None:
    """The manifest of the refusals below is a good one."""
    region = Region(PEOPLE)
    answer = await region.coordinators[TOWNSHIP].answer(
        partial_request(TOWNSHIP), sign(encode_manifest(MANIFEST)), 1000
    )
    assert {site.node_id for site in answer.coverage.sites} == {TOWNSHIP, VILLAGE, OTHER_VILLAGE}


async def test_an_unsigned_manifest_is_refused() -> None:
    """Before anything is computed."""
    region = Region(PEOPLE)
    signed = replace(sign(encode_manifest(MANIFEST)), signature=b"forged")
    with pytest.raises(ManifestRefusedError):
        await region.coordinators[TOWNSHIP].answer(partial_request(TOWNSHIP), signed, 1000)


@pytest.mark.parametrize(
    ("changes", "site"),
    [
        ({"scope": OTHER_TOWNSHIP}, TOWNSHIP),
        ({"scope": "999999"}, TOWNSHIP),
        ({"asking_node": OTHER_TOWNSHIP}, TOWNSHIP),
        ({"asking_node": VILLAGE}, TOWNSHIP),
        ({}, THIRD_VILLAGE),
        ({}, COUNTY),
    ],
)
async def test_a_manifest_for_something_else_is_refused(changes: dict[str, str], site: str) -> None:
    """Another scope, an asker that is not above, a site that is not below."""
    region = Region(PEOPLE)
    signed = sign(encode_manifest(replace(MANIFEST, **changes)))  # type: ignore[arg-type]
    with pytest.raises(ManifestRefusedError):
        await region.coordinators[TOWNSHIP].answer(partial_request(site), signed, 1000)


async def test_a_node_at_another_region_epoch_refuses() -> None:
    """Even where the tree of that epoch has other sites: the epoch is what is wrong."""
    region = Region(PEOPLE)
    signed = sign(encode_manifest(replace(MANIFEST, config_epoch=4, scope="999999")))
    with pytest.raises(ConfigEpochMismatchError, match=f"epoch 4, {TOWNSHIP} is at 3"):
        await region.coordinators[TOWNSHIP].answer(partial_request(TOWNSHIP), signed, 1000)


async def test_a_copy_stands_in_for_a_site_at_another_epoch() -> None:
    """It cannot answer this tree's questions, and has not denied them."""
    region = Region(PEOPLE)
    region.epochs[TOWNSHIP] = 4
    live = await ask(region, Freshness.LIVE)
    assert states(live)[TOWNSHIP] == "missing"
    line = live.coverage.site(TOWNSHIP)
    assert line is not None
    assert "region epoch" in line.reason
    answer = await ask(region)
    assert states(answer)[TOWNSHIP] == "replica"
    assert cells(answer.table) == ALL


async def test_too_few_sites_release_nothing() -> None:
    """The asker's wish for a number of sites is kept where the answer leaves."""
    region = Region(PEOPLE)
    coordinator = region.coordinators[CITY]
    answer = await ask(region)
    partial = PartialAnswer(
        table_of(make_plan(BY_SEX), [["female", "male"], [43, 56], [43, 56], [True, True]]),
        (),
        answer.coverage,
    )
    for sites_min, hidden in ((7, ()), (8, (0, 1))):
        manifest = replace(MANIFEST, sites_min=sites_min)
        question = Question(
            make_plan(BY_SEX), partial_request(CITY), manifest, sign(b""), remaining_ms=1
        )
        released = coordinator.release(question, partial)
        assert released.suppressed_rows == hidden
        assert released.coverage.cells_suppressed == len(hidden)


async def test_a_node_that_plans_differently_refuses() -> None:
    """No partial of another question is ever added up."""
    region = Region(PEOPLE)
    signed = sign(encode_manifest(replace(MANIFEST, plan_digest="0" * 64)))
    with pytest.raises(PlanMismatchError):
        await region.coordinators[TOWNSHIP].answer(partial_request(TOWNSHIP), signed, 1000)
