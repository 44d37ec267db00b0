"""The tree at one node: who is asked, who stands in for whom, what may leave.

A node counts the rows of its own home, asks its direct children for their subtrees and, where the
question allows, stands in from its own replica for whatever they could not count. Every site of the
scope ends as exactly one line of the coverage; no row is counted twice, because a stand-in is given
exactly the sites that nobody has counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

from federation.availability import ManifestRefusedError
from federation.core.coverage import Coverage, SiteCoverage, SiteState
from federation.core.merge import merge_answers
from federation.core.model import (
    Audience,
    Freshness,
    Manifest,
    PartialAnswer,
    PartialRequest,
)
from federation.core.plan import LogicalPlan, make_plan
from federation.core.release import withhold_all, withhold_small
from federation.executors.stage import (
    Ask,
    Executor,
    Progress,
    SiteAsker,
    Stage,
    ask_child,
    lines_only,
)
from federation.manifest import ManifestVerifier, SignedManifest, check_manifest
from federation.sites import SiteTree
from federation.wire import decode_manifest
from hierarchy_config.hierarchy import Hierarchy

__all__ = ["Coordinator", "Gathered", "Question", "SiteIndex", "Witness", "reserve_ms"]

_RESERVE_MS_MIN = 100
_RESERVE_MS_MAX = 5_000
_PLANS_KEPT = 64


class SiteIndex(Protocol):
    """What this node knows of the sites below it; supplied by the node's storage."""

    def marks(self) -> Mapping[str, int]:
        """Home → milliseconds since 1970 UTC up to which this node's copy is complete.

        A home without a mark is absent.
        """
        ...

    async def residents_by_home(self, sites: frozenset[str]) -> Mapping[str, int]:
        """Residents by the main index. A site whose figure is unknown is left out."""
        ...

    async def quarantined_by_home(self) -> Mapping[str, int]:
        """Residents with a change that was not admitted here; sites without one are left out."""
        ...


