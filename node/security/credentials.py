"""Credentials of the node itself, checked before it starts, and of those who call it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.security.authority import load_authority
from node.security.caller import CallerKind
from node.security.certificates import (
    Validity,
    authority_name,
    certificates_from_pem,
    certificates_to_pem,
    new_private_key,
    private_key_from_pem,
    private_key_to_pem,
    sign_leaf,
)
from node.security.errors import (
    CertificateUnusableError,
    PeerIdentityError,
    SignatureInvalidError,
)
from node.security.folders import CredentialsFolder, NodeFolder, TlsFiles
from node.security.identity import PeerIdentity
from node.security.key_files import read_secret, write_public, write_secret
from node.security.principal import Principal
from node.security.signatures import Signer, chain_end, verify_chain

__all__ = [
    "Credentials",
    "Limited",
    "NodeCredentials",
    "expiry",
    "issue_credentials",
    "load_credentials",
    "load_node_credentials",
    "outside_validity",
]


@dataclass(frozen=True, slots=True)
class Credentials:
    """How someone calls a node: where it is, what its certificate must say, and as whom."""

    address: str
    server_name: str
    principal: str
    tls: TlsFiles


@dataclass(frozen=True, slots=True)
class Limited:
    """A node's own chain does not hold now: it has ended, or not begun, by this machine's clock."""

    begins: datetime
    ends: datetime
    has_ended: bool


@dataclass(frozen=True, slots=True)
class NodeCredentials:
    """A node's own certificate, found to be its own.

    `is_former`: its name, or that of its authority, is of the hierarchy before: to be renewed.
    `limited`: it does not hold now; the node serves its own place and asks for another.
    """

    identity: PeerIdentity
    tls: TlsFiles
    signer: Signer
    root_pem: bytes
    is_former: bool = False
    limited: Limited | None = None


def issue_credentials(
    node_dir: Path,
    kind: CallerKind,
    name: str,
    out_dir: Path,
    *,
    address: str,
    server_name: str,
    now: datetime,
    lifetime: timedelta,
) -> Credentials:
    """Issue a certificate under a node's authority and write a folder of credentials.

    Executors get minutes and the id of their query as name; the key is made in `out_dir`.

    Raises:
        PeerIdentityError: The name is not one, or the kind is NODE (nodes are signed from above).
        KeyFileExistsError: The folder holds credentials already.
        KeyFileError, CertificateUnusableError: The node's authority cannot be used.
    """
    authority = load_authority(node_dir)
    node = authority_name(authority.certificate)
    if kind is CallerKind.NODE:
        raise PeerIdentityError(
            "a node's certificate is signed by the node above", hint="Use `fenhe node init`."
        )
    principal = Principal(node.region, node.node_id, kind, name)
    out_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = CredentialsFolder(out_dir)
    key = new_private_key()
    write_secret(folder.tls.private_key, private_key_to_pem(key))
    validity = Validity.starting(now, lifetime)
    leaf = sign_leaf(authority, principal, node.dns_name, key.public_key(), validity)
    write_public(folder.tls.chain, certificates_to_pem((leaf, *authority.chain)))
    write_public(folder.tls.root, NodeFolder(node_dir).tls.root.read_bytes())
    description = {
        "address": address,
        "server_name": server_name,
        "principal": principal.spiffe_id,
    }
    write_public(folder.description, yaml.safe_dump(description, sort_keys=False).encode())
    return Credentials(address, server_name, principal.spiffe_id, folder.tls)


def load_credentials(path: Path) -> Credentials:
    """Read a folder of credentials.

    Raises:
        CertificateUnusableError: credentials.yaml is missing, or not of these three texts.
    """
    folder = CredentialsFolder(path)
    hint = "Issue new credentials at the node, or correct the path of the folder."
    try:
        read = yaml.safe_load(folder.description.read_bytes())
    except (OSError, yaml.YAMLError):
        raise CertificateUnusableError(f"{folder.description} cannot be read", hint=hint) from None
    keys = ("address", "server_name", "principal")
    if not isinstance(read, dict) or not all(isinstance(read.get(key), str) for key in keys):
        raise CertificateUnusableError(
            f"{folder.description} does not hold {', '.join(keys)}", hint=hint
        )
    address, server_name, principal = (read[key] for key in keys)
    return Credentials(address, server_name, principal, folder.tls)


def expiry(credentials: Credentials) -> datetime:
    """When credentials end, UTC. Raises CertificateUnusableError: the certificate is missing."""
    path = credentials.tls.chain
    try:
        leaf = certificates_from_pem(path.read_bytes())[0]
    except OSError as error:
        raise CertificateUnusableError(
            f"{path} cannot be read: {error.strerror}", hint="Issue new credentials at the node."
        ) from None
    return leaf.not_valid_after_utc


def load_node_credentials(
    node_dir: Path,
    node_id: NodeId,
    hierarchy: Hierarchy,
    now: datetime,
    former: Hierarchy | None = None,
) -> NodeCredentials:
    """Check that the certificate in a data folder is this node's, under its parent.

    One that does not hold now is judged at the end of its validity, and said to be limited.

    `former`: the hierarchy before this one; a certificate under the name it gave is still used.

    Raises:
        CertificateUnusableError: Missing, another node's, of another key, or not under the region's
            root.
        KeyFileError: keys/tls.key is missing or exposed.
    """
    files = NodeFolder(node_dir).tls
    try:
        chain_pem, root_pem = files.chain.read_bytes(), files.root.read_bytes()
    except FileNotFoundError as error:
        raise CertificateUnusableError(f"{error.filename} is missing") from None
    chain = certificates_from_pem(chain_pem)
    key = private_key_from_pem(read_secret(files.private_key))
    if chain[0].public_key() != key.public_key():
        raise CertificateUnusableError(f"{files.chain} is of another key than tls.key")
    limited = outside_validity(chain, now)
    moment = now if limited is None else limited.ends
    try:
        peer = verify_chain(chain_pem, root_pem, hierarchy, moment, _FormerSelf(former))
        identity = peer.identity
    except (SignatureInvalidError, PeerIdentityError) as error:
        raise CertificateUnusableError(
            f"{files.chain}: {error.message}",
            hint="The certificate must be this node's, issued by its parent in region.yaml.",
        ) from None
    if identity.kind is not CallerKind.NODE or identity.node_id != node_id:
        raise CertificateUnusableError(
            f"{files.chain} is the certificate of {identity.principal}, this is node {node_id}",
            hint="Put this node's own certificate and key into certs/ and keys/.",
        )
    is_former = former is not None and not (
        _named(chain[0], hierarchy.dns_name(node_id))
        and _authority_dns_name(node_dir) in {None, hierarchy.dns_name(node_id)}
    )
    return NodeCredentials(identity, files, Signer(key, chain), root_pem, is_former, limited)


@dataclass(frozen=True, slots=True)
class _FormerSelf:
    """Takes the certificate of the key in the folder under the name that `former` gave."""

    former: Hierarchy | None

    def accepts(self, certificate: x509.Certificate, principal: Principal) -> bool:
        if self.former is None or principal.node_id not in self.former:
            return False
        return _named(certificate, self.former.dns_name(principal.node_id))


def _named(certificate: x509.Certificate, dns_name: str) -> bool:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.DNSName) == [dns_name]


def _authority_dns_name(node_dir: Path) -> str | None:
    try:
        pem = NodeFolder(node_dir).authority_chain.read_bytes()
    except FileNotFoundError:
        return None
    return authority_name(certificates_from_pem(pem)[0]).dns_name


def outside_validity(chain: Sequence[x509.Certificate], now: datetime) -> Limited | None:
    """Whether a chain does not hold now as a whole; None: it does."""
    begins, ends = max(each.not_valid_before_utc for each in chain), chain_end(chain)
    if begins <= now <= ends:
        return None
    return Limited(begins, ends, now > ends)
