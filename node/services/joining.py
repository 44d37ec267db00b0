"""InvitationService, for operators; DoorService, for machines that have no certificate yet."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc

import protos.fenhe.node.v1.joining_pb2 as pb
from hierarchy_config.model import NodeId
from node.clock import format_ms
from node.joining.desk import InviteDesk, Wanted
from node.joining.door import Door
from node.joining.invitations import Invitation
from node.joining.knocks import address_of
from node.joining.wire import asked_in, begun_out, joined_out, renewal_in, renewed_out
from node.services.interceptor import current_call
from protos.fenhe.node.v1 import joining_pb2_grpc

__all__ = ["DoorServicer", "InvitationServicer"]

_PAGE: Final = 50
_PAGE_MAX: Final = 200

Context = grpc.aio.ServicerContext[Any, Any]


class InvitationServicer(joining_pb2_grpc.InvitationServiceServicer):
    """fenhe.node.v1.InvitationService."""

    def __init__(self, desk: InviteDesk) -> None:
        self._desk = desk

    async def CreateInvitation(
        self, request: pb.CreateInvitationRequest, context: Context
    ) -> pb.CreateInvitationResponse:
        """Invite one child."""
        wanted = Wanted(
            NodeId(request.node_id),
            request.minutes,
            request.address,
            request.pseudonym_from,
            request.new_pseudonym_key,
            request.request_id,
        )
        made = await asyncio.to_thread(self._desk.invite, current_call().caller, wanted)
        return pb.CreateInvitationResponse(
            code=made.code,
            invitation=self._out(made.invitation),
            door=made.door,
            root_digest=made.root_digest,
            known_before=made.known_before,
            replaced=made.replaced,
        )

    async def ListInvitations(
        self, request: pb.ListInvitationsRequest, context: Context
    ) -> pb.ListInvitationsResponse:
        """Invitations, newest first."""
        size = min(request.page_size or _PAGE, _PAGE_MAX)
        found = await asyncio.to_thread(self._desk.page, request.after, size + 1)
        return pb.ListInvitationsResponse(
            invitations=[self._out(each) for each in found[:size]],
            next_after=found[size - 1].invitation_id if len(found) > size else "",
        )

    async def WithdrawInvitation(
        self, request: pb.WithdrawInvitationRequest, context: Context
    ) -> pb.WithdrawInvitationResponse:
        """Take an open invitation back."""
        caller = current_call().caller
        done = await asyncio.to_thread(self._desk.withdraw, caller, NodeId(request.node_id))
        return pb.WithdrawInvitationResponse(withdrawn=done)

    def _out(self, made: Invitation) -> pb.Invitation:
        return pb.Invitation(
            invitation_id=made.invitation_id,
            node_id=made.node_id,
            state=made.state,
            created_at=format_ms(made.created_ms),
            expires_at=format_ms(made.expires_ms),
            created_by=made.created_by,
            wrong_proofs=made.wrong_proofs,
            joined_at="" if made.joined_ms is None else format_ms(made.joined_ms),
            address=self._desk.told_address(made),
        )


class DoorServicer(joining_pb2_grpc.DoorServiceServicer):
    """fenhe.node.v1.DoorService."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def Begin(self, request: pb.BeginRequest, context: Context) -> pb.BeginResponse:
        """Give what is needed to stretch a code."""
        address = address_of(context.peer())
        return begun_out(await self._door.begin(request.node_id, request.nonce, address))

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        """Judge a proof and make a node."""
        return joined_out(await self._door.join(asked_in(request), address_of(context.peer())))

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:
        """Judge a child whose certificate has ended, and renew it."""
        return renewed_out(await self._door.renew(renewal_in(request)))
