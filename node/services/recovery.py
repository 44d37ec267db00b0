"""RecoveryService: how far a recovery has come, and neighbours that are waited for no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import grpc

import protos.fenhe.node.v1.recovery_pb2 as pb
from hierarchy_config.model import NodeId
from node.recovery import SeedingRoom
from node.security.caller import Caller
from node.services.interceptor import current_call
from node.storage.audit import Action, Deed, Outcome
from node.storage.recovering import RecoveryStanding
from protos.fenhe.common.v1 import common_pb2
from protos.fenhe.node.v1 import recovery_pb2_grpc
from replication.core.model import PROTOCOL_MAX

__all__ = ["RecoveryServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class RecoveryServicer(recovery_pb2_grpc.RecoveryServiceServicer):
    """fenhe.node.v1.RecoveryService."""

    def __init__(self, seeding: SeedingRoom, note: Callable[[Caller, Deed], None]) -> None:
        """`note` audits a deed before it is done; it blocks."""
        self._note = note
        self._node_id = seeding.node_id
        self._keeper = seeding.recovery
        self._hub = seeding.hub
        self._links = seeding.link_store

    async def Standing(
        self, request: pb.RecoveryStandingRequest, context: Context
    ) -> pb.RecoveryStandingResponse:
        """Whether the node is recovering, and for whom it waits."""
        return self._out(await asyncio.to_thread(self._keeper.standing))

    async def GiveUp(
        self, request: pb.RecoveryGiveUpRequest, context: Context
    ) -> pb.RecoveryStandingResponse:
        """Wait no longer for some neighbours."""
        peers = [NodeId(peer) for peer in request.peers]
        deed = Deed(Action.GIVE_UP, "neighbours", Outcome.DONE, len(peers))
        await asyncio.to_thread(self._note, current_call().caller, deed)
        return self._out(await asyncio.to_thread(self._keeper.give_up, peers))

    def _out(self, standing: RecoveryStanding) -> pb.RecoveryStandingResponse:
        waiting = []
        for peer, lanes in standing.waiting.items():
            if not lanes:
                continue
            state, met = self._hub.states.get(peer), self._links.met(peer)
            waiting.append(
                pb.RecoveryWait(
                    peer=peer,
                    role=state.role if state is not None else "",
                    connected=state is not None and state.connected,
                    lanes=[cast(common_pb2.Lane.ValueType, lane.value) for lane in lanes],
                    too_old=met is not None and met.protocol < PROTOCOL_MAX,
                )
            )
        return pb.RecoveryStandingResponse(
            node_id=self._node_id,
            recovering=standing.active,
            waiting=waiting,
            without=standing.without,
        )
