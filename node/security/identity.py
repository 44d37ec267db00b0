"""Who the peer of a connection is: exactly what its certificate's URI says, or an error.

TLS has already checked the chain when this is asked. What is left to refuse: certificates with
several names, names of another region, and names whose DNS twin is not the one the URI implies;
an authority confined by DNS can otherwise write any URI. `peer_identities()` of gRPC is never used:
it mixes DNS, mail, IP and common names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from cryptography import x509
from cryptography.x509.oid import NameOID

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.security.caller import CallerKind
from node.security.certificates import certificate_hash
from node.security.errors import PeerIdentityError
from node.security.principal import Principal, parse_principal

__all__ = [
    "KeyJudge",
    "KnownPeers",
    "NameJudge",
    "PeerIdentity",
    "identify_certificate",
    "identify_peer",
    "peer_chain",
]

_KNOWN_MAX: Final = 512
_Shown = tuple[tuple[bytes, ...], tuple[bytes, ...]]
"""SPIFFE ids and certificates of a connection."""


class NameJudge(Protocol):
    """Decides over certificates whose DNS name is of a former hierarchy (security/former.py)."""

    def accepts(self, certificate: x509.Certificate, principal: Principal) -> bool:
        """Whether its holder is who the URI says all the same."""


class KeyJudge(Protocol):
    """Decides over chains whose signatures have been checked (node/revocation/book.py)."""

    def refuse(self, chain: Sequence[x509.Certificate], made_ms: int | None = None) -> None:
        """Raise PeerRevokedError if a key of the chain, leaf first, is revoked.

        `made_ms`: judge what was signed then, ms since 1970 UTC; None: judge who is there now.
        """


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who holds a certificate.

    `name` is empty for nodes; `certificate_hash` is SHA-256 of the certificate, hexadecimal;
    `not_after` is in UTC: a stream is not kept open beyond it.
    """

    kind: CallerKind
    node_id: NodeId
    name: str
    principal: str
    certificate_hash: str
    not_after: datetime


def identify_peer(
    auth_context: Mapping[str, Iterable[bytes]],
    hierarchy: Hierarchy,
    former: NameJudge | None = None,
) -> PeerIdentity:
    """Identify the peer of a gRPC call from `context.auth_context()`.

    `former` decides over names of a former hierarchy; None takes none.

    Raises:
        PeerIdentityError: No certificate, or one that does not name exactly one member of this
            region. The message says which rule it breaks.
    """
    uris = tuple(auth_context.get("peer_spiffe_id", ()))
    if len(uris) != 1:
        raise PeerIdentityError(f"the peer shows {len(uris)} SPIFFE ids, not one")
    pems = tuple(auth_context.get("x509_pem_cert", ()))
    if len(pems) != 1:
        raise PeerIdentityError(f"the peer shows {len(pems)} certificates, not one")
    try:
        certificate = x509.load_pem_x509_certificate(pems[0])
    except (ValueError, x509.InvalidVersion):
        raise PeerIdentityError("the peer's certificate cannot be read") from None
    issuers = peer_chain(auth_context)[1:]
    identity = identify_certificate(certificate, hierarchy, former, issuers)
    if identity.principal.encode() != uris[0]:
        raise PeerIdentityError("the SPIFFE id of the connection is not that of the certificate")
    return identity


class KnownPeers:
    """Identifies the callers of one server, and reads the certificate of a connection once.

    TLS has checked its chain and validity when the connection was made, and the hierarchy is the
    same for as long as the server runs: the same certificate is the same peer. Whether it has ended
    since is for the server to see. Whoever has a name of a former hierarchy is judged at every
    call. Used on one event loop.
    """

    def __init__(self, hierarchy: Hierarchy, former: NameJudge | None = None) -> None:
        """`former`: as for `identify_peer`."""
        self._hierarchy = hierarchy
        self._former = former
        self._known: dict[_Shown, PeerIdentity] = {}

    def identify(self, auth_context: Mapping[str, Iterable[bytes]]) -> PeerIdentity:
        """As `identify_peer`. Raises PeerIdentityError."""
        key = (
            tuple(auth_context.get("peer_spiffe_id", ())),
            tuple(auth_context.get("x509_pem_cert", ())),
        )
        known = self._known.get(key)
        if known is not None:
            return known
        try:
            known = identify_peer(auth_context, self._hierarchy)
        except PeerIdentityError:
            if self._former is None:
                raise
            return identify_peer(auth_context, self._hierarchy, self._former)
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[key] = known
        return known


