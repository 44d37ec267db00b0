"""A model of the node's own: whatever lies there, matching is off with a reason, or it works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.empi.defaults import shipped_model
from node.empi.errors import MatchModelError
from node.matching.finder import model_of

Change = Callable[[Any], object]


def _first(**values: Any) -> Change:
    return lambda model: model["fields"][0].update(values)


def _all(**values: Any) -> Change:
    return lambda model: model.update(values)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 200_000, '{"version":' + "9" * 5000 + "}", " " * (5 << 20)]
)
def test_text_that_is_no_model_is_refused(tmp_path: Path, text: str) -> None:
    """By its name, and never by an error of the program's own."""
    (tmp_path / "match_model.json").write_text(text, encoding="utf-8")
    with pytest.raises(MatchModelError, match=r"match_model\.json"):
        model_of(tmp_path / "match_model.json")


@pytest.mark.parametrize(
    "change",
    [
        _first(frequencies=[]),
        _first(m=None),
        _first(levels="x"),
        _first(kind="nothing"),
        _all(swaps=[[0, 99]]),
        _all(passes=[[99]]),
        _all(passes=[[10**30]]),
        _all(fields=None),
        _all(thresholds=[]),
    ],
)
def test_a_model_that_could_not_work_is_refused(tmp_path: Path, change: Change) -> None:
    """When it is read, not when it is asked."""
    model = json.loads(shipped_model().to_json())
    change(model)
    (tmp_path / "match_model.json").write_text(json.dumps(model), encoding="utf-8")
    with pytest.raises(MatchModelError):
        model_of(tmp_path / "match_model.json")


def test_a_sound_model_is_taken(tmp_path: Path) -> None:
    """And where there is none, the shipped one."""
    path = tmp_path / "match_model.json"
    assert model_of(path) == shipped_model()
    path.write_text(shipped_model().to_json(), encoding="utf-8")
    assert model_of(path) == shipped_model()
