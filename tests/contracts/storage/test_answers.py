"""Residents answered from a cache: never stale, scoped and audited as if there were none."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from hierarchy_config.model import NodeId
from node.cache import (
    Cache,
    CachedAnswer,
    CacheFollower,
    Held,
    InProcessCache,
    RedisCache,
    StoreLife,
)
from node.security.caller import Caller, CallerKind
from node.storage import AuditEntry, ResidentQuestion, Storage
from node.storage.model import StoredResident
from replication.changelog import write_transaction
from tests.contracts.cache.redis_server import RedisServer
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    bundle,
    observation,
    person,
)

RESIDENT = "00000000-0000-7000-8000-00000000000a"
NOBODY = "00000000-0000-7000-8000-0000000000ff"


def encode(resident: StoredResident) -> bytes:
    """What the tests can read."""
    return f"{resident.name} {resident.version.number}".encode()


class Watched:
    """A cache at which something happens between two steps of a read."""

    def __init__(self, inner: Cache) -> None:
        self.inner = inner
        self.after_get: list[Callable[[], None]] = []
        self.before_put: list[Callable[[], None]] = []
        self.puts: list[bool] = []

    @property
    def is_available(self) -> bool:
        return self.inner.is_available

    def get(self, resident_ids: Sequence[str]) -> Held:
        held = self.inner.get(resident_ids)
        while self.after_get:
            self.after_get.pop()()
        return held

    def put(self, answers: Mapping[str, CachedAnswer], at: int) -> bool:
        while self.before_put:
            self.before_put.pop()()
        self.puts.append(self.inner.put(answers, at))
        return self.puts[-1]

    def position(self) -> int | None:
        return self.inner.position()

    def advance(self, after: int, up_to: int, changed: Collection[str]) -> int | None:
        return self.inner.advance(after, up_to, changed)

    def start_over(self, position: int) -> None:
        self.inner.start_over(position)

    def ids(self, start: str) -> frozenset[str]:
        return self.inner.ids(start)

    def close(self) -> None:
        self.inner.close()


class Desk:
    """A node with a cache, and a resident of its own in it."""

    def __init__(self, node: NodeStore, cache: Cache) -> None:
        self.node = node
        self.cache = Watched(cache)
        self.storage: Storage = node.open_storage(random.Random(3), self.cache)
        self.follower = CacheFollower(self.cache, self.storage)
        self.write("甲")
        self.follow()

    def write(self, name: str) -> None:
        """Register the resident, or amend him, with the node's own hands; not numbered yet."""
        count = len(self.node.storage.audit_entries(limit=1000))
        self.storage.put_bundle(
            self.node.caller(), bundle(f"request-{count}", person("", name, resident_id=RESIDENT))
        )

    def follow(self) -> None:
        """The log's pulse."""
        self.follower.follow(self.node.durable_head())

    def ask(self, *callers: Caller) -> list[bytes | None]:
        """One transaction for all; by default the node's own caller."""
        asked = [ResidentQuestion(each, RESIDENT) for each in callers or (self.node.caller(),)]
        return self.storage.resident_answers(asked, encode)

    def sources(self) -> tuple[int, int]:
        """Answers from the cache and from the tables so far."""
        counts = self.storage.answer_counts
        return counts.kept, counts.read


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """A running server."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["in_process", pytest.param("redis", marks=pytest.mark.redis)])
def desk(request: pytest.FixtureRequest, village: NodeStore) -> Iterator[Desk]:
    """The node's desk over each cache, on each database."""
    with ExitStack() as opened:
        cache: Cache
        if request.param == "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            server.client.flushall()
            life = StoreLife(VILLAGE, 1, "abc")
            cache = RedisCache(
                server.url, life, village.keys, village.clock, random.Random(5).randbytes
            )
            opened.callback(cache.close)
        else:
            cache = InProcessCache(1 << 20)
        yield Desk(village, cache)


def test_a_kept_answer_is_the_answer(desk: Desk) -> None:
    """The same bytes, and the second time not from the tables."""
    assert desk.ask() == desk.ask() == [encode_of("甲", 1)]
    assert desk.sources() == (1, 1)


def encode_of(name: str, version: int) -> bytes:
    """What `encode` makes of a version."""
    return f"{name} {version}".encode()


def test_a_kept_answer_is_audited_like_any_other(desk: Desk) -> None:
    """One entry for each reader, the same in every field, for whom he may not see too."""
    callers = (desk.node.caller(), _stranger(desk))
    desk.ask(*callers)
    desk.ask(*callers)
    assert desk.sources()[0] == 2
    first, second = _audit(desk)[-4:-2], _audit(desk)[-2:]
    assert first == second
    assert [entry.outcome for entry in second] == ["done", "not_found"]
    assert [entry.principal for entry in second] == [caller.principal for caller in callers]


def _stranger(desk: Desk) -> Caller:
    return replace(
        desk.node.caller(CallerKind.CLIENT, "stranger"),
        node_id=VILLAGE_2,
        scope=frozenset({VILLAGE_2}),
    )


def _audit(desk: Desk) -> list[AuditEntry]:
    return [each for each in desk.storage.audit_entries(limit=1000) if each.action == "read"]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("scope", [VILLAGE, VILLAGE_2, TOWNSHIP, COUNTY, OTHER_COUNTY, CITY])
