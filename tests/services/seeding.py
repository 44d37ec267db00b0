"""What an operator asks a running node about its recovery."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import protos.fenhe.node.v1.recovery_pb2 as pb
from hierarchy_config import NodeId
from protos.fenhe.node.v1 import recovery_pb2_grpc
from tests.services.region import Region

__all__ = ["recovering", "standing"]

ROOT: Final = Path(__file__).parents[2]
CALL_S: Final = 20


def standing(region: Region, node: NodeId) -> pb.RecoveryStandingResponse:
    """Whether it is recovering, and for whom it waits."""
    with region.open_channel(node) as channel:
        stub = recovery_pb2_grpc.RecoveryServiceStub(channel)
        answer: pb.RecoveryStandingResponse = stub.Standing(
            pb.RecoveryStandingRequest(), timeout=CALL_S
        )
    return answer


def recovering(region: Region, node: NodeId) -> bool:
    """Whether it is recovering."""
    return standing(region, node).recovering
