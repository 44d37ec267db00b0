"""Receipts as proof: signed with the node's own key, verified against the peer's certificate."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from hierarchy_config import Hierarchy
from hierarchy_config.model import NodeId
from node.security.caller import CallerKind
from node.security.credentials import NodeCredentials
from node.security.errors import PeerIdentityError, SignatureInvalidError
from node.security.identity import KeyJudge, NameJudge
from node.security.signatures import VerifiedPeer, verify_chain
from replication.core.hashing import receipt_bytes
from replication.core.model import Cursor, Hello, Receipt

__all__ = ["ReceiptProof"]


class ReceiptProof:
    """Signs this node's receipts on one link and verifies the peer's."""

    def __init__(
        self,
        credentials: NodeCredentials,
        peer: NodeId,
        hierarchy: Hierarchy,
        now: Callable[[], datetime],
        former: NameJudge | None = None,
        revoked: KeyJudge | None = None,
    ) -> None:
        """`former` decides over certificates under a former name, `revoked` over keys."""
        self._credentials = credentials
        self._here = credentials.identity.node_id
        self._peer = peer
        self._hierarchy = hierarchy
        self._now = now
        self._former = former
        self._revoked = revoked
        self._verified: VerifiedPeer | None = None

    @property
    def certificate(self) -> bytes:
        """What the Hello carries: the chain whose key signs here."""
        return self._credentials.signer.chain_pem

    def meet(self, hello: Hello) -> None:
        """Take the peer's signing certificate from its Hello.

        Raises:
            SignatureInvalidError, PeerIdentityError: It is not the peer's.
        """
        verified = verify_chain(
            hello.signing_certificate,
            self._credentials.root_pem,
            self._hierarchy,
            self._now(),
            self._former,
            self._revoked,
        )
        identity = verified.identity
        if identity.kind is not CallerKind.NODE or identity.node_id != self._peer:
            raise PeerIdentityError(f"{self._peer} would sign with another's certificate")
        self._verified = verified

    def sign(self, cursor: Cursor) -> tuple[bytes, str]:
        """Signature and key id of a receipt for what the peer sent."""
        data = receipt_bytes(cursor, sender=self._peer, receiver=self._here)
        return self._credentials.signer.sign(data), self._credentials.signer.key_id

    def verify(self, receipt: Receipt) -> bool:
        """Whether a receipt for what this node sent is the peer's."""
        if self._verified is None:
            return False
        data = receipt_bytes(receipt.cursor, sender=self._here, receiver=self._peer)
        try:
            self._verified.verify(data, receipt.signature)
        except SignatureInvalidError:
            return False
        return True
