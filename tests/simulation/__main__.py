"""`python -m tests.simulation --seeds N` runs N schedules; `--seed K` replays one, traced."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable

from tests.simulation.faults import FIRED_KINDS
from tests.simulation.world import Outcome, run_schedule

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 if no invariant broke and, over many schedules, every fault fired."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="replay this one, with its trace")
    chosen = parser.parse_args(arguments)
    if chosen.seed is not None:
        outcome = run_schedule(chosen.seed, trace=print)
        print(_verdict([outcome]))
        return int(outcome.violation is not None)
    return _many(range(chosen.first, chosen.first + chosen.seeds))


def _many(seeds: range) -> int:
    outcomes: list[Outcome] = []
    for seed in seeds:
        outcome = run_schedule(seed)
        outcomes.append(outcome)
        if outcome.violation is not None:
            print(f"seed {seed}: {outcome.violation}", flush=True)
    crash_points = _total(outcome.crash_points for outcome in outcomes)
    print("crash points: " + _listed(crash_points))
    print("links closed: " + _listed(_total(outcome.closes for outcome in outcomes)))
    print(_verdict(outcomes))
    fired = _total(outcome.fired for outcome in outcomes)
    silent = [kind for kind in FIRED_KINDS if not fired[kind]]
    if silent and len(outcomes) >= 200:
        print(f"never fired: {', '.join(silent)}", file=sys.stderr)
        return 1
    return int(any(outcome.violation is not None for outcome in outcomes))


def _verdict(outcomes: list[Outcome]) -> str:
    violations = sum(outcome.violation is not None for outcome in outcomes)
    written = sum(outcome.acknowledged for outcome in outcomes)
    fired = _total(outcome.fired for outcome in outcomes)
    return (
        f"schedules={len(outcomes)} violations={violations} acknowledged={written}"
        f" faults: {_listed(fired)}"
    )


def _total(counters: Iterable[Counter[str]]) -> Counter[str]:
    return sum(counters, Counter())


def _listed(counter: Counter[str]) -> str:
    return " ".join(f"{name}={count}" for name, count in sorted(counter.items()))


if __name__ == "__main__":
    sys.exit(main())
