"""ResidentService and RecordService: a clinic's system writes and reads here.

Owns the order of a write: watermark, size, form, storage, pulse. A bundle with a fault is refused
whole, with the fault of each row; nothing of it is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

import grpc

import protos.fenhe.care.v1.care_pb2 as care
import protos.fenhe.empi.v1.empi_pb2 as empi
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock, today
from node.errors import DiskFullError, InvalidRequestError, NotFoundError
from node.records.checks import Fault, check_bundle
from node.records.model import Bundle
from node.records.normalise import normalise_bundle
from node.services.bundle_writes import BundleWrites, Gathered
from node.services.interceptor import current_call
from node.services.point_reads import PointReads
from node.services.where_wire import where_out
from node.services.wire import bundle_in, faults_out, record_out, resident_in, resident_out
from node.storage import Storage
from node.storage.model import BundleResult, Page
from node.transit.where import Wherever
from protos.fenhe.care.v1 import care_pb2_grpc
from protos.fenhe.empi.v1 import empi_pb2_grpc

__all__ = [
    "BUNDLE_BYTES_MAX",
    "BundleRefusedError",
    "CareDesk",
    "RecordServicer",
    "ResidentServicer",
]

BUNDLE_BYTES_MAX: Final = 1024 * 1024
PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 500


class BundleRefusedError(InvalidRequestError):
    """A bundle has faults; `wire_details` carries each with its place. Nothing was stored."""

    code = "BUNDLE_REFUSED"
    default_hint = "Correct the rows named and send the bundle again with the same request_id."

    def __init__(self, faults: list[Fault]) -> None:
        first = "; ".join(f"{f.field}: {f.code}: {f.expected}" for f in faults[:5])
        super().__init__(f"{len(faults)} fault(s): {first}")
        self.wire_details = faults_out(faults)


@dataclass(frozen=True)
class CareDesk:
    """What both services share: the way of a bundle into the store and of a read out of it."""

    node_id: NodeId
    hierarchy: Hierarchy
    storage: Storage
    threads: Executor
    clock: Clock
    disk_is_full: Callable[[], bool]
    reads: PointReads
    writes: BundleWrites

    async def put(self, read: Callable[[], Bundle], size: int) -> BundleResult:
        """Read, check and store a bundle of so many bytes; returns once it is durable.

        A thousand rows take a while: all of it happens in a thread, where it holds up nobody.
        """
        if self.disk_is_full():
            raise DiskFullError("free space is below this node's watermark; nothing was stored")
        if size > BUNDLE_BYTES_MAX:
            raise BundleRefusedError(
                [Fault("bundle", "BUNDLE_TOO_LARGE", f"at most {BUNDLE_BYTES_MAX} bytes")]
            )
        caller = current_call().caller
        return await self.writes.put(Gathered(caller, lambda: self._checked(read), size))

    def _checked(self, read: Callable[[], Bundle]) -> Bundle:
        clean = normalise_bundle(read())
        faults = check_bundle(
            clean, hierarchy=self.hierarchy, node_id=self.node_id, today=today(self.clock)
        )
        if faults:
            raise BundleRefusedError(faults)
        return clean

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run blocking work in the node's database threads."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work, *args)


class ResidentServicer(empi_pb2_grpc.ResidentServiceServicer):
    """fenhe.empi.v1.ResidentService."""

    def __init__(self, desk: CareDesk) -> None:
        self._desk = desk

    async def Register(
        self, request: empi.RegisterRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> empi.RegisterResponse:
        """Register residents whose home is this node."""

        def read() -> Bundle:
            return Bundle(request.request_id, residents=tuple(map(resident_in, request.residents)))

        result = await self._desk.put(read, request.ByteSize())
        return empi.RegisterResponse(
            resident_ids=result.resident_ids, repeated_request=result.repeated
        )

    async def Get(  # type: ignore[override]  # registration.py passes its bytes through
        self, request: empi.GetResidentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        """One resident, if the caller may see him, as the bytes of an empi.Resident."""
        caller = current_call().caller
        found = await self._desk.reads.resident(caller, request.resident_id)
        if found is None:
            await self._desk.run(self._desk.storage.refuse_if_moved, caller, request.resident_id)
            raise NotFoundError("no such resident here")
        return found

    async def Find(
        self, request: empi.FindResidentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> empi.FindResidentResponse:
        """The resident who carries an identifier."""
        desk = self._desk
        identifier = request.identifier
        if not identifier.system or not identifier.value:
            raise InvalidRequestError("identifier.system and identifier.value are required")
        caller = current_call().caller
        found = await desk.run(
            desk.storage.find_resident, caller, identifier.system, identifier.value
        )
        resident = None if found is None else resident_out(found)
        return empi.FindResidentResponse(resident=resident)


class RecordServicer(care_pb2_grpc.RecordServiceServicer):
    """fenhe.care.v1.RecordService."""

    def __init__(self, desk: CareDesk, where: Wherever) -> None:
        self._desk = desk
        self._where = where

    async def PutBundle(
        self, request: care.PutBundleRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> care.PutBundleResponse:
        """Store a bundle, whole or not at all."""
        result = await self._desk.put(lambda: bundle_in(request), request.ByteSize())
        return care.PutBundleResponse(
            resident_ids=result.resident_ids,
            record_ids=result.record_ids,
            acknowledged=result.acknowledged,
            repeated_request=result.repeated,
        )

    async def Get(
        self, request: care.GetRecordRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> care.Record:
        """One record, if the caller may see it."""
        desk = self._desk
        caller = current_call().caller
        found = await desk.run(desk.storage.record, caller, request.record_id)
        if found is None:
            raise NotFoundError("no such record here")
        return record_out(found)

    async def Timeline(
        self, request: care.TimelineRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> care.TimelineResponse:
        """A resident's records, newest first."""
        desk = self._desk
        size = request.page.size or PAGE_DEFAULT
        if size > PAGE_MAX:
            raise InvalidRequestError(f"page.size may be at most {PAGE_MAX}")
        caller = current_call().caller

        def read() -> Page:
            return desk.storage.timeline(
                caller, request.resident_id, size=size, token=request.page.token
            )

        page = await desk.run(read)
        if not page.records and not request.page.token:
            await desk.run(desk.storage.refuse_if_moved, caller, request.resident_id)
        return care.TimelineResponse(
            records=[record_out(record) for record in page.records], next_token=page.next_token
        )

    async def Where(
        self, request: care.WhereRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> care.WhereResponse:
        """Where a record is: each node of its way, as far as links reach."""
        found = await self._where.record(current_call().caller, request.record_id)
        if found is None:
            raise NotFoundError("no such record here")
        return where_out(found)
