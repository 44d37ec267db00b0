"""The cache in a Redis server: shared, larger than a process, warm after a restart.

    PREFIX:at               "GENERATION POSITION"
    PREFIX:GENERATION:ID    a sealed answer

PREFIX names the node and the life of its store. Invalidation comes from the change log alone, not
from Redis' own client-side caching, which the Redis of Debian does not have in the form that
redis-py wants.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from node.cache.contract import CachedAnswer, Held
from node.cache.errors import RedisMissingError
from node.clock import Clock, RandomBytes
from node.logs import get_logger
from node.security.errors import SecurityError
from node.security.sealing import Sealer, cell_aad

__all__ = ["KEPT_S", "RedisCache", "StoreLife"]

KEPT_S: Final = 24 * 3600
"""An answer nobody replaced is forgotten after a day."""

_ANSWER_S: Final = 0.25
_CONNECT_S: Final = 0.5
_TRY_AGAIN_MS: Final = 5000
_GENERATION_BYTES: Final = 8

T = TypeVar("T")

# Keys: at, then answers. Arguments: generation, log head of the read, seconds kept, values.
_PUT: Final = """
local at = redis.call('GET', KEYS[1])
if not at then return 0 end
local generation, position = string.match(at, '^(%x+) (%d+)$')
if generation ~= ARGV[1] or tonumber(position) > tonumber(ARGV[2]) then return 0 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[3]) end
return 1
"""
# Keys: at, then answers to take out. Arguments: the place expected, the place to move to.
_ADVANCE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('DEL', KEYS[i]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class StoreLife:
    """Whose answers these are: a node, and the life of its store."""

    node_id: str
    store_epoch: int
    incarnation: str


class RedisCache:
    """See Cache. After a failure Redis is left alone for five seconds, then tried again."""

    def __init__(
        self, url: str, life: StoreLife, sealer: Sealer, clock: Clock, random_bytes: RandomBytes
    ) -> None:
        """Connects when first used.

        Args:
            url: redis://, rediss:// or unix://, as redis-py reads it.
            life: Part of every key.
            sealer: The node's data keys.
            clock: For when to try again.
            random_bytes: Source of generations.

        Raises:
            RedisMissingError: redis-py is not installed.
        """
        try:
            import redis
        except ImportError as error:
            raise RedisMissingError from error
        self._errors = (redis.RedisError, OSError)
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=_ANSWER_S, socket_connect_timeout=_CONNECT_S, retry=None
        )
        self._put = self._client.register_script(_PUT)
        self._advance = self._client.register_script(_ADVANCE)
        self._life = life
        self._prefix = f"fenhe:{life.node_id}:{life.store_epoch}:{life.incarnation}"
        self._sealer = sealer
        self._clock = clock
        self._random_bytes = random_bytes
        self._log = get_logger("cache")
        self._lock = threading.Lock()
        self._generation = ""
        self._down_until_ms: int | None = None

    @property
    def is_available(self) -> bool:
        return self._down_until_ms is None

    def get(self, resident_ids: Sequence[str]) -> Held:
        generation = self._generation
        keys = [self._at, *(self._key(generation, each) for each in resident_ids)]
        nothing: list[Any] = [None, *resident_ids]
        at, *values = self._ask(lambda: self._client.mget(keys), nothing)
        place = self._place(at)
        if place is None:
            return Held(None, {})
        if place[0] != generation:
            return Held(place[1], {})
        opened = {
            resident_id: answer
            for resident_id, value in zip(resident_ids, values, strict=True)
            if value is not None and (answer := self._open(resident_id, value)) is not None
        }
        return Held(place[1], opened)

    def put(self, answers: Mapping[str, CachedAnswer], at: int) -> bool:
        generation = self._generation
        keys = [self._at, *(self._key(generation, each) for each in answers)]
        sealed = [self._seal(each, answer) for each, answer in answers.items()]
        arguments: list[str | int | bytes] = [generation, at, KEPT_S, *sealed]
        return bool(self._ask(lambda: self._put(keys, arguments), 0))

    def position(self) -> int | None:
        place = self._place(self._ask(lambda: self._client.get(self._at), None))
        return None if place is None else place[1]

    def advance(self, after: int, up_to: int, changed: Collection[str]) -> int | None:
        generation = self._generation
        expected = f"{generation} {after}"
        gone = [self._key(generation, each) for each in sorted(changed)]
        # One call whatever their number: an answer put between two would outlive its taking out.
        moved = self._ask(
            lambda: self._advance([self._at, *gone], [expected, f"{generation} {up_to}"]), 0
        )
        return up_to if moved else self.position()

    def start_over(self, position: int) -> None:
        generation = self._random_bytes(_GENERATION_BYTES).hex()
        self._ask(lambda: self._client.set(self._at, f"{generation} {position}"), None)
        self._generation = generation

    def ids(self, start: str) -> frozenset[str]:
        def look() -> frozenset[str]:
            # Of any life and generation of this node's: what is left over lies there too.
            pattern = f"fenhe:{self._life.node_id}:*:{start}*"
            found = (bytes(key) for key in self._client.scan_iter(match=pattern, count=1000))
            return frozenset(key.decode("ascii", "replace").rpartition(":")[2] for key in found)

        return self._ask(look, frozenset())

    def close(self) -> None:
        self._client.close()

    @property
    def _at(self) -> str:
        return f"{self._prefix}:at"

    def _key(self, generation: str, resident_id: str) -> str:
        return f"{self._prefix}:{generation}:{resident_id}"

    def _place(self, at: bytes | None) -> tuple[str, int] | None:
        """Generation and position; remembers the generation for the keys that follow."""
        generation, _, position = (at or b"").decode("ascii", errors="replace").partition(" ")
        if not position.isdecimal():
            return None
        self._generation = generation
        return generation, int(position)

    def _aad(self, resident_id: str) -> bytes:
        return cell_aad(self._life.node_id, "cache", "resident", resident_id)

    def _seal(self, resident_id: str, answer: CachedAnswer) -> bytes:
        about = json.dumps([answer.home_node, answer.author_node]).encode()
        return self._sealer.seal(about + b"\n" + answer.wire, self._aad(resident_id))

    def _open(self, resident_id: str, sealed: bytes) -> CachedAnswer | None:
        try:
            clear = self._sealer.open(sealed, self._aad(resident_id))
        except SecurityError:
            return None
        about, _, wire = clear.partition(b"\n")
        home_node, author_node = json.loads(about)
        return CachedAnswer(home_node, author_node, wire)

    def _ask(self, question: Callable[[], T], otherwise: T) -> T:
        """The answer of Redis, or `otherwise` while it is left alone."""
        down_until = self._down_until_ms
        if down_until is not None and self._clock.monotonic_ms() < down_until:
            return otherwise
        try:
            answer = question()
        except self._errors as error:
            self._went_down(error)
            return otherwise
        if down_until is not None:
            self._came_back()
        return answer

    def _went_down(self, error: Exception) -> None:
        with self._lock:
            was_up = self._down_until_ms is None
            self._down_until_ms = self._clock.monotonic_ms() + _TRY_AGAIN_MS
        if was_up:
            self._log.warning(
                "the cache in Redis is not used",
                reason=type(error).__name__,
                hint="Reads go on from the database. See that the server at redis_url runs.",
            )

    def _came_back(self) -> None:
        with self._lock:
            was_down, self._down_until_ms = self._down_until_ms is not None, None
        if was_down:
            self._log.info("the cache in Redis is used again")
