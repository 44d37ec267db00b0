"""AuditService: for operators, and for staff in the role of auditor."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any, Final

import grpc

import protos.fenhe.node.v1.auditing_pb2 as pb
from hierarchy_config.model import NodeId
from node.auditing.about import Answered, is_break_glass
from node.auditing.atna import message
from node.auditing.room import AuditRoom
from node.auditing.search import Wanted
from node.auditing.verifying import Compared, Report
from node.clock import format_ms
from node.errors import DeniedError, InvalidRequestError
from node.security.caller import Caller, CallerKind
from node.security.roles import Role
from node.services.interceptor import current_call
from node.storage.audit import Action, Deed, Outcome
from node.storage.model import AuditEntry
from node.storage.shapes import is_row_id
from protos.fenhe.node.v1 import auditing_pb2_grpc

__all__ = ["AuditServicer", "standing_out"]

_PAGE: Final = 100
_PAGE_MAX: Final = 500
_REASON_MIN: Final = 3
_REASON_MAX: Final = 200
_LINES_A_PIECE: Final = 200
_PRINCIPAL_MAX: Final = 200
_TIME: Final = re.compile(r"\d{4}(-\d{2}(-\d{2}(T\d{2}(:\d{2}(:\d{2}(\.\d{1,3})?)?)?Z?)?)?)?")

Context = grpc.aio.ServicerContext[Any, Any]


class AuditServicer(auditing_pb2_grpc.AuditServiceServicer):
    """fenhe.node.v1.AuditService."""

    def __init__(self, room: AuditRoom) -> None:
        self._room = room

    async def SearchAudit(
        self, request: pb.SearchAuditRequest, context: Context
    ) -> pb.SearchAuditResponse:
        """One page of entries."""
        caller, wanted = _auditor(), _wanted(request.filter)
        if request.page_size > _PAGE_MAX:
            raise InvalidRequestError(f"page_size may be at most {_PAGE_MAX}")
        page = await asyncio.to_thread(
            self._room.search.page,
            caller,
            wanted,
            size=request.page_size or _PAGE,
            token=request.token,
        )
        return pb.SearchAuditResponse(
            records=[_record(each.entry, each.position) for each in page.entries],
            next_token=page.next_token,
        )

    async def AboutResident(
        self, request: pb.AboutResidentRequest, context: Context
    ) -> pb.AboutResidentResponse:
        """Who has looked at somebody's record."""
        said = await self._room.residents.about(_auditor(), request.resident_id)
        return pb.AboutResidentResponse(
            nodes=map(_looks, said),
            complete=not any(each.fault or each.more for each in said),
        )

    async def VerifyAudit(
        self, request: pb.VerifyAuditRequest, context: Context
    ) -> AsyncIterator[pb.VerifyAuditEvent]:
        """Walk and compare; progress first, the report last."""
        caller = _auditor()
        told: asyncio.Queue[int | None] = asyncio.Queue()
        work = asyncio.ensure_future(self._room.verifier.verify(caller, told.put))
        work.add_done_callback(lambda _: told.put_nowait(None))
        try:
            while (position := await told.get()) is not None:
                yield pb.VerifyAuditEvent(position=position)
            yield pb.VerifyAuditEvent(report=_report(await work))
        finally:
            work.cancel()

    async def ExportAudit(
        self, request: pb.ExportAuditRequest, context: Context
    ) -> AsyncIterator[pb.ExportAuditPiece]:
        """Entries as audit messages; the end with count and digest last."""
        caller, wanted = _auditor(), _wanted(request.filter)
        self._room.gate.refuse_bulk()
        await asyncio.to_thread(self._note_export, caller)
        lines, count, digest = self._lines(wanted), 0, hashlib.sha256()
        while some := await asyncio.to_thread(lambda: list(islice(lines, _LINES_A_PIECE))):
            piece = "".join(some).encode()
            count += len(some)
            digest.update(piece)
            yield pb.ExportAuditPiece(lines=piece)
        yield pb.ExportAuditPiece(end=pb.ExportAuditEnd(count=count, digest=digest.hexdigest()))

    async def AcceptAudit(
        self, request: pb.AcceptAuditRequest, context: Context
    ) -> pb.AcceptAuditResponse:
        """Let a neighbour's audit begin anew."""
        reason = request.reason.strip()
        if not _REASON_MIN <= len(reason) <= _REASON_MAX or not reason.isprintable():
            raise InvalidRequestError("a reason has 3 to 200 characters in one line")
        caller, node = current_call().caller, NodeId(request.node_id)
        count = await asyncio.to_thread(self._room.holding.accept, caller, node, reason)
        await asyncio.to_thread(self._room.look_again)
        return pb.AcceptAuditResponse(accepted=count)

    def _lines(self, wanted: Wanted) -> Iterator[str]:
        here, region = self._room.ground.node_id, self._room.region
        for found in self._room.search.chained(wanted):
            yield message(found, here, region) + "\n"

    def _note_export(self, caller: Caller) -> None:
        ground = self._room.ground
        deed = Deed(Action.EXPORT, "audit", Outcome.DONE, 0)
        ground.transactions.write(lambda connection: ground.auditor.write(connection, caller, deed))


