"""Waits for what must become true; a test never sleeps for luck."""

from __future__ import annotations

import threading
from collections.abc import Callable

from node.clock import SystemClock

__all__ = ["CLOCK", "until"]

CLOCK = SystemClock()


def until(what: str, condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Look again and again until it holds; an AssertionError says what did not come true."""
    deadline = CLOCK.monotonic_ms() + seconds * 1000
    pause = threading.Event()
    while not condition():
        assert CLOCK.monotonic_ms() < deadline, f"not within {seconds:.0f} s: {what}"
        pause.wait(0.05)
