"""The search for leaves that differ between two sorted lists, one of them far away. No I/O.

Ranges of keys are compared by count and digest, those that differ are split, small ones are
compared leaf by leaf. With m differing leaves of n the messages hold O(m log n) digests.

The caller sends what `next` gives, and hands the answers in until `next` gives None. Both ends must
not change meanwhile: each works on a list it has taken once.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Final

__all__ = [
    "DIGEST_BYTES",
    "FIRST",
    "KEY_BYTES",
    "LAST",
    "Ask",
    "Asked",
    "Found",
    "KeyRange",
    "LeafPage",
    "Leaves",
    "RangeDigest",
    "RangeSearch",
]

KEY_BYTES: Final = 16
DIGEST_BYTES: Final = 16
_LEAF_BYTES: Final = KEY_BYTES + DIGEST_BYTES

FIRST: Final = bytes(KEY_BYTES)
LAST: Final = b"\xff" * KEY_BYTES
"""No key is greater; ranges end before their upper end, but for LAST, which they include."""

FANOUT: Final = 16
LEAVES_MAX: Final = 32
RANGES_AN_ASK: Final = 1024
PAGE_LEAVES: Final = 4096


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Keys from `low` on, up to and without `high`; a `high` of LAST is included."""

    low: bytes = FIRST
    high: bytes = LAST


@dataclass(frozen=True, slots=True)
class RangeDigest:
    """How many leaves lie in a range, and SHA-256 over them in order, cut to 16 bytes."""

    count: int
    digest: bytes


class Leaves:
    """A sorted list of keys with the digest of each; 32 bytes a leaf."""

    def __init__(self, leaves: Iterable[tuple[bytes, bytes]]) -> None:
        """`leaves`: key and digest, 16 bytes each, in any order, each key once."""
        self._leaves = sorted(key + digest for key, digest in leaves)

    def __len__(self) -> int:
        return len(self._leaves)

    def digest(self, span: KeyRange) -> RangeDigest:
        """Count and digest of a range. Costs time in proportion to the leaves in it."""
        some = self._within(span)
        digest = hashlib.sha256(b"".join(some)).digest()[:DIGEST_BYTES]
        return RangeDigest(len(some), digest)

    def page(self, span: KeyRange, limit: int = PAGE_LEAVES) -> LeafPage:
        """The first leaves of a range."""
        some = self._within(span)
        return LeafPage(
            tuple((leaf[:KEY_BYTES], leaf[KEY_BYTES:]) for leaf in some[:limit]),
            more=len(some) > limit,
        )

    def split(self, span: KeyRange, parts: int = FANOUT) -> list[KeyRange]:
        """The range in pieces that hold about equally many leaves here."""
        start, end = self._bounds(span)
        count = end - start
        cuts = sorted({start + count * part // parts for part in range(1, parts)} - {start})
        edges = [span.low, *(self._leaves[cut][:KEY_BYTES] for cut in cuts), span.high]
        return [KeyRange(low, high) for low, high in pairwise(edges)]

    def _within(self, span: KeyRange) -> list[bytes]:
        start, end = self._bounds(span)
        return self._leaves[start:end]

    def _bounds(self, span: KeyRange) -> tuple[int, int]:
        start = bisect_left(self._leaves, span.low)
        if span.high == LAST:
            return start, len(self._leaves)
        return start, bisect_left(self._leaves, span.high)


@dataclass(frozen=True, slots=True)
class LeafPage:
    """Leaves from the beginning of a range; `more`: it holds others."""

    leaves: tuple[tuple[bytes, bytes], ...]
    more: bool


class Asked(StrEnum):
    """What the other end is asked for."""

    DIGESTS = "digests"
    LEAVES = "leaves"


@dataclass(frozen=True, slots=True)
class Ask:
    """Ranges, and what is wanted of each, answered in this order."""

    kind: Asked
    spans: tuple[KeyRange, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A key whose leaf differs; None: no such leaf at that end."""

    key: bytes
    here: bytes | None
    there: bytes | None


@dataclass(slots=True)
class RangeSearch:
    """One comparison of the leaves here with those of the other end."""

    here: Leaves
    found: list[Found] = field(default_factory=list)
    _to_digest: deque[KeyRange] = field(default_factory=lambda: deque([KeyRange()]))
    _to_page: deque[KeyRange] = field(default_factory=deque)
    _asked: Ask | None = None

    def next(self) -> Ask | None:
        """What to ask now; None: `found` is complete. The same again until it is answered."""
        if self._asked is None:
            for kind, waiting in (
                (Asked.DIGESTS, self._to_digest),
                (Asked.LEAVES, self._to_page),
            ):
                if waiting:
                    many = RANGES_AN_ASK if kind is Asked.DIGESTS else RANGES_AN_ASK // LEAVES_MAX
                    spans = tuple(waiting.popleft() for _ in range(min(many, len(waiting))))
                    self._asked = Ask(kind, spans)
                    break
        return self._asked

    def take_digests(self, answers: Sequence[RangeDigest]) -> None:
        """Answers to an Ask for digests. Raises ValueError if they do not fit it."""
        for span, there in zip(self._answered(Asked.DIGESTS), answers, strict=True):
            here = self.here.digest(span)
            if here == there:
                continue
            if here.count <= LEAVES_MAX or there.count <= LEAVES_MAX:
                self._to_page.append(span)
            else:
                self._to_digest.extend(self.here.split(span))

    def take_leaves(self, answers: Sequence[LeafPage]) -> None:
        """Answers to an Ask for leaves. Raises ValueError if they do not fit it."""
        for span, page in zip(self._answered(Asked.LEAVES), answers, strict=True):
            seen = span
            if page.more:
                if not page.leaves:
                    raise ValueError("an empty page says that there are more leaves")
                last = page.leaves[-1][0]
                # The last one is looked at again with the page that follows.
                seen = KeyRange(span.low, last)
                if last <= span.low:
                    raise ValueError("a page does not go on")
                self._to_page.append(KeyRange(last, span.high))
            self._compare(seen, page, upper=None if not page.more else seen.high)

    def _compare(self, span: KeyRange, page: LeafPage, upper: bytes | None) -> None:
        here = dict(self.here.page(span, len(self.here)).leaves)
        there = {key: digest for key, digest in page.leaves if upper is None or key < upper}
        for key in sorted(here.keys() | there.keys()):
            if here.get(key) != there.get(key):
                self.found.append(Found(key, here.get(key), there.get(key)))

    def _answered(self, kind: Asked) -> tuple[KeyRange, ...]:
        asked, self._asked = self._asked, None
        if asked is None or asked.kind is not kind:
            raise ValueError(f"nobody asked for {kind}")
        return asked.spans
