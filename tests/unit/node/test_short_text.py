"""The sentence of an error as it leaves: short, and without what moves a cursor."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from node.errors import said_node
from node.services.interceptor import short_text


@pytest.mark.parametrize("text", ["a" * 100_000, "长" * 50_000, "\x00" * 9_000, "%" * 20_000])
def test_no_caller_fills_the_trailer(text: str) -> None:
    """As gRPC sends it, every byte beyond plain ASCII as three."""
    made = short_text(text)
    assert made.endswith("…")
    assert len(quote(made.replace("%", ""), safe="".join(map(chr, range(32, 127))))) < 3_100
    assert len(made) <= 3_001


def test_a_sentence_stays_as_it_is() -> None:
    """Chinese too; what has lines keeps them."""
    said = "INVALID: 第一行\nNext: do it."
    assert short_text(said) == said


def test_what_moves_a_cursor_is_made_harmless() -> None:
    """Escapes, direction marks, returns."""
    made = short_text("a\x1b[2J\u202eb\rc\x7f")
    assert made == "a\ufffd[2J\ufffdb\ufffdc\ufffd"


@pytest.mark.parametrize("text", ["", "141002 ", "'; DROP", "9" * 17, "٤٢", "蔺暮雪"])
def test_a_node_is_repeated_only_if_it_is_a_division_code(text: str) -> None:
    """Whatever else a caller wrote in its place may be a name."""
    assert said_node(text) == "what was named"
    assert said_node("141002") == "141002"
