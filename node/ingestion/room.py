"""Ingestion in a running node: one thread for all runs, at the profile's pace and hours."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from hardware_profiles import HardwareProfile
from hierarchy_config.errors import FenheError
from node.clock import Clock
from node.errors import DiskFullError, InvalidRequestError
from node.foundations import Foundations
from node.ingestion.content import Content, Contents
from node.ingestion.errors import IngestionError, QuarantinedUnitError, RunStateError
from node.ingestion.feed import MessageFeed
from node.ingestion.hours import is_open
from node.ingestion.mapping import MappingModel, read_mapping
from node.ingestion.matched import Certain, MatchedPersons
from node.ingestion.model import Format, RunState
from node.ingestion.persons import IdentifierIndex
from node.ingestion.pipeline import Pipeline, Workshop
from node.ingestion.runs import Item, Run, Runs
from node.logs import get_logger
from node.opening import OpenStore
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome

__all__ = ["IntakeRoom", "Offered"]

_REST_S: Final = 2.0
_FOLLOW_S: Final = 0.3
_RETRY_UNITS: Final = 500
_FEEDS_KEPT: Final = 32
_OBJECT: Final = "intake"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Offered:
    """The run of a content, and how much of it is here."""

    run: Run
    content: Content


class IntakeRoom:
    """What the service calls, and the work behind it."""

    def __init__(
        self,
        base: Foundations,
        store: OpenStore,
        *,
        thread: Executor,
        clock: Clock,
        notify: Callable[[], None],
        disk_is_full: Callable[[], bool],
        matching: Certain,
    ) -> None:
        """Opens nothing. `thread` is one thread: the order of windows is that of the store."""
        context = store.storage.context
        self._profile: HardwareProfile = base.profile
        self._thread = thread
        self._clock = clock
        self._notify = notify
        self._disk_is_full = disk_is_full
        self._storage = store.storage
        self.shop = Workshop(
            store.storage,
            MatchedPersons(IdentifierIndex(context), matching, clock),
            Contents(context, clock),
            Runs(context, base.hierarchy, clock, context.ids),
            clock,
        )
        self._work_is_there = asyncio.Event()
        # Every feed that somebody still uses, and the last few: senders connect again and again.
        self._feeds: WeakValueDictionary[tuple[Caller, str], MessageFeed] = WeakValueDictionary()
        self._recent: deque[MessageFeed] = deque(maxlen=_FEEDS_KEPT)

    # -------------------------------------------------------------------- contents and runs

    async def offer(
        self, caller: Caller, sha256: str, size: int, name: str, mapping: str, watermark: str
    ) -> Offered:
        """Announce a content. Raises MappingInvalidError, InvalidRequestError."""
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise InvalidRequestError("sha256 is 64 hexadecimal digits in lower case")
        if size < 1:
            raise InvalidRequestError("the content is empty")
        self._refuse_if_full()
        return await self._in_thread(self._offer, caller, sha256, (size, name), mapping, watermark)

    def _offer(
        self, caller: Caller, sha256: str, what: tuple[int, str], text: str, watermark: str
    ) -> Offered:
        model = read_mapping(text)
        size, name = what
        self._note(caller, Action.IMPORT, 0)
        content = self.shop.contents.announce(sha256, size, name[:300])
        if content.size != size:
            raise InvalidRequestError("a content of that digest has another size")
        run = self.shop.runs.begin(content.content_id, _named(model, text), caller, watermark[:200])
        run = self._started(run, content)
        return Offered(run, content)

    async def put_piece(self, run_id: str, number: int, data: bytes) -> int:
        """Keep a piece; returns how many are here. Raises ContentIncompleteError, RunStateError."""
        self._refuse_if_full()
        return await self._in_thread(self._put_piece, run_id, number, data)

    def _put_piece(self, run_id: str, number: int, data: bytes) -> int:
        run = self.shop.runs.load(run_id)
        content = self.shop.contents.load(run.content_id)
        if content is None or run.state is not RunState.ARRIVING:
            raise RunStateError("the run takes no pieces")
        content = self.shop.contents.put_piece(content, number, data)
        self._started(run, content)
        return content.arrived

    def _started(self, run: Run, content: Content) -> Run:
        if run.state is not RunState.ARRIVING or not content.is_whole:
            return run
        try:
            self.shop.contents.verify(content)
        except IngestionError as error:
            self.shop.contents.discard(content)
            self.shop.runs.set_state(
                run.run_id, RunState.FAILED, code=error.code, message=error.message
            )
            raise
        self.shop.runs.set_state(run.run_id, RunState.RUNNING)
        return self.shop.runs.load(run.run_id)

    def wake(self) -> None:
        """A run may be ready to be worked on."""
        self._work_is_there.set()

    async def runs(self, *, run_id: str, source: str, state: str, limit: int) -> list[Run]:
        """Runs, newest first."""
        if run_id:
            return [await self._in_thread(self.shop.runs.load, run_id)]
        return await self._in_thread(
            lambda: self.shop.runs.newest(source=source, state=state, limit=limit)
        )

    async def watermark(self, source: str) -> str:
        """Of the newest run of a source that is done."""
        return await asyncio.to_thread(self.shop.runs.last_watermark, source)

    async def follow(self, run_id: str) -> AsyncIterator[Run]:
        """The run as it goes; the last one has ended."""
        while True:
            run = await asyncio.to_thread(self.shop.runs.load, run_id)
            yield run
            if run.state in {RunState.DONE, RunState.FAILED}:
                return
            await asyncio.sleep(_FOLLOW_S)

    # -------------------------------------------------------------------- quarantine

    async def items(
        self, *, run_id: str, state: str, rule: str, after: int, limit: int
    ) -> tuple[list[Item], dict[str, int]]:
        """A page of quarantined units, and how many wait by rule."""

        def work() -> tuple[list[Item], dict[str, int]]:
            runs = self.shop.runs
            found = runs.items(run_id=run_id, state=state, rule=rule, after=after, limit=limit)
            return found, runs.count_waiting(run_id)

        return await asyncio.to_thread(work)

    async def item(self, caller: Caller, item_id: int) -> tuple[Item, dict[str, str]]:
        """A unit and its cells by column; audited."""

        def work() -> tuple[Item, dict[str, str]]:
            self._note(caller, Action.READ, 1)
            item = self.shop.runs.item(item_id)
            return item, dict(zip(self._header(item), _cells(item), strict=False))

        return await self._in_thread(work)

    def _header(self, item: Item) -> tuple[str, ...]:
        if item.unit is None or not item.unit.cells:
            return ()
        run = self.shop.runs.load(item.run_id)
        return Pipeline(self.shop, run, reads=False).header

    async def retry(
        self, caller: Caller, item_ids: Sequence[int], run_id: str, cells: Mapping[str, str]
    ) -> tuple[int, int]:
        """Judge units again; how many were stored, and how many still wait.

        They are written as what the run's caller sent; that `caller` asked for it is audited.
        """
        self._refuse_if_full()
        if cells and len(item_ids) != 1:
            raise InvalidRequestError("cells are replaced in exactly one unit")
        if not item_ids and not run_id:
            raise InvalidRequestError("name units, or a run")
        await self._in_thread(self._note, caller, Action.RETRY, len(item_ids))
        done = await self._in_thread(self._retry, list(item_ids), run_id, cells)
        self._notify()
        return done

    def _retry(self, item_ids: list[int], run_id: str, cells: Mapping[str, str]) -> tuple[int, int]:
        runs = self.shop.runs
        if item_ids:
            items = runs.opened(item_ids[:_RETRY_UNITS])
            if len(items) != len(set(item_ids)):
                raise QuarantinedUnitError("no such unit in the quarantine")
            return self._retry_some([each for each in items if each.state == "waiting"], cells)
        accepted = waiting = after = 0
        while page := runs.items(run_id=run_id, after=after, limit=_RETRY_UNITS):
            after = page[-1].item_id
            done = self._retry_some(runs.opened([each.item_id for each in page]), {})
            accepted, waiting = accepted + done[0], waiting + done[1]
        return accepted, waiting

    def _retry_some(self, items: Sequence[Item], cells: Mapping[str, str]) -> tuple[int, int]:
        by_run: dict[str, list[Item]] = {}
        for each in items:
            by_run.setdefault(each.run_id, []).append(each)
        accepted = 0
        for run_id, some in by_run.items():
            run = self.shop.runs.load(run_id)
            if run.state is RunState.RUNNING:
                raise RunStateError("the run is still being read", hint="Wait until it has ended.")
            if run.state is RunState.FEEDING:
                self._end_feeds(run_id)
                self.shop.runs.set_state(run_id, RunState.DONE)
                run = self.shop.runs.load(run_id)
            pipeline = Pipeline(self.shop, run, reads=False)
            written = pipeline.retry([_fixed(each, pipeline.header, cells) for each in some])
            accepted += sum(not troubles for troubles in written.troubles)
        return accepted, len(items) - accepted

    # -------------------------------------------------------------------- messages

    def feed(self, caller: Caller, mapping: str) -> MessageFeed:
        """The feed of a caller under a mapping. Raises MappingInvalidError."""
        model = read_mapping(mapping)
        if model.format is not Format.HL7:
            raise InvalidRequestError("messages are read under a mapping of format hl7")
        key = (caller, hashlib.sha256(mapping.encode()).hexdigest())
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = MessageFeed(
                self.shop,
                model,
                mapping,
                caller,
                thread=self._thread,
                notify=self._notify,
                disk_is_full=self._disk_is_full,
            )
        if feed not in self._recent:
            self._recent.append(feed)
        return feed

    def _end_feeds(self, run_id: str = "") -> None:
        for feed in list(self._feeds.values()):
            feed.end(run_id)

    # -------------------------------------------------------------------- work

    async def run(self) -> None:
        """Work on runs, a window a turn, until cancelled. Goes on where an earlier life stopped."""
        await self._in_thread(self._end_feeds)
        await self._in_thread(self.shop.runs.end_feeds)
        pipelines: dict[str, Pipeline] = {}
        while True:
            self._work_is_there.clear()
            ready = await self._in_thread(
                lambda: self.shop.runs.newest(state=RunState.RUNNING.value, limit=100)
            )
            is_now = is_open(self._profile.intake_hours, self._clock) and not self._disk_is_full()
            if ready and is_now:
                for run in reversed(ready):
                    await self._turn(run, pipelines)
                continue
            pipelines.clear()
            try:
                async with asyncio.timeout(_REST_S):
                    await self._work_is_there.wait()
            except TimeoutError:
                continue

    async def _turn(self, run: Run, pipelines: dict[str, Pipeline]) -> None:
        """One window of a run, and the rest that the profile's pace asks for."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        read = 0

        def work() -> bool:
            nonlocal read
            pipeline = pipelines.get(run.run_id)
            if pipeline is None:
                pipeline = pipelines[run.run_id] = Pipeline(self.shop, run)
            before = pipeline.counts.read
            goes_on = pipeline.step()
            read = pipeline.counts.read - before
            return goes_on

        try:
            goes_on = await self._in_thread(work)
        except IngestionError as error:
            pipelines.pop(run.run_id, None)
            get_logger("intake").warning("a run failed", run=run.run_id, error=error.code)
            await self._in_thread(self._fail, run.run_id, error)
            return
        except FenheError:
            # Of the store: it passes, and whoever keeps this work going tries again.
            pipelines.pop(run.run_id, None)
            raise
        if not goes_on:
            pipelines.pop(run.run_id, None)
        self._notify()
        pace = self._profile.intake_rows_s
        if pace and read:
            await asyncio.sleep(max(0.0, read / pace - (loop.time() - began)))

    def _fail(self, run_id: str, error: IngestionError) -> None:
        self.shop.runs.set_state(run_id, RunState.FAILED, code=error.code, message=error.message)

    # -------------------------------------------------------------------- small things

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _refuse_if_full(self) -> None:
        if self._disk_is_full():
            raise DiskFullError("free space is below this node's watermark; nothing was stored")

    def _note(self, caller: Caller, action: Action, rows: int) -> None:
        self._storage.note(caller, Deed(action, _OBJECT, Outcome.DONE, rows))


def _named(model: MappingModel, text: str) -> tuple[str, str, str, str]:
    return model.name, model.source, hashlib.sha256(text.encode()).hexdigest(), text


def _cells(item: Item) -> Sequence[str]:
    return item.unit.cells if item.unit is not None else ()


def _fixed(item: Item, header: Sequence[str], cells: Mapping[str, str]) -> Item:
    """The unit with some of its cells replaced. Raises InvalidRequestError: no such column."""
    if not cells or item.unit is None:
        return item
    unknown = [name for name in cells if name not in header]
    if unknown or not item.unit.cells:
        raise InvalidRequestError("the unit has no such column")
    held = [*item.unit.cells, *[""] * (len(header) - len(item.unit.cells))][: len(header)]
    changed = tuple(cells.get(name, cell) for name, cell in zip(header, held, strict=True))
    return replace(item, unit=replace(item.unit, cells=changed, raw="", troubles=()))
