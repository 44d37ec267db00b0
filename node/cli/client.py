"""A synchronous connection to a node with a folder of credentials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import grpc
import typer

from node.clock import SystemClock
from node.errors import SettingsError
from node.security.credentials import Credentials, expiry, load_credentials
from node.security.errors import CertificateUnusableError
from node.security.tls import GrpcLimits, channel_credentials, channel_options

__all__ = ["CredentialsOption", "connected", "find_credentials"]

ENVIRONMENT: Final = "FENHE_CREDENTIALS"

CredentialsOption = Annotated[
    Path | None,
    typer.Option(
        "--as",
        envvar=ENVIRONMENT,
        help="Folder of credentials: who asks, and which node is asked.",
        show_default=False,
    ),
]


def find_credentials(folder: Path | None) -> Credentials:
    """The credentials of a folder.

    Raises:
        SettingsError: None was named.
        CertificateUnusableError: They are not whole, or have expired.
    """
    if folder is None:
        raise SettingsError(
            "no credentials were named",
            hint=f"Give a folder with --as, or set {ENVIRONMENT}; `fenhe demo` prints some.",
        )
    credentials = load_credentials(folder)
    expired_on = expiry(credentials)
    if expired_on < datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC):
        # TLS would only say that the handshake failed.
        raise CertificateUnusableError(
            f"the credentials in {folder} expired on {expired_on:%Y-%m-%d}",
            hint="Issue new ones into another folder at the node: `fenhe node credentials`.",
        )
    return credentials


@contextmanager
def connected(credentials: Credentials) -> Iterator[grpc.Channel]:
    """A channel to the node of the credentials."""
    limits = GrpcLimits()
    with grpc.secure_channel(
        credentials.address,
        channel_credentials(credentials.tls),
        options=channel_options(credentials.server_name, limits),
    ) as channel:
        yield channel
