"""A small region with its authorities, and a forger who signs whatever is asked."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID, ObjectIdentifier

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeEntry, NodeId
from node.security.certificates import (
    Authority,
    AuthorityName,
    PrivateKey,
    Validity,
    certificates_to_pem,
    create_root,
    new_private_key,
    private_key_to_pem,
    sign_authority,
    sign_leaf,
    subject_name,
)
from node.security.principal import Principal

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Wide enough that a real handshake, which asks the machine's clock, finds the same as NOW.
GOOD = Validity(datetime(2020, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC))
EXPIRED = Validity(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC))
NOT_YET = Validity(datetime(2089, 1, 1, tzinfo=UTC), datetime(2089, 2, 1, tzinfo=UTC))

CITY = NodeId("1410")
COUNTY = NodeId("141002")
OTHER_COUNTY = NodeId("141024")
TOWNSHIP = NodeId("141002001")
VILLAGE = NodeId("141002001201")
SIBLING = NodeId("141002001202")

_NODES = (
    (CITY, CareLevel.CITY, None),
    (COUNTY, CareLevel.COUNTY, CITY),
    (OTHER_COUNTY, CareLevel.COUNTY, CITY),
    (TOWNSHIP, CareLevel.TOWNSHIP, COUNTY),
    (VILLAGE, CareLevel.VILLAGE, TOWNSHIP),
    (SIBLING, CareLevel.VILLAGE, TOWNSHIP),
)


def small_hierarchy(region: str = "linfen") -> Hierarchy:
    """A city, two counties, a township and its two villages."""
    return Hierarchy(
        region=region,
        epoch=1,
        nodes={
            node_id: NodeEntry(node_id, level, node_id, node_id, parent, None, level.value)
            for node_id, level, parent in _NODES
        },
    )


HIERARCHY = small_hierarchy()


@dataclass(frozen=True)
class Held:
    """A chain, leaf first, with the key of its leaf."""

    private_key: PrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def chain_pem(self) -> bytes:
        return certificates_to_pem(self.chain)

    @property
    def key_pem(self) -> bytes:
        return private_key_to_pem(self.private_key)


@dataclass
class Region:
    """The authorities of every node of a hierarchy."""

    hierarchy: Hierarchy
    root: Authority
    authorities: dict[NodeId, Authority] = field(default_factory=dict)

    @property
    def root_pem(self) -> bytes:
        return certificates_to_pem((self.root.certificate,))

    def node(self, node_id: NodeId, validity: Validity = GOOD) -> Held:
        """A node's certificate, signed by the node above."""
        parent = self.hierarchy.parent(node_id)
        issuer = self.root if parent is None else self.authorities[parent]
        return self.leaf(issuer, Principal(self.hierarchy.region, node_id), validity)

    def leaf(self, issuer: Authority, principal: Principal, validity: Validity = GOOD) -> Held:
        """What `issuer` signs in good faith for a principal."""
        key = new_private_key()
        dns_name = self.hierarchy.dns_name(principal.node_id)
        certificate = sign_leaf(issuer, principal, dns_name, key.public_key(), validity)
        return Held(key, (certificate, *issuer.chain))


def create(hierarchy: Hierarchy, validity: Validity = GOOD) -> Region:
    """Every node's authority, signed level by level."""
    region = Region(hierarchy, create_root(hierarchy.region, new_private_key(), validity))
    for node_id, entry in sorted(hierarchy.nodes.items(), key=lambda each: each[1].level.depth):
        issuer = region.root if entry.parent is None else region.authorities[entry.parent]
        region.authorities[node_id] = below(issuer, node_id, hierarchy, entry.level, validity)
    return region


def below(
    issuer: Authority,
    node_id: NodeId,
    hierarchy: Hierarchy,
    level: CareLevel,
    validity: Validity = GOOD,
) -> Authority:
    """An authority in the name of a node, whoever signs it."""
    key = new_private_key()
    name = AuthorityName(hierarchy.region, node_id, hierarchy.dns_name(node_id))
    certificate = sign_authority(issuer, name, level, key.public_key(), validity)
    return Authority(certificate, key, issuer.chain)


def uri(text: str) -> x509.GeneralName:
    """A URI as alternative name."""
    return x509.UniformResourceIdentifier(text)


def dns(text: str) -> x509.GeneralName:
    """A DNS name as alternative name."""
    return x509.DNSName(text)


def mail(text: str) -> x509.GeneralName:
    """A mail address as alternative name."""
    return x509.RFC822Name(text)


def ip(text: str) -> x509.GeneralName:
    """An IP address as alternative name."""
    return x509.IPAddress(ipaddress.ip_address(text))


def forge(
    issuer: Authority,
    names: Sequence[x509.GeneralName],
    *,
    common_name: str | None = None,
    subject: x509.Name | None = None,
    validity: Validity = GOOD,
    usages: Sequence[ObjectIdentifier] = (
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    ),
    raw_names: bytes = b"",
) -> Held:
    """A leaf with any names at all, properly signed by `issuer`; its subject is good by default.

    `raw_names`: the alternative names in DER, for what no encoder here makes.
    """
    key = new_private_key()
    if common_name is not None:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject_name("linfen") if subject is None else subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.private_key.public_key()),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
    if raw_names:
        oid = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, raw_names), critical=False)
    certificate = builder.sign(issuer.private_key, hashes.SHA256())
    return Held(key, (certificate, *issuer.chain))
