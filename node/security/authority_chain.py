"""Whether an authority that a node was handed is good for anything: its chain leads to the root.

The library verifies chains of leaves alone. So a leaf is signed as for one of the node's programs
and thrown away, and its chain goes the way of every other: signatures, validity, path lengths, name
constraints and key usages are checked as all peers will check them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeId
from node.security.caller import CallerKind
from node.security.certificates import (
    Authority,
    AuthorityName,
    PrivateKey,
    PublicKey,
    Validity,
    authority_name,
    certificates_from_pem,
    certificates_to_pem,
    new_private_key,
    sign_leaf,
)
from node.security.errors import (
    CertificateUnusableError,
    PeerIdentityError,
    SignatureInvalidError,
)
from node.security.former import is_signed_by
from node.security.identity import KeyJudge
from node.security.principal import Principal
from node.security.signatures import verify_chain

__all__ = ["certified_authority", "verify_authority"]

_PROBE_LIFETIME: Final = timedelta(minutes=1)
_UNREADABLE: Final = (
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
    TypeError,
    ValueError,
)


def verify_authority(
    chain_pem: bytes,
    key: PrivateKey,
    root_pem: bytes,
    hierarchy: Hierarchy,
    node_id: NodeId,
    now: datetime,
) -> None:
    """Verify a chain that begins with a node's own authority, whose key this is.

    Raises:
        CertificateUnusableError: It is of another key, name or reach, or does not lead to the root.
    """
    own, *issuers = certificates_from_pem(chain_pem)
    dns_name = hierarchy.dns_name(node_id)
    try:
        _refuse_unfit(own, key, AuthorityName(hierarchy.region, node_id, dns_name), now)
        _refuse_narrow(own, hierarchy.entry(node_id).level)
        leaf = sign_leaf(
            Authority(own, key, tuple(issuers)),
            Principal(hierarchy.region, node_id, CallerKind.CLIENT, "probe"),
            dns_name,
            new_private_key().public_key(),
            Validity.starting(now, _PROBE_LIFETIME),
        )
        verify_chain(certificates_to_pem((leaf, own, *issuers)), root_pem, hierarchy, now)
    except (SignatureInvalidError, PeerIdentityError) as error:
        raise CertificateUnusableError(f"what the authority signs: {error.message}") from None
    except _UNREADABLE:
        raise CertificateUnusableError("the authority's certificate cannot be read") from None


def certified_authority(
    chain_pem: bytes, root_pem: bytes, node_id: NodeId, revoked: KeyJudge
) -> PublicKey:
    """The key of a node's authority that somebody above it has certified, however long ago.

    What its own authority says of another key is no proof: then it could name any.

    Raises:
        CertificateUnusableError: The chain is of another node, or does not lead to the root.
        PeerRevokedError: A key of it is revoked.
    """
    chain = certificates_from_pem(chain_pem)
    root = certificates_from_pem(root_pem)[0]
    if authority_name(chain[0]).node_id != node_id or not _is_linked((*chain, root)):
        raise CertificateUnusableError("the authority's chain does not lead to the root")
    if any(authority_name(each).node_id == node_id for each in chain[1:] if each != root):
        raise CertificateUnusableError("an authority is certified from above, not by itself")
    revoked.refuse(chain)
    key = chain[0].public_key()
    if not isinstance(key, PublicKey):
        raise CertificateUnusableError("the authority has a key of another algorithm")
    return key


def _is_linked(chain: Sequence[x509.Certificate]) -> bool:
    """Whether each certificate was signed by the next."""
    for certificate, issuer in pairwise(chain):
        key = issuer.public_key()
        named = certificate.issuer == issuer.subject
        if not named or not isinstance(key, PublicKey) or not is_signed_by(certificate, key):
            return False
    return True


def _refuse_unfit(
    own: x509.Certificate, key: PrivateKey, name: AuthorityName, now: datetime
) -> None:
    if own.public_key() != key.public_key():
        raise CertificateUnusableError("the authority is of another key than this node's")
    if authority_name(own) != name:
        raise CertificateUnusableError("the authority is of somebody else")
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        raise CertificateUnusableError("the authority does not hold now")


def _refuse_narrow(own: x509.Certificate, level: CareLevel) -> None:
    """Refuse one that could not certify every node below: the chains of these would break."""
    reach = own.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    names = own.extensions.get_extension_for_class(x509.NameConstraints).value
    if reach is not None and reach < CareLevel.VILLAGE.depth - level.depth:
        raise CertificateUnusableError("the authority may not certify all levels below it")
    if names.excluded_subtrees:
        raise CertificateUnusableError("the authority is kept from certifying names below it")
