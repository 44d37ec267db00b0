"""The table of invariants names planted bugs that its invariant catches, and tests that exist."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from typing import Final

from tests.house.tree import ROOT
from tests.simulation.bugs import PLANTED_BUGS

_NAMED: Final = re.compile(r"`([^`]+)`")
_ALSO: Final = {"I12": "MARK"}
"""What the simulator calls its part of an invariant that is not all its own."""


def _rows() -> list[list[str]]:
    text = (ROOT / "replication" / "GUARANTEES.md").read_text(encoding="utf-8")
    table = text[text.index("## Invariants") : text.index("## Failure cases")]
    return [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]


def _scenarios() -> set[str]:
    return {path.name for path in (ROOT / "tests/unit/replication_core/scenarios").glob("*.txt")}


def test_each_bug_named_is_caught_by_that_invariant() -> None:
    """By what tests/simulation/bugs.py says of it, which the simulator's own tests hold."""
    for row in _rows()[1:]:
        invariant = row[0].split()[0]
        for pattern in _NAMED.findall(row[2]):
            bugs = [bug for bug in PLANTED_BUGS if fnmatch(bug.name, pattern)]
            assert bugs, f"{invariant}: no bug {pattern}"
            for bug in bugs:
                caught = _ALSO.get(invariant, invariant)
                assert caught in bug.caught_by, f"{bug.name} is not caught by {invariant}"


def test_each_test_named_is_there() -> None:
    """A path below tests/; a bare name lies in the folder of the one before, or is a scenario.

    After `::` stands a function of the file.
    """
    for row in _rows()[1:]:
        folder = ROOT / "tests"
        for named in _NAMED.findall(row[3]):
            name, _, function = named.partition("::")
            if name.endswith(".txt") and "/" not in name:
                assert any(fnmatch(each, name) for each in _scenarios()), name
                continue
            base = ROOT / "tests" if "/" in name else folder
            found = list(base.glob(name.rstrip("/")))
            assert found, f"{row[0].split()[0]}: {name} is not there"
            folder = found[0].parent
            if function:
                assert f"def {function}(" in found[0].read_text(encoding="utf-8"), named


def test_each_invariant_has_a_row_and_a_test() -> None:
    """I1 to I12; none is held by a sentence alone."""
    rows = {row[0].split()[0]: row for row in _rows()[1:]}
    assert {f"I{n}" for n in range(1, 13)} <= set(rows)
    for name, row in rows.items():
        assert _NAMED.findall(row[3]), name
