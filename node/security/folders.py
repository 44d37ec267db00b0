"""Where keys and certificates lie: in a node's data folder, and in a folder of credentials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["CredentialsFolder", "NodeFolder", "TlsFiles"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What one end of a connection needs: its chain (leaf first), its key, the region's root."""

    chain: Path
    private_key: Path
    root: Path


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """The part of a node's data folder that this room owns: keys/ and certs/."""

    path: Path

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def certs(self) -> Path:
        return self.path / "certs"

    @property
    def node_key(self) -> Path:
        """Wraps the node's data keys."""
        return self.keys / "node.key"

    @property
    def next_node_key(self) -> Path:
        """Takes the place of node.key once the data keys are wrapped with it (node/keys)."""
        return self.keys / "node.next.key"

    @property
    def blind_index_key(self) -> Path:
        return self.keys / "blind_index.key"

    @property
    def pseudonym_key(self) -> Path:
        """Counties only."""
        return self.keys / "pseudonym.key"

    @property
    def regional_index_key(self) -> Path:
        """City and counties only."""
        return self.keys / "regional_index.key"

    @property
    def authority_key(self) -> Path:
        return self.keys / "ca.key"

    @property
    def root_key(self) -> Path:
        """City only, used when the city's authority is signed; may be kept elsewhere."""
        return self.keys / "root.key"

    @property
    def authority_chain(self) -> Path:
        """The node's own authority, then its issuers up to below the root."""
        return self.certs / "ca.pem"

    @property
    def tls(self) -> TlsFiles:
        """With what the node serves, dials its parent and signs."""
        return TlsFiles(self.certs / "tls.pem", self.keys / "tls.key", self.certs / "root.pem")


@dataclass(frozen=True, slots=True)
class CredentialsFolder:
    """What a person or a program needs to call a node."""

    path: Path

    @property
    def tls(self) -> TlsFiles:
        return TlsFiles(self.path / "cert.pem", self.path / "key.pem", self.path / "root.pem")

    @property
    def description(self) -> Path:
        """Address, server name and principal."""
        return self.path / "credentials.yaml"