class Witness(Protocol):
    """Supplied by the node: the audit of questions."""

    async def __call__(self, manifest: Manifest, dataset: str) -> None:
        """Record durably who asks what and why; if that fails, nothing is counted."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """A planned question on its way through one node.

    `root` is the node whose subtree is to be answered for: this node, or one below it.
    """

    plan: LogicalPlan
    request: PartialRequest
    manifest: Manifest
    signed: SignedManifest
    remaining_ms: int

    @property
    def root(self) -> str:
        """The node whose subtree is to be answered for."""
        return self.request.site


@dataclass(frozen=True, slots=True)
class Gathered:
    """The answer of a subtree, not yet released, and where the work ran."""

    answer: PartialAnswer
    tasks: tuple[str, ...]


def reserve_ms(remaining_ms: int) -> int:
    """What a node keeps of the time left for stand-ins, merging and the way back.

    A fifth, at least 100 ms (but never more than half) and at most 5 s.
    """
    return min(max(remaining_ms // 5, _RESERVE_MS_MIN), _RESERVE_MS_MAX, remaining_ms // 2)


class Coordinator:
    """One node's part in federated questions.

    Args:
        node_id: This node.
        hierarchy: That of the configuration epoch in force.
        asker: Asks a direct child over its link.
        executor: Runs the parts of questions that others ask (direct).
        index: Freshness, residents known and residents quarantined, by home.
        verify: Checks a manifest's signature.
        leaves_full_boundary: Whether an answer about this dataset to this node's parent leaves the
            boundary of full copies, so that it is a release.
        now_ms: The node's clock, milliseconds since 1970 UTC.
        witness: Audits a question before anything is counted for it.
        audience: Whose consents bind a question here and today; a manifest is data of the asker,
            who may leave nobody in that his purpose leaves out.
    """

    def __init__(
        self,
        node_id: str,
        hierarchy: Hierarchy,
        *,
        asker: SiteAsker,
        executor: Executor,
        index: SiteIndex,
        verify: ManifestVerifier,
        leaves_full_boundary: Callable[[str], bool],
        now_ms: Callable[[], int],
        witness: Witness,
        audience: Callable[[Manifest], Audience],
    ) -> None:
        self.node_id = node_id
        self.tree = SiteTree(hierarchy)
        self._asker = asker
        self._executor = executor
        self._index = index
        self._verify = verify
        self._leaves_full_boundary = leaves_full_boundary
        self._now_ms = now_ms
        self._witness = witness
        self._audience = audience
        # A question that comes again is planned once; a plan depends on nothing but its text.
        self._plan = lru_cache(maxsize=_PLANS_KEPT)(make_plan)
        self._largest_threshold = self.tree.largest_threshold

    async def answer(
        self, request: PartialRequest, signed: SignedManifest, remaining_ms: int
    ) -> PartialAnswer:
        """Answer an ancestor for the subtree of `request.site`.

        Raises:
            ManifestRefusedError: The manifest is not signed by its asker, or does not allow this.
            PlanMismatchError: This node understands the question differently.
            QueryRefusedError: The question is not one that may be asked.
        """
        manifest = decode_manifest(signed.manifest)
        if not self._verify(signed, manifest.asking_node):
            raise ManifestRefusedError("the manifest is not signed by the node that asks")
        plan = self._plan(request.sql, request.basis)
        check_manifest(manifest, request, plan, self.tree, self.node_id)
        question = Question(plan, request, manifest, signed, remaining_ms)
        gathered = await self.gather(question, self._executor, lambda _: None)
        if self._leaves_full_boundary(plan.dataset):
            return self.release(question, gathered.answer)
        return gathered.answer

    async def ask_site(
        self, child: str, request: PartialRequest, signed: SignedManifest, remaining_ms: int
    ) -> PartialAnswer:
        """Ask a direct child for an executor of this node; what goes wrong becomes its lines.

        Raises:
            ManifestRefusedError: The question is not this node's own, or not for this child.
        """
        manifest = decode_manifest(signed.manifest)
        is_own = manifest.asking_node == self.node_id
        if not is_own or not self._verify(signed, self.node_id):
            raise ManifestRefusedError("an executor may only ask for its own node's questions")
        plan = self._plan(request.sql, request.basis)
        check_manifest(manifest, request, plan, self.tree, self.node_id)
        asks = self._asks(self.node_id) if request.site == child else self._asks(request.site)
        ask = next((ask for ask in asks if (ask.child, ask.site) == (child, request.site)), None)
        if ask is None:
            raise ManifestRefusedError(f"{child} is not the way to the site that is asked")
        stage = self._first_stage(
            Question(plan, request, manifest, signed, remaining_ms), frozenset()
        )
        return await ask_child(self._asker, replace(stage, remaining_ms=remaining_ms), ask)

    async def gather(self, question: Question, executor: Executor, progress: Progress) -> Gathered:
        """Count every site of the subtree that can be counted; exact, not released.

        Raises:
            ExecutorUnavailableError: The executor cannot run on this node now.
        """
        await self._witness(question.manifest, question.plan.dataset)
        sites = self.tree.subtree(question.root)
        started_ms = self._now_ms()
        stage = self._first_stage(question, sites)
        result = await executor.run(stage, progress)
        tasks = result.tasks
        answer, open_sites = result.answer, result.open_sites
        stand_ins = self._stand_ins(question, open_sites)
        if stand_ins:
            spent_ms = max(0, self._now_ms() - started_ms)
            second = replace(
                stage,
                asks=(),
                scan=stand_ins,
                before=answer,
                remaining_ms=max(1, question.remaining_ms - spent_ms),
            )
            result = await executor.run(second, progress)
            tasks += result.tasks
            # What could not be stood in for keeps the reason why the site itself is silent.
            stood_in = {line.node_id for line in stand_ins}
            counted = {site.node_id for site in result.answer.coverage.sites}
            open_sites = tuple(
                site for site in open_sites if site.node_id not in stood_in & counted
            )
            answer = result.answer
        whole = merge_answers(question.plan, [answer, lines_only(question.plan, open_sites)])
        coverage = await self._without_quarantined(whole.coverage)
        coverage = await self._with_known(question, coverage)
        return Gathered(replace(whole, coverage=coverage), tasks)

    def release(self, question: Question, answer: PartialAnswer) -> PartialAnswer:
        """The answer under the largest threshold of the asker, this node and all contributors.

        At the asker every figure is withheld if fewer sites than it wanted contributed: only there
        are all of them known.
        """
        contributors = [site.node_id for site in answer.coverage.sites if site.is_counted]
        is_asker = question.manifest.asking_node == self.node_id
        if is_asker and len(contributors) < question.manifest.sites_min:
            answer = withhold_all(question.plan, answer)
        threshold = max(
            question.manifest.cell_count_min,
            answer.coverage.cell_count_min,
            self.tree.cell_count_min((self.node_id, *contributors)),
        )
        return withhold_small(question.plan, answer, threshold)

    # -- inside ---------------------------------------------------------------------------------

    def _first_stage(self, question: Question, sites: frozenset[str]) -> Stage:
        remaining_ms = question.remaining_ms
        stage = Stage(
            plan=question.plan,
            request=question.request,
            signed=question.signed,
            asks=(),
            scan=(),
            cell_count_max=max(question.manifest.cell_count_min, self._largest_threshold),
            remaining_ms=max(1, remaining_ms - reserve_ms(remaining_ms)),
            query_id=question.manifest.query_id,
            audience=self._audience(question.manifest),
        )
        if question.request.freshness is Freshness.REPLICA:
            return replace(stage, scan=self._lines(sites))
        own = self._lines(sites & {self.node_id})
        return replace(stage, asks=self._asks(question.root), scan=own)

    def _asks(self, root: str) -> tuple[Ask, ...]:
        """The direct children to ask: all of them, or the one on the way to a root below."""
        if root != self.node_id:
            return (Ask(self.tree.next_hop(self.node_id, root), root, self.tree.subtree(root)),)
        return tuple(
            Ask(child, child, self.tree.subtree(child)) for child in self.tree.children(root)
        )

    def _lines(self, sites: Iterable[str]) -> tuple[SiteCoverage, ...]:
        """Lines of sites to be counted here; residents are filled in by the scan."""
        marks = self._index.marks()
        return tuple(
            SiteCoverage(site, SiteState.LIVE, self.node_id, self._now_ms())
            if site == self.node_id
            else SiteCoverage(site, SiteState.REPLICA, self.node_id, marks.get(site))
            for site in sorted(sites)
        )

    def _stand_ins(
        self, question: Question, open_sites: Iterable[SiteCoverage]
    ) -> tuple[SiteCoverage, ...]:
        if question.request.freshness is not Freshness.BEST:
            return ()
        # A denied site has refused, and this node's own rows were tried already.
        sites = {
            site.node_id
            for site in open_sites
            if site.state is not SiteState.DENIED and site.node_id != self.node_id
        }
        return self._lines(sites)

    async def _without_quarantined(self, coverage: Coverage) -> Coverage:
        """The coverage without residents of whom this node could not take every row."""
        waiting = await self._index.quarantined_by_home()
        sites = tuple(
            replace(
                site,
                residents_covered=max(0, site.residents_covered - waiting[site.node_id]),
                residents_quarantined=waiting[site.node_id],
            )
            if site.is_counted and site.answered_by == self.node_id and waiting.get(site.node_id)
            else site
            for site in coverage.sites
        )
        return replace(coverage, sites=sites)

    async def _with_known(self, question: Question, coverage: Coverage) -> Coverage:
        """The coverage with the residents known, for sites whose parent has not said.

        A child's own line comes without: the parent's index is the witness, not the site itself.
        """
        is_asker = question.manifest.asking_node == self.node_id
        open_lines = frozenset(
            site.node_id
            for site in coverage.sites
            if site.residents_known is None and (is_asker or site.node_id != self.node_id)
        )
        if not open_lines:
            return coverage
        known = await self._index.residents_by_home(open_lines)
        sites = tuple(
            replace(site, residents_known=known.get(site.node_id))
            if site.node_id in open_lines
            else site
            for site in coverage.sites
        )
        return replace(coverage, sites=sites)
