"""One stage of a question at one node, and what every executor promises about it.

A stage names whom to ask and which sites to count from the own replica; the executor does both at
once and adds them up. An executor never decides who stands in for whom: that is the coordinator's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from federation.availability import ExtraMissingError, SiteSeedingError, SiteUnavailableError
from federation.core.coverage import Coverage, SiteCoverage, SiteState
from federation.core.merge import merge_answers
from federation.core.model import (
    EVERYBODY,
    Audience,
    ExecutorKind,
    PartialAnswer,
    PartialRequest,
    SiteProgress,
    SiteProgressState,
)
from federation.core.partials import check_answer, empty_table
from federation.core.plan import LogicalPlan
from federation.errors import FederationError, PartialInvalidError
from federation.manifest import SignedManifest

__all__ = [
    "Ask",
    "Executor",
    "Progress",
    "SiteAsker",
    "Stage",
    "StageResult",
    "accept_answer",
    "add_up",
    "ask_child",
    "lines_only",
    "lost_scan",
    "lost_site",
    "progress_of",
]

Progress = Callable[[SiteProgress], None]


class SiteAsker(Protocol):
    """Supplied by the node: a direct child asked over its link."""

    async def ask(
        self, child: str, request: PartialRequest, signed: SignedManifest, remaining_ms: int
    ) -> PartialAnswer:
        """The child's partial answer for `request.site`'s subtree.

        Raises:
            SiteUnavailableError: It is offline, too slow, refuses, or answers what cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """A direct child, and the root and members of the subtree that it shall answer for."""

    child: str
    site: str
    sites: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stage:
    """One round of work.

    `scan` holds a line a site to be counted from the own replica, with everything but the
    residents. `before` is what earlier rounds counted. `cell_count_max` is the largest threshold
    that any node above may apply. `audience` says whom the scan leaves out.
    """

    plan: LogicalPlan
    request: PartialRequest
    signed: SignedManifest
    asks: tuple[Ask, ...]
    scan: tuple[SiteCoverage, ...]
    cell_count_max: int
    remaining_ms: int
    before: PartialAnswer | None = None
    query_id: str = ""
    audience: Audience = EVERYBODY


@dataclass(frozen=True, slots=True)
class StageResult:
    """Everything that was counted, as one answer, and a line for each site that was not.

    `tasks` says where the work ran, one line a task.
    """

    answer: PartialAnswer
    open_sites: tuple[SiteCoverage, ...]
    tasks: tuple[str, ...]


class Executor(Protocol):
    """Runs a stage. Sites that fail are lines of the result; only faults of this node raise."""

    @property
    def kind(self) -> ExecutorKind: ...

    async def run(self, stage: Stage, progress: Progress) -> StageResult:
        """Ask, scan and add up; ends within `stage.remaining_ms`, cancelled work included.

        Raises:
            ExecutorUnavailableError: It cannot run on this node now.
        """
        ...


def accept_answer(plan: LogicalPlan, ask: Ask, answer: PartialAnswer) -> PartialAnswer:
    """The answer, if it is one to the plan and covers the sites that were asked for.

    A site that the answer does not mention is added as missing: nobody is silently absent.

    Raises:
        PartialInvalidError: It is not one to the plan, or it covers a site outside the subtree.
        DuplicateSiteError: It covers a site twice.
    """
    check_answer(plan, answer)
    named = {site.node_id for site in answer.coverage.sites}
    if len(named) != len(answer.coverage.sites) or not named <= ask.sites:
        raise PartialInvalidError("the answer covers sites that were not asked for")
    unnamed = lost_site(ask.child, ask.sites - named, "its parent's answer does not mention it")
    coverage = replace(answer.coverage, sites=(*answer.coverage.sites, *unnamed))
    return replace(answer, coverage=coverage)


def lost_site(
    child: str, sites: frozenset[str], reason: str, state: SiteState = SiteState.MISSING
) -> tuple[SiteCoverage, ...]:
    """The lines of a subtree whose root could not be asked; those below it are missing with it."""
    return tuple(
        SiteCoverage(
            site,
            state if site == child else SiteState.MISSING,
            reason=reason if site == child else f"{child}: {reason}",
        )
        for site in sorted(sites)
    )


def lost_scan(lines: Sequence[SiteCoverage], error: FederationError) -> tuple[SiteCoverage, ...]:
    """The lines of sites that should have been counted from the own replica."""
    match error:
        case ExtraMissingError():
            state, reason = SiteState.NO_ANALYTICS, "the node has no analytics extra"
        case SiteSeedingError():
            state, reason = SiteState.SEEDING, error.message
        case SiteUnavailableError():
            state, reason = error.state, error.reason
        case _:
            state, reason = SiteState.MISSING, error.message
    return tuple(
        SiteCoverage(line.node_id, state, residents_known=line.residents_known, reason=reason)
        for line in lines
    )


def add_up(
    plan: LogicalPlan, answers: Sequence[PartialAnswer]
) -> tuple[PartialAnswer, tuple[SiteCoverage, ...]]:
    """What the answers counted, as one, and the lines of the sites that they did not.

    Raises:
        DuplicateSiteError: A site is counted twice.
    """
    counted: list[PartialAnswer] = []
    open_sites: list[SiteCoverage] = []
    for answer in answers:
        sites = answer.coverage.sites
        open_sites += [site for site in sites if not site.is_counted]
        kept = tuple(site for site in sites if site.is_counted)
        counted.append(replace(answer, coverage=replace(answer.coverage, sites=kept)))
    if not counted:
        return PartialAnswer(empty_table(plan), (), Coverage()), ()
    return merge_answers(plan, counted), tuple(open_sites)


def lines_only(plan: LogicalPlan, sites: tuple[SiteCoverage, ...]) -> PartialAnswer:
    """The answer that counts nothing and says why."""
    return PartialAnswer(empty_table(plan), (), Coverage(sites))


async def ask_child(asker: SiteAsker, stage: Stage, ask: Ask) -> PartialAnswer:
    """The child's answer, checked; whatever goes wrong with the child becomes its lines."""
    request = replace(stage.request, site=ask.site)
    try:
        async with asyncio.timeout(stage.remaining_ms / 1000):
            answer = await asker.ask(ask.child, request, stage.signed, stage.remaining_ms)
        return accept_answer(stage.plan, ask, answer)
    except TimeoutError:
        lines = lost_site(ask.child, ask.sites, "it did not answer in time")
    except SiteUnavailableError as error:
        lines = lost_site(ask.child, ask.sites, error.reason, error.state)
    except PartialInvalidError as error:
        lines = lost_site(ask.child, ask.sites, f"its answer is invalid: {error.message}")
    return lines_only(stage.plan, lines)


def progress_of(ask: Ask, answer: PartialAnswer) -> SiteProgress:
    """The step that ends a child's part."""
    is_answered = any(site.is_counted for site in answer.coverage.sites)
    state = SiteProgressState.ANSWERED if is_answered else SiteProgressState.MISSING
    return SiteProgress(ask.child, state)
