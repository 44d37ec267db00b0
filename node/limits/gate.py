"""The gate that every call passes: let in, or refused at once with the time to wait.

Four pools, none of which takes from another: neighbours (their links and questions), the workers of
this node's own questions, watchers of its health, and everybody else. So a clinic whose program
runs wild cannot stop replication, and cannot keep the others out for longer than its calls take.
Lives on one event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hardware_profiles import HardwareProfile
from node.clock import Clock
from node.limits.buckets import Buckets
from node.limits.errors import (
    LimitError,
    LookupsLimitedError,
    OverloadedError,
    RateLimitedError,
    TooManyCallsError,
)
from node.limits.pools import Pool
from node.logs import get_logger
from node.security.caller import CallerKind

__all__ = ["CallGate", "CallLimits"]

CONNECT: Final = "/fenhe.replication.v1.LinkService/Connect"
LOOKUPS: Final = frozenset({"/fenhe.empi.v1.ResidentService/Find"})
"""Methods that tell whether a number is somebody's."""
_HEALTH: Final = "/grpc.health.v1.Health/"

BURST_S: Final = 5
ADDRESS_CALLERS: Final = 4
"""One address may be several programs of a clinic; it has the rate of so many callers."""
ALL_LOOKUPS: Final = 4
"""All callers together may look up what so many may."""
CALLER_SHARE: Final = 0.75
"""Of the places, what one caller may hold: another one finds some free."""
ANALYST_SHARE: Final = 0.5
"""Analysts and operators begin nothing beyond it: care has the rest to itself."""
LINKS_A_PEER: Final = 8
WATCHES_A_CALLER: Final = 4
_CONNECTS_PER_S: Final = 1.0
_CONNECTS_BURST: Final = 60
_WATCHES: Final = 64
_SAY_AGAIN_MS: Final = 60_000
_EVERYBODY: Final = ""
_YIELDING: Final = frozenset({CallerKind.ANALYST, CallerKind.OPERATOR})
_QUESTIONS: Final = "/fenhe.federation.v1.QueryService/"


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Figures of one node, from its profile."""

    calls_per_s: int
    calls_at_once: int
    lookups_per_minute: int

    @classmethod
    def of(cls, profile: HardwareProfile) -> CallLimits:
        """What the profile says."""
        return cls(profile.calls_per_s, profile.calls_at_once, profile.lookups_per_minute)


class CallGate:
    """Buckets by address, caller and peer; pools of what is under way."""

    def __init__(
        self,
        limits: CallLimits,
        clock: Clock,
        refused: Callable[[str], None] = lambda _code: None,
    ) -> None:
        """`refused` is told the code of every refusal, for the metrics."""
        rate, at_once = limits.calls_per_s, limits.calls_at_once
        self._clock = clock
        self._refused = refused
        self._log = get_logger("limits")
        self._said: dict[tuple[str, str], int] = {}
        self._callers = Buckets(rate, rate * BURST_S)
        self._addresses = Buckets(rate * ADDRESS_CALLERS, rate * ADDRESS_CALLERS * BURST_S)
        self._refused_callers = Buckets(rate, rate * BURST_S)
        self._refused_addresses = Buckets(rate * ADDRESS_CALLERS, rate * ADDRESS_CALLERS * BURST_S)
        self._connects = Buckets(_CONNECTS_PER_S, _CONNECTS_BURST)
        lookups = limits.lookups_per_minute
        self._lookups = Buckets(lookups / 60, lookups)
        self._all_lookups = Buckets(lookups * ALL_LOOKUPS / 60, lookups * ALL_LOOKUPS)
        self._neighbours = Pool(1 << 20, LINKS_A_PEER)
        self._workers = Pool(at_once, at_once)
        self._watchers = Pool(_WATCHES, WATCHES_A_CALLER)
        self._everybody = Pool(at_once, max(1, int(at_once * CALLER_SHARE)))
        self.pools = MappingProxyType(
            {
                "neighbours": self._neighbours,
                "workers": self._workers,
                "watchers": self._watchers,
                "callers": self._everybody,
            }
        )

    @contextmanager
    def judging(
        self, method: str, kind: CallerKind, principal: str, address: str
    ) -> Iterator[None]:
        """Around the judgement of a call: if it is refused, that costs a token; else nothing.

        Here whoever holds the connection counts, since nobody else is known yet. The token is taken
        first, so that what is judged at once is no more either.

        Raises:
            RateLimitedError: Too much of this caller or its address was refused of late.
        """
        if kind is CallerKind.EXECUTOR:
            yield
            return
        taken = [(self._refused_callers, principal)]
        if kind is not CallerKind.NODE:
            taken.append((self._refused_addresses, address))
        now_ms = self._clock.monotonic_ms()
        with self._telling(method, principal):
            for buckets, key in taken:
                _take(buckets, key, now_ms, "too many calls from here were refused")
        yield
        for buckets, key in taken:
            buckets.give_back(key)

    @contextmanager
    def passing(
        self, method: str, kind: CallerKind, principal: str, address: str
    ) -> Iterator[None]:
        """Let a call in for as long as it lasts.

        Args:
            method: Full name, as gRPC gives it.
            kind: What the caller is.
            principal: Who calls; for neighbours, which node.
            address: Where it calls from, without its port.

        Raises:
            LimitError: Of the kind that says which limit; nothing was begun.
        """
        began_ms = self._clock.monotonic_ms()
        pool = self._pool(method, kind)
        with self._telling(method, principal):
            self._refuse(method, kind, principal, address, pool)
        pool.enter(principal)
        try:
            yield
        finally:
            pool.leave(principal, self._clock.monotonic_ms() - began_ms)

    @contextmanager
    def _telling(self, method: str, principal: str) -> Iterator[None]:
        """Count and log a refusal."""
        try:
            yield
        except LimitError as error:
            self._refused(error.code)
            self._say(error, principal, method)
            raise

    def _pool(self, method: str, kind: CallerKind) -> Pool:
        if kind is CallerKind.NODE:
            return self._neighbours
        if kind is CallerKind.EXECUTOR:
            return self._workers
        return self._watchers if method.startswith(_HEALTH) else self._everybody

    def _refuse(
        self, method: str, kind: CallerKind, principal: str, address: str, pool: Pool
    ) -> None:
        now_ms = self._clock.monotonic_ms()
        # Places before tokens: who is refused for want of a place keeps his tokens.
        if pool.is_full_of(principal):
            raise TooManyCallsError("too many calls of this caller are under way", pool.wait_ms())
        yields = kind in _YIELDING or method.startswith(_QUESTIONS)
        if pool.is_full(ANALYST_SHARE if yields else 1.0):
            raise OverloadedError("this node has all the calls it can serve", pool.wait_ms())
        if kind is CallerKind.EXECUTOR:
            # This node's own workers, as many as its questions have.
            return
        if kind is CallerKind.NODE:
            # Never by address: a neighbour may share one with callers.
            buckets = self._connects if method == CONNECT else self._callers
            _take(buckets, principal, now_ms, "this neighbour calls too often")
            return
        # The caller before the address: one who is refused takes nothing from those beside him.
        _take(self._callers, principal, now_ms, "this caller calls too often")
        _take(self._addresses, address, now_ms, "this address calls too often")
        if method in LOOKUPS:
            self._take_lookup(principal, now_ms)

    def _take_lookup(self, principal: str, now_ms: int) -> None:
        wait_ms = self._lookups.take(principal, now_ms)
        if not wait_ms:
            wait_ms = self._all_lookups.take(_EVERYBODY, now_ms)
        if wait_ms:
            raise LookupsLimitedError("too many people are looked up by number", wait_ms)

    def _say(self, error: LimitError, principal: str, method: str) -> None:
        """Log a refusal, once a minute for a caller and code: a flood must not fill the disk."""
        now_ms = self._clock.monotonic_ms()
        key = (principal, error.code)
        if now_ms - self._said.get(key, -_SAY_AGAIN_MS) < _SAY_AGAIN_MS:
            return
        if len(self._said) >= 1024:
            self._said.clear()
        self._said[key] = now_ms
        self._log.warning(
            "refused", code=error.code, principal=principal, method=method, wait_ms=error.wait_ms
        )


def _take(buckets: Buckets, key: str, now_ms: int, sentence: str) -> None:
    wait_ms = buckets.take(key, now_ms)
    if wait_ms:
        raise RateLimitedError(sentence, wait_ms)
