"""The harness of the benchmarks: what it prints, how it ends, how sides take turns."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES, main
from benchmarks.result import Result, Scale, alternate, ratio_of

_DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "benchmarks.md"


def _missed(_scale: Scale) -> Result:
    return Result("hop_single", 1 / 3, "rows/s", "another", 1.0, 1 / 3, ">= 1.0", met=False)


def _broken(_scale: Scale) -> Result:
    raise RuntimeError("the other side did not start")


def test_a_missed_goal_is_reported_and_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 and "met": false, in one line with the fields in their order."""
    assert main(["hop_single", "--json"], {"hop_single": _missed}.__getitem__) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == [
        "name",
        "figure",
        "unit",
        "beside",
        "beside_figure",
        "ratio",
        "goal",
        "met",
        "detail",
    ]
    assert (said["met"], said["figure"]) == (False, 0.3333)


def test_the_table_names_a_miss(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json a miss is a word that nobody overlooks."""
    assert main(["hop_single"], {"hop_single": _missed}.__getitem__) == 0
    assert "MISSED" in capsys.readouterr().out


def test_one_that_cannot_run_fails_and_the_others_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, the reason on stderr, the other results on stdout."""
    load = {"log_cost": _broken, "hop_single": _missed}.__getitem__
    assert main(["log_cost", "hop_single", "--json"], load) == 1
    said = capsys.readouterr()
    assert "the other side did not start" in said.err
    assert json.loads(said.out)["name"] == "hop_single"


def test_an_unknown_name_is_refused() -> None:
    """Nothing runs; the exit code is that of a wrong command line."""
    with pytest.raises(SystemExit) as ended:
        main(["hop_singel"])
    assert ended.value.code == 2


def test_sides_take_turns_and_every_other_round_goes_backwards() -> None:
    """Neither side is always first."""
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    figures = alternate(2, lambda: side("ours"), lambda: side("other"))
    assert order == ["ours", "other", "other", "ours"]
    assert figures == [[1.0, 4.0], [2.0, 3.0]]


def test_a_ratio_is_of_medians() -> None:
    """One slow round on a shared machine changes nothing."""
    assert ratio_of([10.0, 1.0, 10.0], [5.0, 5.0, 500.0]) == (10.0, 5.0, 2.0)


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_is_there_and_documented(name: str) -> None:
    """A module with `run`, and a heading in docs/benchmarks.md."""
    assert callable(import_module(f"benchmarks.{name}").run)
    assert f"## {name}" in _DOCUMENT.read_text(encoding="utf-8")
