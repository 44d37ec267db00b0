"""KeysService: what an operator does about the keys of a node's store."""

from __future__ import annotations

from typing import Any

import grpc

import protos.fenhe.node.v1.keys_pb2 as pb
from node.clock import format_ms
from node.keys.keeper import KeyStanding
from node.keys.recovery import APPROVALS
from node.keys.room import KeysRoom
from node.keys.work import ResealWork
from node.services.interceptor import current_call
from protos.fenhe.node.v1 import keys_pb2_grpc

__all__ = ["KeysServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class KeysServicer(keys_pb2_grpc.KeysServiceServicer):
    """fenhe.node.v1.KeysService."""

    def __init__(self, room: KeysRoom) -> None:
        self._room = room

    async def Status(
        self, request: pb.KeysStatusRequest, context: Context
    ) -> pb.KeysStatusResponse:
        """Every key, and the work on every table."""
        keys, work = await self._room.standing()
        return pb.KeysStatusResponse(
            keys=[_key_out(each) for each in keys],
            work=[_work_out(each) for each in work],
            rows_a_second=self._room.rows_a_second,
        )

    async def Rotate(
        self, request: pb.RotateKeysRequest, context: Context
    ) -> pb.RotateKeysResponse:
        """New keys now; the rest follows by itself."""
        caller = current_call().caller
        if request.node:
            wrapped = await self._room.rotate_node_key(
                caller, request.request_id, to_file=request.to_file
            )
            return pb.RotateKeysResponse(wrapped=wrapped)
        made = await self._room.rotate(caller, list(request.tables), request.request_id)
        return pb.RotateKeysResponse(key_ids=made)

    async def EscrowStatus(
        self, request: pb.EscrowStatusRequest, context: Context
    ) -> pb.EscrowStatusResponse:
        """Where this node's keys lie, and whose lie here."""
        found = await self._room.escrow()
        return pb.EscrowStatusResponse(
            parent=found.parent,
            why=found.why,
            deposited_at="" if found.mark is None else format_ms(found.mark.at_ms),
            complete=found.is_whole,
            held=[
                pb.HeldEscrow(
                    node_id=each.node_id,
                    received_at=format_ms(each.received_ms),
                    key_set=each.key_set,
                )
                for each in found.held
            ],
        )

    async def Recover(
        self, request: pb.RecoverKeysRequest, context: Context
    ) -> pb.RecoverKeysResponse:
        """Approve; the second operator gets the keys."""
        approved = await self._room.recover(
            current_call().caller, request.node_id, approve_only=request.approve_only
        )
        return pb.RecoverKeysResponse(
            approved_by=approved.principals, needed=APPROVALS, keys=approved.keys or b""
        )


def _key_out(each: KeyStanding) -> pb.DataKey:
    key = each.key
    return pb.DataKey(
        key_id=key.key_id,
        table=each.table,
        suite=key.suite,
        state=key.state,
        created_at=key.created_at,
        age_days=each.age_days,
        seals=max(0, key.seals),
        rows=each.rows or 0,
    )


def _work_out(each: ResealWork) -> pb.KeyWork:
    return pb.KeyWork(
        table=each.place,
        state=each.state.value,
        resealed=each.resealed,
        unreadable=each.unreadable,
        started_at=format_ms(each.started_ms),
        finished_at="" if each.finished_ms is None else format_ms(each.finished_ms),
    )
