"""ResidenceService: moves of residents, and the proposals that late edits become."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import grpc

import protos.fenhe.empi.v1.residence_pb2 as pb
from node.clock import format_ms
from node.errors import InvalidRequestError
from node.residence.decisions import ShownProposal
from node.residence.desk import Whereabouts
from node.residence.room import ResidenceRoom
from node.services.interceptor import current_call
from protos.fenhe.empi.v1 import residence_pb2_grpc
from replication.core.model import Operation

__all__ = ["ResidenceServicer"]

_LIMIT_DEFAULT: Final = 100
_REASON_MAX: Final = 200

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


class ResidenceServicer(residence_pb2_grpc.ResidenceServiceServicer):
    """fenhe.empi.v1.ResidenceService."""

    def __init__(self, room: ResidenceRoom) -> None:
        self._room = room

    async def Move(self, request: pb.MoveRequest, context: Context) -> pb.ResidentWhereabouts:
        """Ask for a move."""
        caller = current_call().caller
        _refuse_long(request.reason)
        found = await self._room.desk.move(
            caller, request.resident_id, request.to_node, request.reason
        )
        return self._whereabouts(found)

    async def Where(self, request: pb.WhereRequest, context: Context) -> pb.ResidentWhereabouts:
        """Where somebody lives."""
        caller = current_call().caller
        return self._whereabouts(await self._room.desk.where(caller, request.resident_id))

    async def ListProposals(
        self, request: pb.ListProposalsRequest, context: Context
    ) -> pb.ListProposalsResponse:
        """What former homes edited late."""
        caller = current_call().caller
        found = await _blocking(
            lambda: self._room.proposals.listed(
                caller,
                resident_id=request.resident_id,
                state=request.state or "waiting",
                after=request.after,
                limit=request.limit or _LIMIT_DEFAULT,
            )
        )
        return pb.ListProposalsResponse(proposals=map(_proposal_out, found))

    async def DecideProposal(
        self, request: pb.DecideProposalRequest, context: Context
    ) -> pb.Proposal:
        """Accept or reject one."""
        caller = current_call().caller
        _refuse_long(request.reason)
        shown = await _blocking(
            lambda: self._room.proposals.decide(
                caller, request.proposal_id, accept=request.accept, reason=request.reason
            )
        )
        self._room.notify()
        return _proposal_out(shown)

    def _whereabouts(self, found: Whereabouts) -> pb.ResidentWhereabouts:
        return pb.ResidentWhereabouts(
            resident_id=found.resident_id,
            home_node=found.home_node,
            home_epoch=found.home_epoch,
            held_here=found.held_here,
            state=found.state,
            code=found.code,
            from_node=found.from_node,
            since=format_ms(found.since_ms) if found.since_ms else "",
            forwarding=bool(found.home_node)
            and found.home_node != self._room.node_id
            and not found.in_subtree,
        )


def _proposal_out(shown: ShownProposal) -> pb.Proposal:
    proposal = shown.proposal
    change = proposal.change
    return pb.Proposal(
        proposal_id=proposal.proposal_id,
        resident_id=change.resident_id,
        table=change.table,
        row_id=change.row_id,
        author_node=change.author_node,
        recorded_at=change.recorded_at,
        arrived_at=format_ms(proposal.arrived_at),
        state=proposal.state,
        decided_by=proposal.decided_by,
        reason=proposal.reason,
        changes=[
            pb.ProposedChange(column=name, present=present, proposed=proposed)
            for name, (present, proposed) in sorted(shown.changes.items())
        ],
        deletes=change.operation is Operation.DELETE,
    )


def _refuse_long(reason: str) -> None:
    if len(reason) > _REASON_MAX:
        raise InvalidRequestError(f"a reason has at most {_REASON_MAX} characters")


async def _blocking(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)
