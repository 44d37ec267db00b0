"""Cells that leave for a table program, which would run what begins like a formula."""

from __future__ import annotations

from typing import Final

__all__ = ["safe_cell"]

_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(text: str) -> str:
    """The text, with an apostrophe before what a table program would calculate (OWASP)."""
    return f"'{text}" if text.startswith(_STARTS) else text