def test_a_kept_answer_is_scoped_like_the_tables(desk: Desk, scope: NodeId, large: bool) -> None:
    """By home or author, in scopes spelled out and in scopes kept in a table."""
    homes = desk.node.tree.subtree(scope)
    if large:
        homes |= {NodeId(f"1410{n:02d}") for n in range(30, 50)}
    caller = replace(desk.node.caller(), node_id=scope, scope=homes)
    desk.ask()
    seen = desk.storage.resident(caller, RESIDENT) is not None
    assert [answer is not None for answer in desk.ask(caller)] == [seen]
    assert desk.sources() == (1, 1)


def test_a_write_is_seen_at_once(desk: Desk) -> None:
    """Committed and not numbered, numbered and not followed, followed: never the old answer."""
    desk.ask()
    desk.write("乙")
    assert desk.ask() == [encode_of("乙", 2)]
    desk.node.durable_head()
    assert desk.ask() == [encode_of("乙", 2)]
    desk.follow()
    assert desk.ask() == [encode_of("乙", 2)]
    assert desk.ask() == [encode_of("乙", 2)]
    assert desk.sources() == (1, 4)


def test_a_write_between_the_look_and_the_transaction_is_seen(desk: Desk) -> None:
    """The log decides in the transaction that answers."""
    desk.ask()
    desk.cache.after_get.append(lambda: desk.write("乙"))
    assert desk.ask() == [encode_of("乙", 2)]


def test_an_answer_read_before_a_change_is_not_kept_after_it(desk: Desk) -> None:
    """Read old, change, invalidate, put old: refused."""

    def change() -> None:
        desk.write("乙")
        desk.follow()

    desk.cache.before_put.append(change)
    assert desk.ask() == [encode_of("甲", 1)]
    assert desk.cache.puts == [False]
    assert desk.ask() == [encode_of("乙", 2)]


def test_an_answer_put_before_its_change_is_followed_is_taken_out(desk: Desk) -> None:
    """Read old, change, put old, invalidate: gone, and never given out between."""
    desk.cache.before_put.append(lambda: desk.write("乙"))
    assert desk.ask() == [encode_of("甲", 1)]
    assert desk.cache.puts == [True]
    assert desk.ask() == [encode_of("乙", 2)]
    desk.follow()
    assert desk.ask() == [encode_of("乙", 2)]


def test_records_do_not_wear_the_cache_out(desk: Desk) -> None:
    """Only what changes a resident makes an answer old: others' records flow by."""
    desk.ask()
    desk.storage.put_bundle(desk.node.caller(), bundle("request-b", observation(RESIDENT)))
    assert desk.ask() == [encode_of("甲", 1)]
    desk.follow()
    assert desk.ask() == [encode_of("甲", 1)]
    assert desk.sources() == (2, 1)


def test_unauditable_is_unanswered(desk: Desk) -> None:
    """No entry, no answer, from the cache either."""
    desk.ask()
    _rename(desk, "audit", "audit_gone")
    try:
        with pytest.raises(DBAPIError):
            desk.ask()
    finally:
        _rename(desk, "audit_gone", "audit")


def _rename(desk: Desk, old: str, new: str) -> None:
    with write_transaction(desk.node.engine) as connection:
        connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


def test_nobody_and_nonsense_are_not_found(desk: Desk) -> None:
    """Absence is never kept, and what a caller typed stays out of the audit."""
    asked = [ResidentQuestion(desk.node.caller(), each) for each in (NOBODY, "'; DROP", RESIDENT)]
    for _ in range(2):
        assert desk.storage.resident_answers(asked, encode) == [None, None, encode_of("甲", 1)]
    assert [entry.object_id for entry in _audit(desk)[-3:]] == [NOBODY, None, RESIDENT]
    assert desk.sources() == (1, 5)


def test_a_cache_that_fell_behind_a_pruned_log_starts_over(desk: Desk) -> None:
    """What it missed cannot be read any more, so nothing it holds may stay."""
    desk.ask()
    desk.write("乙")
    head = desk.node.durable_head()
    with write_transaction(desk.node.engine) as connection:
        desk.node.log.prune(connection, head)
    desk.follow()
    assert desk.ask() == [encode_of("乙", 2)]
    assert desk.ask() == [encode_of("乙", 2)]
    assert desk.sources() == (1, 2)


def test_an_applied_batch_makes_answers_old(region: Region) -> None:
    """What a child sends changes the answer at its parent like a write of its own."""
    village, township = region.node(VILLAGE), region.node(TOWNSHIP)
    cache = InProcessCache(1 << 20)
    storage = township.open_storage(random.Random(3), cache)
    follower = CacheFollower(cache, storage)
    asked = [ResidentQuestion(township.caller(), RESIDENT)]
    for version, name in enumerate(("甲", "乙"), start=1):
        village.storage.put_bundle(
            village.caller(), bundle(f"request-{name}", person("", name, resident_id=RESIDENT))
        )
        region.ship(village, township)
        for _ in range(2):
            assert storage.resident_answers(asked, encode) == [encode_of(name, version)]
            follower.follow(township.durable_head())
    assert storage.resident_answers(asked, encode) == [encode_of("乙", 2)]
    assert storage.answer_counts.kept > 0


@pytest.mark.redis
def test_redis_holds_no_identifier(village: NodeStore, redis_server: RedisServer) -> None:
    """A marker that is in the answer is in no key and no value."""
    redis_server.client.flushall()
    life = StoreLife(VILLAGE, 1, "abc")
    cache = RedisCache(
        redis_server.url, life, village.keys, village.clock, random.Random(5).randbytes
    )
    desk = Desk(village, cache)
    assert desk.ask() == [encode_of("甲", 1)]
    cache.close()
    held = redis_server.contents()
    assert len(held) == 2
    assert "甲".encode() not in b"".join(key + value for key, value in held.items())
