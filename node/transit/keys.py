"""Keys of letters: this node's own, read from its folder, and others' chains, verified before use.

A letter is sealed to the key in the addressee's certificate and signed with the sender's; both are
the nodes' TLS keys (P-256). The own key is read again when its file has changed, so that a renewed
certificate needs no restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.security.caller import CallerKind
from node.security.certificates import (
    PrivateKey,
    PublicKey,
    certificates_from_pem,
    private_key_from_pem,
)
from node.security.errors import PeerIdentityError, SignatureInvalidError
from node.security.folders import TlsFiles
from node.security.identity import KeyJudge
from node.security.key_files import read_secret
from node.security.signatures import VerifiedPeer, verify_chain

__all__ = ["FolderKeys", "KeyRing", "NodeVerifier", "OwnKey", "key_name"]

_VERIFIED_KEPT: Final = 256
_VERIFIED_S: Final = 600


@dataclass(frozen=True, slots=True)
class OwnKey:
    """This node's key and the chain that proves whose it is."""

    private_key: PrivateKey
    chain_pem: bytes

    @property
    def key_id(self) -> str:
        """Names the key, whatever certificate it stands in."""
        return key_name(self.private_key.public_key())


class KeyRing(Protocol):
    """Gives this node's key as it is now."""

    def own(self) -> OwnKey:
        """The key in use."""


class FolderKeys:
    """The key in a node's data folder."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._held: tuple[tuple[int, int], OwnKey] | None = None

    def own(self) -> OwnKey:
        """The key as the files have it.

        Raises:
            KeyFileError, CertificateUnusableError: The files are missing or unreadable.
        """
        files = self._files
        stamp = (files.private_key.stat().st_mtime_ns, files.chain.stat().st_mtime_ns)
        held = self._held
        if held is not None and held[0] == stamp:
            return held[1]
        key = OwnKey(private_key_from_pem(read_secret(files.private_key)), files.chain.read_bytes())
        self._held = (stamp, key)
        return key


@dataclass(frozen=True, slots=True)
class _Verified:
    """A chain that led to the root at some moment."""

    at: datetime
    peer: VerifiedPeer
    chain: tuple[x509.Certificate, ...]


class NodeVerifier:
    """Verifies nodes' chains against the region's root; remembers a few for some minutes."""

    def __init__(
        self,
        root: Callable[[], bytes],
        hierarchy: Hierarchy,
        now: Callable[[], datetime],
        revoked: KeyJudge | None = None,
    ) -> None:
        """`root`: the region's root, PEM; asked for at each verification."""
        self._root = root
        self._hierarchy = hierarchy
        self._now = now
        self._revoked = revoked
        self._verified: dict[bytes, _Verified] = {}

    def verify(self, chain_pem: bytes, node_id: NodeId, made_ms: int | None = None) -> VerifiedPeer:
        """The signer of a chain, leaf first, who must be this node.

        `made_ms`: when it signed, ms since 1970 UTC: what was signed before a key was revoked
        counts. None: who is to be dealt with now.

        Raises:
            SignatureInvalidError: The chain does not lead to the root, now.
            PeerIdentityError: It is another's, or revoked.
        """
        digest = hashlib.sha256(chain_pem).digest()
        now = self._now()
        held = self._verified.get(digest)
        if held is None or not 0 <= (now - held.at).total_seconds() < _VERIFIED_S:
            peer = verify_chain(chain_pem, self._root_pem(), self._hierarchy, now)
            held = _Verified(now, peer, certificates_from_pem(chain_pem))
            if len(self._verified) >= _VERIFIED_KEPT:
                self._verified.clear()
            self._verified[digest] = held
        identity = held.peer.identity
        if identity.kind is not CallerKind.NODE or identity.node_id != node_id:
            raise PeerIdentityError(f"a chain said to be of {node_id} is another's")
        if self._revoked is not None:
            self._revoked.refuse(held.chain, made_ms)
        return held.peer

    def _root_pem(self) -> bytes:
        try:
            return self._root()
        except OSError as error:
            raise SignatureInvalidError(
                f"the region's root cannot be read: {error.strerror}"
            ) from None


def key_name(key: PublicKey) -> str:
    """SHA-256 of a public key (SubjectPublicKeyInfo, DER), hexadecimal."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
