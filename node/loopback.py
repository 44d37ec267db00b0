"""Query-scoped certificates with which this node's own executors reach its loopback service."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from federation.ray_runner import Loopback
from hierarchy_config import Hierarchy, NodeId
from node.security.authority import load_authority
from node.security.caller import CallerKind
from node.security.certificates import (
    Validity,
    certificates_to_pem,
    new_private_key,
    private_key_to_pem,
    sign_leaf,
)
from node.security.folders import NodeFolder
from node.security.principal import Principal

__all__ = ["ExecutorCertificates"]

_SPARE: Final = timedelta(seconds=30)


class ExecutorCertificates:
    """Implements federation.ray_runner's LoopbackIssuer; nothing is written to disk."""

    def __init__(
        self,
        data_dir: Path,
        node_id: NodeId,
        hierarchy: Hierarchy,
        *,
        address: Callable[[], str],
        utc: Callable[[], datetime],
    ) -> None:
        """`address` is host:port of this node's own server, known once it serves."""
        self._data_dir = data_dir
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._address = address
        self._utc = utc

    def __call__(self, query_id: str, lifetime_ms: int) -> Loopback:
        """A key and certificate that hold for one question, and not much longer than it."""
        authority = load_authority(self._data_dir)
        dns_name = self._hierarchy.dns_name(self._node_id)
        key = new_private_key()
        leaf = sign_leaf(
            authority,
            Principal(self._hierarchy.region, self._node_id, CallerKind.EXECUTOR, query_id),
            dns_name,
            key.public_key(),
            Validity.starting(self._utc(), timedelta(milliseconds=lifetime_ms) + _SPARE),
        )
        return Loopback(
            address=self._address(),
            server_name=dns_name,
            root_pem=NodeFolder(self._data_dir).tls.root.read_bytes(),
            certificate_pem=certificates_to_pem((leaf, *authority.chain)),
            key_pem=private_key_to_pem(key),
        )
