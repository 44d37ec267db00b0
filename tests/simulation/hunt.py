"""Runs many schedules in parallel processes: of the real protocol, and of every planted bug."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from tests.simulation.bugs import PLANTED_BUGS
from tests.simulation.world import Outcome, run_schedule

__all__ = ["SEEDS_PER_BUG", "Catch", "Total", "hunt_bugs", "run_many"]

SEEDS_PER_BUG = 1000
_CHUNK = 20


@dataclass(slots=True)
class Total:
    """What a number of schedules came to."""

    schedules: int = 0
    acknowledged: int = 0
    applied_batches: int = 0
    drained_ms_max: int = 0
    violations: dict[int, str] = field(default_factory=dict)
    fired: Counter[str] = field(default_factory=Counter)
    crash_points: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """Count one schedule."""
        self.schedules += 1
        self.acknowledged += outcome.acknowledged
        self.applied_batches += outcome.applied_batches
        self.drained_ms_max = max(self.drained_ms_max, outcome.drained_ms)
        if outcome.violation is not None:
            self.violations[outcome.seed] = str(outcome.violation)
        self.fired.update(outcome.fired)
        self.crash_points.update(outcome.crash_points)
        self.closes.update(outcome.closes)

    def merge(self, other: Total) -> None:
        """Count what another process ran."""
        self.schedules += other.schedules
        self.acknowledged += other.acknowledged
        self.applied_batches += other.applied_batches
        self.drained_ms_max = max(self.drained_ms_max, other.drained_ms_max)
        self.violations.update(other.violations)
        self.fired.update(other.fired)
        self.crash_points.update(other.crash_points)
        self.closes.update(other.closes)


@dataclass(frozen=True, slots=True)
class Catch:
    """What became of a planted bug: the invariant that broke, "" if none, in `caught` of `runs`."""

    bug: str
    first_seed: int
    invariant: str
    caught: int
    runs: int


def run_many(seeds: Sequence[int], workers: int) -> Iterable[Total]:
    """Run schedules of the real protocol; yields totals as they come, in the order of seeds."""
    chunks = [seeds[i : i + _CHUNK] for i in range(0, len(seeds), _CHUNK)]
    if workers == 1 or len(chunks) == 1:
        yield from map(_run, chunks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_run, chunks)


def _run(seeds: Sequence[int]) -> Total:
    total = Total()
    for seed in seeds:
        total.add(run_schedule(seed))
    return total


def hunt_bugs(workers: int, runs: int) -> list[Catch]:
    """Hunt every planted bug in at least `runs` schedules, in 1,000 at most until it is caught."""
    jobs = [(i, runs) for i in range(len(PLANTED_BUGS))]
    if workers == 1:
        return [_hunt(job) for job in jobs]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_hunt, jobs))


def _hunt(job: tuple[int, int]) -> Catch:
    bug, runs = PLANTED_BUGS[job[0]], job[1]
    first, caught, invariants = -1, 0, Counter[str]()
    seed = 0
    while seed < runs or (not caught and seed < SEEDS_PER_BUG):
        violation = run_schedule(seed, bug).violation
        if violation is not None:
            caught += 1
            first = seed if first < 0 else first
            invariants[violation.invariant] += 1
        seed += 1
    unexpected = set(invariants) - bug.caught_by
    shown = " ".join(f"{name}?" if name in unexpected else name for name in sorted(invariants))
    return Catch(bug.name, first, shown, caught, seed)
