"""Issuing of certificates: the region's root, a node's own authority, and leaves (P-256).

    root (self-signed) ── authority of the city ── of a county ── of a township ── of a village
                                 └── leaves: the node's children, its people and programs

An authority is confined by name constraints and by its path length to the levels below. The DNS
constraint is its node's name and what lies below. The directory constraint gives every subject the
same common name: where a certificate has no DNS name, gRPC compares the common name with the one
that a client demands, and without that constraint a village could play any node (the cases "by
common name" of tests/services/test_tls.py). Issued names are decided here from a Principal; what a
request says about its subject is ignored. Time is a parameter; keys come from the library.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hierarchy_config.model import CareLevel, NodeId
from node.security.caller import CallerKind
from node.security.errors import CertificateUnusableError, KeyFileError
from node.security.principal import Principal

__all__ = [
    "ISSUED_EARLIER",
    "Authority",
    "AuthorityName",
    "PrivateKey",
    "PublicKey",
    "Validity",
    "authority_name",
    "certificate_hash",
    "certificate_request",
    "certificates_from_pem",
    "certificates_to_pem",
    "create_root",
    "new_private_key",
    "private_key_from_pem",
    "private_key_to_pem",
    "requested_key",
    "sign_authority",
    "sign_leaf",
    "subject_name",
]

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

ISSUED_EARLIER: Final = timedelta(minutes=5)
"""A certificate begins so long before it was issued, for clocks that lag."""

_CHAIN_BYTES_MAX: Final = 65_536
_LEVELS_BELOW_ROOT: Final = len(CareLevel)
# No DNS name, so that nobody can ever be taken for it.
_COMMON_NAME: Final = "Fenhe member"
_NO_AUTHORITY: Final = (
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
    IndexError,
    StopIteration,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate holds, both in UTC."""

    not_before: datetime
    not_after: datetime

    @classmethod
    def starting(cls, now: datetime, lifetime: timedelta) -> Self:
        """From five minutes ago, for clocks that lag, until `lifetime` after now."""
        return cls(now - ISSUED_EARLIER, now + lifetime)

    def within(self, certificate: x509.Certificate) -> Validity:
        """The same, cut to the issuer's: a chain holds no longer than its shortest link."""
        return Validity(
            max(self.not_before, certificate.not_valid_before_utc),
            min(self.not_after, certificate.not_valid_after_utc),
        )


@dataclass(frozen=True, slots=True)
class AuthorityName:
    """What an authority's certificate says about its node."""

    region: str
    node_id: NodeId
    dns_name: str


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that may sign, its key, and the issuers between it and the root."""

    certificate: x509.Certificate
    private_key: PrivateKey
    issuers: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What follows a certificate signed here; the root, which everyone has, is left out."""
        if self.certificate.issuer == self.certificate.subject:
            return ()
        return (self.certificate, *self.issuers)


def new_private_key() -> PrivateKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def private_key_to_pem(key: PrivateKey) -> bytes:
    """PKCS 8 in PEM, not encrypted: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def private_key_from_pem(pem: bytes) -> PrivateKey:
    """The P-256 key in a PEM file. Raises KeyFileError."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise KeyFileError("a private key file holds no readable key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise KeyFileError("a private key is not of the curve P-256")
    return key


def certificates_to_pem(certificates: tuple[x509.Certificate, ...]) -> bytes:
    """The certificates in order, PEM."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def certificates_from_pem(pem: bytes) -> tuple[x509.Certificate, ...]:
    """At least one certificate, in order. Raises CertificateUnusableError; 64 KiB at most."""
    if len(pem) > _CHAIN_BYTES_MAX:
        raise CertificateUnusableError("a certificate chain is larger than 64 KiB")
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except (ValueError, x509.InvalidVersion):
        raise CertificateUnusableError("a certificate chain cannot be read") from None


def certificate_hash(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate (DER), hexadecimal: its id everywhere."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def certificate_request(key: PrivateKey) -> bytes:
    """A request (PKCS 10, PEM) that proves possession of the key. It carries no name."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def requested_key(request_pem: bytes) -> PublicKey:
    """The key of a request. Raises CertificateUnusableError if its holder did not sign it."""
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise CertificateUnusableError("a certificate request cannot be read") from None
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey):
        raise CertificateUnusableError("a certificate request is not signed by its own key")
    if key.curve.name != "secp256r1":
        raise CertificateUnusableError("a certificate request is not for a key of P-256")
    return key


