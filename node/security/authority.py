"""Enrolment: how a node comes by its keys and certificates, level by level.

A child makes its private keys in its own folder and hands out requests; the node above signs them
and hands back certificates. No private key ever leaves the folder it was made in, so a village's
folder holds nothing with which its parent could be played. `create_region` does this for every
node of a hierarchy on one machine; a node that joins alone does the same three steps.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeId
from node.clock import RandomBytes
from node.security.certificates import (
    Authority,
    AuthorityName,
    Validity,
    authority_name,
    certificate_request,
    certificates_from_pem,
    certificates_to_pem,
    create_root,
    new_private_key,
    private_key_from_pem,
    private_key_to_pem,
    requested_key,
    sign_authority,
    sign_leaf,
)
from node.security.errors import CertificateUnusableError
from node.security.folders import NodeFolder
from node.security.key_files import create_key, read_secret, write_public, write_secret
from node.security.principal import Principal

__all__ = [
    "AUTHORITY_LIFETIME",
    "LEAF_LIFETIME",
    "ROOT_LIFETIME",
    "JoinRequest",
    "SignedNode",
    "create_region",
    "install_node",
    "load_authority",
    "prepare_node",
    "sign_node",
]

ROOT_LIFETIME: Final = timedelta(days=7300)
AUTHORITY_LIFETIME: Final = timedelta(days=1825)
LEAF_LIFETIME: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """What a node hands to the node above: two certificate requests (PEM), no secret."""

    node_id: NodeId
    tls_request: bytes
    authority_request: bytes


@dataclass(frozen=True, slots=True)
class SignedNode:
    """What it gets back: two chains and the region's root (PEM), no secret."""

    tls_chain: bytes
    authority_chain: bytes
    root: bytes


def prepare_node(
    node_dir: Path, node_id: NodeId, random_bytes: RandomBytes = os.urandom
) -> JoinRequest:
    """Make the keys that belong to this node alone, in its own folder.

    Raises:
        KeyFileExistsError: The folder holds keys already; they stay as they are.
    """
    folder = NodeFolder(node_dir)
    # Of what `parents` makes, only the last has the mode: the node's own folder is made by itself.
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.keys.mkdir(mode=0o700, exist_ok=True)
    folder.certs.mkdir(parents=True, exist_ok=True)
    create_key(folder.node_key, random_bytes)
    create_key(folder.blind_index_key, random_bytes)
    requests = []
    for path in (folder.tls.private_key, folder.authority_key):
        key = new_private_key()
        write_secret(path, private_key_to_pem(key))
        requests.append(certificate_request(key))
    tls_request, authority_request = requests
    return JoinRequest(node_id, tls_request, authority_request)


def sign_node(
    parent: Authority,
    root_pem: bytes,
    request: JoinRequest,
    hierarchy: Hierarchy,
    now: datetime,
) -> SignedNode:
    """Sign a node's own authority and its certificate, as the authority of the node above.

    The certificate of the region's first node is signed by its own authority's issuer, the root.

    Raises:
        NodeUnknownError: The node is not in the hierarchy.
        CertificateUnusableError: A request is not signed by its own key, or `parent` is not the
            authority of the node above.
    """
    node_id = request.node_id
    entry = hierarchy.entry(node_id)
    if entry.parent is not None and authority_name(parent.certificate).node_id != entry.parent:
        raise CertificateUnusableError(
            f"node {node_id} is to be signed by {entry.parent}, not by another node",
            hint="Run this at the node above, or correct the parent in the region file.",
        )
    dns_name = hierarchy.dns_name(node_id)
    own = sign_authority(
        parent,
        AuthorityName(hierarchy.region, node_id, dns_name),
        entry.level,
        requested_key(request.authority_request),
        Validity.starting(now, AUTHORITY_LIFETIME),
    )
    leaf = sign_leaf(
        parent,
        Principal(hierarchy.region, node_id),
        dns_name,
        requested_key(request.tls_request),
        Validity.starting(now, LEAF_LIFETIME),
    )
    return SignedNode(
        tls_chain=certificates_to_pem((leaf, *parent.chain)),
        authority_chain=certificates_to_pem((own, *parent.chain)),
        root=root_pem,
    )


def install_node(node_dir: Path, signed: SignedNode) -> None:
    """Write a node's certificates into its folder."""
    folder = NodeFolder(node_dir)
    folder.certs.mkdir(parents=True, exist_ok=True)
    write_public(folder.tls.root, signed.root)
    write_public(folder.authority_chain, signed.authority_chain)
    write_public(folder.tls.chain, signed.tls_chain)


def load_authority(node_dir: Path) -> Authority:
    """A node's own authority, to sign its children and its people.

    Raises:
        KeyFileError: Its key is missing or exposed.
        CertificateUnusableError: Its certificate is missing, or of another key.
    """
    folder = NodeFolder(node_dir)
    key = private_key_from_pem(read_secret(folder.authority_key))
    try:
        own, *issuers = certificates_from_pem(folder.authority_chain.read_bytes())
    except FileNotFoundError:
        raise CertificateUnusableError(f"{folder.authority_chain} is missing") from None
    if own.public_key() != key.public_key():
        raise CertificateUnusableError(f"{folder.authority_chain} is of another key than ca.key")
    return Authority(own, key, tuple(issuers))


def create_region(
    root_dir: Path,
    hierarchy: Hierarchy,
    now: datetime,
    random_bytes: RandomBytes = os.urandom,
) -> dict[NodeId, Path]:
    """Make keys and certificates of every node, each in root_dir/<node id>; return the folders.

    The root's key is left in the city's folder (keys/root.key). Counties share one pseudonym key,
    city and counties one regional index key: these two are the only keys in more than one folder.

    Raises:
        KeyFileExistsError: One of the folders holds keys already.
    """
    folders = {node_id: root_dir / node_id for node_id in hierarchy.nodes}
    root_key = new_private_key()
    root = create_root(hierarchy.region, root_key, Validity.starting(now, ROOT_LIFETIME))
    root_pem = certificates_to_pem((root.certificate,))
    for node_id in _downward(hierarchy):
        folder, parent = folders[node_id], hierarchy.parent(node_id)
        request = prepare_node(folder, node_id, random_bytes)
        above = root if parent is None else load_authority(folders[parent])
        install_node(folder, sign_node(above, root_pem, request, hierarchy, now))
    write_secret(NodeFolder(folders[hierarchy.root]).root_key, private_key_to_pem(root_key))
    _share_keys(folders, hierarchy, random_bytes)
    return folders


def _downward(hierarchy: Hierarchy) -> list[NodeId]:
    return sorted(hierarchy.nodes, key=lambda each: (hierarchy.entry(each).level.depth, each))


def _share_keys(
    folders: dict[NodeId, Path], hierarchy: Hierarchy, random_bytes: RandomBytes
) -> None:
    pseudonym, regional_index = (random_bytes(32).hex().encode() + b"\n" for _ in range(2))
    for node_id, path in folders.items():
        folder, level = NodeFolder(path), hierarchy.entry(node_id).level
        if level is CareLevel.COUNTY:
            write_secret(folder.pseudonym_key, pseudonym)
        if level in {CareLevel.CITY, CareLevel.COUNTY}:
            write_secret(folder.regional_index_key, regional_index)
