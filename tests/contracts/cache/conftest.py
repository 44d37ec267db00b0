"""One cache of each kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from node.cache import Cache, InProcessCache, RedisCache, StoreLife
from node.security.sealing import DataKeys
from tests.contracts.cache.redis_server import RedisServer

LIFE = StoreLife("141002001", 1, "abc")


@dataclass
class FakeClock:
    """Stands still until it is told."""

    ms: int = 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms


@dataclass
class RedisBench:
    """A server, and caches on it as one node's processes would open them one after the other."""

    server: RedisServer
    clock: FakeClock
    open: Callable[[StoreLife], RedisCache]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A running server."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis_bench(redis_server: RedisServer) -> Iterator[RedisBench]:
    """An empty server."""
    redis_server.client.flushall()
    source = random.Random(7)
    clock = FakeClock()
    keys = DataKeys.fresh(LIFE.node_id, source.randbytes)
    with ExitStack() as opened:

        def open_cache(life: StoreLife) -> RedisCache:
            cache = RedisCache(redis_server.url, life, keys, clock, source.randbytes)
            opened.callback(cache.close)
            return cache

        yield RedisBench(redis_server, clock, open_cache)


@pytest.fixture(params=["in_process", pytest.param("redis", marks=pytest.mark.redis)])
def cache(request: pytest.FixtureRequest) -> Cache:
    """The same suite over both implementations; neither has a place in the log yet."""
    if request.param == "in_process":
        return InProcessCache(1 << 20)
    bench: RedisBench = request.getfixturevalue("redis_bench")
    return bench.open(LIFE)
