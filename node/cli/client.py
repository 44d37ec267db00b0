"""A synchronous connection to a node with a folder of credentials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import grpc
import typer

import protos.fenhe.control.v1.people_pb2 as pb
from node.cli.session_file import KeptSession, SessionFile
from node.clock import SystemClock, parse_ms
from node.errors import SettingsError
from node.security.credentials import Credentials, expiry, load_credentials
from node.security.errors import CertificateUnusableError
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from protos.fenhe.control.v1 import people_pb2_grpc

__all__ = ["CredentialsOption", "connected", "find_credentials"]

ENVIRONMENT: Final = "FENHE_CREDENTIALS"
_RENEW_S: Final = 10

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
def connected(credentials: Credentials, *, signed_in: bool = True) -> Iterator[grpc.Channel]:
    """A channel to the node of the credentials.

    Calls on it are those of whoever has signed in with them, if somebody has; with `signed_in`
    False they are the certificate's alone.
    """
    kept = _kept_session(credentials) if signed_in else None
    with _channel(credentials, kept) as channel:
        yield channel


def _channel(credentials: Credentials, session: KeptSession | None) -> grpc.Channel:
    options = channel_options(credentials.server_name, GrpcLimits())
    secured = channel_credentials(credentials.tls)
    if session is not None:
        secured = grpc.composite_channel_credentials(
            secured, grpc.access_token_call_credentials(session.token)
        )
    return grpc.secure_channel(credentials.address, secured, options=options)


def _kept_session(credentials: Credentials) -> KeptSession | None:
    """The session that was begun with these credentials; its token renewed if it is a while old."""
    file = SessionFile(credentials)
    kept = file.load()
    if kept is None or not kept.is_to_renew(SystemClock().now_ms()):
        return kept
    # What is over is said by the call itself, which follows.
    with suppress(grpc.RpcError), _channel(credentials, kept) as channel:
        stub = people_pb2_grpc.SessionServiceStub(channel)
        said = stub.Renew(pb.RenewRequest(), timeout=_RENEW_S)
        kept = KeptSession(said.token, said.session_id, parse_ms(said.token_ends_at))
        file.save(kept)
    return kept
