"""BundleService: bundles for sticks, out of this node and into it, while it runs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import grpc

import protos.fenhe.node.v1.bundles_pb2 as pb
from hierarchy_config.model import NodeId
from node.security.caller import Caller
from node.services.interceptor import current_call
from node.stick.errors import StickFileError
from node.stick.room import StickRoom, Taken
from node.storage.audit import Action, Deed, Outcome
from protos.fenhe.common.v1 import common_pb2
from protos.fenhe.node.v1 import bundles_pb2_grpc

__all__ = ["BundleServicer"]

PIECE_BYTES: Final = 1 << 20

Note = Callable[[Caller, Deed], None]
Context = grpc.aio.ServicerContext[Any, Any]


class BundleServicer(bundles_pb2_grpc.BundleServiceServicer):
    """fenhe.node.v1.BundleService."""

    def __init__(self, stick: StickRoom, note: Note) -> None:
        """`note` audits a deed before it is done; it blocks."""
        self._stick = stick
        self._note = note

    async def Export(
        self, request: pb.ExportBundleRequest, context: Context
    ) -> AsyncIterator[pb.BundlePiece]:
        """A bundle of everything that a neighbour has not confirmed."""
        await self._audit(Action.EXPORT, request.peer)
        made = await asyncio.to_thread(self._stick.export, NodeId(request.peer), request.bytes_max)
        pieces = _cut(made)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield pb.BundlePiece(data=piece)

    async def Import(
        self, request_iterator: AsyncIterator[pb.BundlePiece], context: Context
    ) -> pb.ImportBundleResponse:
        """Apply a bundle, or take its receipts."""
        with tempfile.NamedTemporaryFile(dir=self._stick.folder, prefix="bundle-") as file:
            async for piece in request_iterator:
                if len(piece.data) > PIECE_BYTES:
                    raise StickFileError("a piece of the file is larger than 1 MiB")
                await asyncio.to_thread(file.write, piece.data)
            await asyncio.to_thread(file.flush)
            await self._audit(Action.IMPORT, "")
            return _out(await asyncio.to_thread(self._stick.take, Path(file.name)))

    async def _audit(self, action: Action, peer: str) -> None:
        known = peer if peer in self._stick.neighbours else None
        deed = Deed(action, "bundle", Outcome.DONE, 0, object_id=known)
        await asyncio.to_thread(self._note, current_call().caller, deed)


def _cut(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A batch may be larger than a message of this node."""
    for piece in pieces:
        for start in range(0, len(piece), PIECE_BYTES):
            yield piece[start : start + PIECE_BYTES]


def _out(taken: Taken) -> pb.ImportBundleResponse:
    return pb.ImportBundleResponse(
        kind=taken.kind,
        peer=taken.imported.peer,
        lanes=[
            pb.ImportedLane(
                lane=cast(common_pb2.Lane.ValueType, lane.lane.value),
                applied=lane.applied,
                repeated=lane.repeated,
                refused=lane.refused,
                next_step=lane.next_step,
                covers_to=lane.covers_to,
            )
            for lane in taken.imported.lanes
        ],
        receipts=taken.receipts,
    )
