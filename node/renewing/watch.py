"""Sees to it that the node's certificate holds, when no link does: one loop a life of the node.

A limited node asks at the parent's door until it is renewed or its clock is right, and then begins
another life of its parts, which links. One that is not limited asks when its link has been down for
a while: by the parent's clock its certificate may have ended, or either clock be wrong. What is
found stands in the state of the link to the parent, for `fenhe node status` and for alarms. The
root of the region signs for itself, if its key is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

import grpc

from hierarchy_config.directory import split_endpoint
from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.foundations import Foundations, utc_now
from node.links import LinkHub
from node.logs import get_logger
from node.region.renewal import is_half_over, renew_root
from node.renewing.child import Asker
from node.renewing.errors import CertificateExpiredError, ClockWrongError
from node.renewing.standin import keep_standin
from node.security.certificates import certificates_from_pem
from node.security.credentials import Limited, outside_validity

__all__ = ["RenewalWatch"]

LOOK_S: Final = 1.0
PAUSE_S_MIN: Final = 2.0
PAUSE_S_MAX: Final = 300.0
DOWN_MS: Final = 60_000
_ROOT_EVERY_MS: Final = 3_600_000

T = TypeVar("T")


class RenewalWatch:
    """Lives on the event loop."""

    def __init__(
        self,
        base: Foundations,
        hub: LinkHub,
        asker: Asker | None,
        *,
        endpoint: Callable[[NodeId], Awaitable[str]],
        restart: Callable[[], None],
        threads: Executor,
        clock: Clock,
        jitter: Callable[[], float],
    ) -> None:
        """`asker` None: the root. `endpoint`: where the parent is dialled now."""
        self._base = base
        self._hub = hub
        self._asker = asker
        self._endpoint = endpoint
        self._restart = restart
        self._threads = threads
        self._clock = clock
        self._jitter = jitter
        self._log = get_logger("renewing")
        self._told = ""
        self._pause_s = PAUSE_S_MIN
        self._next_ms = self._down_since_ms = clock.monotonic_ms()

    async def run(self) -> None:
        """Until the data folder says something new, or cancelled."""
        limited = self._base.credentials.limited
        if limited is not None:
            self._say(_words(limited))
        while True:
            if await self.step():
                self._restart()
                return
            await asyncio.sleep(LOOK_S)

    async def step(self) -> bool:
        """Look once, and ask if it is time to; whether another life is to begin."""
        if self._has_turned():
            self._log.info("the certificate's standing has changed")
            return True
        return await self._is_renewed(self._base.credentials.limited)

    async def _is_renewed(self, limited: Limited | None) -> bool:
        """Ask if it is time to; whether there is a certificate for another life."""
        now_ms = self._clock.monotonic_ms()
        if self._asker is None:
            return await self._root(limited, now_ms)
        if limited is None and not self._is_long_down(now_ms):
            return False
        if now_ms < self._next_ms:
            return False
        if limited is not None:
            await self._blocking(keep_standin, self._base, self._clock)
        renewed = await self._ask(self._asker)
        self._next_ms = self._clock.monotonic_ms() + int(
            self._pause_s * (0.5 + self._jitter()) * 1000
        )
        self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)
        return renewed

    async def _ask(self, asker: Asker) -> bool:
        try:
            return await self._blocking(asker.ask, await self._door(asker.parent))
        except FenheError as error:
            self._say_found(error)
        except grpc.RpcError as error:
            self._say_refused(error)
        except OSError as error:
            self._log.warning("not renewed", reason=error.strerror or type(error).__name__)
        return False

    async def _door(self, parent: NodeId) -> str:
        """Where the parent's door is."""
        said = self._base.settings.parent_door
        if said is not None:
            return said
        host, port = split_endpoint(await self._endpoint(parent))
        return f"{host}:{(port + 1) % 65_536}"

    async def _root(self, limited: Limited | None, now_ms: int) -> bool:
        if now_ms < self._next_ms:
            return False
        self._next_ms = now_ms + _ROOT_EVERY_MS
        now = utc_now(self._clock)
        due = limited is not None or is_half_over(self._base, now)
        if not due or not await self._blocking(renew_root, self._base, now):
            return False
        # Care goes on meanwhile: what serves follows the files, what signs is told.
        chain = self._base.credentials.tls.chain.read_bytes()
        self._base.credentials.signer.renew(certificates_from_pem(chain))
        return limited is not None

    def _has_turned(self) -> bool:
        """Whether time or a clock that was set has made the certificate hold, or not hold."""
        chain = certificates_from_pem(self._base.credentials.signer.chain_pem)
        holds = outside_validity(chain, utc_now(self._clock)) is None
        return holds is not (self._base.credentials.limited is None)

    def _is_long_down(self, now_ms: int) -> bool:
        states = [each for each in self._hub.states.values() if each.role == "parent"]
        if any(each.connected for each in states):
            self._down_since_ms, self._pause_s, self._next_ms = now_ms, DOWN_MS / 1000, now_ms
            return False
        return now_ms - self._down_since_ms >= DOWN_MS

    def _say_found(self, error: FenheError) -> None:
        """A wrong clock is said; that nobody opens is what a link that is down says already."""
        if isinstance(error, ClockWrongError):
            self._say(error)
        elif self._told != error.code:
            self._told = error.code
            self._log.warning("not renewed", code=error.code, reason=error.message)

    def _say_refused(self, error: grpc.RpcError) -> None:
        details: Any = getattr(error, "details", lambda: "")()
        text = str(details or "the door refuses")[:300]
        self._note(text, "")
        if self._told != text:
            self._told = text
            self._log.warning("not renewed", reason=text)

    def _say(self, error: FenheError) -> None:
        self._note(f"{error.code}: {error.message}", error.hint)
        if self._told != error.code:
            self._told = error.code
            self._log.error(error.message, code=error.code, hint=error.hint)

    def _note(self, text: str, hint: str) -> None:
        for state in self._hub.states.values():
            if state.role == "parent" and not state.connected:
                state.last_error, state.last_hint = text, hint

    async def _blocking(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _words(limited: Limited) -> FenheError:
    if limited.has_ended:
        return CertificateExpiredError(
            f"this node's certificate ended on {limited.ends:%Y-%m-%d %H:%M} UTC, by its clock"
        )
    return ClockWrongError(
        f"this node's certificate does not begin before {limited.begins:%Y-%m-%d %H:%M} UTC, by "
        "its clock"
    )
