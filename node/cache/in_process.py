"""The cache of one process: the most recently used answers, within so many bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from node.cache.contract import CachedAnswer, Held

__all__ = ["ANSWER_OVERHEAD_BYTES", "InProcessCache"]

ANSWER_OVERHEAD_BYTES: Final = 600
"""What Python takes for one answer beside its bytes: key, object, entry of the table."""


class InProcessCache:
    """See Cache. Drops the answers used longest ago when it would grow beyond `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        """It has no place in the log, and so holds nothing, before `start_over`."""
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, CachedAnswer] = OrderedDict()
        self._bytes = 0
        self._position: int | None = None

    @property
    def is_available(self) -> bool:
        return True

    @property
    def bytes_held(self) -> int:
        """What the answers take, estimated."""
        return self._bytes

    def get(self, resident_ids: Sequence[str]) -> Held:
        with self._lock:
            found = {}
            for resident_id in resident_ids:
                answer = self._answers.get(resident_id)
                if answer is not None:
                    self._answers.move_to_end(resident_id)
                    found[resident_id] = answer
            return Held(self._position, found)

    def put(self, answers: Mapping[str, CachedAnswer], at: int) -> bool:
        with self._lock:
            if self._position is None or self._position > at:
                return False
            for resident_id, answer in answers.items():
                self._drop(resident_id)
                self._answers[resident_id] = answer
                self._bytes += _size(answer)
            while self._bytes > self._bytes_max:
                self._drop(next(iter(self._answers)))
            return True

    def position(self) -> int | None:
        return self._position

    def advance(self, after: int, up_to: int, changed: Collection[str]) -> int | None:
        with self._lock:
            if self._position == after:
                for resident_id in changed:
                    self._drop(resident_id)
                self._position = up_to
            return self._position

    def start_over(self, position: int) -> None:
        with self._lock:
            self._answers.clear()
            self._bytes = 0
            self._position = position

    def ids(self, start: str) -> frozenset[str]:
        with self._lock:
            return frozenset(each for each in self._answers if each.startswith(start))

    def close(self) -> None:
        """Nothing is held open."""

    def _drop(self, resident_id: str) -> None:
        gone = self._answers.pop(resident_id, None)
        if gone is not None:
            self._bytes -= _size(gone)


def _size(answer: CachedAnswer) -> int:
    return len(answer.wire) + ANSWER_OVERHEAD_BYTES
