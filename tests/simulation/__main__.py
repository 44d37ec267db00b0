"""`python -m tests.simulation --seeds N` runs N schedules; `--seed K` replays one, traced.

`--bugs N` hunts every planted bug in N schedules and prints in how many it was caught.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter

from tests.simulation.faults import FIRED_KINDS
from tests.simulation.hunt import Total, hunt_bugs, run_many
from tests.simulation.world import run_schedule

__all__ = ["main"]

_ENOUGH = 500
"""In so many schedules every fault must have fired."""


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 if no invariant broke and, over many schedules, every fault fired."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="replay this one, with its trace")
    parser.add_argument("--bugs", type=int, help="hunt the planted bugs in so many schedules each")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    chosen = parser.parse_args(arguments)
    if chosen.bugs is not None:
        return _bugs(chosen.workers, chosen.bugs)
    if chosen.seed is not None:
        total = Total()
        total.add(run_schedule(chosen.seed, trace=print))
        return _told(total)
    total = Total()
    for some in run_many(range(chosen.first, chosen.first + chosen.seeds), chosen.workers):
        total.merge(some)
        for seed, violation in some.violations.items():
            print(f"seed {seed}: {violation}", flush=True)
    return _told(total)


def _bugs(workers: int, runs: int) -> int:
    caught = hunt_bugs(workers, runs)
    for each in caught:
        share = f"{each.caught}/{each.runs}"
        print(f"{each.bug:38} {share:>9}  first {each.first_seed:4}  {each.invariant}")
    return int(any(not each.caught or "?" in each.invariant for each in caught))


def _told(total: Total) -> int:
    print("crash points: " + _listed(total.crash_points))
    print("links closed: " + _listed(total.closes))
    silent = [kind for kind in FIRED_KINDS if not total.fired[kind]]
    missing = bool(silent) and total.schedules >= _ENOUGH
    if missing:
        print(f"never fired: {', '.join(silent)}")
    print(
        f"schedules={total.schedules} violations={len(total.violations)}"
        f" acknowledged={total.acknowledged} faults: {_listed(total.fired)}",
        flush=True,
    )
    return int(missing or bool(total.violations))


def _listed(counter: Counter[str]) -> str:
    return " ".join(f"{name}={count}" for name, count in sorted(counter.items()))


if __name__ == "__main__":
    sys.exit(main())
