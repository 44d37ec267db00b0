"""Enrolment: folders that hold what their node needs, and nothing of the node above."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from hierarchy_config.model import CareLevel, NodeId
from node.security.authority import (
    LEAF_LIFETIME,
    create_region,
    install_node,
    load_authority,
    prepare_node,
    sign_node,
)
from node.security.caller import CallerKind
from node.security.certificates import authority_name, certificate_request, new_private_key
from node.security.credentials import (
    issue_credentials,
    load_credentials,
    load_node_credentials,
)
from node.security.errors import (
    CertificateUnusableError,
    KeyFileError,
    KeyFileExistsError,
    KeyFileExposedError,
    PeerIdentityError,
)
from node.security.folders import NodeFolder
from node.security.key_files import load_key
from node.security.signatures import verify_chain
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
)

OWN = {"node.key", "blind_index.key", "tls.key", "ca.key"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[NodeId, Path]:
    """A region on disk; tests do not change it."""
    return create_region(tmp_path_factory.mktemp("region"), HIERARCHY, NOW)


def test_gives_every_node_what_it_needs(folders: dict[NodeId, Path]) -> None:
    """Keys by level, mode 0600, in folders that only the owner enters."""
    further = {
        CareLevel.CITY: {"root.key", "regional_index.key"},
        CareLevel.COUNTY: {"pseudonym.key", "regional_index.key"},
        CareLevel.TOWNSHIP: set(),
        CareLevel.VILLAGE: set(),
    }
    for node_id, path in folders.items():
        folder = NodeFolder(path)
        names = {each.name for each in folder.keys.iterdir()}
        assert names == OWN | further[HIERARCHY.entry(node_id).level]
        assert {each.stat().st_mode & 0o777 for each in folder.keys.iterdir()} == {0o600}
        assert folder.keys.stat().st_mode & 0o777 == 0o700
        assert {each.name for each in folder.certs.iterdir()} == {"tls.pem", "ca.pem", "root.pem"}
        assert load_node_credentials(path, node_id, HIERARCHY, NOW).identity.node_id == node_id


def test_no_private_key_is_in_two_folders(folders: dict[NodeId, Path]) -> None:
    """Nothing of a parent's is in its child's folder; two keys are shared, and only as meant."""
    holders: dict[bytes, set[NodeId]] = {}
    for node_id, path in folders.items():
        for file in NodeFolder(path).keys.iterdir():
            holders.setdefault(file.read_bytes(), set()).add(node_id)
    shared = {frozenset(nodes) for nodes in holders.values() if len(nodes) > 1}
    assert shared == {
        frozenset({COUNTY, OTHER_COUNTY}),
        frozenset({CITY, COUNTY, OTHER_COUNTY}),
    }
    assert load_key(NodeFolder(folders[COUNTY]).pseudonym_key) == load_key(
        NodeFolder(folders[OTHER_COUNTY]).pseudonym_key
    )


def test_does_not_touch_a_region_that_exists(tmp_path: Path) -> None:
    """A second creation stops at the first key it finds, which stays as it was."""
    folders = create_region(tmp_path, HIERARCHY, NOW)
    before = NodeFolder(folders[CITY]).node_key.read_bytes()
    with pytest.raises(KeyFileExistsError):
        create_region(tmp_path, HIERARCHY, NOW)
    assert NodeFolder(folders[CITY]).node_key.read_bytes() == before


def test_a_node_joins_alone_by_requests(folders: dict[NodeId, Path], tmp_path: Path) -> None:
    """Three steps on two machines; only requests and certificates travel."""
    request = prepare_node(tmp_path, VILLAGE)
    assert b"PRIVATE" not in request.tls_request + request.authority_request
    township = NodeFolder(folders[TOWNSHIP])
    signed = sign_node(
        load_authority(township.path), township.tls.root.read_bytes(), request, HIERARCHY, NOW
    )
    install_node(tmp_path, signed)
    assert load_node_credentials(tmp_path, VILLAGE, HIERARCHY, NOW).identity.node_id == VILLAGE
    assert authority_name(load_authority(tmp_path).certificate).node_id == VILLAGE


def test_signs_children_only(folders: dict[NodeId, Path], tmp_path: Path) -> None:
    """A county does not sign a village that stands under a township."""
    request = prepare_node(tmp_path, VILLAGE)
    with pytest.raises(CertificateUnusableError, match="signed by 141002001"):
        sign_node(load_authority(folders[COUNTY]), b"", request, HIERARCHY, NOW)


def test_refuses_a_request_without_its_key(folders: dict[NodeId, Path], tmp_path: Path) -> None:
    """A request proves possession; altered or unreadable ones are refused."""
    request = prepare_node(tmp_path, VILLAGE)
    township = load_authority(folders[TOWNSHIP])
    swapped = request.tls_request[:200] + certificate_request(new_private_key())[200:]
    for pem in (b"", b"nonsense", swapped):
        with pytest.raises(CertificateUnusableError):
            sign_node(township, b"", replace(request, tls_request=pem), HIERARCHY, NOW)


def test_issues_credentials_that_say_where_and_who(
    folders: dict[NodeId, Path], tmp_path: Path
) -> None:
    """A folder with key, chain, root and description; the chain holds under the root."""
    issued = issue_credentials(
        folders[VILLAGE],
        CallerKind.CLIENT,
        "his-1",
        tmp_path / "his",
        address="127.0.0.1:7000",
        server_name=HIERARCHY.dns_name(VILLAGE),
        now=NOW,
        lifetime=timedelta(days=30),
    )
    assert load_credentials(tmp_path / "his") == issued
    assert {each.name for each in (tmp_path / "his").iterdir()} == {
        "cert.pem",
        "key.pem",
        "root.pem",
        "credentials.yaml",
    }
    assert issued.tls.private_key.stat().st_mode & 0o777 == 0o600
    chain, root = issued.tls.chain.read_bytes(), issued.tls.root.read_bytes()
    peer = verify_chain(chain, root, HIERARCHY, NOW).identity
    assert peer.principal == issued.principal == f"spiffe://linfen/{VILLAGE}/client/his-1"
    assert peer.not_after == NOW + timedelta(days=30)


def test_issues_executors_for_minutes(folders: dict[NodeId, Path], tmp_path: Path) -> None:
    """The certificate of a query's executor carries the query's id and ends with it."""
    query = "01890a5d-ac96-774b-bcce-b302099a8057"
    issued = issue_credentials(
        folders[CITY],
        CallerKind.EXECUTOR,
        query,
        tmp_path,
        address="127.0.0.1:7000",
        server_name=HIERARCHY.dns_name(CITY),
        now=NOW,
        lifetime=timedelta(minutes=5),
    )
    peer = verify_chain(
        issued.tls.chain.read_bytes(), issued.tls.root.read_bytes(), HIERARCHY, NOW
    ).identity
    assert (peer.kind, peer.name) == (CallerKind.EXECUTOR, query)
    assert peer.not_after == NOW + timedelta(minutes=5)


@pytest.mark.parametrize(
    ("kind", "name"), [(CallerKind.NODE, ""), (CallerKind.CLIENT, "../x"), (CallerKind.STAFF, "")]
)
def test_issues_no_other_names(
    folders: dict[NodeId, Path], tmp_path: Path, kind: CallerKind, name: str
) -> None:
    """No node certificate, no odd name, and nothing is left in the folder."""
    with pytest.raises(PeerIdentityError):
        issue_credentials(
            folders[CITY],
            kind,
            name,
            tmp_path / "out",
            address="a:1",
            server_name="b",
            now=NOW,
            lifetime=timedelta(days=1),
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["", "[]", "address: 1", "address: a\nserver_name: b", "{"])
def test_refuses_a_folder_that_describes_nothing(tmp_path: Path, content: str) -> None:
    """An odd credentials.yaml is an error with a next step, not a traceback."""
    (tmp_path / "credentials.yaml").write_text(content)
    with pytest.raises(CertificateUnusableError) as raised:
        load_credentials(tmp_path)
    assert raised.value.hint


@pytest.fixture
def village(folders: dict[NodeId, Path], tmp_path: Path) -> Path:
    """A copy of the village's folder, to be spoilt."""
    return shutil.copytree(folders[VILLAGE], tmp_path / "village")