def create_root(region: str, key: PrivateKey, validity: Validity) -> Authority:
    """The region's own root. Only the city's authority is signed by it."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, region),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Fenhe root {region}"[:64]),
        ]
    )
    builder = _builder(name, name, key.public_key(), validity)
    builder = _as_authority(builder, path_length=_LEVELS_BELOW_ROOT)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def sign_authority(
    issuer: Authority, name: AuthorityName, level: CareLevel, key: PublicKey, validity: Validity
) -> x509.Certificate:
    """A node's own authority, confined to the node's subtree and to the levels below its own."""
    subject = subject_name(
        name.region,
        x509.NameAttribute(NameOID.SERIAL_NUMBER, name.node_id),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "authority"),
    )
    permitted = [x509.DNSName(name.dns_name), x509.DirectoryName(subject_name(name.region))]
    builder = _builder(
        subject, issuer.certificate.subject, key, validity.within(issuer.certificate)
    )
    builder = _as_authority(builder, path_length=CareLevel.VILLAGE.depth - level.depth)
    # RFC 5280, 4.2.1.10 wants this critical. Then verifiers that know no directory constraints
    # (`cryptography`, Go) would have to refuse every chain; not critical, they enforce the DNS
    # constraint all the same, and gRPC enforces both.
    builder = builder.add_extension(
        x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), critical=False
    )
    return _signed(builder, issuer)


def sign_leaf(
    issuer: Authority,
    principal: Principal,
    node_dns_name: str,
    key: PublicKey,
    validity: Validity,
) -> x509.Certificate:
    """A certificate for a node (to serve and to dial) or for someone under it (to dial)."""
    is_node = principal.kind is CallerKind.NODE
    label = principal.node_id if is_node else f"{principal.kind}-{principal.name}"
    # For a person reading it; identity never comes from the subject.
    subject = subject_name(
        principal.region, x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, label)
    )
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if is_node:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    names = [
        x509.UniformResourceIdentifier(principal.spiffe_id),
        x509.DNSName(principal.dns_name(node_dns_name)),
    ]
    builder = (
        _builder(subject, issuer.certificate.subject, key, validity.within(issuer.certificate))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return _signed(builder, issuer)


def authority_name(certificate: x509.Certificate) -> AuthorityName:
    """What a node's authority says about its node. Raises CertificateUnusableError."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        region = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value
        node_id = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value
        permitted = constraints.permitted_subtrees or []
        dns_name = next(name.value for name in permitted if isinstance(name, x509.DNSName))
    except _NO_AUTHORITY:
        raise CertificateUnusableError("certs/ca.pem is not a node's own authority") from None
    return AuthorityName(str(region), NodeId(str(node_id)), dns_name)


def subject_name(region: str, *further: x509.NameAttribute[str]) -> x509.Name:
    """The subject of every certificate below the root: how it begins is constrained."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, region),
            x509.NameAttribute(NameOID.COMMON_NAME, _COMMON_NAME),
            *further,
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _as_authority(builder: x509.CertificateBuilder, *, path_length: int) -> x509.CertificateBuilder:
    return builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=path_length), critical=True
    ).add_extension(_key_usage(signs_certificates=True), critical=True)


def _signed(builder: x509.CertificateBuilder, issuer: Authority) -> x509.Certificate:
    key_identifier = issuer.certificate.extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier
    ).value
    return builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_identifier),
        critical=False,
    ).sign(issuer.private_key, hashes.SHA256())


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
