"""LinkService: where children dial in."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import grpc

import protos.fenhe.replication.v1.replication_pb2 as pb
from node.links import LinkHub, ServerStream
from node.services.interceptor import current_call, short_text
from protos.fenhe.replication.v1 import replication_pb2_grpc

__all__ = ["LinkServicer"]


class LinkServicer(replication_pb2_grpc.LinkServiceServicer):
    """fenhe.replication.v1.LinkService."""

    def __init__(self, hub: LinkHub, utc: Callable[[], datetime]) -> None:
        self._hub = hub
        self._utc = utc

    async def Connect(  # type: ignore[override]  # a coroutine that reads and writes by itself
        self, request_iterator: AsyncIterator[pb.Frame], context: Any
    ) -> None:
        """Serve one child's stream; the interceptor has checked that it is a child of this node."""
        identity = current_call().identity
        left_s = (identity.not_after - self._utc()).total_seconds()
        ended = await self._hub.serve_child(identity.node_id, ServerStream(context), left_s)
        if ended.code not in _ORDERLY:
            with contextlib.suppress(grpc.aio.UsageError):
                await context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION, short_text(f"{ended.code}: {ended.reason}")
                )


_ORDERLY = frozenset({"LINK_DOWN", "GOODBYE", "STOPPING", "REPLACED", "STREAM_AGE"})
"""Ends of a stream that are no fault of the child's."""
