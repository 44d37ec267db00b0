"""Many sites in one process: every node's coordinator, asked over the bytes of the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.site_rows import Site
from federation.coordinator import Coordinator
from federation.core.model import (
    EVERYBODY,
    Answer,
    Audience,
    ExecutorKind,
    Freshness,
    Manifest,
    PartialAnswer,
    PartialRequest,
    QueryRequest,
)
from federation.core.plan import LogicalPlan
from federation.executors import DirectExecutor
from federation.local import LocalSite, ScanResult
from federation.manifest import SignedManifest
from federation.runner import QueryRunner
from federation.wire import (
    decode_partial_answer,
    decode_partial_request,
    encode_partial_answer,
    encode_partial_request,
)
from hierarchy_config import CopyForm, Hierarchy, NodeId
from node.clock import SystemClock

__all__ = ["Tree"]


class _Turns:
    """federation.local.Scanner that waits for its turn: the cores are shared by all sites."""

    def __init__(self, local: LocalSite, turns: asyncio.Semaphore) -> None:
        self._local = local
        self._turns = turns

    async def scan(
        self,
        plan: LogicalPlan,
        sites: frozenset[str],
        cell_count_max: int,
        remaining_ms: int,
        audience: Audience = EVERYBODY,
    ) -> ScanResult:
        """See Scanner."""
        async with self._turns:
            return await self._local.scan(plan, sites, cell_count_max, remaining_ms, audience)


class _Index:
    """federation.coordinator.SiteIndex that knows every site's residents."""

    def __init__(self, residents: Mapping[str, int]) -> None:
        self._residents = residents

    def marks(self) -> Mapping[str, int]:
        """Nobody stands in here."""
        return {}

    async def residents_by_home(self, sites: frozenset[str]) -> Mapping[str, int]:
        """As they were made."""
        return {site: self._residents[site] for site in sites}

    async def quarantined_by_home(self) -> Mapping[str, int]:
        """None is."""
        return {}


class Tree:
    """The nodes, and the links between them (federation.executors.SiteAsker)."""

    def __init__(self, hierarchy: Hierarchy, sites: Sequence[Site], *, at_once: int) -> None:
        """`at_once`: sites that compute at the same time."""
        self._hierarchy = hierarchy
        self._index = _Index({site.home: site.residents for site in sites})
        self._loop = asyncio.Runner()
        self._turns = asyncio.Semaphore(at_once)
        self._locals = {
            site.home: LocalSite(site.replica, site.source, concurrency=1) for site in sites
        }
        self._coordinators = {site.home: self._coordinator(site.home) for site in sites}

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a question to the root, live.

        Raises:
            RuntimeError: A site did not answer.
        """
        return self._loop.run(self._ask(sql))

    async def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        clock = SystemClock()
        root = self._hierarchy.root
        runner = QueryRunner(
            self._coordinators[root],
            {ExecutorKind.DIRECT: self._executor(root)},
            default=ExecutorKind.DIRECT,
            sign=lambda manifest: SignedManifest(manifest, b"", b""),
            new_query_id=lambda: "benchmark",
            now_ms=clock.now_ms,
        )
        request = QueryRequest(sql, freshness=Freshness.LIVE, timeout_ms=600_000)
        async for step in runner.run(request, "benchmark"):
            if isinstance(step, Answer):
                if not all(site.is_counted for site in step.coverage.sites):
                    raise RuntimeError("a site of the benchmark did not answer")
                return list(step.table.rows())
        raise RuntimeError("the question had no answer")

    async def ask_child(self, child: str, body: bytes, signed: SignedManifest, ms: int) -> bytes:
        """What a link does: bytes there, bytes back."""
        answer = await self._coordinators[child].answer(decode_partial_request(body), signed, ms)
        return encode_partial_answer(answer)

    async def ask_site(
        self, child: str, request: PartialRequest, signed: SignedManifest, remaining_ms: int
    ) -> PartialAnswer:
        """Through the wire's bytes."""
        body = encode_partial_request(request)
        return decode_partial_answer(await self.ask_child(child, body, signed, remaining_ms))

    def close(self) -> None:
        """End the threads."""
        for local in self._locals.values():
            local.close()
        self._loop.close()

    def _executor(self, node: str) -> DirectExecutor:
        return DirectExecutor(_Asker(self), _Turns(self._locals[node], self._turns))

    def _coordinator(self, node: str) -> Coordinator:
        def leaves_full_boundary(dataset: str) -> bool:
            return self._hierarchy.copy_forms(NodeId(node), dataset) != (CopyForm.FULL,)

        return Coordinator(
            node,
            self._hierarchy,
            asker=_Asker(self),
            executor=self._executor(node),
            index=self._index,
            verify=lambda _signed, _node: True,
            leaves_full_boundary=leaves_full_boundary,
            now_ms=SystemClock().now_ms,
            witness=_unwatched,
            audience=lambda _: EVERYBODY,
        )


async def _unwatched(manifest: Manifest, dataset: str) -> None:
    """The audit is a row a node and question; log_cost and point_read measure its like."""


class _Asker:
    """federation.executors.SiteAsker over a tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    async def ask(
        self, child: str, request: PartialRequest, signed: SignedManifest, remaining_ms: int
    ) -> PartialAnswer:
        """The child's answer."""
        return await self._tree.ask_site(child, request, signed, remaining_ms)
