"""`python -m tests.chaos --minutes 3 --seed 7`; exit code 1 if anything was lost."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Outcome, run

__all__ = ["shown"]


def shown(outcome: Outcome) -> str:
    """The result in a few lines; the last one says it all."""
    verdict = outcome.verdict
    lines = [
        f"rate: {verdict.acknowledged / outcome.write_s:.0f} rows/s acknowledged",
        "drained in " + (f"{outcome.drained_s:.0f} s" if outcome.drained_s is not None else "–"),
        f"forgiven (restored before delivery): {verdict.forgiven}",
        f"refused to writers: {dict(outcome.refused)}",
        f"ended by themselves: {dict(outcome.ended_by_themselves)}",
        f"waiting in quarantine: {dict(verdict.quarantined)}",
        *(f"LOST {count}: {where}" for where, count in sorted(verdict.lost.items())),
        *(f"LEAK {leak}" for leak in verdict.leaks[:10]),
        *(f"FAULT {fault}" for fault in verdict.faults),
        *(f"UNEQUAL {unequal}" for unequal in outcome.unequal),
        *(f"VERSION FELL {fell}" for fell in outcome.fell[:10]),
        *(f"NOT RUN {kind}" for kind in sorted(outcome.impossible)),
        *(f"NEVER FIRED {kind}" for kind in outcome.never_fired),
    ]
    loads = ", ".join(f"{load} {count}" for load, count in sorted(verdict.loads.items()))
    fired = ", ".join(f"{kind} {count}" for kind, count in sorted(outcome.fired.items()))
    lines.append(
        f"acknowledged {verdict.acknowledged}, lost {sum(verdict.lost.values())}, "
        f"leaked {len(verdict.leaks)}, forgiven {verdict.forgiven}; loads: {loads}; "
        f"faults: {fired}"
    )
    return "\n".join(lines)


def main() -> int:
    """Run once."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=100.0, help="rows a second, all writers")
    parser.add_argument("--reparent", action="store_true", help="move a township meanwhile")
    parser.add_argument("--keep", type=Path, help="folder to run in and keep; default: a new one")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fenhe-chaos-") as made:
        root = words.keep or Path(made) / "run"
        outcome = run(
            root,
            seed=words.seed,
            minutes=words.minutes,
            rate=words.rate,
            reparent=words.reparent,
            tell=lambda line: print(line, flush=True),
        )
    print(shown(outcome))
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())
