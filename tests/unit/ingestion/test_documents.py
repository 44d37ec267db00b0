"""docs/ingestion.md holds every rule and element, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from node.ingestion.elements import ELEMENTS
from node.ingestion.rules import RULES

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "ingestion.md").read_text(encoding="utf-8")


def test_rules_stand_as_they_are() -> None:
    """Code, step, effect, what is asked and why, row for row."""
    section = TEXT.split("## Rules", 1)[1].split("## Quality", 1)[0]
    shown = re.findall(r"^\| ([A-Z0-9_]+) \| .* \|$", section, re.MULTILINE)

    assert shown == list(RULES)
    for rule in RULES.values():
        assert f"| {rule.asks} | {rule.reason} |" in section


def test_elements_stand_with_their_codes() -> None:
    """Those that are listed by name."""
    for element in ELEMENTS.values():
        if not element.measures:
            codes = ", ".join(element.data_elements) or "–"
            assert f"| {element.name} | {codes} |" in TEXT
