"""Detached signatures: the signer is who the chain to the root says, within its subtree, now."""

from __future__ import annotations

import base64
from datetime import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hierarchy_config.model import CareLevel, NodeId
from node.security.caller import CallerKind
from node.security.certificates import (
    Authority,
    Validity,
    certificate_hash,
    certificate_request,
    new_private_key,
    requested_key,
    subject_name,
)
from node.security.errors import (
    CertificateUnusableError,
    PeerIdentityError,
    SignatureInvalidError,
)
from node.security.identity import PeerIdentity
from node.security.principal import Principal
from node.security.signatures import Signer, verify_chain, verify_signature
from tests.unit.security import region as made
from tests.unit.security.region import (
    CITY,
    COUNTY,
    HIERARCHY,
    NOW,
    OTHER_COUNTY,
    SIBLING,
    TOWNSHIP,
    VILLAGE,
    Held,
    Region,
)

DATA = b"fenhe.receipt.1 and so on"
CITY_NAMES = [made.uri("spiffe://linfen/1410"), made.dns(HIERARCHY.dns_name(CITY))]


@pytest.fixture(scope="module")
def region() -> Region:
    """The authorities of a small region."""
    return made.create(HIERARCHY)


def verify(region: Region, held: Held, now: datetime = NOW) -> PeerIdentity:
    """Sign with a chain, verify against the region's root."""
    signer = Signer(held.private_key, held.chain)
    signature = signer.sign(DATA)
    return verify_signature(DATA, signature, signer.chain_pem, region.root_pem, HIERARCHY, now)


def test_accepts_the_signature_of_every_node(region: Region) -> None:
    """From the city, whose chain has one authority less, to a village."""
    for node_id in HIERARCHY.nodes:
        held = region.node(node_id)
        peer = verify(region, held)
        assert peer.node_id == node_id
        assert peer.certificate_hash == certificate_hash(held.leaf)
        assert Signer(held.private_key, held.chain).key_id == peer.certificate_hash


def test_accepts_an_analyst_under_a_node(region: Region) -> None:
    """A manifest may be signed by someone under a node; the identity says so."""
    principal = Principal("linfen", COUNTY, CallerKind.ANALYST, "wang")
    peer = verify(region, region.leaf(region.authorities[COUNTY], principal))
    assert (peer.kind, peer.name) == (CallerKind.ANALYST, "wang")


@pytest.mark.parametrize(
    ("data", "cut"), [(DATA + b"!", 0), (DATA, 1), (b"", 0), (DATA, 72)], ids=str
)
def test_refuses_what_was_not_signed(region: Region, data: bytes, cut: int) -> None:
    """Other data, or a signature that is cut, is refused by a peer whose chain is good."""
    held = region.node(VILLAGE)
    signer = Signer(held.private_key, held.chain)
    peer = verify_chain(signer.chain_pem, region.root_pem, HIERARCHY, NOW)
    signature = signer.sign(DATA)
    peer.verify(DATA, signature)
    with pytest.raises(SignatureInvalidError):
        peer.verify(data, signature[: len(signature) - cut])


def test_refuses_the_signature_of_another_key(region: Region) -> None:
    """A sibling's key under this node's certificate proves nothing."""
    held = Held(region.node(SIBLING).private_key, region.node(VILLAGE).chain)
    with pytest.raises(SignatureInvalidError):
        verify(region, held)


@pytest.mark.parametrize("validity", [made.EXPIRED, made.NOT_YET], ids=["expired", "not yet"])
def test_refuses_a_chain_outside_its_validity(region: Region, validity: Validity) -> None:
    """A leaf that has expired, or does not hold yet, signs nothing."""
    with pytest.raises(SignatureInvalidError):
        verify(region, region.node(VILLAGE, validity))


def test_refuses_a_chain_whose_authority_has_expired(region: Region) -> None:
    """Every certificate of the chain must hold, not the leaf alone."""
    stale = made.below(
        region.authorities[COUNTY], TOWNSHIP, HIERARCHY, CareLevel.TOWNSHIP, made.EXPIRED
    )
    names = [
        made.uri(HIERARCHY.spiffe_id(VILLAGE)),
        made.dns(HIERARCHY.dns_name(VILLAGE)),
    ]
    with pytest.raises(SignatureInvalidError):
        verify(region, made.forge(stale, names))


def test_a_leaf_never_outlives_its_issuer(region: Region) -> None:
    """Validity is cut to that of the authority that signs."""
    stale = made.below(
        region.authorities[COUNTY], TOWNSHIP, HIERARCHY, CareLevel.TOWNSHIP, made.EXPIRED
    )
    held = region.leaf(stale, Principal("linfen", VILLAGE))
    assert held.leaf.not_valid_after_utc == made.EXPIRED.not_after


