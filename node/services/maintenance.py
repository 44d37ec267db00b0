"""MaintenanceService: comparing copies with neighbours, and mending them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

import protos.fenhe.node.v1.maintenance_pb2 as pb
from hierarchy_config.model import NodeId
from node.reconcile.model import LinkReport
from node.reconcile.room import ReconcileRoom
from node.security.caller import Caller
from node.services.interceptor import current_call
from node.storage.audit import Action, Deed, Outcome
from protos.fenhe.node.v1 import maintenance_pb2_grpc

__all__ = ["MaintenanceServicer"]


class MaintenanceServicer(maintenance_pb2_grpc.MaintenanceServiceServicer):
    """fenhe.node.v1.MaintenanceService."""

    def __init__(self, room: ReconcileRoom, note: Callable[[Caller, Deed], None]) -> None:
        """`note` audits a deed before it is done; it blocks."""
        self._room = room
        self._note = note

    async def Verify(
        self, request: pb.VerifyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.VerifyEvent]:
        """Compare with neighbours, one after the other; progress first, the report last."""
        links: list[pb.LinkVerification] = []
        object_id = "repair" if request.repair else None
        deed = Deed(Action.VERIFY, "copies", Outcome.DONE, 0, object_id=object_id)
        await asyncio.to_thread(self._note, current_call().caller, deed)
        for peer in self._room.peers(request.peer):
            started_ms = self._room.now_ms
            told: asyncio.Queue[pb.VerifyEvent | None] = asyncio.Queue(1)
            work = asyncio.ensure_future(self._verify(peer, request, told))
            try:
                while (event := await told.get()) is not None:
                    yield event
                report = await work
            finally:
                work.cancel()
            links.append(_link_out(report, self._room.now_ms - started_ms))
        equal = all(not link.fault and link.differing == link.repaired for link in links)
        yield pb.VerifyEvent(report=pb.VerifyReport(links=links, equal=equal))

    async def _verify(
        self,
        peer: NodeId,
        request: pb.VerifyRequest,
        told: asyncio.Queue[pb.VerifyEvent | None],
    ) -> LinkReport:
        async def tell(report: LinkReport) -> None:
            await told.put(pb.VerifyEvent(progress=_progress_out(report)))

        try:
            tables = tuple(request.tables)
            return await self._room.verify(peer, tables, repair=request.repair, told=tell)
        finally:
            # Never waits: whoever listened may be gone. A last progress is no loss.
            if told.full():
                told.get_nowait()
            told.put_nowait(None)


def _progress_out(report: LinkReport) -> pb.VerifyProgress:
    return pb.VerifyProgress(
        peer=report.peer,
        slices=report.slices,
        rows=report.rows,
        differing=report.differing,
        repaired=report.repaired,
    )


def _link_out(report: LinkReport, elapsed_ms: int) -> pb.LinkVerification:
    return pb.LinkVerification(
        peer=report.peer,
        slices=report.slices,
        rows=report.rows,
        differing=report.differing,
        young=report.young,
        repaired=report.repaired,
        undecided_count=report.undecided_count,
        causes=report.causes,
        undecided=[
            pb.UndecidedRow(
                direction=part.direction.value,
                table=part.table,
                home=part.home,
                row_id=row_id,
                cause=cause.value,
            )
            for part, row_id, cause in report.undecided
        ],
        questions=report.questions,
        bytes=report.bytes,
        fault=report.fault,
        fault_message=report.fault_message,
        elapsed_ms=elapsed_ms,
    )
