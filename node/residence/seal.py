"""Grants are signed with the node's own key and proven by the chain that comes with them."""

from __future__ import annotations

from typing import Final, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hierarchy_config.model import NodeId
from node.residence.errors import GrantInvalidError
from node.residence.papers import GRANT_TAG
from node.security.errors import PeerIdentityError, SignatureInvalidError
from node.transit import KeyRing, NodeVerifier

__all__ = ["GrantSeal", "KeyedSeal"]

_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())


class GrantSeal(Protocol):
    """Signs this node's grants and proves those of others."""

    def sign(self, statement: bytes) -> tuple[bytes, bytes]:
        """The signature, and the chain that proves whose it is."""

    def prove(
        self, statement: bytes, signature: bytes, chain_pem: bytes, node: NodeId, made_ms: int
    ) -> None:
        """Raise GrantInvalidError unless that node signed exactly this, then."""


class KeyedSeal:
    """GrantSeal with the node's TLS key, which its letters are signed with too."""

    def __init__(self, keys: KeyRing, verifier: NodeVerifier) -> None:
        self._keys = keys
        self._verifier = verifier

    def sign(self, statement: bytes) -> tuple[bytes, bytes]:
        """See GrantSeal. Errors: those of the key's file."""
        own = self._keys.own()
        return own.private_key.sign(GRANT_TAG + statement, _ALGORITHM), own.chain_pem

    def prove(
        self, statement: bytes, signature: bytes, chain_pem: bytes, node: NodeId, made_ms: int
    ) -> None:
        """See GrantSeal."""
        try:
            signer = self._verifier.verify(chain_pem, node, made_ms)
            signer.verify(GRANT_TAG + statement, signature)
        except (SignatureInvalidError, PeerIdentityError) as error:
            raise GrantInvalidError(f"a grant is not proven {node}'s: {error.message}") from None