def test_refuses_another_nodes_certificate(village: Path, folders: dict[NodeId, Path]) -> None:
    """A node started with its sibling's folder of keys and certificates says whose they are."""
    with pytest.raises(CertificateUnusableError, match=SIBLING):
        load_node_credentials(folders[SIBLING], VILLAGE, HIERARCHY, NOW)
    shutil.copy(NodeFolder(folders[SIBLING]).tls.chain, NodeFolder(village).tls.chain)
    with pytest.raises(CertificateUnusableError, match="another key"):
        load_node_credentials(village, VILLAGE, HIERARCHY, NOW)


def test_a_certificate_outside_its_validity_limits_the_node(village: Path) -> None:
    """Ended and not begun are told apart: the second is usually a wrong clock."""
    day = timedelta(days=1)
    assert load_node_credentials(village, VILLAGE, HIERARCHY, NOW).limited is None
    for now, has_ended in ((NOW + LEAF_LIFETIME + day, True), (NOW - 3650 * day, False)):
        limited = load_node_credentials(village, VILLAGE, HIERARCHY, now).limited
        assert limited is not None
        assert limited.has_ended is has_ended
        assert limited.begins < limited.ends == NOW + LEAF_LIFETIME


def test_an_ended_certificate_is_judged_as_strictly(village: Path) -> None:
    """It must still be this node's, of this region."""
    later = NOW + LEAF_LIFETIME + timedelta(days=1)
    with pytest.raises(CertificateUnusableError):
        load_node_credentials(village, SIBLING, HIERARCHY, later)
    with pytest.raises(CertificateUnusableError):
        load_node_credentials(village, VILLAGE, made.small_hierarchy("yuncheng"), later)


