"""The real protocol under every fault, and a check of the means."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.simulation.__main__ import main
from tests.simulation.faults import CRASH_POINTS, FIRED_KINDS
from tests.simulation.hunt import Total, run_many
from tests.simulation.recorded import RECORDED
from tests.simulation.tree import LARGE, SMALL
from tests.simulation.variants import LETTERS, Variant
from tests.simulation.world import run_schedule

SCHEDULES = 5000


def test_no_invariant_breaks_and_every_fault_fires() -> None:
    """Schedules end with everything everywhere it belongs, and none was a calm one."""
    total = Total()
    for some in run_many(range(SCHEDULES), os.cpu_count() or 1):
        total.merge(some)
    print(f"\n{total}")
    assert total.violations == {}
    assert [kind for kind in FIRED_KINDS if not total.fired[kind]] == []
    assert [point for point in CRASH_POINTS if not total.crash_points[point]] == []
    assert total.acknowledged > 50 * SCHEDULES


@pytest.mark.parametrize(("seed", "variant"), RECORDED)
def test_a_seed_that_once_failed_passes(seed: int, variant: Variant) -> None:
    """What has been mended stays mended."""
    outcome = run_schedule(seed, variant)
    assert outcome.violation is None, f"seed {seed}: {outcome.violation}"


@pytest.mark.parametrize("batch_bytes", [0, 40], ids=["drawn", "an entry a batch"])
def test_letters_survive_restores_where_they_are_under_way(batch_bytes: int) -> None:
    """Where the planted bugs of letters are hunted, the real protocol loses nothing."""
    fired: Counter[str] = Counter()
    for seed in range(25):
        outcome = run_schedule(seed, replace(LETTERS, batch_bytes=batch_bytes))
        assert outcome.violation is None, f"seed {seed}: {outcome.violation}"
        fired.update(outcome.fired)
    assert fired["restore"] > 100
    assert fired["letter_confirmed"] > 500


def test_one_seed_replays_exactly() -> None:
    """Two runs of a seed leave the same trace, line for line."""
    traces: list[list[str]] = [[], []]
    for trace in traces:
        run_schedule(7, trace=trace.append)
    assert traces[0] == traces[1]
    assert len(traces[0]) > 500


def test_seeds_differ() -> None:
    """Another seed is another schedule."""
    outcomes = [run_schedule(seed) for seed in range(5)]
    assert all(one.fired != other.fired for one, other in pairwise(outcomes))


def test_the_trees_are_those_of_the_proof() -> None:
    """15 nodes in 1-2-4-8, 40 in 1-3-9-27; a row is due at its author and on its home's path."""
    assert (len(SMALL.nodes), len(SMALL.villages)) == (15, 8)
    assert (len(LARGE.nodes), len(LARGE.villages)) == (40, 27)
    author, home = "141001001001", "141002001002"
    assert SMALL.destinations(author, home) == (author, home, "141002001", "141002", "1410")
    assert SMALL.destinations("141002001", home) == (home, "141002001", "141002", "1410")


def test_the_command_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line counts schedules, violations and faults."""
    assert main(["--seeds", "3", "--workers", "1"]) == 0
    last = capsys.readouterr().out.strip().split("\n")[-1]
    assert last.startswith("schedules=3 violations=0 acknowledged=")


def test_the_command_replays_a_seed_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """Every effect stands in the trace."""
    assert main(["--seed", "1"]) == 0
    assert "LinkUp" in capsys.readouterr().out
