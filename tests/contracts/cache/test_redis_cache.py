"""What only the cache in Redis has: restarts, losses, other lives, and a server to go down."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import structlog

from node.cache import CachedAnswer, RedisMissingError
from tests.contracts.cache.conftest import LIFE, RedisBench

pytestmark = pytest.mark.redis

MARKER = "张三14260119800101001X"
ANSWER = CachedAnswer("141002001201", "141002001201", MARKER.encode())


def test_a_restarted_node_finds_its_answers(redis_bench: RedisBench) -> None:
    """The position lies beside them and is the cursor to go on from."""
    before = redis_bench.open(LIFE)
    before.start_over(5)
    before.put({"a": ANSWER}, 5)
    after = redis_bench.open(LIFE)
    assert after.position() == 5
    assert after.get(["a"]).answers == {"a": ANSWER}
    assert after.advance(5, 6, ["a"]) == 6
    assert before.get(["a"]).answers == {}


@pytest.mark.parametrize(
    "life",
    [
        replace(LIFE, store_epoch=2),
        replace(LIFE, incarnation="def"),
        replace(LIFE, node_id="141002100"),
    ],
)
def test_another_life_of_the_store_meets_nothing(redis_bench: RedisBench, life: object) -> None:
    """A restored database reuses sequences; its answers are others."""
    cache = redis_bench.open(LIFE)
    cache.start_over(5)
    cache.put({"a": ANSWER}, 5)
    other = redis_bench.open(life)  # type: ignore[arg-type]
    assert other.position() is None
    other.start_over(5)
    assert other.get(["a"]).answers == {}


def test_a_lost_position_puts_the_answers_out_of_reach(redis_bench: RedisBench) -> None:
    """Redis may drop any key when it is full: without the position nobody knows their age."""
    cache = redis_bench.open(LIFE)
    cache.start_over(5)
    cache.put({"a": ANSWER}, 5)
    redis_bench.server.client.delete("fenhe:141002001:1:abc:at")
    assert cache.get(["a"]).answers == {}
    assert cache.advance(5, 6, []) is None
    cache.start_over(9)
    held = cache.get(["a"])
    assert (held.position, held.answers) == (9, {})


def test_a_put_of_a_generation_that_is_over_is_refused(redis_bench: RedisBench) -> None:
    """One process started over; the other still speaks of what was before."""
    old, new = redis_bench.open(LIFE), redis_bench.open(LIFE)
    old.start_over(5)
    old.get([])
    new.start_over(5)
    assert not old.put({"a": ANSWER}, 5)
    assert new.get(["a"]).answers == {}


def test_redis_sees_no_identifier(redis_bench: RedisBench) -> None:
    """Neither in a key nor in a value."""
    cache = redis_bench.open(LIFE)
    cache.start_over(5)
    assert cache.put({"a": ANSWER}, 5)
    seen = b"".join(key + value for key, value in redis_bench.server.contents().items())
    assert len(redis_bench.server.contents()) == 2
    for marker in (MARKER, "张三", "14260119800101001X", ANSWER.home_node):
        assert marker.encode() not in seen


def test_an_answer_moved_or_altered_is_not_given_out(redis_bench: RedisBench) -> None:
    """It is bound to its resident."""
    cache = redis_bench.open(LIFE)
    cache.start_over(5)
    cache.put({"a": ANSWER, "b": ANSWER}, 5)
    client = redis_bench.server.client
    keys = {key.rpartition(b":")[2]: key for key in redis_bench.server.contents()}
    client.set(keys[b"b"], client.get(keys[b"a"]))
    client.append(keys[b"a"], b"x")
    held = cache.get(["a", "b"])
    assert (held.position, held.answers) == (5, {})


def test_a_server_that_is_down_is_no_error(redis_bench: RedisBench) -> None:
    """Nothing is held or taken, one line is logged, and it is tried again after a while."""
    cache = redis_bench.open(LIFE)
    cache.start_over(5)
    cache.put({"a": ANSWER}, 5)
    redis_bench.server.stop()
    try:
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                assert cache.get(["a"]).position is None
                assert not cache.put({"a": ANSWER}, 5)
                assert cache.position() is None
                assert cache.advance(5, 6, []) is None
                redis_bench.clock.ms += 5000
        assert [line["log_level"] for line in lines] == ["warning"]
        assert "redis_url" in lines[0]["hint"]
        available = [cache.is_available]
    finally:
        redis_bench.server.start()
    redis_bench.clock.ms += 5000
    assert cache.position() is None
    assert [*available, cache.is_available] == [False, True]
    cache.start_over(7)
    assert cache.put({"a": ANSWER}, 7)
    assert cache.get(["a"]).answers == {"a": ANSWER}


def test_is_left_alone_for_a_while_after_a_failure(redis_bench: RedisBench) -> None:
    """A server that takes long to refuse must not slow every read."""
    cache = redis_bench.open(LIFE)
    cache.start_over(5)
    redis_bench.server.stop()
    cache.get(["a"])
    redis_bench.server.start()
    cache.start_over(6)
    assert redis_bench.server.contents() == {}


def test_a_full_server_is_no_error(redis_bench: RedisBench) -> None:
    """It takes nothing, and reads go on."""
    cache = redis_bench.open(LIFE)
    cache.start_over(5)
    redis_bench.server.client.config_set("maxmemory", "1")
    try:
        assert not cache.put({"a": ANSWER}, 5)
    finally:
        redis_bench.server.client.config_set("maxmemory", "0")
    redis_bench.clock.ms += 5000
    assert cache.get(["a"]).answers == {}


def test_a_missing_package_is_one_clear_sentence(
    redis_bench: RedisBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(RedisMissingError) as caught:
        redis_bench.open(LIFE)
    assert "fenhe[redis]" in caught.value.hint
