"""IntakeService: files and messages of a source."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

import grpc

import protos.fenhe.node.v1.intake_pb2 as pb
from node.clock import format_ms
from node.errors import InvalidRequestError
from node.ingestion.content import PIECE_BYTES
from node.ingestion.feed import Acknowledged
from node.ingestion.quality import quality_text
from node.ingestion.room import IntakeRoom
from node.ingestion.rules import RULES
from node.ingestion.runs import Item, Run
from node.services.interceptor import current_call
from protos.fenhe.node.v1 import intake_pb2_grpc

__all__ = ["IntakeServicer"]

_RUNS: Final = 20
_ITEMS: Final = 100
_PAGE_MAX: Final = 500
_NUMBER_MAX: Final = (1 << 63) - 1
_PENDING_MAX: Final = 256
"""Messages of a stream that wait for their answer; beyond, the next is not read."""

Context = grpc.aio.ServicerContext[Any, Any]


class IntakeServicer(intake_pb2_grpc.IntakeServiceServicer):
    """fenhe.node.v1.IntakeService."""

    def __init__(self, room: IntakeRoom) -> None:
        self._room = room

    async def Offer(self, request: pb.OfferRequest, context: Context) -> pb.OfferResponse:
        """Announce a content."""
        offered = await self._room.offer(
            current_call().caller,
            request.sha256,
            request.size,
            request.file_name,
            request.mapping,
            request.watermark,
        )
        self._room.wake()
        content = offered.content
        return pb.OfferResponse(
            run=_run_out(offered.run),
            next_piece=content.arrived,
            pieces=content.pieces,
        )

    async def Send(
        self, request_iterator: AsyncIterator[pb.ContentPiece], context: Context
    ) -> pb.SendResponse:
        """Keep pieces."""
        run_id, arrived = "", 0
        async for piece in request_iterator:
            run_id = run_id or piece.run_id
            if not run_id:
                raise InvalidRequestError("the first piece names its run")
            if len(piece.data) > PIECE_BYTES:
                raise InvalidRequestError("a piece has at most 1 MiB")
            arrived = await self._room.put_piece(run_id, piece.number, piece.data)
        self._room.wake()
        return pb.SendResponse(arrived=arrived)

    async def Follow(self, request: pb.FollowRequest, context: Context) -> AsyncIterator[pb.Run]:
        """How a run goes."""
        async for run in self._room.follow(request.run_id):
            yield _run_out(run)

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        """Runs, newest first."""
        runs = await self._room.runs(
            run_id=request.run_id,
            source=request.source,
            state=request.state,
            limit=_limit(request.limit, _RUNS),
        )
        shown = []
        for run in runs:
            out = _run_out(run)
            if request.quality:
                out.quality = quality_text(run)
                waiting = await asyncio.to_thread(self._room.shop.runs.count_waiting, run.run_id)
                out.waiting.update(waiting)
            shown.append(out)
        return pb.ListRunsResponse(runs=shown)

    async def Watermark(
        self, request: pb.WatermarkRequest, context: Context
    ) -> pb.WatermarkResponse:
        """Where the next poll of a source begins."""
        return pb.WatermarkResponse(watermark=await self._room.watermark(request.source))

    async def Messages(
        self, request_iterator: AsyncIterator[pb.MessageIn], context: Context
    ) -> AsyncIterator[pb.MessageOut]:
        """Messages of one connection; read ahead of their answers, answered in order."""
        caller = current_call().caller
        pending: asyncio.Queue[asyncio.Future[Acknowledged] | None] = asyncio.Queue(_PENDING_MAX)

        async def read() -> None:
            feed = None
            try:
                async for message in request_iterator:
                    if feed is None:
                        feed = self._room.feed(caller, message.mapping)
                    if message.data:
                        await pending.put(feed.put(message.data))
            finally:
                await pending.put(None)

        reading = asyncio.ensure_future(read())
        try:
            while (answer := await pending.get()) is not None:
                done = await answer
                yield pb.MessageOut(data=done.text.encode(), state=done.state)
            await reading
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait((reading,))

    async def ListItems(
        self, request: pb.ListItemsRequest, context: Context
    ) -> pb.ListItemsResponse:
        """A page of the quarantine."""
        items, waiting = await self._room.items(
            run_id=request.run_id,
            state=request.state or "waiting",
            rule=request.rule,
            after=_number(request.after),
            limit=_limit(request.limit, _ITEMS),
        )
        return pb.ListItemsResponse(items=map(_item_out, items), waiting=waiting)

    async def ShowItem(self, request: pb.ShowItemRequest, context: Context) -> pb.QuarantinedUnit:
        """One unit with what it says."""
        item, cells = await self._room.item(current_call().caller, _number(request.item_id))
        out = _item_out(item)
        for column, text in cells.items():
            out.cells.add(column=column, text=text)
        out.raw = "" if item.unit is None else item.unit.raw or str(item.unit.whole or "")
        for each in item.troubles:
            asks = RULES[each.rule].asks if each.rule in RULES else ""
            out.broken.add(rule=each.rule, field=each.field, value=each.value, asks=asks)
        return out

    async def RetryItems(
        self, request: pb.RetryItemsRequest, context: Context
    ) -> pb.RetryItemsResponse:
        """Judge units again."""
        accepted, waiting = await self._room.retry(
            current_call().caller,
            list(map(_number, request.item_ids)),
            request.run_id,
            dict(request.cells),
        )
        return pb.RetryItemsResponse(accepted=accepted, waiting=waiting)


def _number(said: int) -> int:
    """The number of a unit, of which no database gives more than 63 bits."""
    if said > _NUMBER_MAX:
        raise InvalidRequestError("the number of a unit is less than 2^63")
    return said


def _limit(asked: int, default: int) -> int:
    if asked > _PAGE_MAX:
        raise InvalidRequestError(f"limit may be at most {_PAGE_MAX}")
    return asked or default


def _run_out(run: Run) -> pb.Run:
    counts = run.counts
    return pb.Run(
        run_id=run.run_id,
        source=run.source,
        mapping=run.mapping_name,
        state=run.state.value,
        code=run.code,
        message=run.message,
        read=counts.read,
        accepted=counts.accepted,
        quarantined=counts.quarantined,
        unchanged=counts.unchanged,
        residents=counts.residents,
        records=counts.records,
        amended=counts.amended,
        warnings=counts.warnings,
        encoding=run.encoding,
        truncated=run.truncated,
        created_at=format_ms(run.created_at),
        started_at=format_ms(run.started_at) if run.started_at else "",
        finished_at=format_ms(run.finished_at) if run.finished_at else "",
    )


def _item_out(item: Item) -> pb.QuarantinedUnit:
    return pb.QuarantinedUnit(
        item_id=item.item_id,
        run_id=item.run_id,
        unit=item.number,
        line=item.line,
        rule=item.rule,
        field=item.field,
        state=item.state,
        created_at=format_ms(item.created_at),
    )
