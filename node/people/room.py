"""The room put together for one life of the node."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Final, TypeVar

from node.clock import Clock, RandomBytes
from node.errors import DiskFullError
from node.foundations import Foundations
from node.people.accounts import Accounts
from node.people.book import PeopleBook
from node.people.deeds import Deeds, Done
from node.people.errors import SignInBusyError
from node.people.oidc import Issuer, OidcSettings, key_source
from node.people.passwords import PASSWORD_COST, PasswordCost, Passwords
from node.people.proving import Proving
from node.people.registry import Registry
from node.people.sessions import Generation, OpenSession, Sessions
from node.people.tokens import Tokens, TokenSigner
from node.storage.context import StoreContext

__all__ = ["PeopleParts", "PeopleRoom", "make_parts"]

T = TypeVar("T")

_WAITING_MAX: Final = 16
"""Of those who sign in at once: each takes half a second and 64 MiB, one after the other."""


@dataclass(frozen=True, slots=True)
class PeopleParts:
    """What works on one store, without a loop or a thread of its own."""

    registry: Registry
    accounts: Accounts
    proving: Proving
    sessions: Sessions
    generation: Generation


def make_parts(
    store: StoreContext,
    signer: TokenSigner,
    changed: Callable[[], None],
    *,
    issuer: Issuer | None = None,
    random_bytes: RandomBytes = os.urandom,
    cost: PasswordCost = PASSWORD_COST,
) -> PeopleParts:
    """Put the parts on a store. `changed`: called after every commit of theirs."""
    generation = Generation()

    def committed() -> None:
        generation.rise()
        changed()

    epoch = store.changelog.store_epoch
    book = PeopleBook(store)
    deeds = Deeds(store, committed)
    passwords = Passwords(random_bytes, cost)
    tokens = Tokens(store.node_id, signer)
    return PeopleParts(
        Registry(store, book, deeds),
        Accounts(store, book, deeds, passwords, random_bytes),
        Proving(store, book, deeds, passwords, tokens, issuer=issuer, store_epoch=epoch),
        Sessions(store, book, deeds, tokens, generation, store_epoch=epoch),
        generation,
    )


class PeopleRoom:
    """What the services call: each work in its thread."""

    def __init__(
        self,
        base: Foundations,
        store: StoreContext,
        *,
        threads: Executor,
        stretching: Executor,
        clock: Clock,
        notify: Callable[[], None],
        disk_is_full: Callable[[], bool],
    ) -> None:
        """Opens nothing.

        Args:
            base: Its settings say whose tokens are taken, its credentials sign.
            store: What everything is written to.
            threads: For what only reads and writes.
            stretching: One thread, for passwords.
            clock: The time.
            notify: Called after every commit.
            disk_is_full: Whether changes must wait; signing in does not.

        Raises:
            OidcMissingError: node.yaml names an issuer, and the extra is not installed.
        """
        self._threads = threads
        self._stretching = stretching
        self._disk_is_full = disk_is_full
        self._waiting = 0
        self._waiting_lock = threading.Lock()
        self._care_head = 0
        issuer = _issuer(base, clock)
        self.parts = make_parts(store, base.credentials.signer, notify, issuer=issuer)

    def log_advanced(self, care_head: int | None) -> None:
        """The log has moved; rows of this room come in the lane of care. None: nobody knows."""
        if care_head is None or care_head != self._care_head:
            self.parts.generation.rise()
        self._care_head = care_head or 0

    async def session(self, token: str, channel: str) -> OpenSession:
        """The session of a call's token. Raises SessionEndedError."""
        sessions = self.parts.sessions
        kept = sessions.kept(token, channel)
        if kept is not None:
            return kept
        return await self.run(lambda: sessions.looked_up(token, channel))

    async def change(self, work: Callable[[], Done]) -> Done:
        """Change something. Raises DiskFullError: changes must wait."""
        self._refuse_full()
        return await self.run(work)

    async def run(self, work: Callable[[], T]) -> T:
        """Work on the database in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def stretch(self, work: Callable[[], T], *, changes: bool = False) -> T:
        """Work that stretches a password, one at a time.

        Raises:
            SignInBusyError: Too many wait already.
            DiskFullError: It changes something beyond signing in, and changes must wait.
        """
        if changes:
            self._refuse_full()
        with self._waiting_lock:
            if self._waiting >= _WAITING_MAX:
                raise SignInBusyError("too many sign in at once")
            self._waiting += 1
        # Counted until its turn is over, or given up: a caller who hangs up frees no place.
        turn = self._stretching.submit(work)
        turn.add_done_callback(self._turn_over)
        return await asyncio.wrap_future(turn)

    def _turn_over(self, _turn: Future[T]) -> None:
        with self._waiting_lock:
            self._waiting -= 1

    def _refuse_full(self) -> None:
        if self._disk_is_full():
            raise DiskFullError("free space is below this node's watermark; nothing was changed")


def _issuer(base: Foundations, clock: Clock) -> Issuer | None:
    settings = base.settings
    if settings.oidc_issuer is None:
        return None
    chosen = OidcSettings(settings.oidc_issuer, settings.oidc_audience, settings.oidc_jwks)
    return Issuer(chosen, key_source(chosen.jwks, base.paths.data), clock)