def standing_out(room: AuditRoom) -> pb.AuditStanding:
    """How the audit stands, for the node's status."""
    keeper = room.keeper
    return pb.AuditStanding(
        position=keeper.end.position,
        unanchored_ms=room.unanchored_ms,
        state=room.state.value,
        reserve_bytes=room.reserve.bytes_kept,
        holders=[
            pb.AuditHolder(
                holder=holder,
                position=state.anchored.position,
                anchored_at=format_ms(state.at_ms) if state.at_ms else "",
                fault=state.error,
            )
            for holder, state in keeper.states.items()
        ],
    )


def _auditor() -> Caller:
    """The caller, who may look into the audit.

    Raises:
        DeniedError: A member of staff in another role.
    """
    caller = current_call().caller
    if caller.kind is CallerKind.STAFF and Role.AUDITOR not in caller.roles:
        raise DeniedError(
            "the audit is open to staff in the role of auditor alone",
            hint="Sign in as somebody whose assignment has the role auditor.",
        )
    return caller


def _wanted(said: pb.AuditFilter) -> Wanted:
    for name, row_id in (("resident_id", said.resident_id), ("grant_id", said.grant_id)):
        if row_id and not is_row_id(row_id):
            raise InvalidRequestError(f"filter.{name} is not an id")
    if said.action and said.action not in set(Action):
        raise InvalidRequestError(
            "filter.action is not one of the audit's words",
            hint=f"Name one of: {', '.join(sorted(Action))}.",
        )
    if said.outcome and said.outcome not in set(Outcome):
        raise InvalidRequestError(
            "filter.outcome is not one of the audit's words",
            hint=f"Name one of: {', '.join(sorted(Outcome))}.",
        )
    if len(said.principal) > _PRINCIPAL_MAX or not said.principal.isascii():
        raise InvalidRequestError("filter.principal is not a SPIFFE id")
    for name, text in (("since", said.since), ("until", said.until)):
        if text and _TIME.fullmatch(text) is None:
            raise InvalidRequestError(f"filter.{name} is not the beginning of an ISO 8601 time")
    return Wanted(
        said.resident_id,
        said.principal,
        said.action,
        said.outcome,
        said.since.removesuffix("Z"),
        said.until.removesuffix("Z"),
        said.grant_id,
        said.break_glass,
    )


def _record(entry: AuditEntry, position: int) -> pb.AuditRecord:
    return pb.AuditRecord(
        at=entry.at,
        principal=entry.principal,
        kind=entry.kind,
        node_id=entry.node_id,
        purpose=entry.purpose,
        action=entry.action,
        object_table=entry.object_table,
        object_id=entry.object_id or "",
        resident_id=entry.resident_id or "",
        outcome=entry.outcome,
        row_count=max(entry.row_count, 0),
        position=position,
        break_glass=is_break_glass(entry),
        grant_id=entry.grant_id or "",
    )


def _looks(said: Answered) -> pb.NodeLooks:
    return pb.NodeLooks(
        node_id=said.node_id,
        fault=said.fault,
        more=said.more,
        records=[_record(look.entry, 0) for look in said.looks],
    )


def _report(report: Report) -> pb.AuditVerification:
    broken = report.broken
    return pb.AuditVerification(
        entries=report.entries,
        unanchored=report.unanchored,
        broken_at=0 if broken is None else broken.position,
        broken_because="" if broken is None else broken.reason,
        lives=[
            pb.AuditLife(store_epoch=each.store_epoch, position=each.position)
            for each in report.lives
        ],
        comparisons=map(_comparison, report.compared),
        holds=report.holds,
        complete=report.is_complete,
    )


def _comparison(compared: Compared) -> pb.AuditComparison:
    return pb.AuditComparison(
        holder=compared.holder,
        fault=compared.asked,
        anchors=compared.anchors,
        newest=compared.newest,
        lost=compared.lost,
        unjudged=compared.unjudged,
        breaks=[
            pb.AuditBreakage(
                fault=each.fault.value,
                position=each.position,
                anchored=each.anchored,
                accepted=each.accepted,
            )
            for each in compared.breaks
        ],
    )