@pytest.mark.parametrize("issuer", [VILLAGE, TOWNSHIP, COUNTY, OTHER_COUNTY])
def test_refuses_a_city_forged_by_an_authority_below(region: Region, issuer: NodeId) -> None:
    """The DNS name of the city lies outside the constraint of every authority below it."""
    with pytest.raises(SignatureInvalidError):
        verify(region, made.forge(region.authorities[issuer], CITY_NAMES))


def test_refuses_a_sibling_forged_by_a_village(region: Region) -> None:
    """One stolen village costs one village."""
    names = [made.uri(HIERARCHY.spiffe_id(SIBLING)), made.dns(HIERARCHY.dns_name(SIBLING))]
    with pytest.raises(SignatureInvalidError):
        verify(region, made.forge(region.authorities[VILLAGE], names))


def test_refuses_a_name_that_only_ends_alike(region: Region) -> None:
    """Constraints hold at label borders: xn… does not lie below n…."""
    names = [
        made.uri(HIERARCHY.spiffe_id(VILLAGE)),
        made.dns("x" + HIERARCHY.dns_name(VILLAGE)),
    ]
    with pytest.raises(SignatureInvalidError):
        verify(region, made.forge(region.authorities[VILLAGE], names))


@pytest.mark.parametrize(
    "names",
    [
        [made.uri("spiffe://linfen/1410"), made.dns(HIERARCHY.dns_name(VILLAGE))],
        [made.uri("spiffe://linfen/1410")],
        [*CITY_NAMES[:1], made.dns("node-1410." + HIERARCHY.dns_name(VILLAGE))],
        [made.dns(HIERARCHY.dns_name(VILLAGE))],
    ],
    ids=["own DNS name", "no DNS name", "name below", "no URI"],
)
def test_refuses_a_city_forged_by_its_uri_alone(
    region: Region, names: list[x509.GeneralName]
) -> None:
    """URI names are not constrained by the chain: the DNS twin gives the forgery away."""
    held = made.forge(region.authorities[VILLAGE], names, common_name=HIERARCHY.dns_name(CITY))
    with pytest.raises(PeerIdentityError):
        verify(region, held)


def test_refuses_an_authority_that_a_village_signed(region: Region) -> None:
    """A village's path length is 0: it signs people, no further authority, not even its own."""
    for node_id in (VILLAGE, CITY):
        deeper = made.below(region.authorities[VILLAGE], node_id, HIERARCHY, CareLevel.CITY)
        with pytest.raises(SignatureInvalidError):
            verify(region, region.leaf(deeper, Principal("linfen", node_id)))


def test_refuses_a_township_that_widens_its_constraint(region: Region) -> None:
    """An authority below that claims a wider domain stays within that of its issuer."""
    wider = made.below(region.authorities[TOWNSHIP], CITY, HIERARCHY, CareLevel.VILLAGE)
    with pytest.raises(SignatureInvalidError):
        verify(region, region.leaf(wider, Principal("linfen", CITY)))


def test_refuses_a_leaf_that_signs(region: Region) -> None:
    """A node's certificate is no authority, whatever key is behind it."""
    held = region.node(COUNTY)
    posing = Authority(held.leaf, held.private_key, held.chain[1:])
    forged = made.forge(
        posing, [made.uri(HIERARCHY.spiffe_id(VILLAGE)), made.dns(HIERARCHY.dns_name(VILLAGE))]
    )
    with pytest.raises(SignatureInvalidError):
        verify(region, forged)


def test_refuses_an_authority_as_signer(region: Region) -> None:
    """An authority signs certificates; it is nobody's identity."""
    authority = region.authorities[COUNTY]
    with pytest.raises((SignatureInvalidError, PeerIdentityError)):
        verify(region, Held(authority.private_key, authority.chain))


def test_refuses_another_regions_root(region: Region) -> None:
    """The same names under another root, also with that root in the chain."""
    other = made.create(HIERARCHY)
    held = other.node(VILLAGE)
    with pytest.raises(SignatureInvalidError):
        verify(region, held)
    with pytest.raises(SignatureInvalidError):
        verify(region, Held(held.private_key, (*held.chain, other.root.certificate)))


def test_refuses_a_root_of_the_same_name(region: Region) -> None:
    """A self-signed certificate with the root's name is not the root."""
    other = made.create(HIERARCHY)
    held = other.node(CITY)
    with pytest.raises(SignatureInvalidError):
        verify(region, Held(held.private_key, (held.leaf, other.root.certificate)))


def test_refuses_a_chain_with_a_gap(region: Region) -> None:
    """Every authority between the leaf and the root must be shown."""
    held = region.node(VILLAGE)
    with pytest.raises(SignatureInvalidError):
        verify(region, Held(held.private_key, (held.leaf, *held.chain[2:])))
    with pytest.raises(SignatureInvalidError):
        verify(region, Held(held.private_key, held.chain[:1]))


