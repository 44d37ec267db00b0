"""DoctorService: findings about this node, and its canaries."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

import protos.fenhe.node.v1.doctor_pb2 as pb
from node.clock import Clock, format_ms
from node.doctor import CheckupRoom, Finding
from node.services.interceptor import current_call
from protos.fenhe.node.v1 import doctor_pb2_grpc

__all__ = ["CheckupServicer"]

Context = grpc.aio.ServicerContext[Any, Any]

_STRAYS_MAX = 1000


class CheckupServicer(doctor_pb2_grpc.DoctorServiceServicer):
    """fenhe.node.v1.DoctorService."""

    def __init__(self, room: CheckupRoom, clock: Clock) -> None:
        self._room = room
        self._clock = clock

    async def Examine(self, request: pb.ExamineRequest, context: Context) -> pb.ExamineResponse:
        """Look at everything now."""
        found = await asyncio.to_thread(self._room.examine, whole_audit=request.whole_audit)
        return pb.ExamineResponse(
            node_id=self._room.node_id,
            findings=map(_finding_out, found),
            at=format_ms(self._clock.now_ms()),
        )

    async def PlantCanary(
        self, request: pb.PlantCanaryRequest, context: Context
    ) -> pb.PlantCanaryResponse:
        """Make this node's canary, or say which it has."""
        caller = current_call().caller
        resident_id, planted = await asyncio.to_thread(self._room.plant, caller)
        return pb.PlantCanaryResponse(resident_id=resident_id, planted=planted)

    async def FindCanaries(
        self, request: pb.FindCanariesRequest, context: Context
    ) -> pb.FindCanariesResponse:
        """Look for canaries of others, and for clear marks of any."""
        seen = await self._room.find(request.folder)
        return pb.FindCanariesResponse(
            strays=[
                pb.Stray(place=each.place, home_node=each.home, detail=each.detail)
                for each in seen.strays[:_STRAYS_MAX]
            ],
            at_home=seen.at_home,
            looked_at=seen.looked_at,
        )


def _finding_out(finding: Finding) -> pb.Finding:
    return pb.Finding(
        topic=finding.topic,
        severity=pb.Severity.ValueType(finding.severity.value),
        about=finding.about,
        message=finding.message,
        next_step=finding.next_step,
    )
