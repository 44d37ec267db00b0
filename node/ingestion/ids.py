"""Ids of what a source sends, derived so that the same row always has the same id.

UUID version 8 (RFC 9562). The last 74 bits are a keyed hash of source, table and key, so nobody
without the node's key makes one. The first 48 bits only decide where a row lies in an index: rows
that come together lie together. Without a key of the source they are the day of care; with one they
are a hash of the key without its last three characters, because keys are mostly counted up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import Final

from node.storage.context import KeyedIndex
from replication.core.model import Value

__all__ = ["RecordIds"]

_ALIKE: Final = 3
_EPOCH: Final = date(1850, 1, 1).toordinal()
_DAY_MS: Final = 86_400_000


class RecordIds:
    """Derives ids under a node's key, for one source.

    The key is the node's keyed index of a fixed word, of which nothing leads back to the index's
    own; ids are its keyed BLAKE2 (RFC 7693), which is no sealing and so the same in every suite.
    """

    def __init__(self, index: KeyedIndex, source: str) -> None:
        self._key = bytes.fromhex(index.index("fenhe.intake.ids", "1"))
        self._source = source
        self._prefix = lru_cache(maxsize=4096)(self._hashed_prefix)

    def keyed(self, table: str, key: str) -> str:
        """The id of the row that the source calls by a key."""
        digest = self._digest(table, "key", key)
        return _uuid(self._prefix(table, key[:-_ALIKE]), digest)

    def by_values(self, table: str, resident_id: str, values: Mapping[str, Value], day: str) -> str:
        """The id of a row that is told from others by everything that it says."""
        said = repr([(k, v) for k, v in sorted(values.items()) if v is not None])
        return _uuid(_day_prefix(day), self._digest(table, "values", f"{resident_id} {said}"))

    def _digest(self, table: str, kind: str, said: str) -> str:
        plain = f"{self._source}\0{table}\0{kind}\0{said}".encode(errors="replace")
        return hashlib.blake2b(plain, digest_size=10, key=self._key).hexdigest()

    def _hashed_prefix(self, table: str, stem: str) -> int:
        return int(self._digest(table, "stem", stem)[:12], 16)


@lru_cache(maxsize=65_536)
def _day_prefix(day: str) -> int:
    """Of an ISO day; of anything else that of no day."""
    try:
        return max(0, date.fromisoformat(day).toordinal() - _EPOCH) * _DAY_MS
    except ValueError:
        return 0


def _uuid(prefix: int, digest: str) -> str:
    head = f"{prefix:012x}"
    variant = "89ab"[int(digest[3], 16) & 3]
    return f"{head[:8]}-{head[8:]}-8{digest[:3]}-{variant}{digest[4:7]}-{digest[7:19]}"
