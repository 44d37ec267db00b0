"""Certificates over the link: the child takes what leads to the root, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from hierarchy_config import NodeId
from node.region.errors import RegionRenewalError
from node.region.renewal import install_renewed
from node.security.authority import (
    JoinRequest,
    SignedNode,
    create_region,
    load_authority,
    sign_node,
)
from node.security.certificates import (
    Authority,
    certificate_request,
    new_private_key,
    private_key_from_pem,
)
from node.security.folders import NodeFolder
from node.security.key_files import read_secret
from tests.unit.security.region import HIERARCHY, NOW, TOWNSHIP, VILLAGE


@pytest.fixture
def folders(tmp_path: Path) -> dict[NodeId, Path]:
    """A region on disk."""
    return create_region(tmp_path, HIERARCHY, NOW)


def renewed(folders: dict[NodeId, Path], authority: Authority) -> SignedNode:
    """What an authority answers to the village's requests."""
    folder = NodeFolder(folders[VILLAGE])
    tls, own = (
        certificate_request(private_key_from_pem(read_secret(path)))
        for path in (folder.tls.private_key, folder.authority_key)
    )
    return sign_node(authority, b"", JoinRequest(VILLAGE, tls, own), HIERARCHY, NOW)


def files(folder: Path) -> dict[str, bytes]:
    """The certificates of a folder."""
    return {path.name: path.read_bytes() for path in NodeFolder(folder).certs.glob("*.pem")}


def install(folder: Path, tls_chain: bytes, authority_chain: bytes) -> None:
    """Take an answer at the village."""
    install_renewed(folder, VILLAGE, HIERARCHY, tls_chain, authority_chain, now=NOW)


def test_what_the_node_above_certifies_is_taken(folders: dict[NodeId, Path]) -> None:
    """Both chains are replaced, for the keys that the node has."""
    signed = renewed(folders, load_authority(folders[TOWNSHIP]))

    install(folders[VILLAGE], signed.tls_chain, signed.authority_chain)

    assert files(folders[VILLAGE])["ca.pem"] == signed.authority_chain
    assert files(folders[VILLAGE])["tls.pem"] == signed.tls_chain
    load_authority(folders[VILLAGE])


def test_an_authority_that_leads_nowhere_is_not_taken(folders: dict[NodeId, Path]) -> None:
    """Its name and key are right, and what it signed would be worth nothing for ever."""
    above = load_authority(folders[TOWNSHIP])
    signed = renewed(folders, above)
    forged = renewed(folders, Authority(above.certificate, new_private_key(), above.issuers))
    before = files(folders[VILLAGE])

    for chain in (forged.authority_chain, signed.tls_chain, b"", b"nonsense"):
        with pytest.raises(RegionRenewalError):
            install(folders[VILLAGE], signed.tls_chain, chain)
    with pytest.raises(RegionRenewalError):
        install(folders[VILLAGE], forged.tls_chain, signed.authority_chain)

    assert files(folders[VILLAGE]) == before
