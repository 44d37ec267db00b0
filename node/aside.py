"""Items set aside because they cannot be read or handled, so that everything else flows on.

A cell that does not open, a letter or a move that fails with an error nobody foresaw: the work
that meets one says so here and goes on with the next. The log has it once; the watch makes an alarm
and a metric of what stands here, until the item was read or handled after all.

Kept in memory. After a restart an item stands here again once it is met again. A row that a peer
was not sent is found by the comparison with that peer (node/reconcile), whatever stands here.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final

from sqlalchemy.exc import DataError

from hierarchy_config.errors import FenheError
from node.logs import get_logger

__all__ = ["ITEM_FAULTS", "AsideBook", "is_passing"]

ITEM_FAULTS: Final = (FenheError, ValueError, TypeError, LookupError, DataError)
"""What one damaged item does to whoever handles it. A store that is away is none of these."""
_KEPT: Final = 1000
"""More of them are one fault and not a thousand: figures are "at least" then."""


def is_passing(error: Exception) -> bool:
    """Whether the item is sound and only its turn was bad, as when a transaction lost."""
    return isinstance(error, FenheError) and error.retryable


class AsideBook:
    """What stands aside, by kind and key: a table and a row id, "letter" and its id. Any thread."""

    def __init__(self) -> None:
        self._standing: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._log = get_logger("aside")

    def add(self, kind: str, key: str, error: Exception) -> None:
        """Set an item aside. Neither the error's text nor anything of the item is logged."""
        code = error.code if isinstance(error, FenheError) else type(error).__name__
        item = (kind, key)
        with self._lock:
            known = item in self._standing or len(self._standing) >= _KEPT
            if len(self._standing) < _KEPT:
                self._standing[item] = code
        if not known:
            self._log.warning("set aside", kind=kind, item=key, error=code)

    def clear(self, kind: str, key: str) -> None:
        """It was read or handled, or it is gone."""
        with self._lock:
            gone = self._standing.pop((kind, key), None)
        if gone is not None:
            self._log.info("no longer set aside", kind=kind, item=key)

    def counts(self) -> Mapping[str, int]:
        """How many items stand aside, by kind."""
        with self._lock:
            return Counter(kind for kind, _ in self._standing)

    def keys(self, kind: str, limit: int) -> list[str]:
        """The next items of a kind that are to be looked at; `again` and `clear` make way."""
        with self._lock:
            return [key for each, key in self._standing if each == kind][:limit]

    def again(self, kind: str, key: str) -> None:
        """It was looked at and is as bad as before: others come first next time."""
        with self._lock:
            code = self._standing.pop((kind, key), None)
            if code is not None:
                self._standing[kind, key] = code
