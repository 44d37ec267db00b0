"""RevocationService: revoking nodes and callers, for operators."""

from __future__ import annotations

from typing import Any, Final

import grpc

import protos.fenhe.node.v1.revocation_pb2 as pb
from node.clock import format_ms
from node.revocation.desk import RevokeDesk, Wish
from node.revocation.entries import Entry
from node.services.interceptor import current_call
from protos.fenhe.node.v1 import revocation_pb2_grpc

__all__ = ["RevocationServicer"]

_PAGE: Final = 50
_PAGE_MAX: Final = 200

Context = grpc.aio.ServicerContext[Any, Any]


class RevocationServicer(revocation_pb2_grpc.RevocationServiceServicer):
    """fenhe.node.v1.RevocationService."""

    def __init__(self, desk: RevokeDesk) -> None:
        self._desk = desk

    async def Revoke(self, request: pb.RevokeRequest, context: Context) -> pb.RevokeResponse:
        """Revoke a node or a caller."""
        wish = Wish(request.reason, request.node_id, request.caller, request.key)
        made = await self._desk.revoke(current_call().caller, wish)
        return pb.RevokeResponse(revocation=self._out(made.entry), repeated=made.repeated)

    async def ListRevoked(
        self, request: pb.ListRevokedRequest, context: Context
    ) -> pb.ListRevokedResponse:
        """What is revoked."""
        size = min(request.page_size or _PAGE, _PAGE_MAX)
        found = self._desk.page(request.after, size + 1)
        return pb.ListRevokedResponse(
            revocations=[self._out(each) for each in found[:size]],
            next_after=found[size - 1].digest if len(found) > size else "",
        )

    def _out(self, entry: Entry) -> pb.Revocation:
        word = entry.word
        return pb.Revocation(
            digest=entry.digest,
            signer=word.signer,
            number=word.number,
            target=word.target.value,
            node_id=word.node_id,
            keys=word.keys,
            principals=word.principals,
            issued_before=format_ms(word.issued_before_ms) if word.issued_before_ms else "",
            reason=word.reason,
            by=word.by,
            at=format_ms(word.at_ms),
            in_effect=self._desk.counts(entry),
        )
