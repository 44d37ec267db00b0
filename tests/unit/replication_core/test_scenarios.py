"""Scripts between two LinkEnds, with their outputs as written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.replication_core.scenario import play

SCRIPTS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_two_ends_do_what_the_script_says(path: Path) -> None:
    """The whole exchange is as written down; `scenario.py` tells how to write it anew."""
    script = path.read_text(encoding="utf-8")
    assert play(script) == script
