"""For one blocking pass, which rows have a key: sorted arrays, and a dictionary of new rows."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Postings"]

_FRESH_MIN: Final = 5_000
_FRESH_SHARE: Final = 0.02

Keys = NDArray[np.uint64]
Rows = NDArray[np.int64]


class Postings:
    """Rows by key. New rows wait in a dictionary until they are a fiftieth of all."""

    def __init__(self) -> None:
        self._keys: Keys = np.zeros(0, dtype=np.uint64)
        self._rows = np.zeros(0, dtype=np.int32)
        self._fresh: defaultdict[int, list[int]] = defaultdict(list)
        self._waiting = 0

    def add(self, keys: Keys, rows: Rows) -> None:
        """Add rows; a key of 0 is none."""
        known = keys != 0
        keys, rows = keys[known], rows[known]
        limit = max(_FRESH_MIN, int(_FRESH_SHARE * len(self._keys)))
        if len(keys) + self._waiting <= limit:
            for key, row in zip(keys.tolist(), rows.tolist(), strict=True):
                self._fresh[key].append(row)
            self._waiting += len(keys)
            return
        waiting = [(key, row) for key, many in self._fresh.items() for row in many]
        more = np.array([key for key, _ in waiting], dtype=np.uint64)
        keys = np.concatenate([more, keys])
        rows = np.concatenate([np.array([row for _, row in waiting], dtype=np.int64), rows])
        order = np.argsort(keys, kind="stable")
        at = np.searchsorted(self._keys, keys[order], "right")
        self._keys = np.insert(self._keys, at, keys[order])
        self._rows = np.insert(self._rows, at, rows[order].astype(np.int32))
        self._fresh.clear()
        self._waiting = 0

    def memory_bytes(self) -> int:
        """What the keys and rows take."""
        return self._keys.nbytes + self._rows.nbytes + 200 * len(self._fresh) + 32 * self._waiting

    def find(self, key: int) -> Rows:
        """The rows of a key."""
        wanted = np.array([key], dtype=np.uint64)
        low = int(np.searchsorted(self._keys, wanted, "left")[0])
        high = int(np.searchsorted(self._keys, wanted, "right")[0])
        rows = self._rows[low:high].astype(np.int64)
        fresh = self._fresh.get(key)
        return np.concatenate([rows, np.array(fresh, dtype=np.int64)]) if fresh else rows