def peer_chain(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[x509.Certificate, ...]:
    """Every certificate that the peer of a gRPC call has shown, its own first.

    Raises:
        PeerIdentityError: They cannot be read, or there are none.
    """
    shown = b"".join(auth_context.get("x509_pem_cert_chain", ()))
    own = tuple(auth_context.get("x509_pem_cert", ()))
    try:
        leaf = x509.load_pem_x509_certificate(b"".join(own))
        # Of a certificate that the root itself signed there is nothing between to be shown.
        rest = x509.load_pem_x509_certificates(shown) if shown else []
    except (ValueError, x509.InvalidVersion):
        raise PeerIdentityError("the peer's chain cannot be read") from None
    return (leaf, *(each for each in rest if each != leaf))


def identify_certificate(
    certificate: x509.Certificate,
    hierarchy: Hierarchy,
    former: NameJudge | None = None,
    issuers: Sequence[x509.Certificate] = (),
) -> PeerIdentity:
    """Identify the holder of a certificate whose chain and validity have been checked.

    `issuers`: the rest of that chain.

    Raises:
        PeerIdentityError: It does not carry exactly one URI and the one DNS name that the URI
            implies in this hierarchy, and nothing else.
    """
    uri, dns_name = _names(certificate)
    principal = parse_principal(uri)
    if principal.region != hierarchy.region:
        raise PeerIdentityError("the certificate is of another region")
    if principal.node_id not in hierarchy.nodes:
        raise PeerIdentityError(
            f"node {principal.node_id} is not in this hierarchy",
            hint="Bring both nodes to the same configuration epoch.",
        )
    implied = principal.dns_name(hierarchy.dns_name(principal.node_id))
    if dns_name != implied and not (former and former.accepts(certificate, principal)):
        raise PeerIdentityError("the certificate's DNS name is not the one that its URI implies")
    names = [certificate.issuer, *(each.subject for each in issuers)]
    if principal.kind is CallerKind.NODE and any(_is_of(each, principal.node_id) for each in names):
        # Its authority could name it for years after the node above has ceased to; or through one
        # below it, to which it gives any name but cannot do without its own certificate.
        raise PeerIdentityError("a node's certificate is signed by the node above, not by itself")
    return PeerIdentity(
        kind=principal.kind,
        node_id=principal.node_id,
        name=principal.name,
        principal=principal.spiffe_id,
        certificate_hash=certificate_hash(certificate),
        not_after=certificate.not_valid_after_utc,
    )


def _is_of(name: x509.Name, node_id: NodeId) -> bool:
    """Whether an authority of this name is the node's own; TLS has compared issuers' names."""
    numbers = name.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    return node_id in [each.value for each in numbers]


def _names(certificate: x509.Certificate) -> tuple[str, str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        raise PeerIdentityError("the certificate carries no alternative names") from None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError):
        raise PeerIdentityError("the certificate's extensions cannot be read") from None
    names = extension.value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    dns_names = names.get_values_for_type(x509.DNSName)
    if len(uris) != 1:
        raise PeerIdentityError(f"the certificate carries {len(uris)} URIs, not one")
    if len(dns_names) != 1:
        raise PeerIdentityError(f"the certificate carries {len(dns_names)} DNS names, not one")
    if len(list(names)) != 2:
        raise PeerIdentityError("the certificate carries names of other kinds than URI and DNS")
    return uris[0], dns_names[0]
