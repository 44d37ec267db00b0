"""Signed epochs that another node hands over: text, or an error that the node lives with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest

import protos.fenhe.node.v1.region_pb2 as pb
from node.region.errors import RegionStatementError
from node.region.wire import epochs_after


@dataclass
class Channel:
    """A channel to a node that answers everything with this."""

    answer: pb.EpochsResponse

    def unary_unary(self, *_: Any, **__: Any) -> Callable[..., Awaitable[pb.EpochsResponse]]:
        async def call(_request: Any, **_: Any) -> pb.EpochsResponse:
            return self.answer

        return call

    unary_stream = unary_unary


def fetch(*epochs: pb.SignedEpoch) -> list[dict[str, Any]]:
    """Ask that node once."""
    return asyncio.run(epochs_after(cast(Any, Channel(pb.EpochsResponse(epochs=epochs))), 1))


def test_epochs_are_told_as_text() -> None:
    """No decision is none, not an empty one."""
    told = fetch(pb.SignedEpoch(offer=b"{}", decision=b"[]"), pb.SignedEpoch(offer=b"{}"))

    assert told == [{"offer": "{}", "decision": "[]"}, {"offer": "{}", "decision": None}]


@pytest.mark.parametrize("epoch", [pb.SignedEpoch(offer=b"\xff"), pb.SignedEpoch(decision=b"\xff")])
def test_what_is_no_text_is_refused(epoch: pb.SignedEpoch) -> None:
    """A former parent may answer anything."""
    with pytest.raises(RegionStatementError):
        fetch(epoch)
