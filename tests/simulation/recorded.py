"""Seeds that once failed, kept for ever: CI replays each of them, and all must pass."""

from __future__ import annotations

from typing import Final

__all__ = ["RECORDED"]

RECORDED: Final[tuple[int, ...]] = ()
