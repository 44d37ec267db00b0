"""Who is known under a former name: the holder of a pinned key, and whom this node certified."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hierarchy_config.hierarchy import Hierarchy
from node.security.authority import create_region, load_authority
from node.security.caller import CallerKind
from node.security.certificates import certificates_to_pem, new_private_key, sign_leaf
from node.security.credentials import load_node_credentials
from node.security.errors import CertificateUnusableError, PeerIdentityError
from node.security.folders import NodeFolder
from node.security.former import FormerNames, former_chains, keep_former, key_digest
from node.security.identity import identify_certificate
from node.security.principal import Principal
from tests.unit.security import region as made
from tests.unit.security.region import (
    COUNTY,
    GOOD,
    HIERARCHY,
    NOW,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    Held,
    Region,
)


@pytest.fixture(scope="module")
def region() -> Region:
    """The authorities as they were before the township moved."""
    return made.create(HIERARCHY)


def _moved() -> Hierarchy:
    entry = replace(HIERARCHY.entry(TOWNSHIP), parent=OTHER_COUNTY)
    return replace(HIERARCHY, epoch=2, nodes={**HIERARCHY.nodes, TOWNSHIP: entry})


MOVED = _moved()


def _key(held: Held) -> str:
    return key_digest(held.private_key.public_key())


def test_the_pinned_key_is_known_under_the_former_name(region: Region) -> None:
    """By the new parent, which never certified it."""
    township = region.node(TOWNSHIP)
    judge = FormerNames(OTHER_COUNTY, MOVED, None, {TOWNSHIP: _key(township)})

    assert identify_certificate(township.leaf, MOVED, judge).node_id == TOWNSHIP
    with pytest.raises(PeerIdentityError, match="DNS name"):
        identify_certificate(township.leaf, MOVED)


def test_the_former_parent_cannot_play_the_moved_node(region: Region) -> None:
    """It may sign the former name for a key of its own; that key is not the pinned one."""
    forged = region.node(TOWNSHIP)
    judge = FormerNames(OTHER_COUNTY, MOVED, None, {TOWNSHIP: _key(region.node(TOWNSHIP))})

    with pytest.raises(PeerIdentityError, match="DNS name"):
        identify_certificate(forged.leaf, MOVED, judge)


def test_a_pinned_key_names_nobody_else(region: Region) -> None:
    """Whoever holds it is that node and no other, and no client of it."""
    key = new_private_key()
    client = sign_leaf(
        region.authorities[COUNTY],
        Principal("linfen", TOWNSHIP, CallerKind.CLIENT, "clinic"),
        HIERARCHY.dns_name(TOWNSHIP),
        key.public_key(),
        GOOD,
    )
    pins = {TOWNSHIP: key_digest(key.public_key())}

    with pytest.raises(PeerIdentityError):
        identify_certificate(client, MOVED, FormerNames(OTHER_COUNTY, MOVED, None, pins))


def test_a_moved_node_knows_whom_it_certified(region: Region) -> None:
    """Its children and its people come with names of the old path, and its own signature."""
    own = region.authorities[TOWNSHIP]
    judge = FormerNames(TOWNSHIP, MOVED, own.private_key.public_key())
    client = region.leaf(own, Principal("linfen", TOWNSHIP, CallerKind.CLIENT, "clinic"))

    assert identify_certificate(region.node(VILLAGE).leaf, MOVED, judge).node_id == VILLAGE
    assert identify_certificate(client.leaf, MOVED, judge).kind is CallerKind.CLIENT


def test_a_moved_node_does_not_take_what_its_former_parent_signed(region: Region) -> None:
    """The old county could sign for everything below the old name."""
    own = region.authorities[TOWNSHIP]
    judge = FormerNames(TOWNSHIP, MOVED, own.private_key.public_key())
    by_county = region.authorities[COUNTY]
    for principal in (
        Principal("linfen", VILLAGE),
        Principal("linfen", TOWNSHIP, CallerKind.OPERATOR, "intruder"),
    ):
        forged = region.leaf(by_county, principal)
        with pytest.raises(PeerIdentityError, match="DNS name"):
            identify_certificate(forged.leaf, MOVED, judge)


def test_a_node_that_moved_away_is_no_child_any_more(region: Region) -> None:
    """The old county's own signature does not make it one."""
    own = region.authorities[COUNTY]
    judge = FormerNames(COUNTY, MOVED, own.private_key.public_key())

    with pytest.raises(PeerIdentityError, match="DNS name"):
        identify_certificate(region.node(TOWNSHIP).leaf, MOVED, judge)


def test_a_node_starts_with_a_certificate_of_the_hierarchy_before(tmp_path: Path) -> None:
    """It says that it is one; without knowing that hierarchy it does not start."""
    folders = create_region(tmp_path, HIERARCHY, NOW)
    township = folders[TOWNSHIP]

    held = load_node_credentials(township, TOWNSHIP, MOVED, NOW, HIERARCHY)

    assert held.is_former
    assert not load_node_credentials(township, TOWNSHIP, HIERARCHY, NOW, MOVED).is_former
    with pytest.raises(CertificateUnusableError):
        load_node_credentials(township, TOWNSHIP, MOVED, NOW)


def test_former_chains_are_kept_until_they_expire(tmp_path: Path) -> None:
    """The one in use is none of them, nor is one of another key or one that cannot be read."""
    folders = create_region(tmp_path, HIERARCHY, NOW)
    chain = NodeFolder(folders[TOWNSHIP]).tls.chain
    before = chain.read_bytes()
    held = load_node_credentials(folders[TOWNSHIP], TOWNSHIP, HIERARCHY, NOW)
    keep_former(chain)
    keep_former(chain)
    own = load_authority(folders[OTHER_COUNTY])
    renewed = sign_leaf(
        own, Principal("linfen", TOWNSHIP), MOVED.dns_name(TOWNSHIP), held.signer.public_key, GOOD
    )
    (chain.parent / "former" / "broken.pem").write_bytes(b"nothing")

    assert former_chains(chain, held.signer.public_key) == []
    chain.write_bytes(certificates_to_pem((renewed, *own.chain)))
    assert former_chains(chain, held.signer.public_key) == [before]
    assert former_chains(chain, held.signer.public_key, GOOD.not_after) == []
    assert former_chains(chain, new_private_key().public_key()) == []
