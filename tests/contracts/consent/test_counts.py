"""Who forbids a purpose is in no count made for it: at his home, and wherever his rows went."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from federation.columnar import ColumnarLimits, ColumnarReplica
from federation.core.model import Manifest
from federation.core.plan import make_plan
from federation.local import LocalSite
from hierarchy_config.model import NodeId
from node.asking import audience_of
from node.columnar_feed import StorageSource
from node.consent.consents import ConsentDesk
from node.consent.model import Wanted
from node.storage.specs import CONSENTS
from node.storage.transforms import deidentified
from replication.core.model import Value
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    bundle,
    change,
    count,
    observation,
    person,
)

WITHHOLDS: Final = "00000000-0000-7000-9000-000000000001"
OTHER: Final = "00000000-0000-7000-9000-000000000002"
TODAY: Final = "2026-11-18"
UPWARD: Final = (VILLAGE, TOWNSHIP, COUNTY, CITY)


class Counting:
    """The columnar replicas of the nodes, and questions that are asked of them."""

    def __init__(self, region: Region, folder: Path, opened: ExitStack) -> None:
        self._region = region
        self._folder = folder
        self._opened = opened
        self._local: dict[str, LocalSite] = {}

    def _of(self, node: NodeStore) -> LocalSite:
        node.durable_head()
        if node.node_id not in self._local:
            replica = ColumnarReplica.open(
                self._folder / node.node_id,
                ColumnarLimits(threads=1, memory_mb=256),
                source="1",
            )
            self._opened.callback(replica.close)
            local = LocalSite(replica, StorageSource(node.storage, node.durable_head))
            self._opened.callback(local.close)
            self._local[node.node_id] = local
        return self._local[node.node_id]

    async def rows(
        self,
        at: NodeId,
        purpose: str,
        *,
        asker: NodeId = CITY,
        organization: str = "",
        day: str = TODAY,
        dataset: str = "observations",
    ) -> tuple[int, int]:
        """Rows counted for a purpose at a node, and the residents who were asked about."""
        manifest = Manifest("q", "p", asker, purpose, asker, 1, 1, 0, "d", 1, organization)
        result = await self._of(self._region.node(at)).scan(
            make_plan(f"SELECT COUNT(*) AS n FROM {dataset}"),
            frozenset({VILLAGE}),
            1,
            10_000,
            audience_of(manifest, self._region.tree, day),
        )
        [counted] = result.table.column("p0_n").values
        return int(str(counted or 0)), sum(result.residents.values())


@pytest.fixture
def counting(region: Region, tmp_path: Path) -> Iterator[Counting]:
    """Two residents of a village with an observation each, known up to the city."""
    village = region.node(VILLAGE)
    village.storage.put_bundle(
        village.caller(),
        bundle(
            "r",
            person("142601198001011011", resident_id=WITHHOLDS),
            person("142601198001011022", resident_id=OTHER),
            observation(WITHHOLDS),
            observation(OTHER),
        ),
    )
    region.ship_up(*UPWARD)
    with ExitStack() as opened:
        yield Counting(region, tmp_path, opened)


def _say(region: Region, wanted: Wanted) -> str:
    village = region.node(VILLAGE)
    desk = ConsentDesk(village.storage.context, lambda: None)
    return desk.put(village.caller(), wanted).consent_id


@pytest.mark.parametrize("purpose", ["statistics", "research", "management", "any"])
async def test_a_consent_keeps_him_out_of_every_level_alike(
    region: Region, counting: Counting, purpose: str
) -> None:
    """His home's answer, the county's copy and the city's de-identified one leave him out."""
    asked = "statistics" if purpose == "any" else purpose
    assert [await counting.rows(at, asked) for at in UPWARD] == [(2, 2)] * 4
    _say(region, Wanted("c", WITHHOLDS, "deny", "everyone", purpose))
    assert await counting.rows(VILLAGE, asked) == (1, 2), "not from the commit on"
    region.ship_up(*UPWARD)
    assert [await counting.rows(at, asked) for at in UPWARD] == [(1, 2)] * 4
    assert [await counting.rows(at, asked, dataset="residents") for at in UPWARD] == [(1, 2)] * 4


