"""What the command prints of other nodes' words: their text, and nothing a terminal obeys."""

from __future__ import annotations

import pytest

from node.cli.output import print_table, printable

HOSTILE = "\x1b[2J\x1b]0;all well\x07 \u202etxet"


def test_control_and_bidi_characters_are_not_printed() -> None:
    """Line ends stay; Chinese stays."""
    assert printable("临汾\n县") == "临汾\n县"
    assert not set(printable(HOSTILE)) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize("value", ["[/]", "[bold]x[/bold]", "[link=file:///]y", HOSTILE])
def test_a_cell_is_text_and_never_markup(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A code that one village made up must not break or colour the region's answer."""
    print_table(("code", "n"), [(value, 3)])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert printable(value)[:5] in printed
