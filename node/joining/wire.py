"""The door's messages as protobuf, and a child's line to a door. Nothing else here knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from cryptography import x509

import protos.fenhe.node.v1.joining_pb2 as pb
from hierarchy_config.directory import split_endpoint
from node.joining.errors import DoorUnreachableError
from node.joining.knocks import Opened
from node.joining.model import Begun, JoinAsked, Joined
from node.joining.proof import StretchCost
from node.renewing.proof import RenewAsked, Renewed
from node.security.door_tls import DOOR_NAME, door_channel, read_door_certificate
from protos.fenhe.node.v1 import joining_pb2_grpc

__all__ = [
    "GrpcDoor",
    "asked_in",
    "begun_out",
    "joined_out",
    "open_door",
    "renewal_in",
    "renewed_out",
]

_CONNECT_S: Final = 10.0
_BEGIN_S: Final = 15.0
_JOIN_S: Final = 45.0
# A door answers every call with a code of ours; these mean that no door was reached.
_NOT_REACHED: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


def begun_out(opened: Opened) -> pb.BeginResponse:
    """What the parent says first."""
    cost = opened.cost
    return pb.BeginResponse(
        salt=opened.salt,
        memory_kib=cost.memory_kib,
        passes=cost.passes,
        lanes=cost.lanes,
        nonce=opened.parent_nonce,
    )


def asked_in(request: pb.JoinRequest) -> JoinAsked:
    """What a child asks; nothing is checked yet."""
    return JoinAsked(
        request.node_id,
        request.nonce,
        request.tls_request,
        request.authority_request,
        request.proof,
        request.possession,
    )


def joined_out(joined: Joined) -> pb.JoinResponse:
    """The answer."""
    return pb.JoinResponse(answer=joined.answer, proof=joined.proof)


def renewal_in(request: pb.RenewRequest) -> RenewAsked:
    """What a child asks whose certificate has ended; nothing is checked yet."""
    return RenewAsked(
        request.node_id,
        request.nonce,
        request.tls_request,
        request.authority_request,
        request.tls_chain,
        request.authority_chain,
        request.signature,
    )


def renewed_out(renewed: Renewed) -> pb.RenewResponse:
    """The answer to it."""
    return pb.RenewResponse(answer=renewed.answer, chain=renewed.chain, signature=renewed.signature)


class GrpcDoor:
    """An open line to a door."""

    def __init__(self, channel: grpc.Channel, certificate: bytes, address: str) -> None:
        self.certificate = certificate
        self._address = address
        self._stub = joining_pb2_grpc.DoorServiceStub(channel)

    def begin(self, node_id: str, nonce: bytes) -> Begun:
        """Ask for the salt. Raises DoorUnreachableError, grpc.RpcError: what the door says."""
        said = self._call(self._stub.Begin, pb.BeginRequest(node_id=node_id, nonce=nonce), _BEGIN_S)
        return Begun(said.salt, StretchCost(said.memory_kib, said.passes, said.lanes), said.nonce)

    def join(self, asked: JoinAsked) -> Joined:
        """Hand in the proof. Raises DoorUnreachableError, grpc.RpcError: what the door says."""
        request = pb.JoinRequest(
            node_id=asked.node_id,
            nonce=asked.parent_nonce,
            tls_request=asked.tls_request,
            authority_request=asked.authority_request,
            proof=asked.proof,
            possession=asked.possession,
        )
        said = self._call(self._stub.Join, request, _JOIN_S)
        return Joined(said.answer, said.proof)

    def renew(self, asked: RenewAsked) -> Renewed:
        """Ask for renewal. Raises DoorUnreachableError, grpc.RpcError: what the door says."""
        request = pb.RenewRequest(
            node_id=asked.node_id,
            nonce=asked.parent_nonce,
            tls_request=asked.tls_request,
            authority_request=asked.authority_request,
            tls_chain=asked.tls_chain,
            authority_chain=asked.authority_chain,
            signature=asked.signature,
        )
        said = self._call(self._stub.Renew, request, _BEGIN_S)
        return Renewed(said.answer, said.chain, said.signature)

    def _call(self, method: Callable[..., Any], request: Any, timeout_s: float) -> Any:
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            status = getattr(error, "code", lambda: None)()
            named = getattr(error, "trailing_metadata", lambda: ())() or ()
            if status in _NOT_REACHED and not any(key == "fenhe-code" for key, _ in named):
                raise DoorUnreachableError(f"no door answers at {self._address}") from error
            raise


@contextmanager
def open_door(address: str) -> Iterator[GrpcDoor]:
    """A line to the door at host:port, to whoever shows a certificate there.

    Raises:
        DoorUnreachableError: Nobody answers, or it is no door.
    """
    host, port = split_endpoint(address)
    try:
        certificate = read_door_certificate(host, port, _CONNECT_S)
    except OSError as error:
        raise DoorUnreachableError(
            f"no door answers at {address}: {error.strerror or error}"
        ) from error
    _refuse_other(certificate, address)
    with door_channel(address, certificate) as channel:
        yield GrpcDoor(channel, certificate, address)


def _refuse_other(certificate: bytes, address: str) -> None:
    """Say early that this is another server: mostly the node's own port instead of the door's."""
    try:
        names = x509.load_der_x509_certificate(certificate).extensions
        said = names.get_extension_for_class(x509.SubjectAlternativeName).value
        found = said.get_values_for_type(x509.DNSName)
    except (ValueError, x509.InvalidVersion, x509.ExtensionNotFound):
        found = []
    if found != [DOOR_NAME]:
        raise DoorUnreachableError(f"what answers at {address} is a server, but no door")