def test_refuses_a_certificate_of_another_parent(village: Path) -> None:
    """When the hierarchy places the node under another parent, its old certificate is of no use."""
    nodes = dict(HIERARCHY.nodes)
    nodes[VILLAGE] = replace(nodes[VILLAGE], parent=OTHER_COUNTY)
    with pytest.raises(CertificateUnusableError, match="DNS name"):
        load_node_credentials(village, VILLAGE, replace(HIERARCHY, nodes=nodes), NOW)


def test_refuses_a_certificate_of_another_region(village: Path) -> None:
    """The region's name and its root must both be the node's own."""
    with pytest.raises(CertificateUnusableError, match="region"):
        load_node_credentials(village, VILLAGE, made.small_hierarchy("yuncheng"), NOW)
    NodeFolder(village).tls.root.write_bytes(made.create(HIERARCHY).root_pem)
    with pytest.raises(CertificateUnusableError, match="root"):
        load_node_credentials(village, VILLAGE, HIERARCHY, NOW)


def test_refuses_missing_and_exposed_files(village: Path) -> None:
    """Every missing or exposed file is named."""
    files = NodeFolder(village).tls
    files.private_key.chmod(0o644)
    with pytest.raises(KeyFileExposedError):
        load_node_credentials(village, VILLAGE, HIERARCHY, NOW)
    files.private_key.unlink()
    with pytest.raises(KeyFileError, match=r"tls\.key"):
        load_node_credentials(village, VILLAGE, HIERARCHY, NOW)
    files.chain.unlink()
    with pytest.raises(CertificateUnusableError, match=r"tls\.pem"):
        load_node_credentials(village, VILLAGE, HIERARCHY, NOW)


def test_refuses_an_authority_that_is_not_its_keys(
    village: Path, folders: dict[NodeId, Path]
) -> None:
    """A child cannot sign in its parent's name by copying the public half."""
    shutil.copy(NodeFolder(folders[TOWNSHIP]).authority_chain, NodeFolder(village).authority_chain)
    with pytest.raises(CertificateUnusableError, match="another key"):
        load_authority(village)
