"""A synchronous connection to a node with a folder of credentials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import grpc
import typer

from node.errors import SettingsError
from node.security.credentials import Credentials, load_credentials
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
    """
    if folder is None:
        raise SettingsError(
            "no credentials were named",
            hint=f"Give a folder with --as, or set {ENVIRONMENT}; `fenhe demo` prints some.",
        )
    return load_credentials(folder)


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
