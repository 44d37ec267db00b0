"""Time and randomness, the only place that takes them from the machine.

Everything below node/app.py is handed a Clock and a source of random bytes, so that tests and the
simulator decide both. No decision about order rests on the wall clock: it may be wrong by years.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Protocol

__all__ = ["Clock", "Ids", "SystemClock", "format_ms", "parse_ms", "system_ids", "today"]

_LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, where datetime ends."""

RandomBytes = Callable[[int], bytes]


class Clock(Protocol):
    """What the rest of the program knows of time."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970 UTC. May jump either way."""

    def monotonic_ms(self) -> int:
        """Milliseconds since some fixed moment; never goes back."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Milliseconds since the machine started, roughly."""
        return time.monotonic_ns() // 1_000_000


class Ids:
    """Mints ids that no other node will mint, without asking anyone.

    UUID version 7 (RFC 9562): 48 bits of time, so that new rows lie together in an index, and
    74 random bits, so that a wrong clock costs locality and never uniqueness.
    """

    def __init__(self, clock: Clock, random_bytes: RandomBytes) -> None:
        self._clock = clock
        self._random_bytes = random_bytes

    def mint(self) -> str:
        """A new id in canonical text, 36 characters."""
        stamp = (self._clock.now_ms() & 0xFFFF_FFFF_FFFF) << 80
        noise = int.from_bytes(self._random_bytes(10), "big")
        value = stamp | (0x7 << 76) | ((noise >> 62) & 0xFFF) << 64 | 0b10 << 62
        value |= noise & 0x3FFF_FFFF_FFFF_FFFF
        return _canonical(value)

    def mint_timeless(self) -> str:
        """A new id that says nothing of when: UUID version 4, 122 random bits.

        For residents, whose id stands in the city's main index: a time in it would join the entry
        to the de-identified records of that moment.
        """
        value = int.from_bytes(self._random_bytes(16), "big")
        value &= ~(0xF << 76 | 0b11 << 62)
        return _canonical(value | 0x4 << 76 | 0b10 << 62)


def _canonical(value: int) -> str:
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def system_ids() -> Ids:
    """Ids by the machine's clock and its random source."""
    return Ids(SystemClock(), os.urandom)


def format_ms(ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 UTC with milliseconds: 2026-11-23T20:00:00.000Z.

    A time before 1970 or after 9999, such as a peer's clock may say, is shown as that end.
    """
    ms = min(max(ms, 0), _LAST_MS)
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def parse_ms(text: str) -> int:
    """The inverse of format_ms."""
    moment = datetime.fromisoformat(text)
    return round(moment.timestamp() * 1000)


def today(clock: Clock) -> date:
    """The day in China (UTC+8), where all nodes stand: births and visits are dated there."""
    return datetime.fromtimestamp(clock.now_ms() / 1000 + 8 * 3600, UTC).date()