async def test_statutory_counts_and_other_purposes_are_not_his_to_forbid(
    region: Region, counting: Counting
) -> None:
    """Public health counts everybody; another purpose is another consent."""
    _say(region, Wanted("c", WITHHOLDS, "deny", "everyone", "any"))
    region.ship_up(*UPWARD)
    assert [await counting.rows(at, "public_health") for at in UPWARD] == [(2, 2)] * 4
    _say(region, Wanted("d", OTHER, "deny", "everyone", "research"))
    region.ship_up(*UPWARD)
    assert [await counting.rows(at, "statistics") for at in UPWARD] == [(1, 2)] * 4
    assert [await counting.rows(at, "research") for at in UPWARD] == [(0, 2)] * 4


async def test_a_purpose_that_nobody_foresaw_is_bound_by_all(
    region: Region, counting: Counting
) -> None:
    """A word of its own is no way around what he said."""
    _say(region, Wanted("c", WITHHOLDS, "deny", "everyone", "research"))
    assert await counting.rows(VILLAGE, "planning") == (1, 2)


async def test_only_the_recipient_whom_he_named_is_bound(
    region: Region, counting: Counting
) -> None:
    """A division with all below it, an organization; who asks is in the signed manifest."""
    _say(region, Wanted("c", WITHHOLDS, "deny", f"division:{COUNTY}", "statistics"))
    _say(region, Wanted("d", OTHER, "deny", "organization:a", "statistics"))
    region.ship_up(*UPWARD)
    for at in UPWARD:
        assert await counting.rows(at, "statistics") == (2, 2)
        assert await counting.rows(at, "statistics", asker=TOWNSHIP) == (1, 2)
        assert await counting.rows(at, "statistics", organization="a") == (1, 2)
        assert await counting.rows(at, "statistics", organization="b") == (2, 2)


async def test_a_permit_and_a_day_outside_its_days_keep_nobody_out(
    region: Region, counting: Counting
) -> None:
    """As readers of rows have it."""
    _say(region, Wanted("c", WITHHOLDS, "permit", "everyone", "statistics"))
    _say(
        region,
        Wanted("d", OTHER, "deny", "everyone", "any", from_on="2026-12-02", until_on="2026-12-03"),
    )
    region.ship_up(*UPWARD)
    days = {"2026-12-01": 2, "2026-12-02": 1, "2026-12-03": 1, "2026-12-04": 2}
    for at in UPWARD:
        found = {day: (await counting.rows(at, "statistics", day=day))[0] for day in days}
        assert found == days


async def test_who_revokes_is_counted_again(region: Region, counting: Counting) -> None:
    """At home at once, above when it has travelled."""
    consent_id = _say(region, Wanted("c", WITHHOLDS, "deny", "everyone", "any"))
    region.ship_up(*UPWARD)
    assert await counting.rows(CITY, "statistics") == (1, 2)
    village = region.node(VILLAGE)
    ConsentDesk(village.storage.context, lambda: None).revoke(village.caller(), consent_id)
    assert await counting.rows(VILLAGE, "statistics") == (2, 2)
    region.ship_up(*UPWARD)
    assert [await counting.rows(at, "statistics") for at in UPWARD] == [(2, 2)] * 4


def test_of_a_consent_only_what_concerns_counts_is_told_above(region: Region) -> None:
    """Nothing of who was refused treatment, of permits, of notes or of who wrote it down."""
    pseudonyms = region.node(COUNTY).storage.context.pseudonyms
    assert pseudonyms is not None
    said: dict[str, Value] = {
        "purpose": "research",
        "recipient": "everyone",
        "decision": "deny",
        "from_on": "2026-01-02",
        "note": "paper 7",
        "given_to": "spiffe://linfen/141002001201/client/his",
        "revoked_at": "2026-03-04T05:06:07.000Z",
        "revoked_by": "spiffe://linfen/141002001201/client/his",
    }
    made = change(CONSENTS.name, values=said)
    assert deidentified(made, pseudonyms).values == {
        "purpose": "research",
        "recipient": "everyone",
        "decision": "deny",
        "from_on": "2026-01-02",
        "revoked_at": "2026-03-01",
    }
    for other in ({"purpose": "treatment"}, {"decision": "permit"}):
        assert deidentified(replace(made, values=said | other), pseudonyms).values == {}


async def test_a_sibling_village_hears_nothing_of_it(region: Region, counting: Counting) -> None:
    """Consents go up with his rows and nowhere else."""
    _say(region, Wanted("c", WITHHOLDS, "deny", "everyone", "any"))
    region.ship_up(*UPWARD)
    assert count(region.node(VILLAGE_2), CONSENTS.name) == 0
