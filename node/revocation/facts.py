"""What of a certificate matters to revocation: whose it is, its key, when it was issued.

Reads what has been verified elsewhere, and what has not: a certificate that names nobody still has
a key. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from node.security.caller import CallerKind
from node.security.certificates import ISSUED_EARLIER
from node.security.errors import PeerIdentityError
from node.security.principal import parse_principal

__all__ = ["CertificateFacts", "facts_of"]

_UNREADABLE: Final = (
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """One certificate of a chain.

    `key`: SHA-256 of its public key (SubjectPublicKeyInfo, DER), hexadecimal. `node_id`: whose
    authority it is, or who, or under whom, its holder is; empty if it does not say. `principal`:
    empty for an authority. `issued_ms`: ms since 1970 UTC by the issuer's clock.
    """

    key: str
    node_id: str
    principal: str
    is_caller: bool
    issued_ms: int


def facts_of(chain: Sequence[x509.Certificate]) -> tuple[CertificateFacts, ...]:
    """The facts of a chain, leaf first."""
    return tuple(_facts(each) for each in chain)


def _facts(certificate: x509.Certificate) -> CertificateFacts:
    issued = certificate.not_valid_before_utc + ISSUED_EARLIER
    node_id, principal, is_caller = _named(certificate)
    return CertificateFacts(
        _key(certificate), node_id, principal, is_caller, int(issued.timestamp() * 1000)
    )


def _key(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except _UNREADABLE:
        return ""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _named(certificate: x509.Certificate) -> tuple[str, str, bool]:
    """Node, principal, and whether it is a caller's."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        said = parse_principal(uri)
    except (*_UNREADABLE, PeerIdentityError):
        numbers = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
        return (str(numbers[0].value) if len(numbers) == 1 else ""), "", False
    return said.node_id, said.spiffe_id, said.kind is not CallerKind.NODE
