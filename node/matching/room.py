"""Matching in a running node: one thread for the index, at the profile's share of the time.

Whether this node matches is decided when the work begins. Where it does not, the reason is logged
once and said to whoever asks; the rest of the node serves on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Connection

from node.clock import Clock
from node.empi.errors import EmpiError, MatchModelError
from node.errors import InvalidRequestError
from node.logs import get_logger
from node.matching.book import PairBook
from node.matching.errors import (
    MatchingNotReadyError,
    MatchingOffError,
    TooManyResidentsError,
)
from node.matching.model import (
    PERSON_FIELDS,
    Candidates,
    MatchMode,
    MatchSettings,
    PairPage,
    PairState,
    Standing,
    certain_of,
)
from node.matching.showing import Shower
from node.security.caller import Caller
from node.storage import Storage

if TYPE_CHECKING:
    from node.matching.finder import Finder

__all__ = ["MatchingRoom"]

_LOOK_AGAIN_S: Final = 5.0
_TRY_AGAIN_S: Final = 3600.0
_REST_S_MAX: Final = 60.0
_CANDIDATES_MAX: Final = 50
_VALUE_MAX: Final = 500

T = TypeVar("T")


class MatchingRoom:
    """What the services and the merger call, and the work behind it."""

    def __init__(
        self,
        storage: Storage,
        settings: MatchSettings,
        model_path: Path,
        *,
        thread: Executor,
        clock: Clock,
        disk_is_full: Callable[[], bool],
    ) -> None:
        """Opens nothing.

        Args:
            storage: Of this node.
            settings: What the operator decides.
            model_path: The node's own model; where there is no such file, the shipped one is used.
            thread: One thread: the index is not safe for several.
            clock: The time.
            disk_is_full: Whether nothing may be written now; asked at every step.
        """
        self._storage = storage
        self._settings = settings
        self._model_path = model_path
        self._thread = thread
        self._clock = clock
        self._disk_is_full = disk_is_full
        self._book = PairBook(storage.context)
        self._shower = Shower(storage.context, self._book)
        self._finder: Finder | None = None
        self._off: MatchingOffError | None = None
        self._head = 0
        self._more = asyncio.Event()

    # -------------------------------------------------------------------- work

    def log_advanced(self, head: int) -> None:
        """The log's durable end is `head`."""
        self._head = head
        self._more.set()

    async def run(self) -> None:
        """Find pairs, a step a turn, until cancelled. Goes on where an earlier life stopped."""
        while True:
            if self._finder is None and not await self._in_thread(self._open):
                await asyncio.sleep(_TRY_AGAIN_S)
                continue
            self._more.clear()
            rest_s = await self._turn()
            if rest_s is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._more.wait(), _LOOK_AGAIN_S)
            else:
                await asyncio.sleep(rest_s)

    async def _turn(self) -> float | None:
        """One step; how long to rest from it, None until there is more."""
        # The index is filled all the same: asking writes little, and reads go on.
        if self.ready and self._disk_is_full():
            return None
        try:
            took_ms = await self._in_thread(self._step)
        except TooManyResidentsError as error:
            self._turn_off(error)
            return _TRY_AGAIN_S
        except EmpiError:
            # Whatever is wrong with the index, it is derived: the next attempt builds it anew.
            self._finder = None
            raise
        self._off = None
        if took_ms is None:
            return None
        percent = self._settings.percent
        return min(took_ms / 1000 * (100 - percent) / percent, _REST_S_MAX)

    def _step(self) -> int | None:
        """How long a step took, in milliseconds; None: there was nothing to do."""
        began = self._clock.monotonic_ms()
        worked = self._finder is not None and self._finder.step(self._head)
        return self._clock.monotonic_ms() - began if worked else None

    def _open(self) -> bool:
        """Make the finder, or say why not."""
        mode = self._settings.mode
        try:
            if mode is MatchMode.OFF:
                raise MatchingOffError("node.yaml says matching: off")
            finder = _finder_module()
            model = finder.model_of(self._model_path)
        except MatchModelError as error:
            self._turn_off(MatchingOffError(error.message, hint=error.hint))
        except MatchingOffError as error:
            self._turn_off(error)
        else:
            residents_max = None if mode is MatchMode.ON else self._settings.residents_max
            self._finder = finder.Finder(self._storage, model, residents_max=residents_max)
        return self._finder is not None

    def _turn_off(self, error: MatchingOffError) -> None:
        if self._off is None or self._off.message != error.message:
            get_logger("matching").warning("not matching", code=error.code, because=error.message)
        self._off = error
        self._finder = None

    # -------------------------------------------------------------------- what is asked

    @property
    def ready(self) -> bool:
        """Whether the index holds everybody who was here when it was built."""
        return self.progress().is_ready

    def progress(self) -> Standing:
        """How many of how many residents are indexed, and why not if none ever will be."""
        finder = self._finder
        if finder is not None:
            return finder.standing
        return Standing(off_because="" if self._off is None else self._off.message)

    async def candidates(
        self, caller: Caller, values: Mapping[str, str | None], limit: int = 10
    ) -> Candidates:
        """Who may be the one of whom this is known, as far as the caller may see. Audited.

        Args:
            caller: Who asks.
            values: By name of PERSON_FIELDS; what is not known is left out, None or empty.
            limit: At most so many, 1 to 50.

        Raises:
            MatchingOffError: This node does not match; the sentence says why.
            MatchingNotReadyError: The index holds nobody yet.
            InvalidRequestError: A field that nobody is asked by, a text that is too long, or too
                little to look for anybody by.
        """
        _check(values)
        limit = min(max(limit, 1), _CANDIDATES_MAX)
        return await self._in_thread(self._candidates, caller, values, limit)

    def _candidates(
        self, caller: Caller, values: Mapping[str, str | None], limit: int
    ) -> Candidates:
        finder = self._finder
        if finder is None:
            if self._off is not None:
                raise MatchingOffError(self._off.message, hint=self._off.hint)
            raise MatchingNotReadyError("the index of residents is about to be built")
        standing = finder.standing
        if not standing.indexed and not standing.is_ready:
            raise MatchingNotReadyError("the index of residents is being built")
        answer = finder.query(values)
        if answer.is_blind:
            raise InvalidRequestError(
                "too little is known to look for anybody by it",
                hint="Give an identity number, a telephone number, or a name with a birth date.",
            )
        return self._shower.candidates(caller, answer, standing, limit)

    async def pairs(
        self,
        caller: Caller,
        state: PairState = PairState.WAITING,
        after: str = "",
        limit: int = 50,
    ) -> PairPage:
        """Pairs of which the caller may see both residents, the likeliest first. Audited.

        They are kept also where this node does not match any more. A page may hold fewer than
        `limit`, and none, and yet name a next one.

        Raises:
            PageTokenError: `after` is not the `next` of a page.
        """
        return await self._in_thread(self._shower.pairs, caller, state, after, limit)

    def certain(self, people: Sequence[Mapping[str, str]]) -> list[str]:
        """For each of whom so much is known, the resident who he certainly is; "" if there is none.

        What certain is, `certain_of` says. Shows nobody and audits nothing: whoever asks says what
        he did with it. Blocks on the room's thread; where this node does not match, or not yet,
        nobody is certain.
        """
        if self._finder is None or not people:
            return [""] * len(people)
        try:
            return self._thread.submit(self._certain, people).result()
        except RuntimeError:
            # The thread takes no more work: the node is stopping.
            return [""] * len(people)

    def _certain(self, people: Sequence[Mapping[str, str]]) -> list[str]:
        finder = self._finder
        if finder is None or not finder.standing.is_ready:
            return [""] * len(people)
        return [certain_of(finder.query(values)) for values in people]

    # -------------------------------------------------------------------- what a steward decided

    def evidence(self, connection: Connection, one: str, other: str) -> tuple[str, str]:
        """What speaks for a pair that was found, as it is kept, and the digest of its model."""
        return self._book.evidence(connection, one, other)

    def decided(self, connection: Connection, one: str, other: str) -> None:
        """Mark a pair as decided, in the merger's transaction: it is not offered again.

        In either order of the ids; a pair that matching did not find is kept as decided too.
        """
        self._book.decide(connection, one, other, self._clock.now_ms())

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)


def _finder_module() -> Any:
    """The module that needs the extra. Raises MatchingOffError: it cannot be loaded here."""
    try:
        return import_module("node.matching.finder")
    except ModuleNotFoundError as missing:
        raise MatchingOffError(f"the package {missing.name} is not installed") from None
    except (ImportError, RuntimeError) as error:
        # NumPy refuses processors that its build is too new for.
        raise MatchingOffError(f"a package cannot be loaded ({type(error).__name__})") from None


def _check(values: Mapping[str, str | None]) -> None:
    strange = sorted(values.keys() - set(PERSON_FIELDS))
    if strange:
        raise InvalidRequestError(f"nobody is asked by that field; they are {PERSON_FIELDS}")
    if any(value is not None and len(value) > _VALUE_MAX for value in values.values()):
        raise InvalidRequestError(f"a value is longer than {_VALUE_MAX} characters")
    if not any(values.values()):
        raise InvalidRequestError("nothing is known of whom to look for")