def test_refuses_a_certificate_that_may_only_serve(region: Region) -> None:
    """A leaf without the client usage does not act for its holder."""
    held = made.forge(
        region.authorities[TOWNSHIP],
        [made.uri(HIERARCHY.spiffe_id(VILLAGE)), made.dns(HIERARCHY.dns_name(VILLAGE))],
        usages=[ExtendedKeyUsageOID.SERVER_AUTH],
    )
    with pytest.raises(SignatureInvalidError):
        verify(region, held)


@pytest.mark.parametrize(
    "chain", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n", bytes(70_000)]
)
def test_refuses_chains_that_cannot_be_read(region: Region, chain: bytes) -> None:
    """Garbage from a peer is the peer's fault and nothing else."""
    with pytest.raises(SignatureInvalidError):
        verify_chain(chain, region.root_pem, HIERARCHY, NOW)


def test_refuses_an_altered_certificate(region: Region) -> None:
    """A certificate whose names were changed after signing is not the one that was signed."""
    held = region.node(VILLAGE)
    der = held.leaf.public_bytes(Encoding.DER)
    altered = x509.load_der_x509_certificate(
        der.replace(b"n141002001201", b"n141002001202").replace(b"/141002001201", b"/141002001202")
    )
    assert altered.fingerprint(hashes.SHA256()) != held.leaf.fingerprint(hashes.SHA256())
    with pytest.raises(SignatureInvalidError):
        verify(region, Held(held.private_key, (altered, *held.chain[1:])))


@pytest.mark.parametrize(
    "strange",
    [b"\xa3\x02\x30\x00", b"\xa5\x06\x81\x04\x0c\x02ab", b"\x87\x03\x01\x02\x03"],
    ids=["x400Address", "ediPartyName", "IP address of three bytes"],
)
def test_refuses_names_that_the_library_cannot_read(region: Region, strange: bytes) -> None:
    """A village signs what it likes: its certificate is bad, and no other error gets out."""
    good = [
        b"\x86" + _short(HIERARCHY.spiffe_id(VILLAGE).encode()),
        b"\x82" + _short(HIERARCHY.dns_name(VILLAGE).encode()),
    ]
    held = made.forge(
        region.authorities[VILLAGE], (), raw_names=b"\x30" + _short(b"".join([*good, strange]))
    )
    with pytest.raises(SignatureInvalidError):
        verify(region, held)


def test_confines_every_authority_by_dns_and_directory(region: Region) -> None:
    """The DNS name of its node, and a subject whose common name is nobody's DNS name."""
    for node_id, authority in region.authorities.items():
        constraints = authority.certificate.extensions.get_extension_for_class(x509.NameConstraints)
        assert constraints.value.permitted_subtrees == [
            x509.DNSName(HIERARCHY.dns_name(node_id)),
            x509.DirectoryName(subject_name("linfen")),
        ]
    (common_name,) = subject_name("linfen").get_attributes_for_oid(NameOID.COMMON_NAME)
    assert "." not in common_name.value


def test_keys_are_of_the_curve_p256() -> None:
    """One curve, which TLS, receipts and manifests share."""
    assert new_private_key().curve.name == "secp256r1"


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_an_altered_certificate_is_never_a_crash(region: Region) -> None:
    """Whatever bit is altered, in whichever certificate: it is said to be bad, or is taken."""
    held = region.node(VILLAGE)
    ders = [each.public_bytes(Encoding.DER) for each in held.chain]
    refused = taken = 0
    for altered, der in enumerate(ders):
        for at in range(8 * len(der)):
            bad = bytearray(der)
            bad[at // 8] ^= 1 << at % 8
            chain = b"".join(
                _pem("CERTIFICATE", bytes(bad) if place == altered else each)
                for place, each in enumerate(ders)
            )
            try:
                verify_chain(chain, region.root_pem, HIERARCHY, NOW)
                taken += 1
            except (SignatureInvalidError, PeerIdentityError):
                refused += 1
    # What is not signed itself: the bits that say how a signature's bits are counted.
    assert taken <= 8 * len(ders)
    assert refused > 10_000


def test_an_altered_request_is_never_a_crash(region: Region) -> None:
    """The holder of the key signed all of it but how the signature's bits are counted."""
    pem = certificate_request(region.node(VILLAGE).private_key)
    der = x509.load_pem_x509_csr(pem).public_bytes(Encoding.DER)
    refused = taken = 0
    for at in range(8 * len(der)):
        bad = bytearray(der)
        bad[at // 8] ^= 1 << at % 8
        try:
            requested_key(_pem("CERTIFICATE REQUEST", bytes(bad)))
            taken += 1
        except CertificateUnusableError:
            refused += 1
    assert taken <= 8
    assert refused > 1000


def _short(content: bytes) -> bytes:
    """DER content of fewer than 128 bytes, its length before it."""
    assert len(content) < 128
    return bytes([len(content)]) + content


def _pem(label: str, der: bytes) -> bytes:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()
