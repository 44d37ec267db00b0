"""Asking a node for the region's signed epochs. The generated types stop here."""

from __future__ import annotations

from typing import Any, Final

import grpc

from node.region.errors import RegionStatementError
from protos.fenhe.node.v1 import region_pb2, region_pb2_grpc

__all__ = ["epochs_after"]

_CALL_S: Final = 5.0


async def epochs_after(channel: grpc.aio.Channel, epoch: int) -> list[dict[str, Any]]:
    """Offers and decisions after an epoch, as the node at the other end knows them.

    Raises:
        grpc.aio.AioRpcError: It does not answer, or not this node.
        RegionStatementError: What it answers is no text.
    """
    stub = region_pb2_grpc.RegionServiceStub(channel)
    answer = await stub.Epochs(region_pb2.EpochsRequest(after=epoch), timeout=_CALL_S)
    try:
        return [
            {"offer": each.offer.decode(), "decision": each.decision.decode() or None}
            for each in answer.epochs
        ]
    except UnicodeDecodeError:
        raise RegionStatementError("signed epochs cannot be read") from None
