"""Makes the data folder of one node: settings, region, profile, keys, certificates.

The first node of a region makes its own root; every other is signed by its parent, whose data
folder must be at hand (joining over the network with a one-time code is not built yet). Nothing is
ever overwritten.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hardware_profiles import Machine, fit, load_profile, profile_text
from hierarchy_config import CareLevel, Hierarchy, NodeId, dump_region
from node.clock import Clock
from node.errors import SettingsError
from node.security.authority import (
    ROOT_LIFETIME,
    install_node,
    load_authority,
    prepare_node,
    sign_node,
)
from node.security.certificates import (
    Validity,
    certificates_to_pem,
    create_root,
    new_private_key,
    private_key_to_pem,
)
from node.security.folders import NodeFolder
from node.security.key_files import create_key, read_secret, write_secret
from node.settings import NodePaths, NodeSettings, save_settings

__all__ = ["NewNode", "initialise", "write_settings"]


@dataclass(frozen=True, slots=True)
class NewNode:
    """What a new node is to be.

    `parent_data` is the parent's data folder; the root has none. `machine`: cut the profile to it.
    """

    node_id: NodeId
    listen: str
    database: str = "sqlite:///store.db"
    profile: str = ""
    parent_data: Path | None = None
    parent_endpoint: str | None = None
    machine: Machine | None = None


def initialise(data_dir: Path, hierarchy: Hierarchy, new: NewNode, clock: Clock) -> None:
    """Make the data folder.

    Raises:
        SettingsError: The folder holds a node already, or the parent's folder is not given.
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
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    request = prepare_node(data_dir, new.node_id)
    folder = NodeFolder(data_dir)
    if new.parent_data is None:
        root_key = new_private_key()
        root = create_root(hierarchy.region, root_key, Validity.starting(now, ROOT_LIFETIME))
        root_pem = certificates_to_pem((root.certificate,))
        install_node(data_dir, sign_node(root, root_pem, request, hierarchy, now))
        write_secret(folder.root_key, private_key_to_pem(root_key))
        create_key(folder.regional_index_key, os.urandom)
    else:
        above = load_authority(new.parent_data)
        parent_folder = NodeFolder(new.parent_data)
        root_pem = parent_folder.tls.root.read_bytes()
        install_node(data_dir, sign_node(above, root_pem, request, hierarchy, now))
        if entry.level is CareLevel.COUNTY:
            _county_keys(folder, parent_folder)
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
            database=new.database,
            parent_endpoint=new.parent_endpoint,
        ),
    )


def _county_keys(folder: NodeFolder, city: NodeFolder) -> None:
    """The regional index key comes from the city; the pseudonym key must never be there.

    The first county makes one; the others get a copy from a county, by hand, before they start.
    """
    write_secret(folder.regional_index_key, read_secret(city.regional_index_key))
    create_key(folder.pseudonym_key, os.urandom)
