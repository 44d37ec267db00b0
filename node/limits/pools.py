"""Calls under way: so many in all, so many of one caller. Pure; time is given."""

from __future__ import annotations

from collections import Counter
from typing import Final

__all__ = ["Pool"]

WAIT_MS_MIN: Final = 50
WAIT_MS_MAX: Final = 5_000
_WEIGHT: Final = 0.1
_SPREAD: Final = 8


class Pool:
    """Counts what is under way; refuses, and never lets anything wait."""

    def __init__(self, total: int, by_key: int) -> None:
        """`by_key`: at most so many of one key at once."""
        self.total = total
        self._by_key = by_key
        self._keys: Counter[str] = Counter()
        self._under_way = 0
        self._usual_ms = float(WAIT_MS_MIN)
        self._refused = 0

    @property
    def under_way(self) -> int:
        """How many have entered and not left."""
        return self._under_way

    def is_full(self, share: float = 1.0) -> bool:
        """Whether a share of the pool is taken."""
        return self._under_way >= max(1, int(self.total * share))

    def is_full_of(self, key: str) -> bool:
        """Whether a key has all that one key may have."""
        return self._keys[key] >= self._by_key

    def enter(self, key: str) -> None:
        """One more is under way."""
        self._under_way += 1
        self._keys[key] += 1

    def leave(self, key: str, took_ms: int) -> None:
        """One has ended after so long."""
        self._under_way -= 1
        self._keys[key] -= 1
        if self._keys[key] <= 0:
            del self._keys[key]
        self._usual_ms += (max(took_ms, WAIT_MS_MIN) - self._usual_ms) * _WEIGHT

    def wait_ms(self) -> int:
        """When a place is likely to be free: what calls usually take, up to twice that.

        Spread over those who are refused, so that they do not all come back at one moment.
        """
        self._refused += 1
        wait = self._usual_ms * (1 + self._refused % _SPREAD / _SPREAD)
        return int(min(max(wait, WAIT_MS_MIN), WAIT_MS_MAX))
