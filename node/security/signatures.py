"""Detached signatures (ECDSA P-256, SHA-256) of nodes, with the chain that proves whose they are.

Receipts and query manifests carry them past the connection on which they came. The signed bytes
begin with a tag of what they are, so that a receipt is never taken for a manifest; their layouts
stand with those who sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel
from node.security.certificates import (
    PrivateKey,
    PublicKey,
    certificate_hash,
    certificates_from_pem,
    certificates_to_pem,
)
from node.security.errors import CertificateUnusableError, SignatureInvalidError
from node.security.identity import KeyJudge, NameJudge, PeerIdentity, identify_certificate

__all__ = ["Signer", "VerifiedPeer", "chain_end", "verify_chain", "verify_signature"]

_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_AUTHORITIES_MAX: Final = len(CareLevel)
_UNREADABLE: Final = (
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
)


class Signer:
    """Signs under a certificate of this node."""

    def __init__(self, private_key: PrivateKey, chain: tuple[x509.Certificate, ...]) -> None:
        self._private_key = private_key
        self.public_key = private_key.public_key()
        self.renew(chain)

    def renew(self, chain: tuple[x509.Certificate, ...]) -> None:
        """Sign under a newer certificate of the same key from now on."""
        self.chain_pem = certificates_to_pem(chain)
        self.key_id = certificate_hash(chain[0])

    def sign(self, data: bytes) -> bytes:
        """A signature over `data`, DER, at most 72 bytes."""
        return self._private_key.sign(data, _ALGORITHM)


@dataclass(frozen=True, slots=True)
class VerifiedPeer:
    """A signer whose chain has been verified; keep it for the life of a connection."""

    identity: PeerIdentity
    public_key: PublicKey

    def verify(self, data: bytes, signature: bytes) -> None:
        """Raise SignatureInvalidError unless the signer signed exactly `data`."""
        try:
            self.public_key.verify(signature, data, _ALGORITHM)
        except InvalidSignature:
            raise SignatureInvalidError(
                f"a signature of {self.identity.principal} does not fit what was signed"
            ) from None


def verify_chain(
    chain_pem: bytes,
    root_pem: bytes,
    hierarchy: Hierarchy,
    now: datetime,
    former: NameJudge | None = None,
    revoked: KeyJudge | None = None,
) -> VerifiedPeer:
    """Verify a chain, leaf first, up to the region's root.

    Signatures, validity at `now`, path lengths, name constraints and key usages are checked by
    `cryptography.x509.verification` (RFC 5280 within the web PKI's rules); that it enforces the
    DNS constraints of our authorities is tested against forged chains. `former` decides over names
    of a former hierarchy, `revoked` over keys.

    Raises:
        SignatureInvalidError: The chain does not lead to the root, now.
        PeerIdentityError: It does, but its leaf names no member of this region, or is revoked.
    """
    try:
        leaf, *issuers = certificates_from_pem(chain_pem)
        roots = certificates_from_pem(root_pem)
    except CertificateUnusableError as error:
        raise SignatureInvalidError(error.message) from None
    verifier = (
        PolicyBuilder()
        .store(Store(list(roots)))
        .time(now)
        .max_chain_depth(_AUTHORITIES_MAX)
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, issuers)
        key = leaf.public_key()
    except VerificationError as error:
        reason = str(error).split("(", maxsplit=1)[0].strip()
        raise SignatureInvalidError(f"a chain does not lead to the root: {reason}") from None
    except _UNREADABLE:
        # A chain may be whole and signed, and its leaf hold what the library cannot show.
        raise SignatureInvalidError("a certificate of a chain cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SignatureInvalidError("a signing certificate has a key of another algorithm")
    identity = identify_certificate(leaf, hierarchy, former, issuers)
    if revoked is not None:
        revoked.refuse((leaf, *issuers))
    return VerifiedPeer(identity, key)


def chain_end(chain: Sequence[x509.Certificate]) -> datetime:
    """The last moment at which every certificate of a chain holds, UTC."""
    return min(each.not_valid_after_utc for each in chain)


def verify_signature(
    data: bytes,
    signature: bytes,
    chain_pem: bytes,
    root_pem: bytes,
    hierarchy: Hierarchy,
    now: datetime,
) -> PeerIdentity:
    """Verify a detached signature and its chain, and say whose it is.

    Raises:
        SignatureInvalidError: The signature or the chain does not hold.
        PeerIdentityError: The chain's leaf names no member of this region.
    """
    peer = verify_chain(chain_pem, root_pem, hierarchy, now)
    peer.verify(data, signature)
    return peer.identity
