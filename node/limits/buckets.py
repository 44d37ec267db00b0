"""Token buckets by key: so many a second, and some at once after a pause. Pure; time is given."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

__all__ = ["Buckets"]

KEYS_MAX: Final = 4096


class Buckets:
    """One bucket for each key, made full when the key is first seen.

    At most `keys_max` are remembered: the one used longest ago is forgotten, and would be full
    again anyway unless keys are invented faster than buckets fill.
    """

    def __init__(self, per_s: float, burst: float, keys_max: int = KEYS_MAX) -> None:
        """`per_s`: tokens that come back a second; `burst`: what a full bucket holds."""
        self._per_ms = per_s / 1000
        self._burst = max(burst, 1.0)
        self._keys_max = keys_max
        self._held: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, key: str, now_ms: int) -> int:
        """Take a token; 0, or in how many milliseconds there will be one.

        A refused call takes none, so that asking again and again does not put the wait off.
        """
        tokens, then_ms = self._held.get(key, (self._burst, now_ms))
        tokens = min(self._burst, tokens + max(now_ms - then_ms, 0) * self._per_ms)
        taken = tokens >= 1
        self._held[key] = (tokens - 1 if taken else tokens, now_ms)
        self._held.move_to_end(key)
        if len(self._held) > self._keys_max:
            self._held.popitem(last=False)
        return 0 if taken else 1 + int((1 - tokens) / self._per_ms)

    def give_back(self, key: str) -> None:
        """Undo a `take`; a key that is forgotten has a full bucket anyway."""
        if key in self._held:
            tokens, then_ms = self._held[key]
            self._held[key] = (min(self._burst, tokens + 1), then_ms)
