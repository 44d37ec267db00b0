"""ReplicationService: how replication stands, and the exits of the quarantine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import grpc

import protos.fenhe.common.v1.common_pb2 as common
import protos.fenhe.node.v1.operations_pb2 as pb
from hierarchy_config.errors import Fault
from node.clock import Clock, format_ms
from node.errors import InvalidRequestError, NodeError
from node.services.interceptor import current_call
from node.storage.causes import meaning_of
from node.storage.release import Released
from node.watch import Alarm, LaneFigure, LinkFigure, WatchRoom
from protos.fenhe.node.v1 import operations_pb2_grpc
from replication.changelog import QuarantinedItem
from replication.core.greeting import OWN_VERSIONS, Versions

__all__ = ["ReplicationServicer", "SkipReasonError", "alarm_out"]

_REASON_MIN: Final = 3
_REASON_MAX: Final = 200
_LIMIT_DEFAULT: Final = 100
_LIMIT_MAX: Final = 500
_NUMBER_MAX: Final = 2**63 - 1

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


class SkipReasonError(NodeError):
    """An item of the quarantine may be skipped only with a reason of 3 to 200 characters."""

    code = "SKIP_REASON_MISSING"
    fault = Fault.CALLER
    default_hint = "Say in a few words why, without patient data; it is kept in the audit."


class ReplicationServicer(operations_pb2_grpc.ReplicationServiceServicer):
    """fenhe.node.v1.ReplicationService."""

    def __init__(self, watch: WatchRoom, clock: Clock) -> None:
        self._watch = watch
        self._clock = clock

    async def Status(
        self, request: pb.ReplicationStatusRequest, context: Context
    ) -> pb.ReplicationStatusResponse:
        """Every link and lane, and the alarms that stand."""
        return await _blocking(self._status)

    async def ListQuarantine(
        self, request: pb.ListQuarantineRequest, context: Context
    ) -> pb.ListQuarantineResponse:
        """What waits, oldest first."""
        caller = current_call().caller
        items, waiting = await _blocking(
            lambda: self._watch.desk.waiting(
                caller,
                after=_number(request.after),
                limit=min(request.limit or _LIMIT_DEFAULT, _LIMIT_MAX),
                cause=request.cause,
                resident_id=request.resident_id,
            )
        )
        return pb.ListQuarantineResponse(items=map(_item_out, items), waiting=waiting)

    async def ShowQuarantine(
        self, request: pb.ShowQuarantineRequest, context: Context
    ) -> pb.QuarantineItem:
        """One item."""
        caller = current_call().caller
        return _item_out(
            await _blocking(lambda: self._watch.desk.show(caller, _number(request.item_id)))
        )

    async def RetryQuarantine(
        self, request: pb.RetryQuarantineRequest, context: Context
    ) -> pb.QuarantineOutcome:
        """Judge an item again."""
        caller = current_call().caller
        done = await _blocking(lambda: self._watch.desk.retry(_number(request.item_id), caller))
        self._watch.notify()
        return _outcome_out(done)

    async def SkipQuarantine(
        self, request: pb.SkipQuarantineRequest, context: Context
    ) -> pb.QuarantineOutcome:
        """Close an item without applying it.

        Raises:
            SkipReasonError: The reason is missing, or too long.
        """
        caller, reason = current_call().caller, request.reason.strip()
        if not _REASON_MIN <= len(reason) <= _REASON_MAX or not reason.isprintable():
            raise SkipReasonError("a skip needs a reason of 3 to 200 characters in one line")
        done = await _blocking(
            lambda: self._watch.desk.skip(caller, _number(request.item_id), reason)
        )
        return _outcome_out(done)

    async def AskQuarantine(
        self, request: pb.AskQuarantineRequest, context: Context
    ) -> pb.AskQuarantineResponse:
        """Ask the neighbour it came from to send it again."""
        peer, rows = await self._watch.keeper.ask(current_call().caller, _number(request.item_id))
        return pb.AskQuarantineResponse(item_id=request.item_id, peer=peer, rows=rows)

    def _status(self) -> pb.ReplicationStatusResponse:
        seen = self._watch.look()
        links, causes = seen.links, seen.causes
        now_ms = self._clock.now_ms()
        return pb.ReplicationStatusResponse(
            node_id=self._watch.node_id,
            links=[_link_out(link, now_ms) for link in links],
            alarms=map(alarm_out, self._watch.book.standing),
            quarantine=causes,
            at=format_ms(now_ms),
            log_sequence=self._watch.log_head(),
            versions=_versions_out(OWN_VERSIONS),
        )


async def _blocking(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


def _number(said: int) -> int:
    """A number that a column can hold. Raises InvalidRequestError: no item ever had this one."""
    if said > _NUMBER_MAX:
        raise InvalidRequestError("a number of an item is at most 2**63 - 1")
    return said


def _time(ms: int | None) -> str:
    return format_ms(ms) if ms else ""


def _lane(value: int) -> common.Lane.ValueType:
    return common.Lane.ValueType(value)


def alarm_out(alarm: Alarm) -> pb.Alarm:
    """An alarm as it is told to operators."""
    return pb.Alarm(
        kind=alarm.kind.value,
        peer=alarm.peer,
        message=alarm.message,
        next_step=alarm.next_step,
        since=format_ms(alarm.since_ms),
    )


def _link_out(link: LinkFigure, now_ms: int) -> pb.LinkReplication:
    return pb.LinkReplication(
        peer=link.peer,
        role=link.role,
        connected=link.connected,
        since=_time(link.changed_ms),
        bytes_per_second=link.bytes_per_s,
        clock_skew_ms=link.clock_skew_ms,
        last_error=link.last_error,
        next_step=link.next_step,
        lanes=[_lane_out(lane, now_ms) for lane in link.lanes],
        versions=_versions_out(link.versions) if link.versions is not None else None,
    )


def _versions_out(versions: Versions) -> pb.LinkVersions:
    return pb.LinkVersions(
        protocol_min=versions.protocol_min,
        protocol_max=versions.protocol_max,
        schema_min=versions.schema_min,
        schema_max=versions.schema_max,
    )


def _lane_out(lane: LaneFigure, now_ms: int) -> pb.LaneReplication:
    return pb.LaneReplication(
        lane=_lane(lane.lane.value),
        state=lane.state,
        receipt_number=lane.receipt_number,
        receipt_at=_time(lane.receipt_ms),
        lag_entries=lane.lag_entries,
        lag_seconds=lane.lag_s(now_ms),
        backlog_bytes=lane.backlog_bytes,
        at_least=lane.at_least,
        refusals=lane.refusals,
        refused=lane.refused,
        applied_to=lane.applied_to,
        owes_snapshot=lane.owes_snapshot,
    )


def _item_out(item: QuarantinedItem) -> pb.QuarantineItem:
    return pb.QuarantineItem(
        item_id=item.item_id,
        cause=item.cause,
        meaning=meaning_of(item.cause),
        attempts=item.attempts,
        first_at=_time(item.first_at),
        last_at=_time(item.last_at),
        retry_at=_time(item.retry_at),
        peer=item.peer,
        lane=_lane(item.lane.value),
        whole_entry=item.whole_entry,
        rows=item.row_count,
        table=item.table,
        row_id=item.row_id,
        resident_id=item.resident_id,
        version_epoch=item.version_epoch,
        version_number=item.version_number,
        form=item.form.value,
        author_node=item.author_node,
        home_node=item.home_node,
        origin_node=item.origin_node,
        origin_epoch=item.origin_epoch,
        origin_sequence=item.origin_sequence,
        closed_as=item.closed_as,
        closed_at=_time(item.closed_at),
        reason=item.reason,
    )


def _outcome_out(done: Released) -> pb.QuarantineOutcome:
    return pb.QuarantineOutcome(
        item_id=done.item_id, outcome=done.outcome, cause=done.cause, applied=done.applied
    )
