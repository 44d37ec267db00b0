"""What only the cache in the process has: a bound of its own."""

from __future__ import annotations

from node.cache import CachedAnswer, InProcessCache
from node.cache.in_process import ANSWER_OVERHEAD_BYTES

ANSWER = CachedAnswer("141002001201", "141002001201", b"x" * 400)
SIZE = ANSWER_OVERHEAD_BYTES + 400


def test_drops_what_was_used_longest_ago() -> None:
    """A look counts as a use."""
    cache = InProcessCache(3 * SIZE)
    cache.start_over(1)
    for name in "abc":
        cache.put({name: ANSWER}, 1)
    cache.get(["a"])
    cache.put({"d": ANSWER}, 1)
    assert sorted(cache.get(["a", "b", "c", "d"]).answers) == ["a", "c", "d"]
    assert cache.bytes_held == 3 * SIZE


def test_gives_the_bytes_of_what_goes_back() -> None:
    """Replaced, changed or forgotten, an answer no longer counts."""
    cache = InProcessCache(10 * SIZE)
    cache.start_over(1)
    cache.put({"a": ANSWER}, 1)
    cache.put({"a": ANSWER, "b": ANSWER}, 1)
    assert cache.bytes_held == 2 * SIZE
    cache.advance(1, 2, ["a"])
    assert cache.bytes_held == SIZE
    cache.start_over(2)
    assert cache.bytes_held == 0


def test_an_answer_larger_than_the_bound_is_not_kept() -> None:
    """The bound holds whatever comes."""
    cache = InProcessCache(SIZE - 1)
    cache.start_over(1)
    cache.put({"a": ANSWER}, 1)
    assert (cache.get(["a"]).answers, cache.bytes_held) == ({}, 0)
