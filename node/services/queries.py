"""QueryService, where analysts ask, and ExecutorService, where this node's executors ask back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

import protos.fenhe.federation.v1.federation_pb2 as pb
from federation.wire import event_out, explanation_out, query_request_in
from node.errors import DeniedError
from node.questions import Questions
from node.services.interceptor import current_call
from protos.fenhe.federation.v1 import federation_pb2_grpc

__all__ = ["ExecutorServicer", "QueryServicer"]


class QueryServicer(federation_pb2_grpc.QueryServiceServicer):
    """fenhe.federation.v1.QueryService."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    async def Ask(
        self, request: pb.QueryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.QueryEvent]:
        """Ask the subtree; progress first, the answer last."""
        caller = current_call().caller
        asked = self._questions.asked_by(query_request_in(request), caller)
        events = self._questions.runner.run(asked, caller.principal, caller.organization_id)
        async for event in events:
            yield event_out(event)

    async def Explain(
        self, request: pb.QueryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.Explanation:
        """What Ask would do."""
        asked = self._questions.asked_by(query_request_in(request), current_call().caller)
        return explanation_out(self._questions.runner.explain(asked))


class ExecutorServicer(federation_pb2_grpc.ExecutorServiceServicer):
    """fenhe.federation.v1.ExecutorService."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    async def AskSite(
        self, request: pb.AskSiteRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.AskSiteResponse:
        """Pass a partial request on to a child; the certificate must be of this very question."""
        identity = current_call().identity
        if identity.name != self._questions.query_id_of(request.signed_manifest):
            raise DeniedError("this certificate was made for another question")
        answer = await self._questions.ask_child(
            request.site, request.partial_request, request.signed_manifest, request.remaining_ms
        )
        return pb.AskSiteResponse(partial_answer=answer)
