"""The two ends of the gRPC stream as a FrameStream.

grpc.aio answers read() with EOF at the end and with None for a message it cannot decode; the two
are told apart here, because the second is the peer's fault and not the end.
"""

from __future__ import annotations

from typing import Any, Final

import grpc

from hierarchy_config.errors import FenheError
from node.security.errors import PeerIdentityError
from protos.fenhe.replication.v1 import replication_pb2_grpc
from replication.channel import LinkDownError
from replication.core.model import Frame
from replication.errors import RemoteProtocolError
from replication.wire import decode_frame, encode_frame

__all__ = ["ClientStream", "ServerStream", "describe", "dial"]


_UNPROVEN: Final = ("Hostname Verification Check failed", "CERTIFICATE_VERIFY_FAILED")
"""How gRPC says that the other end's certificate has another name, or is of another root."""


def dial(channel: grpc.aio.Channel) -> Any:
    """The call by which a child opens its stream over a channel to its parent."""
    return replication_pb2_grpc.LinkServiceStub(channel).Connect()


class ServerStream:
    """The parent's end."""

    def __init__(self, context: Any) -> None:
        self._context = context

    async def read(self) -> Frame | None:
        """The next frame; None at the end."""
        return _frame(await self._context.read())

    async def write(self, frame: Frame) -> None:
        """Send one frame."""
        try:
            await self._context.write(encode_frame(frame))
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, grpc.aio.UsageError) as error:
            raise LinkDownError("the child's stream is gone") from error


class ClientStream:
    """The child's end."""

    def __init__(self, call: Any, parent: str) -> None:
        self._call = call
        self._parent = parent

    async def read(self) -> Frame | None:
        """The next frame; None at the end."""
        try:
            return _frame(await self._call.read())
        except grpc.aio.AioRpcError as error:
            raise _why(error, self._parent) from error

    async def write(self, frame: Frame) -> None:
        """Send one frame."""
        try:
            await self._call.write(encode_frame(frame))
        except grpc.aio.AioRpcError as error:
            raise _why(error, self._parent) from error
        except (grpc.aio.UsageError, TimeoutError) as error:
            raise LinkDownError("stream is gone") from error


def _why(error: grpc.aio.AioRpcError, parent: str) -> FenheError:
    """What ended the stream: most often the way there, sometimes who stands at its end."""
    text = describe(error)
    if any(word in (error.details() or "") for word in _UNPROVEN):
        return PeerIdentityError(
            f"who answers at the address of {parent} does not prove to be {parent}: {text}",
            hint="Compare parent_endpoint in node.yaml with the address of the parent.",
        )
    return LinkDownError(text)


def describe(error: grpc.aio.AioRpcError) -> str:
    """One line for an operator: the status and the first sentence of its detail."""
    detail = (error.details() or "").split("\n", 1)[0][:200]
    return f"{error.code().name}: {detail}"


def _frame(message: Any) -> Frame | None:
    if message is grpc.aio.EOF:
        return None
    if message is None:
        raise RemoteProtocolError("a frame could not be decoded")
    return decode_frame(message)
