"""Credentials for those who call a node, issued beside its data folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from hierarchy_config import Hierarchy, NodeId, load_region
from hierarchy_config.directory import split_endpoint
from node.clock import Clock, format_ms
from node.errors import SettingsError
from node.opening import database_url
from node.revocation.book import RevokedBook
from node.revocation.store import load_entries
from node.security.caller import CallerKind
from node.security.credentials import Credentials, issue_credentials
from node.security.errors import PeerRevokedError
from node.security.principal import Principal
from node.settings import NodePaths, NodeSettings, load_settings
from node.storage import EngineLimits, open_engine
from node.storage.tables import REVOCATION
from node.whereabouts import public_address

__all__ = ["credentials_of"]


def credentials_of(
    data_dir: Path,
    kind: CallerKind,
    name: str,
    out_dir: Path,
    *,
    clock: Clock,
    days: int,
    address: str | None = None,
) -> Credentials:
    """Issue credentials for a node made here; it need not run.

    Args:
        data_dir: The node's data folder.
        kind: Client, staff, analyst or operator.
        name: Who it is, as a label: it stands in the certificate and in the audit.
        out_dir: Folder to write; one that holds credentials is left alone.
        clock: Decides when they begin.
        days: How long they hold, at most as long as the node's own authority.
        address: Where the node is called, host:port; None: where it listens.

    Raises:
        SettingsError: The folder holds no node, nobody can tell its address, or its database does
            not answer.
        PeerIdentityError: The name is not one.
        PeerRevokedError: Whoever has this name is revoked, and would be refused.
        KeyFileExistsError: `out_dir` holds credentials already.
    """
    settings = load_settings(data_dir)
    hierarchy = load_region(data_dir / settings.region)
    named = Principal(hierarchy.region, NodeId(settings.node_id), kind, name)
    _refuse_revoked(database_url(settings.database, data_dir), hierarchy, named)
    return issue_credentials(
        data_dir,
        kind,
        name,
        out_dir,
        address=address or _address(NodePaths(data_dir), settings, hierarchy),
        server_name=hierarchy.dns_name(NodeId(settings.node_id)),
        now=datetime.fromtimestamp(clock.now_ms() / 1000, UTC),
        lifetime=timedelta(days=days),
    )


def _refuse_revoked(url: str, hierarchy: Hierarchy, named: Principal) -> None:
    """Refuse a name that the node's store knows to be revoked; a node that never ran has no store.

    Raises:
        PeerRevokedError: It is revoked.
        SettingsError: The store cannot be asked.
        StorageError: The store is none that this program opens.
    """
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).exists():
        return
    try:
        engine = open_engine(url, EngineLimits(connections=1))
        try:
            known = inspect(engine).has_table(REVOCATION.revocations.name)
            entries = load_entries(engine) if known else ()
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        raise SettingsError(
            f"nobody can tell whether {named.spiffe_id} is revoked: {type(error).__name__}",
            hint="Start the node's database, then issue the credentials again.",
        ) from None
    entry = RevokedBook(hierarchy, entries).principal_entry(named.spiffe_id)
    if entry is not None:
        raise PeerRevokedError(
            f"{named.spiffe_id} is revoked since {format_ms(entry.word.at_ms)}",
            hint="A name is revoked for good: choose another one.",
        )


def _address(paths: NodePaths, settings: NodeSettings, hierarchy: Hierarchy) -> str:
    """Where the running node says it is; else as its settings and the region file have it."""
    try:
        said = str(json.loads(paths.run.read_text(encoding="utf-8"))["listen"])
    except (OSError, ValueError, KeyError):
        said = settings.listen
    address = public_address(said, hierarchy, NodeId(settings.node_id))
    if address is None or split_endpoint(address)[1] == 0:
        raise SettingsError(
            f"{said} does not say where {settings.node_id} is called",
            hint="Give the address with --address HOST:PORT.",
        )
    return address
