"""HL7 v2 messages that come one by one: gathered, stored, then acknowledged.

While one transaction is on its way, the messages that arrive meanwhile wait for each other and
share the next, whichever connection they came by. A message is answered after the commit that
holds its records or, if it is at fault, its place in the quarantine; and, either way, its text.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

import zstandard
from sqlalchemy import bindparam, insert, update
from sqlalchemy.exc import SQLAlchemyError

from hierarchy_config.errors import FenheError
from node.clock import Clock, format_ms, today
from node.ingestion.content import content_id_of
from node.ingestion.hl7v2 import Hl7Mapper, acknowledgement
from node.ingestion.mapping import MappingModel
from node.ingestion.model import Trouble, Unit
from node.ingestion.pipeline import Workshop, judge
from node.ingestion.readers.messages import MESSAGE_CHARACTERS_MAX
from node.ingestion.registering import ERRORS
from node.ingestion.runs import Run
from node.ingestion.writing import WindowWriter
from node.logs import get_logger
from node.security.caller import Caller
from node.security.sealing import cell_aad
from node.storage.tables import INTAKE
from replication.changelog import Together

__all__ = ["Acknowledged", "MessageFeed"]

TOGETHER_MAX: Final = 256
TOGETHER_BYTES: Final = 1 << 20
_REFUSED_RULES: Final = frozenset({"MESSAGE_INVALID", "MESSAGE_NOT_TAKEN"})
_SHOWN: Final = 400
_PIECES = INTAKE.pieces
_CONTENTS = INTAKE.contents
_GROW: Final = (
    update(_CONTENTS)
    .where(_CONTENTS.c.content_id == bindparam("b_content"))
    .values(size=bindparam("size"), pieces=bindparam("pieces"), arrived=bindparam("arrived"))
)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The answer to a message: the ACK, and its state."""

    text: str
    state: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    text: str
    trouble: Trouble | None
    answer: asyncio.Future[Acknowledged]


@dataclass
class _Day:
    """The run of one day, and how far its content has grown."""

    day: date
    run: Run
    writer: WindowWriter
    pieces: int = 0
    size: int = 0


