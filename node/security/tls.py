"""The one place where gRPC servers and channels get their credentials and options.

Each option is here because something went wrong without it. There is no plaintext mode.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import grpc
import grpc.aio

from node.security.certificates import certificates_from_pem, private_key_from_pem
from node.security.errors import CertificateUnusableError, SecurityError
from node.security.folders import TlsFiles
from node.security.former import former_chains
from node.security.key_files import read_secret

__all__ = [
    "GrpcLimits",
    "Option",
    "ServerCertificates",
    "channel_credentials",
    "channel_options",
    "open_channel",
    "server_options",
]

Option = tuple[str, str | int]

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Bounds of one server or channel. `connection_age_ms_max` 0: connections may live on."""

    message_bytes_max: int = 4 * 1024 * 1024
    metadata_bytes_max: int = 16 * 1024
    concurrent_streams_max: int = 256
    connection_age_ms_max: int = 0


def server_options(limits: GrpcLimits) -> Sequence[Option]:
    """Options of every server."""
    options: list[Option] = [
        # On by default, and then a second server binds the same port without a word.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.message_bytes_max),
        ("grpc.max_send_message_length", limits.message_bytes_max),
        ("grpc.max_metadata_size", limits.metadata_bytes_max),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes_max),
        ("grpc.max_concurrent_streams", limits.concurrent_streams_max),
        # The server pings too: a village whose line went dead must not look connected.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # Allows the pings of our channels; the default would answer them with GOAWAY.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    if limits.connection_age_ms_max:
        options.append(("grpc.max_connection_age_ms", limits.connection_age_ms_max))
    return tuple(options)


def channel_options(server_name: str, limits: GrpcLimits) -> Sequence[Option]:
    """Options of every channel; `server_name` is the DNS name that the server must prove."""
    return (
        # Python clients cannot check a URI name: this stops a sibling posing as the parent.
        ("grpc.ssl_target_name_override", server_name),
        ("grpc.default_authority", server_name),
        ("grpc.max_receive_message_length", limits.message_bytes_max),
        ("grpc.max_send_message_length", limits.message_bytes_max),
        ("grpc.max_metadata_size", limits.metadata_bytes_max),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes_max),
        # Without these a line that swallows everything went unnoticed for 30 s.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A proxy named in the environment is meant for the web, not for this.
        ("grpc.enable_http_proxy", 0),
    )


class ServerCertificates:
    """Server credentials that follow the files: a renewed certificate needs no restart.

    Who asks for a name that the node had before a change of the hierarchy is shown the certificate
    of that name (SNI), so that children and people find it until they know the new one.

    gRPC asks before each handshake and keeps what it had if asking fails, silently. So failures
    are counted here, and the expiry of what is in use belongs in the metrics.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Read the files. Raises KeyFileError, CertificateUnusableError."""
        self._files = files
        self._state = self._read_state()
        self._configuration, self._not_after = self._read()
        self.failures = 0

    @property
    def not_after(self) -> datetime:
        """When the certificate that is being served ends, UTC."""
        return self._not_after

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that require a certificate of this region from every client."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._fetch,  # type: ignore[arg-type]  # the stub leaves out None, "keep it"
            require_client_authentication=True,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The new certificate if the files changed, None to keep the one in use."""
        try:
            state = self._read_state()
            if state == self._state:
                return None
            self._configuration, self._not_after = self._read()
        except (OSError, SecurityError) as error:
            self.failures += 1
            _LOG.warning("the changed certificate is not used: %s", error)
            return None
        self._state = state
        return self._configuration

    def _read_state(self) -> tuple[tuple[int, int], ...]:
        files = (self._files.chain, self._files.private_key, self._files.root)
        states = [path.stat() for path in files]
        return tuple((state.st_mtime_ns, state.st_ino) for state in states)

    def _read(self) -> tuple[grpc.ServerCertificateConfiguration, datetime]:
        key_pem = read_secret(self._files.private_key)
        chain_pem = self._files.chain.read_bytes()
        leaf = certificates_from_pem(chain_pem)[0]
        own_key = private_key_from_pem(key_pem).public_key()
        if leaf.public_key() != own_key:
            # Seen when a renewal has replaced one file and not yet the other.
            raise CertificateUnusableError(f"{self._files.chain} is of another key than its own")
        configuration = grpc.ssl_server_certificate_configuration(
            [(key_pem, pem) for pem in (chain_pem, *former_chains(self._files.chain, own_key))],
            root_certificates=self._files.root.read_bytes(),
        )
        return configuration, leaf.not_valid_after_utc


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials of a client. They stay as they are: renewal takes a new channel.

    Raises:
        KeyFileError: The key is missing or others can read it.
    """
    return grpc.ssl_channel_credentials(
        root_certificates=files.root.read_bytes(),
        private_key=read_secret(files.private_key),
        certificate_chain=files.chain.read_bytes(),
    )


def open_channel(
    address: str, server_name: str, files: TlsFiles, limits: GrpcLimits
) -> grpc.aio.Channel:
    """A channel to host:port that proves `server_name`. Connects when first used."""
    return grpc.aio.secure_channel(
        address, channel_credentials(files), options=channel_options(server_name, limits)
    )
