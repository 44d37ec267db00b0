"""An authority that a node was handed: only one that leads to the root is good for anything."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519

from hierarchy_config.model import CareLevel, NodeId
from node.security.authority_chain import verify_authority
from node.security.certificates import (
    Authority,
    Validity,
    certificates_to_pem,
    create_root,
    new_private_key,
    subject_name,
)
from node.security.errors import CertificateUnusableError
from tests.unit.security import region as made
from tests.unit.security.region import (
    CITY,
    COUNTY,
    EXPIRED,
    GOOD,
    HIERARCHY,
    NOT_YET,
    NOW,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    Region,
)


@pytest.fixture(scope="module")
def region() -> Region:
    """The authorities of a region."""
    return made.create(HIERARCHY)


def verify(region: Region, authority: Authority, node: NodeId) -> None:
    """Verify an authority as that of a node."""
    chain, key = certificates_to_pem(authority.chain), authority.private_key
    verify_authority(chain, key, region.root_pem, HIERARCHY, node, NOW)


@pytest.mark.parametrize("node", [CITY, COUNTY, TOWNSHIP, VILLAGE])
def test_what_the_node_above_signed_is_good(region: Region, node: NodeId) -> None:
    """At every level."""
    verify(region, region.authorities[node], node)


def test_the_right_name_and_key_are_not_enough(region: Region) -> None:
    """Signed by anybody, whoever is named as its issuer and whatever chain stands behind it."""
    real = region.authorities[TOWNSHIP]
    stranger = create_root("linfen", new_private_key(), GOOD)
    fake = Authority(real.certificate, new_private_key(), real.issuers)
    for issuer in (stranger, fake):
        forged = made.below(issuer, VILLAGE, HIERARCHY, CareLevel.VILLAGE)
        with pytest.raises(CertificateUnusableError, match="does not lead to the root"):
            verify(region, forged, VILLAGE)


def test_a_chain_with_a_gap_is_refused(region: Region) -> None:
    """The issuers between it and the root are missing."""
    whole = region.authorities[VILLAGE]
    alone = Authority(whole.certificate, whole.private_key)

    with pytest.raises(CertificateUnusableError, match="does not lead to the root"):
        verify(region, alone, VILLAGE)


def test_an_authority_outside_its_issuers_names_is_refused(region: Region) -> None:
    """Another county cannot certify a village that is not below it."""
    elsewhere = made.below(region.authorities[OTHER_COUNTY], VILLAGE, HIERARCHY, CareLevel.VILLAGE)

    with pytest.raises(CertificateUnusableError, match="does not lead to the root"):
        verify(region, elsewhere, VILLAGE)


def test_an_authority_of_somebody_else_is_refused(region: Region) -> None:
    """Of another name, or of a key that this node does not have."""
    other = region.authorities[COUNTY]
    with pytest.raises(CertificateUnusableError, match="somebody else"):
        verify(region, other, TOWNSHIP)
    with pytest.raises(CertificateUnusableError, match="another key"):
        verify(region, Authority(other.certificate, new_private_key(), other.issuers), COUNTY)


@pytest.mark.parametrize("validity", [EXPIRED, NOT_YET])
def test_an_authority_outside_its_time_is_refused(region: Region, validity: Validity) -> None:
    """The clocks decide as at every chain."""
    old = made.below(region.authorities[TOWNSHIP], VILLAGE, HIERARCHY, CareLevel.VILLAGE, validity)

    with pytest.raises(CertificateUnusableError, match="does not hold now"):
        verify(region, old, VILLAGE)


def test_an_authority_without_room_below_is_refused(region: Region) -> None:
    """A county certified like a village could not certify its townships' villages."""
    narrow = made.below(region.authorities[CITY], COUNTY, HIERARCHY, CareLevel.VILLAGE)

    with pytest.raises(CertificateUnusableError, match="all levels"):
        verify(region, narrow, COUNTY)


def test_a_strange_certificate_is_an_error_not_a_crash(region: Region) -> None:
    """Of a key of another kind, or without what every authority carries."""
    issuer = region.authorities[TOWNSHIP]
    key = new_private_key()
    strange = ed25519.Ed25519PrivateKey.generate()
    for public_key in (strange.public_key(), key.public_key()):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject_name("linfen"))
            .issuer_name(issuer.certificate.subject)
            .public_key(public_key)
            .serial_number(1)
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=1))
            .sign(issuer.private_key, hashes.SHA256())
        )
        with pytest.raises(CertificateUnusableError):
            verify(region, Authority(certificate, key, issuer.chain), VILLAGE)