class MessageFeed:
    """The messages of one caller under one mapping; used on one event loop."""

    def __init__(
        self,
        shop: Workshop,
        mapping: MappingModel,
        text: str,
        caller: Caller,
        *,
        thread: Executor,
        notify: Callable[[], None],
        disk_is_full: Callable[[], bool],
    ) -> None:
        self._shop = shop
        self._mapping = mapping
        self._text = text
        self._caller = caller
        self._thread = thread
        self._notify = notify
        self._disk_is_full = disk_is_full
        self._mapper = Hl7Mapper(mapping)
        self._encoding = "utf-8" if mapping.encoding == "auto" else mapping.encoding
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._day: _Day | None = None

    def put(self, data: bytes) -> asyncio.Future[Acknowledged]:
        """Take a message; the future is done once it is durable. Never fails: it answers AE."""
        loop = asyncio.get_running_loop()
        text, trouble = self._decoded(data)
        waiting = _Waiting(text, trouble, loop.create_future())
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return waiting.answer

    def _decoded(self, data: bytes) -> tuple[str, Trouble | None]:
        if len(data) > MESSAGE_CHARACTERS_MAX:
            return data[:_SHOWN].decode(errors="replace"), Trouble("LINE_TOO_LONG", "")
        for name in (self._encoding, "gb18030"):
            try:
                return data.decode(name).replace("\r\n", "\r").replace("\n", "\r"), None
            except UnicodeDecodeError:
                if self._mapping.encoding != "auto":
                    break
        return data[:_SHOWN].decode(errors="replace"), Trouble("ENCODING_WRONG", "")

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                # Those who have just been answered get a turn to be in this transaction too.
                await asyncio.sleep(0)
                batch = self._next()
                done = loop.run_in_executor(self._thread, self._store, batch)
                await asyncio.wait((done,))
                error = done.exception()
                if error is None:
                    self._notify()
                    answers = done.result()
                else:
                    answers = self._failed(batch, error)
                for each, answer in zip(batch, answers, strict=True):
                    if not each.answer.done():
                        each.answer.set_result(answer)
        finally:
            self._worker = None

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < TOGETHER_MAX:
            size += len(self._waiting[0].text)
            if batch and size > TOGETHER_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _failed(self, batch: Sequence[_Waiting], error: BaseException) -> list[Acknowledged]:
        """Nothing was stored: whoever sent them sends them again."""
        match error:
            case FenheError():
                code = error.code
            case SQLAlchemyError() | OSError():
                code = "STORAGE_BUSY"
            case _:
                code = "INTERNAL"
        get_logger("intake").warning(
            "messages were not stored", count=len(batch), error=code, kind=type(error).__name__
        )
        # What the run has in memory may be ahead of what is durable.
        self._day = None
        return [self._answer(each.text, "AE", code) for each in batch]

    def _store(self, batch: Sequence[_Waiting]) -> list[Acknowledged]:
        """In the intake thread: judge, write, answer."""
        if self._disk_is_full():
            return [self._answer(each.text, "AE", "DISK_FULL") for each in batch]
        held = self._today()
        run = held.run
        day = held.day.isoformat()
        window = []
        for number, each in enumerate(batch, start=run.counts.read + 1):
            troubles = (each.trouble,) if each.trouble else ()
            unit = Unit(number, raw=each.text, troubles=troubles)
            window.append(judge(self._mapper, unit, day))
        raw = "\r".join(each.text for each in batch).encode()
        piece, grown = self._piece(held, raw)

        def more(together: Together) -> None:
            together.add(insert(_PIECES), [piece])
            together.add(_GROW, [grown])

        written = held.writer.write(window, run.counts, run.figures, more=more)
        held.pieces, held.size = grown["pieces"], grown["size"]
        held.run = replace(run, counts=written.counts, figures=written.figures)
        return [
            self._answer(each.text, *_outcome(troubles))
            for each, troubles in zip(batch, written.troubles, strict=True)
        ]

    def _piece(self, held: _Day, raw: bytes) -> tuple[dict[str, object], dict[str, Any]]:
        store = self._shop.storage.context
        content_id = held.run.content_id
        aad = cell_aad(store.node_id, _PIECES.name, "body", f"{content_id}:{held.pieces}")
        packed = zstandard.ZstdCompressor(level=3).compress(raw)
        body = store.cells.sealer_of(_PIECES.name).seal(packed, aad)
        piece = {"content_id": content_id, "number": held.pieces, "body": body}
        pieces, size = held.pieces + 1, held.size + len(raw)
        grown = {"size": size, "pieces": pieces, "arrived": pieces}
        return piece, {"b_content": content_id, **grown}

    def end(self, run_id: str) -> None:
        """In the intake thread: write no more to that run; the next message begins another.

        "": to whichever it is.
        """
        if self._day is not None and run_id in {"", self._day.run.run_id}:
            self._day = None

    def _today(self) -> _Day:
        """The run of today; a new one after midnight, a start or a failure."""
        now = today(self._shop.clock)
        if self._day is None or self._day.day != now:
            self._day = self._begin(now)
        return self._day

    def _begin(self, now: date) -> _Day:
        shop = self._shop
        store = shop.storage.context
        name = f"feed {self._mapping.source} {now.isoformat()} {store.ids.mint()}"
        digest = hashlib.sha256(name.encode()).hexdigest()
        content = shop.contents.announce(digest, 0, name)
        said = hashlib.sha256(self._text.encode()).hexdigest()
        mapping = (self._mapping.name, self._mapping.source, said, self._text)
        run = shop.runs.begin_feed(content_id_of(store, digest), mapping, self._caller)
        writer = WindowWriter(
            shop.storage, shop.persons, run, self._caller, shop.clock, in_sequence=True
        )
        return _Day(now, run, writer, content.pieces, content.size)

    def _answer(self, text: str, state: str, reason: str) -> Acknowledged:
        return Acknowledged(
            acknowledgement(text, state, reason, at=_moment(self._shop.clock)), state
        )


def _outcome(troubles: Sequence[Trouble]) -> tuple[str, str]:
    """State and reason of a message's acknowledgement."""
    rules = [each.rule for each in troubles if each.rule in ERRORS]
    if not rules:
        return "AA", ""
    return ("AR" if rules[0] in _REFUSED_RULES else "AE"), rules[0]


def _moment(clock: Clock) -> str:
    """Now, as HL7 writes it, in UTC."""
    return "".join(filter(str.isdigit, format_ms(clock.now_ms())[:19]))
