"""A question from the asker to the answer, at the node where it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from federation.availability import ScopeUnknownError
from federation.coordinator import Coordinator, Gathered, Question
from federation.core.explain import merge_steps, privacy_notes
from federation.core.finish import finish
from federation.core.model import (
    Answer,
    ExecutorKind,
    Explanation,
    Freshness,
    Manifest,
    PartialRequest,
    QueryRequest,
    SiteProgress,
)
from federation.core.node_sql import node_sql
from federation.core.plan import LogicalPlan, make_plan
from federation.errors import ExecutorUnavailableError
from federation.executors.stage import Executor
from federation.manifest import ManifestSigner
from federation.wire import encode_manifest

__all__ = ["PURPOSE_DEFAULT", "TIMEOUT_MS_DEFAULT", "TIMEOUT_MS_MAX", "QueryRunner"]

TIMEOUT_MS_DEFAULT = 30_000
TIMEOUT_MS_MAX = 600_000
PURPOSE_DEFAULT = "statistics"


@dataclass(frozen=True, slots=True)
class _Asker:
    principal: str
    organization_id: str


class QueryRunner:
    """Plans, signs the manifest, gathers the subtree, releases, finishes.

    Args:
        coordinator: This node's.
        executors: What this node has; a question that names none runs on `default`.
        default: Ray where the profile has it, else direct.
        sign: Signs manifests with this node's key.
        new_query_id: Makes an id that was never used.
        now_ms: The node's clock, milliseconds since 1970 UTC.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        executors: Mapping[ExecutorKind, Executor],
        *,
        default: ExecutorKind,
        sign: ManifestSigner,
        new_query_id: Callable[[], str],
        now_ms: Callable[[], int],
    ) -> None:
        self._coordinator = coordinator
        self._executors = executors
        self._default = default
        self._sign = sign
        self._new_query_id = new_query_id
        self._now_ms = now_ms

    async def run(
        self, request: QueryRequest, principal: str, organization_id: str = ""
    ) -> AsyncIterator[SiteProgress | Answer]:
        """Steps of the sites as they happen, then one Answer. Closing it cancels the question.

        `organization_id`: the organization that the asker acts for, empty for none.

        Raises:
            QueryRefusedError: The question is not one that may be asked.
            ScopeUnknownError: The scope is not this node or below it.
            ExecutorUnavailableError: The executor cannot run here.
        """
        started_ms = self._now_ms()
        asker = _Asker(principal, organization_id)
        question = self._question(request, asker, started_ms)
        executor = self._executor(request.executor)
        steps: asyncio.Queue[SiteProgress | None] = asyncio.Queue()
        work = asyncio.create_task(self._coordinator.gather(question, executor, steps.put_nowait))
        work.add_done_callback(lambda _: steps.put_nowait(None))
        try:
            while (step := await steps.get()) is not None:
                yield step
            yield self._answer(question, await work, executor.kind, started_ms)
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])

    def explain(self, request: QueryRequest) -> Explanation:
        """What asking would do. Raises as `run`, but for executors."""
        plan = make_plan(request.sql, request.basis)
        scope = self._scope(request)
        tree, here = self._coordinator.tree, self._coordinator.node_id
        threshold = max(request.cell_count_min, tree.cell_count_min([here]))
        return Explanation(
            node_sql=node_sql(plan),
            merge_steps=merge_steps(plan),
            sites=tuple(self._sentences(request.freshness, scope)),
            privacy=privacy_notes(plan, threshold),
            plan_digest=plan.digest,
        )

    # -- inside ---------------------------------------------------------------------------------

    def _sentences(self, freshness: Freshness, scope: str) -> list[str]:
        tree, here = self._coordinator.tree, self._coordinator.node_id
        sites = len(tree.subtree(scope))
        if freshness is Freshness.REPLICA:
            return [f"{here} answers for {sites} sites from its own copy"]
        silent = (
            "its sites are missing"
            if freshness is Freshness.LIVE
            else f"{here} stands in from its own copy"
        )
        if scope != here:
            child = tree.next_hop(here, scope)
            return [f"{child} is asked for {scope} ({sites} sites); if silent, {silent}"]
        return [
            f"{here} counts its own residents",
            *(
                f"{child} is asked for {len(tree.subtree(child))} sites; if silent, {silent}"
                for child in tree.children(here)
            ),
        ]

    def _scope(self, request: QueryRequest) -> str:
        here = self._coordinator.node_id
        scope = request.scope or here
        if scope not in self._coordinator.tree.subtree(here):
            raise ScopeUnknownError(f"{here} has no node of that code in its subtree")
        return scope

    def _executor(self, wanted: ExecutorKind | None) -> Executor:
        kind = wanted or self._default
        executor = self._executors.get(kind)
        if executor is None:
            raise ExecutorUnavailableError(f"this node does not run the {kind} executor")
        return executor

    def _question(self, request: QueryRequest, asker: _Asker, started_ms: int) -> Question:
        plan = make_plan(request.sql, request.basis)
        scope = self._scope(request)
        remaining_ms = min(request.timeout_ms or TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX)
        manifest = self._manifest(request, asker, plan, scope, started_ms + remaining_ms)
        return Question(
            plan=plan,
            request=PartialRequest(request.sql, request.freshness, request.basis, scope),
            manifest=manifest,
            signed=self._sign(encode_manifest(manifest)),
            remaining_ms=remaining_ms,
        )

    def _manifest(
        self,
        request: QueryRequest,
        asker: _Asker,
        plan: LogicalPlan,
        scope: str,
        deadline_ms: int,
    ) -> Manifest:
        coordinator = self._coordinator
        own_threshold = coordinator.tree.cell_count_min([coordinator.node_id])
        return Manifest(
            query_id=self._new_query_id(),
            principal=asker.principal,
            asking_node=coordinator.node_id,
            purpose=request.purpose or PURPOSE_DEFAULT,
            scope=scope,
            cell_count_min=max(request.cell_count_min, own_threshold),
            sites_min=1,
            deadline_ms=deadline_ms,
            plan_digest=plan.digest,
            config_epoch=coordinator.tree.epoch,
            organization_id=asker.organization_id,
        )

    def _answer(
        self, question: Question, gathered: Gathered, kind: ExecutorKind, started_ms: int
    ) -> Answer:
        released = self._coordinator.release(question, gathered.answer)
        finished = finish(question.plan, released)
        return Answer(
            query_id=question.manifest.query_id,
            table=finished.table,
            suppressed_rows=finished.suppressed_rows,
            coverage=released.coverage,
            executor=kind,
            elapsed_ms=max(0, self._now_ms() - started_ms),
            tasks=gathered.tasks,
            complete=finished.complete,
        )
