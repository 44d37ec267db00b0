"""Certificates under a former name: whose are taken for a while after the hierarchy has changed.

A name contains the path to the root, so all below a moved node still carry the old one when the new
hierarchy comes into force. The old path is no proof any more: the former parent could sign any name
below it. A key is: the one that the region's root pinned in its decision, or one that this node's
own authority certified. Owns that judgement and the former chains that a node goes on serving.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.security.caller import CallerKind
from node.security.certificates import PublicKey, certificate_hash, certificates_from_pem
from node.security.errors import CertificateUnusableError
from node.security.key_files import write_public
from node.security.principal import Principal

__all__ = ["FormerNames", "former_chains", "is_signed_by", "keep_former", "key_digest"]

_FOLDER: Final = "former"
_KEPT: Final = 8


def key_digest(key: PublicKey) -> str:
    """SHA-256 of a public key (SubjectPublicKeyInfo, DER), hexadecimal."""
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


@dataclass(frozen=True, slots=True)
class FormerNames:
    """Decides over a certificate that leads to the root and whose DNS name is not the present one.

    `authority` is the public key of this node's own authority; `pins` the digests of node keys that
    decisions in force name.
    """

    node_id: NodeId
    hierarchy: Hierarchy
    authority: PublicKey | None = None
    pins: Mapping[NodeId, str] = field(default_factory=dict)

    def accepts(self, certificate: x509.Certificate, principal: Principal) -> bool:
        """Whether the holder is who the URI says although the DNS name says a former path."""
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        is_node = principal.kind is CallerKind.NODE
        pinned = self.pins.get(principal.node_id)
        if is_node and pinned is not None and key_digest(key) == pinned:
            return True
        is_own = self._is_own(principal, is_node)
        return is_own and self.authority is not None and is_signed_by(certificate, self.authority)

    def _is_own(self, principal: Principal, is_node: bool) -> bool:
        if is_node:
            return self.hierarchy.parent(principal.node_id) == self.node_id
        return principal.node_id == self.node_id


def is_signed_by(certificate: x509.Certificate, key: PublicKey) -> bool:
    """Whether the holder of a key signed a certificate."""
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None:
        return False
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def keep_former(chain_file: Path) -> None:
    """Put the chain in use beside its successors-to-be, durably; the same chain twice is one."""
    pem = chain_file.read_bytes()
    name = certificate_hash(certificates_from_pem(pem)[0])[:16]
    folder = chain_file.parent / _FOLDER
    folder.mkdir(exist_ok=True)
    write_public(folder / f"{name}.pem", pem)


def former_chains(chain_file: Path, key: PublicKey, now: datetime | None = None) -> list[bytes]:
    """Chains (PEM, leaf first) under former names that are of this key, the newest first.

    `now`: leave out what has expired. What cannot be read is left out: it is a courtesy to those
    who ask for a former name.
    """
    folder = chain_file.parent / _FOLDER
    if not folder.is_dir():
        return []
    current = chain_file.read_bytes()
    found: list[tuple[datetime, bytes]] = []
    for path in sorted(folder.glob("*.pem")):
        pem = path.read_bytes()
        try:
            leaf = certificates_from_pem(pem)[0]
        except CertificateUnusableError:
            continue
        expired = now is not None and leaf.not_valid_after_utc < now
        if pem != current and leaf.public_key() == key and not expired:
            found.append((leaf.not_valid_before_utc, pem))
    return [pem for _, pem in sorted(found, key=lambda each: each[0], reverse=True)][:_KEPT]
