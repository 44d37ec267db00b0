"""Makes the data folder of one node: settings, region, profile, keys, certificates.

The first node of a region makes its own root; every other is signed by its parent, whose data
folder must be at hand; with none at hand it joins over the network (node/joining). Nothing is ever
overwritten.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hardware_profiles import Machine, fit, load_profile, profile_text
from hierarchy_config import CareLevel, Hierarchy, NodeEntry, NodeId, dump_region
from node.clock import Clock
from node.errors import SettingsError
from node.security.authority import (
    ROOT_LIFETIME,
    JoinRequest,
    install_node,
    load_authority,
    prepare_node,
    sign_node,
)
from node.security.certificates import (
    Validity,
    authority_name,
    certificates_to_pem,
    create_root,
    new_private_key,
    private_key_to_pem,
)
from node.security.errors import CertificateUnusableError
from node.security.folders import NodeFolder
from node.security.key_files import create_key, load_key, read_secret, write_secret
from node.security.suites import KEY_BYTES, Suite
from node.settings import NodePaths, NodeSettings, save_settings

__all__ = ["NewNode", "initialise", "write_settings"]


@dataclass(frozen=True, slots=True)
class NewNode:
    """What a new node is to be.

    `parent_data` is the parent's data folder; the root has none. `machine`: cut the profile to it.
    `suite` holds for the life of the store. A county takes the pseudonym key of `pseudonym_from`,
    another county's data folder, or makes the region's if it is the first (`new_pseudonym_key`).
    """

    node_id: NodeId
    listen: str
    database: str = "sqlite:///store.db"
    profile: str = ""
    parent_data: Path | None = None
    parent_endpoint: str | None = None
    machine: Machine | None = None
    suite: Suite = Suite.INTL
    pseudonym_from: Path | None = None
    new_pseudonym_key: bool = False
    door_listen: str | None = None
    parent_door: str | None = None


def initialise(data_dir: Path, hierarchy: Hierarchy, new: NewNode, clock: Clock) -> None:
    """Make the data folder.

    Raises:
        SettingsError: The folder holds a node already, the parent's folder is not given, or it is
            not said where a county's pseudonym key comes from. Nothing was made.
        KeyFileError: A key of the folders named cannot be used. Nothing was made.
        KeyFileExistsError: The folder holds keys already.
    """
    entry = hierarchy.entry(new.node_id)
    if NodePaths(data_dir).settings.exists():
        raise SettingsError(
            f"{data_dir} holds a node already", hint="Choose another folder; nothing was changed."
        )
    if entry.parent is not None and new.parent_data is None:
        raise SettingsError(
            f"{new.node_id} is signed by its parent {entry.parent}, whose data folder is missing",
            hint="Give it with --parent-data.",
        )
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    pseudonym_key = _pseudonym_key(hierarchy, entry, new)
    if new.parent_data is None:
        _make_root(data_dir, hierarchy, new, now)
    else:
        _make_child(data_dir, hierarchy, new, NodeFolder(new.parent_data), now)
    if pseudonym_key is not None:
        create_key(NodeFolder(data_dir).pseudonym_key, lambda _: pseudonym_key)
    write_settings(data_dir, hierarchy, new)


def write_settings(data_dir: Path, hierarchy: Hierarchy, new: NewNode) -> None:
    """Write node.yaml, region.yaml and profile.yaml beside existing keys."""
    entry = hierarchy.entry(new.node_id)
    profile = load_profile(new.profile or entry.profile)
    if new.machine is not None:
        profile = fit(profile, new.machine)
    (data_dir / "profile.yaml").write_text(profile_text(profile), encoding="utf-8")
    dump_region(hierarchy, data_dir / "region.yaml")
    save_settings(
        data_dir,
        NodeSettings(
            node_id=new.node_id,
            listen=new.listen,
            door_listen=new.door_listen,
            database=new.database,
            parent_endpoint=new.parent_endpoint,
            parent_door=new.parent_door,
            suite=new.suite.value,
        ),
    )


def _make_root(data_dir: Path, hierarchy: Hierarchy, new: NewNode, now: datetime) -> None:
    folder = NodeFolder(data_dir)
    request = _prepared(data_dir, new.node_id)
    root_key = new_private_key()
    root = create_root(hierarchy.region, root_key, Validity.starting(now, ROOT_LIFETIME))
    root_pem = certificates_to_pem((root.certificate,))
    install_node(data_dir, sign_node(root, root_pem, request, hierarchy, now))
    write_secret(folder.root_key, private_key_to_pem(root_key))
    create_key(folder.regional_index_key, os.urandom)


def _make_child(
    data_dir: Path, hierarchy: Hierarchy, new: NewNode, parent: NodeFolder, now: datetime
) -> None:
    entry = hierarchy.entry(new.node_id)
    above = load_authority(parent.path)
    if (signer := authority_name(above.certificate).node_id) != entry.parent:
        raise CertificateUnusableError(
            f"{new.node_id} is signed by its parent {entry.parent}, and {parent.path} is the "
            f"folder of {signer}",
            hint="Give the parent's folder with --parent-data, or correct the region file.",
        )
    is_county = entry.level is CareLevel.COUNTY
    regional_key = read_secret(parent.regional_index_key) if is_county else None
    root_pem = parent.tls.root.read_bytes()
    request = _prepared(data_dir, new.node_id)
    install_node(data_dir, sign_node(above, root_pem, request, hierarchy, now))
    if regional_key is not None:
        write_secret(NodeFolder(data_dir).regional_index_key, regional_key)


def _prepared(data_dir: Path, node_id: NodeId) -> JoinRequest:
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return prepare_node(data_dir, node_id)


def _pseudonym_key(hierarchy: Hierarchy, entry: NodeEntry, new: NewNode) -> bytes | None:
    """The key that all counties share and the city must never get; None if the node needs none.

    Whether another county was made before cannot be seen from here, and with two keys one person
    would have two pseudonyms, which nothing mends later. So where there are several, it is asked.
    """
    if entry.level is not CareLevel.COUNTY or entry.parent is None:
        if new.pseudonym_from is not None or new.new_pseudonym_key:
            raise SettingsError(
                f"{entry.node_id} has no pseudonym key: only a county below a city has one",
                hint="Leave out --pseudonym-from and --new-pseudonym-key.",
            )
        return None
    if new.pseudonym_from is not None and new.new_pseudonym_key:
        raise SettingsError(
            "a pseudonym key is either taken or made",
            hint="Give --pseudonym-from or --new-pseudonym-key, not both.",
        )
    if new.pseudonym_from is not None:
        path = NodeFolder(new.pseudonym_from).pseudonym_key
        if not path.exists():
            raise SettingsError(
                f"{path} is missing",
                hint="Name the data folder of a county that was made already.",
            )
        return load_key(path)
    counties = sum(each.level is CareLevel.COUNTY for each in hierarchy.nodes.values())
    if counties > 1 and not new.new_pseudonym_key:
        raise SettingsError(
            f"the {counties} counties of {hierarchy.region} share one pseudonym key, and it is not "
            "said where this one's comes from",
            hint="If another county was made already, name its data folder: --pseudonym-from "
            "FOLDER. If this is the first: --new-pseudonym-key.",
        )
    return os.urandom(KEY_BYTES)
