"""Every planted bug is caught, with the defences that would hide it taken away."""

from __future__ import annotations

import pytest

from tests.simulation.bugs import PLANTED_BUGS
from tests.simulation.hunt import SEEDS_PER_BUG
from tests.simulation.variants import Variant
from tests.simulation.world import run_schedule


@pytest.mark.parametrize("bug", PLANTED_BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Variant) -> None:
    """Each rule matters: without it some schedule breaks the invariant it is there for."""
    for seed in (*range(bug.first_seed, SEEDS_PER_BUG), *range(bug.first_seed)):
        violation = run_schedule(seed, bug).violation
        if violation is not None:
            assert violation.invariant in bug.caught_by, f"seed {seed}: {violation}"
            return
    pytest.fail(f"not caught in {SEEDS_PER_BUG} seeds")


def test_there_are_as_many_as_the_proof_asks_for() -> None:
    """Sixteen at least, each under a name of its own."""
    assert len({bug.name for bug in PLANTED_BUGS}) == len(PLANTED_BUGS) >= 16
