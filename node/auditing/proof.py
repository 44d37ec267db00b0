"""Signs this node's heads and anchors, and verifies those of neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from sqlalchemy import Connection

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.auditing.anchors import AnchorStore
from node.auditing.errors import AuditSignerUnknownError, AuditStatementError
from node.auditing.model import KeptAnchor, Signed
from node.auditing.statements import ANCHOR_TAG, HEAD_TAG
from node.security.caller import CallerKind
from node.security.certificates import certificates_from_pem
from node.security.credentials import NodeCredentials
from node.security.errors import (
    CertificateUnusableError,
    PeerIdentityError,
    PeerRevokedError,
    SignatureInvalidError,
)
from node.security.identity import KeyJudge, NameJudge
from node.security.signatures import VerifiedPeer, verify_chain

__all__ = ["AuditProof"]

_KNOWN_MAX = 4096


@dataclass(frozen=True, slots=True)
class _Known:
    """A signer whose chain holds; whether it is revoked is asked each time."""

    peer: VerifiedPeer
    chain: Sequence[x509.Certificate]


class AuditProof:
    """The node's key, and the chains of those who sign for it."""

    def __init__(
        self,
        credentials: NodeCredentials,
        hierarchy: Hierarchy,
        utc: Callable[[], datetime],
        former: NameJudge | None = None,
        revoked: KeyJudge | None = None,
    ) -> None:
        """`former` decides over names of a former hierarchy, `revoked` over keys."""
        self._credentials = credentials
        self._hierarchy = hierarchy
        self._utc = utc
        self._former = former
        self._revoked = revoked
        self._known: dict[tuple[str, str], _Known] = {}

    @property
    def chain_pem(self) -> bytes:
        """The chain of this node's certificate."""
        return self._credentials.signer.chain_pem

    @property
    def key_id(self) -> str:
        """Digest of this node's certificate."""
        return self._credentials.signer.key_id

    def sign(self, tag: bytes, statement: bytes) -> Signed:
        """A statement with this node's signature."""
        return Signed(statement, self._credentials.signer.sign(tag + statement), self.key_id)

    def meet(self, whose: NodeId, key_id: str, chain: bytes) -> None:
        """Take a neighbour's chain in: it must hold now, and be the neighbour's.

        Raises:
            AuditStatementError: It does not, or is not.
        """
        self._verified(whose, key_id, chain, self._utc())
        self._refuse_revoked(whose, key_id, None)

    def knows(self, whose: NodeId, key_id: str) -> bool:
        """Whether a certificate was taken in before in this life of the process."""
        return (whose, key_id) in self._known

    def verify(self, whose: NodeId, tag: bytes, signed: Signed, made_ms: int | None = None) -> None:
        """Verify a statement of a neighbour whose chain was taken in.

        `made_ms`: when it was anchored; None: now. A key that was revoked by then proves nothing,
        whatever was known of it when the chain was taken in.

        Raises:
            AuditStatementError: The signature is not the neighbour's, or its key is revoked.
        """
        self._refuse_revoked(whose, signed.key_id, made_ms)
        try:
            self._known[whose, signed.key_id].peer.verify(tag + signed.statement, signed.signature)
        except KeyError:
            raise AuditSignerUnknownError(f"the certificate of {whose} is not known here") from None
        except SignatureInvalidError as error:
            raise AuditStatementError(error.message) from None

    def verify_kept(self, connection: Connection, store: AnchorStore, kept: KeptAnchor) -> None:
        """Verify both signatures of an anchor that may be years old.

        A certificate counts at the time of the anchor, cut to its own life: what is asked is
        whether the holder's key signed, and that it was the holder's.

        Raises:
            AuditSignerUnknownError: The certificate of one is not known, or does not hold.
            AuditStatementError: One of them does not hold.
        """
        at = datetime.fromtimestamp(min(kept.anchor.at_ms, 253_402_300_799_000) / 1000, UTC)
        for whose, tag, signed in (
            (kept.head.node_id, HEAD_TAG, kept.head_signed),
            (kept.anchor.holder, ANCHOR_TAG, kept.anchor_signed),
        ):
            if not self.knows(whose, signed.key_id):
                chain = store.signer(connection, signed.key_id)
                if chain is None and signed.key_id == self.key_id:
                    chain = self.chain_pem
                if chain is None:
                    raise AuditSignerUnknownError(f"the certificate of {whose} is not known here")
                self._verified(whose, signed.key_id, chain, _within(chain, at))
            self.verify(whose, tag, signed, kept.anchor.at_ms)

    def _refuse_revoked(self, whose: NodeId, key_id: str, made_ms: int | None) -> None:
        known = self._known.get((whose, key_id))
        if known is None or self._revoked is None:
            return
        try:
            self._revoked.refuse(known.chain, made_ms)
        except PeerRevokedError as error:
            raise AuditSignerUnknownError(error.message) from None

    def _verified(self, whose: NodeId, key_id: str, chain: bytes, at: datetime) -> None:
        try:
            peer = verify_chain(
                chain, self._credentials.root_pem, self._hierarchy, at, self._former
            )
        except (SignatureInvalidError, PeerIdentityError) as error:
            raise AuditSignerUnknownError(error.message) from None
        identity = peer.identity
        if identity.kind is not CallerKind.NODE or identity.node_id != whose:
            raise AuditStatementError(f"{whose} would sign with another's certificate")
        if identity.certificate_hash != key_id:
            raise AuditStatementError("a certificate is not the one that is named")
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[whose, key_id] = _Known(peer, certificates_from_pem(chain))


def _within(chain: bytes, at: datetime) -> datetime:
    """The time, cut to the life of the leaf."""
    try:
        leaf = certificates_from_pem(chain)[0]
    except CertificateUnusableError as error:
        raise AuditStatementError(error.message) from None
    return min(max(at, leaf.not_valid_before_utc), leaf.not_valid_after_utc)
