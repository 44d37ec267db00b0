"""The real protocol under every fault, and variants of it that must be caught."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from tests.simulation.__main__ import main
from tests.simulation.faults import FIRED_KINDS
from tests.simulation.tree import CITY, TREE
from tests.simulation.variants import PLANTED_BUGS, Variant
from tests.simulation.world import run_schedule

SCHEDULES = 300
SEEDS_PER_BUG = 1000
CRASH_POINTS = (
    "apply.committed",
    "apply.staged",
    "before.ReadLog",
    "before.SaveDelivered",
    "before.Send",
    "number.committed",
    "number.staged",
    "receive.Batch",
    "receive.Hello",
    "receive.Receipt",
    "recovery.loaded",
    "recovery.numbered",
    "write.committed",
    "write.staged",
)


def test_no_invariant_breaks_and_every_fault_fires() -> None:
    """Hundreds of schedules end with everything everywhere it belongs, and none was a calm one."""
    fired: Counter[str] = Counter()
    crash_points: Counter[str] = Counter()
    acknowledged = 0
    for seed in range(SCHEDULES):
        outcome = run_schedule(seed)
        assert outcome.violation is None, f"seed {seed}: {outcome.violation}"
        fired += outcome.fired
        crash_points += outcome.crash_points
        acknowledged += outcome.acknowledged
    print(dict(fired), dict(crash_points))
    assert [kind for kind in FIRED_KINDS if not fired[kind]] == []
    assert [point for point in CRASH_POINTS if not crash_points[point]] == []
    assert acknowledged > 50 * SCHEDULES


@pytest.mark.parametrize("bug", PLANTED_BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Variant) -> None:
    """Each rule matters: without it some schedule breaks the invariant it is there for."""
    for seed in range(SEEDS_PER_BUG):
        violation = run_schedule(seed, bug).violation
        if violation is not None:
            assert violation.invariant in bug.caught_by, f"seed {seed}: {violation}"
            return
    pytest.fail(f"not caught in {SEEDS_PER_BUG} seeds")


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


def test_a_route_climbs_to_the_root_and_goes_down_to_the_home() -> None:
    """What the checkers hold the protocol to."""
    author, home = "141002001201", "141002002201"
    route = TREE.route(author, home)
    assert set(route) == {author, "141002001", "141002", CITY, "141002002", home}
    assert route[home] == (author, "141002001", "141002", "141002002", home)


def test_the_command_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line counts schedules, violations and faults."""
    assert main(["--seeds", "3"]) == 0
    last = capsys.readouterr().out.strip().split("\n")[-1]
    assert last.startswith("schedules=3 violations=0 acknowledged=")


def test_the_command_replays_a_seed_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """Every effect stands in the trace."""
    assert main(["--seed", "1"]) == 0
    assert "LinkUp" in capsys.readouterr().out
