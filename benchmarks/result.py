"""What a benchmark gives: a figure, what stands beside it, and whether the goal was met."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Benchmark", "Result", "Scale", "alternate", "percentile", "ratio_of"]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to do, and where files may lie; the folder is removed afterwards."""

    folder: Path
    quick: bool = False

    def pick(self, full: int, quick: int) -> int:
        """The full figure, or the smaller one of a quick run."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report. `ratio` is figure / beside_figure; `detail` holds further figures."""

    name: str
    figure: float
    unit: str
    beside: str
    beside_figure: float
    ratio: float
    goal: str
    met: bool
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The line of --json."""
        return json.dumps(
            {name: _rounded(value) for name, value in asdict(self).items()}, ensure_ascii=False
        )


Benchmark = Callable[[Scale], Result]
"""Measures; raises if it cannot."""


def alternate(rounds: int, *sides: Callable[[], float]) -> list[list[float]]:
    """Measure the sides in turn, so that what else the machine does falls on all of them.

    Every other round goes backwards: whoever is first finds other caches than whoever is last.

    Returns:
        By side, its figures in the order of the rounds.
    """
    figures: list[list[float]] = [[] for _ in sides]
    for number in range(rounds):
        places = range(len(sides))
        for place in places if number % 2 == 0 else reversed(places):
            figures[place].append(sides[place]())
    return figures


def ratio_of(ours: Sequence[float], beside: Sequence[float]) -> tuple[float, float, float]:
    """Median of ours, median of the other, and the first over the second."""
    figure, other = statistics.median(ours), statistics.median(beside)
    return figure, other, figure / other


def percentile(figures: Sequence[float], share: float) -> float:
    """The figure that this share of them does not exceed, such as 0.99."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _rounded(value: Any) -> Any:
    """Four significant digits: more would claim what was not measured."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: _rounded(each) for key, each in value.items()}
        case list() | tuple():
            return [_rounded(each) for each in value]
        case _:
            return value
