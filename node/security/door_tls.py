"""TLS of the side door: a certificate that signs itself, and a channel to exactly that certificate.

Whoever comes to the door has no root of the region yet, and may have no valid certificate, so the
door asks for none. TLS keeps what is said from listeners; it proves nobody. What is said proves
itself, and names the certificate that was seen (node/joining/proof.py), so that a relay is found.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node.security.certificates import new_private_key, private_key_to_pem
from node.security.tls import GrpcLimits, Option, channel_options, server_options

__all__ = [
    "DOOR_NAME",
    "DoorCertificate",
    "door_channel",
    "door_credentials",
    "door_options",
    "make_door_certificate",
    "read_door_certificate",
]

DOOR_NAME: Final = "door.fenhe"
"""The DNS name of every door: it is no node's, so that no door is ever taken for a node."""

_LIMITS: Final = GrpcLimits(
    message_bytes_max=64 * 1024, concurrent_streams_max=8, connection_age_ms_max=60_000
)
_ANSWER_BYTES_MAX: Final = 16 << 20
# The clock of whoever comes may be wrong by years; that is not for TLS to find.
_FROM: Final = datetime(1970, 1, 2, tzinfo=UTC)
_UNTIL: Final = datetime(2199, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DoorCertificate:
    """A door's key (PEM) and certificate (DER), made anew at each start."""

    private_key_pem: bytes
    certificate: bytes


def make_door_certificate() -> DoorCertificate:
    """A new key with a certificate signed by itself, which can sign no other."""
    key = new_private_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Fenhe door")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(DOOR_NAME)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return DoorCertificate(private_key_to_pem(key), certificate.public_bytes(Encoding.DER))


def door_credentials(made: DoorCertificate) -> grpc.ServerCredentials:
    """Server credentials that ask for no certificate: TLS all the same."""
    return grpc.ssl_server_credentials([(made.private_key_pem, _pem(made.certificate))])


def door_options() -> tuple[Option, ...]:
    """Options of the door's server: small messages in, few streams, no connection for ever."""
    sending = "grpc.max_send_message_length"
    options = [each for each in server_options(_LIMITS) if each[0] != sending]
    return (*options, (sending, _ANSWER_BYTES_MAX))


def read_door_certificate(host: str, port: int, timeout_s: float) -> bytes:
    """The certificate (DER) that a door shows. Nothing is believed of it.

    Raises:
        OSError: Nobody answers there, or not with TLS.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, port), timeout_s) as line,
        context.wrap_socket(line, server_hostname=DOOR_NAME) as tls,
    ):
        found = tls.getpeercert(binary_form=True)
    if not found:
        raise ssl.SSLError("the other end shows no certificate")
    return found


def door_channel(address: str, certificate: bytes) -> grpc.Channel:
    """A channel that speaks with the holder of this certificate (DER) and nobody else."""
    limits = GrpcLimits(message_bytes_max=_ANSWER_BYTES_MAX)
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(root_certificates=_pem(certificate)),
        options=channel_options(DOOR_NAME, limits),
    )


def _pem(certificate: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")
