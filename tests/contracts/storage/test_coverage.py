"""An answer says what it does not cover: a question asked of real stores and replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from federation.availability import SiteUnavailableError
from federation.columnar import ColumnarLimits, ColumnarReplica
from federation.coordinator import Coordinator
from federation.core.coverage import SiteCoverage, SiteState
from federation.core.model import (
    EVERYBODY,
    Answer,
    ExecutorKind,
    Freshness,
    Manifest,
    PartialAnswer,
    PartialRequest,
    QueryRequest,
)
from federation.executors import DirectExecutor
from federation.local import LocalSite
from federation.manifest import SignedManifest
from federation.runner import QueryRunner
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId, Thresholds
from node.columnar_feed import StorageSource
from node.questions import HomeIndex
from replication.core.config import PeerRole
from tests.contracts.storage.region import (
    NOW_MS,
    TOWNSHIP,
    VILLAGE,
    NodeStore,
    Region,
    bundle,
    change,
    log_entry,
    person,
    send,
)
from tests.contracts.storage.seeding import recover

_BY_SEX: Final = "SELECT sex, COUNT(*) AS n FROM residents GROUP BY sex"
_LIMITS: Final = ColumnarLimits(threads=1, memory_mb=256)


class Questions:
    """A township that asks itself and its villages, as `node/questions.py` joins the parts."""

    def __init__(self, region: Region, folder: Path, opened: ExitStack) -> None:
        tree = region.tree
        self.tree = Hierarchy(tree.region, tree.epoch, tree.nodes, thresholds=Thresholds(1, {}))
        self.offline: set[NodeId] = set()
        self._folder = folder
        self._opened = opened
        self._villages: dict[NodeId, Coordinator] = {}
        self._local: dict[NodeId, LocalSite] = {}
        for child in tree.children(TOWNSHIP):
            self._villages[child] = self._coordinator(region.node(child))
        self._township = self._coordinator(region.node(TOWNSHIP))

    def _coordinator(self, node: NodeStore) -> Coordinator:
        replica = ColumnarReplica.open(self._folder / node.node_id, _LIMITS, source="1")
        self._opened.callback(replica.close)
        local = LocalSite(
            replica,
            StorageSource(node.storage, node.durable_head),
            is_seeding=lambda: node.storage.recovery.active,
        )
        self._opened.callback(local.close)
        self._local[node.node_id] = local
        return Coordinator(
            node.node_id,
            self.tree,
            asker=self,
            executor=DirectExecutor(self, local),
            index=HomeIndex(node.storage, node.node_id, self.tree),
            verify=lambda signed, asking: True,
            leaves_full_boundary=lambda _: False,
            now_ms=lambda: NOW_MS,
            witness=_witness,
            audience=lambda _: EVERYBODY,
        )

    async def ask(
        self, child: str, request: PartialRequest, signed: SignedManifest, remaining_ms: int
    ) -> PartialAnswer:
        """Implements SiteAsker, without a wire."""
        if NodeId(child) in self.offline:
            raise SiteUnavailableError(child, "it is offline")
        return await self._villages[NodeId(child)].answer(request, signed, remaining_ms)

    async def answer(self, freshness: Freshness) -> tuple[int, SiteCoverage, bool]:
        """Residents counted, what is said of the village, whether the answer calls itself whole."""
        runner = QueryRunner(
            self._township,
            {ExecutorKind.DIRECT: DirectExecutor(self, self._local[TOWNSHIP])},
            default=ExecutorKind.DIRECT,
            sign=lambda manifest: SignedManifest(manifest, b"signed", b"certificate"),
            new_query_id=lambda: "query-1",
            now_ms=lambda: NOW_MS,
        )
        request = QueryRequest(_BY_SEX, freshness=freshness)
        events = [event async for event in runner.run(request, "spiffe://linfen/141002001")]
        answer = events[-1]
        assert isinstance(answer, Answer)
        line = answer.coverage.site(VILLAGE)
        assert line is not None
        return sum(int(str(row[1])) for row in answer.table.rows()), line, answer.complete


async def _witness(manifest: Manifest, dataset: str) -> None:
    """Audits nothing."""


@pytest.fixture
def questions(region: Region, tmp_path: Path) -> Iterator[Callable[[], Questions]]:
    """Opens the replicas once the stores hold what a test gave them."""
    with ExitStack() as opened:
        yield lambda: Questions(region, tmp_path, opened)


def _three_residents(region: Region) -> list[str]:
    village = region.node(VILLAGE)
    people = [person(f"14260119800101{number}", f"张{number}") for number in (1011, 1022, 1033)]
    made = village.storage.put_bundle(village.caller(), bundle("r-1", *people))
    region.ship(village, region.node(TOWNSHIP))
    return list(made.resident_ids)


async def test_who_stands_in_says_whose_rows_wait(
    region: Region, questions: Callable[[], Questions]
) -> None:
    """A copy that holds all is whole; whose change waits in the quarantine is not covered."""
    residents = _three_residents(region)
    asked = questions()
    asked.offline.add(VILLAGE)
    counted, line, whole = await asked.answer(Freshness.BEST)
    assert (counted, line.state, whole) == (3, SiteState.REPLICA, True)
    assert (line.residents_covered, line.residents_known) == (3, 3)

    unknown = replace(change("x_rays"), resident_id=residents[0])
    send(region.node(TOWNSHIP), VILLAGE, PeerRole.CHILD, log_entry(unknown, sequence=900))
    counted, line, whole = await asked.answer(Freshness.BEST)
    assert (counted, line.residents_covered, line.residents_quarantined) == (3, 2, 1)
    assert not whole

    asked.offline.clear()
    counted, line, whole = await asked.answer(Freshness.BEST)
    assert (line.state, line.residents_covered) == (SiteState.LIVE, 3)
    assert line.residents_quarantined == 0
    assert whole


async def test_a_village_that_nobody_answers_for_is_named(
    region: Region, questions: Callable[[], Questions]
) -> None:
    """Its residents are known and not counted, and the reason is said."""
    _three_residents(region)
    asked = questions()
    asked.offline.add(VILLAGE)
    counted, line, whole = await asked.answer(Freshness.LIVE)
    assert (counted, line.state, line.residents_covered) == (0, SiteState.MISSING, 0)
    assert line.residents_known == 3
    assert line.reason
    assert not whole


async def test_a_home_that_was_heard_of_and_not_sent_makes_an_answer_partial(
    region: Region, questions: Callable[[], Questions]
) -> None:
    """The first rows of a resident wait: the copy counts without him, and says so."""
    township = region.node(TOWNSHIP)
    broken = replace(log_entry(change()), rows=b"[")
    send(township, VILLAGE, PeerRole.CHILD, broken)
    asked = questions()
    asked.offline.add(VILLAGE)
    counted, line, whole = await asked.answer(Freshness.REPLICA)
    assert (counted, line.residents_covered, line.residents_quarantined) == (0, 0, 1)
    assert not whole


async def test_a_node_that_recovers_counts_for_nobody(
    region: Region, questions: Callable[[], Questions]
) -> None:
    """It does not know what it lacks, so neither does it know how many residents there are."""
    _three_residents(region)
    township = region.node(TOWNSHIP)
    recover(township)
    asked = questions()
    asked.offline.add(VILLAGE)
    counted, line, whole = await asked.answer(Freshness.BEST)
    assert (counted, line.is_counted, line.residents_known) == (0, False, None)
    assert not whole
