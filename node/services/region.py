"""RegionService: changes of the hierarchy, for operators of the root; epochs, for nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

import protos.fenhe.node.v1.region_pb2 as pb
from hierarchy_config import HierarchyChange, NodeId
from node.clock import format_ms
from node.errors import InvalidRequestError
from node.region.coordinator import Step, Wish
from node.region.plan import Plan, describe
from node.region.room import RegionRoom
from node.region.store import EpochRow, EpochState
from node.region.summary import progress_of, signed_by
from node.services.interceptor import current_call
from node.storage.audit import Action, Deed, Outcome
from protos.fenhe.node.v1 import region_pb2_grpc

__all__ = ["RegionServicer"]

_PAGE: Final = 20
_PAGE_MAX: Final = 200
_NOTE_MAX: Final = 200
_TEXT_MAX: Final = 2 << 20


class RegionServicer(region_pb2_grpc.RegionServiceServicer):
    """fenhe.node.v1.RegionService."""

    def __init__(self, room: RegionRoom) -> None:
        self._room = room
        self._c = room.context

    async def Plan(
        self, request: pb.PlanRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.PlanResponse:
        """What a region file would change."""
        plan = await self._room.coordinator.plan(_checked(request.region_text))
        return _plan_out(plan)

    async def Apply(
        self, request: pb.ApplyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.ApplyResponse]:
        """Put a region file in force."""
        if len(request.note) > _NOTE_MAX:
            raise InvalidRequestError(f"the note is longer than {_NOTE_MAX} characters")
        wish = Wish(
            current_call().identity.principal,
            request.request_id,
            tuple(NodeId(each) for each in request.without),
            request.purge_after_s,
            request.wait_s,
            request.note,
        )
        await self._note(Action.APPLY)
        steps = self._room.coordinator.apply(_checked(request.region_text), wish)
        async for step in steps:
            yield pb.ApplyResponse(**_step_out(step))

    async def Rollback(
        self, request: pb.RollbackRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.RollbackResponse]:
        """Go back by one epoch."""
        wish = Wish(
            current_call().identity.principal,
            request.request_id,
            tuple(NodeId(each) for each in request.without),
            request.purge_after_s,
            request.wait_s,
            "rollback",
        )
        await self._note(Action.ROLLBACK)
        async for step in self._room.coordinator.rollback(wish):
            yield pb.RollbackResponse(**_step_out(step))

    async def History(
        self, request: pb.HistoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.HistoryResponse:
        """The epochs known here, newest first."""
        rows = await self._c.blocking(self._c.epochs.all)
        size = min(request.page_size or _PAGE, _PAGE_MAX)
        newest = [row for row in reversed(rows) if not request.before or row.epoch < request.before]
        page = newest[:size]
        more = page[-1].epoch if len(newest) > size else 0
        by_epoch = {row.epoch: row for row in rows}
        summaries = await self._c.blocking(lambda: [self._summary(row, by_epoch) for row in page])
        return pb.HistoryResponse(epochs=summaries, next_before=more)

    async def Epochs(
        self, request: pb.EpochsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.EpochsResponse:
        """Signed epochs after one."""
        statements = await self._room.keeper.statements(request.after)
        return pb.EpochsResponse(
            epochs=[
                pb.SignedEpoch(
                    offer=each["offer"].encode(), decision=(each["decision"] or "").encode()
                )
                for each in statements
            ]
        )

    async def _note(self, action: Action) -> None:
        """Audit what is about to be asked of the whole region."""
        epoch = str(self._c.hierarchy.epoch)
        deed = Deed(action, "region", Outcome.DONE, 0, object_id=epoch)
        await self._c.blocking(self._c.storage.note, current_call().caller, deed)

    def _summary(self, row: EpochRow, by_epoch: dict[int, EpochRow]) -> pb.EpochSummary:
        before = by_epoch.get(int(row.progress.get("from", row.epoch - 1)))
        changes = (
            () if before is None else describe(HierarchyChange(before.hierarchy, row.hierarchy))
        )
        by, at, note = signed_by(row)
        standing = self._room.coordinator.standing if row.state is EpochState.ACTIVE else {}
        return pb.EpochSummary(
            epoch=row.epoch,
            state=row.state.value,
            by=by,
            signed_at=at,
            received_at=format_ms(row.received_ms),
            activated_at="" if row.activated_ms is None else format_ms(row.activated_ms),
            shape_digest=row.shape_digest,
            changes=[f"{each.kind} {each.node_id} {each.detail}".strip() for each in changes],
            progress=progress_of(row, standing),
            note=note,
            children_without=self._children_without(row),
        )

    def _children_without(self, row: EpochRow) -> list[str]:
        if row.state is EpochState.SUPERSEDED:
            return []
        return sorted(
            child for child, epoch in self._room.keeper.children_at.items() if epoch < row.epoch
        )


def _checked(text: str) -> str:
    if not text or len(text) > _TEXT_MAX:
        raise InvalidRequestError("region_text is empty or longer than 2 MiB")
    return text


def _step_out(step: Step) -> dict[str, Any]:
    return {"step": step.step, "epoch": step.epoch, "detail": step.detail}


def _plan_out(plan: Plan) -> pb.PlanResponse:
    return pb.PlanResponse(
        epoch_now=plan.change.old.epoch,
        epoch_next=plan.change.new.epoch,
        changes=[
            pb.PlannedChange(
                kind=each.kind,
                node_id=each.node_id,
                detail=each.detail,
                nodes_below=each.nodes_below,
                residents=None if each.census is None else each.census.residents,
                rows=None if each.census is None else each.census.rows,
                key_digest="" if each.census is None else each.census.key,
            )
            for each in plan.changes
        ],
        new_certificates=plan.change.renamed,
        purges=[
            pb.PlannedPurge(node_id=each.node_id, homes=each.homes, rows=each.rows)
            for each in plan.purges
        ],
        away=plan.away,
        blocks=plan.blocks,
        notes=plan.notes,
    )
