"""StewardService: which residents are one person."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import grpc

import protos.fenhe.empi.v1.steward_pb2 as pb
from node.merging.desk import Event, Wanted
from node.merging.fold import Decision
from node.merging.room import MergingRoom
from node.security.caller import Caller
from node.services.interceptor import current_call
from protos.fenhe.empi.v1 import steward_pb2_grpc

__all__ = ["StewardServicer", "evidence_out"]

Context = grpc.aio.ServicerContext[Any, Any]
_DECISIONS: Final = {
    Decision.SAME: pb.DECISION_SAME,
    Decision.DIFFERENT: pb.DECISION_DIFFERENT,
}


class StewardServicer(steward_pb2_grpc.StewardServiceServicer):
    """fenhe.empi.v1.StewardService."""

    def __init__(self, room: MergingRoom) -> None:
        self._room = room

    async def Merge(self, request: pb.DecideRequest, context: Context) -> pb.IdentityEvent:
        """Say that two residents are one person."""
        return await self._decided(self._room.desk.merge, request)

    async def Unmerge(self, request: pb.DecideRequest, context: Context) -> pb.IdentityEvent:
        """Undo what is in force over two residents."""
        return await self._decided(self._room.desk.unmerge, request)

    async def TellApart(self, request: pb.DecideRequest, context: Context) -> pb.IdentityEvent:
        """Say that two residents are two people."""
        return await self._decided(self._room.desk.tell_apart, request)

    async def ListEvents(
        self, request: pb.ListEventsRequest, context: Context
    ) -> pb.ListEventsResponse:
        """Somebody's ids, and what was decided over them."""
        caller, desk = current_call().caller, self._room.desk
        group = await asyncio.to_thread(desk.group, caller, request.resident_id)
        events = await asyncio.to_thread(desk.events, caller, request.resident_id)
        return pb.ListEventsResponse(
            survivor_id=group.survivor,
            member_ids=sorted(group.members),
            events=map(_event_out, events),
            is_cut=group.is_cut,
        )

    async def _decided(
        self, decide: Callable[[Caller, Wanted], Event], request: pb.DecideRequest
    ) -> pb.IdentityEvent:
        wanted = Wanted(
            request.request_id,
            request.survivor_id,
            request.merged_id,
            request.reason,
            despite=request.despite,
        )
        event = await asyncio.to_thread(decide, current_call().caller, wanted)
        self._room.notify()
        return _event_out(event)


def evidence_out(evidence: str) -> list[pb.FieldEvidence]:
    """What a pair's evidence says field by field, from {field: [level, bits]}; "" is none."""
    said = json.loads(evidence) if evidence else {}
    return [
        pb.FieldEvidence(field=field, level=level, bits=bits)
        for field, (level, bits) in said.items()
    ]


def _event_out(event: Event) -> pb.IdentityEvent:
    return pb.IdentityEvent(
        event_id=event.event_id,
        decision=_DECISIONS[event.decision],
        survivor_id=event.survivor_id,
        merged_id=event.merged_id,
        decided_at=event.decided_at,
        decided_by=event.decided_by,
        author_node=event.author_node,
        reason=event.reason,
        evidence=evidence_out(event.evidence),
        ends=sorted(event.ends),
        in_force=event.in_force,
    )
