"""What a node reads from its data folder before it opens anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hardware_profiles import HardwareProfile, load_profile
from hierarchy_config import Hierarchy, NodeId, NodeUnknownError, load_region
from node.clock import Clock
from node.errors import SettingsError
from node.security.credentials import NodeCredentials, load_node_credentials
from node.security.tls import GrpcLimits
from node.settings import NodePaths, NodeSettings, load_settings

__all__ = ["Foundations", "read_foundations", "utc_now"]


@dataclass(frozen=True)
class Foundations:
    """What is read from the data folder before anything is opened."""

    paths: NodePaths
    settings: NodeSettings
    hierarchy: Hierarchy
    profile: HardwareProfile
    credentials: NodeCredentials
    former: Hierarchy | None = None
    """The hierarchy that named the node's certificate before the last change, if there was one."""

    address: str = ""
    """Where the node served in its life before, so that it serves there again; empty: the first."""

    door_address: str = ""
    """Where its door was in its life before, for the same reason; empty: the first, or closed."""

    @property
    def listen(self) -> str:
        """Where to serve."""
        return self.address or self.settings.listen

    def door_listen(self, address: str) -> str:
        """Where to open the side door of a node that serves at host:port; empty: nowhere."""
        if self.door_closed_because:
            return ""
        said = self.settings.door_listen
        if said is not None:
            return (self.door_address or said) if said.endswith(":0") else said
        host, _, port = address.rpartition(":")
        chosen = 0 if self.settings.listen.endswith(":0") else (int(port) + 1) % 65_536
        return self.door_address or f"{host}:{chosen}"

    @property
    def door_closed_because(self) -> str:
        """Why there is no door, in words; empty: there is to be one."""
        if not self.hierarchy.children(self.node_id):
            return "it has no children"
        return "node.yaml says door_listen: off" if self.settings.door_listen == "off" else ""

    @property
    def node_id(self) -> NodeId:
        """This node."""
        return NodeId(self.settings.node_id)

    @property
    def limits(self) -> GrpcLimits:
        """Bounds of every message to and from this node."""
        return GrpcLimits(message_bytes_max=self.profile.rpc_max_bytes)


def read_foundations(data_dir: Path, clock: Clock) -> Foundations:
    """Read and check the data folder.

    Raises:
        SettingsError, RegionFileError, ProfileFileError: A file of it is wrong.
        CertificateUnusableError: The certificate is another's, expired, or not its parent's.
    """
    settings = load_settings(data_dir)
    hierarchy = load_region(data_dir / settings.region)
    node_id = NodeId(settings.node_id)
    try:
        hierarchy.entry(node_id)
    except NodeUnknownError as error:
        raise SettingsError(f"node_id: {error.message}") from error
    profile_file = data_dir / settings.profile
    profile = load_profile(profile_file if profile_file.exists() else settings.profile)
    paths = NodePaths(data_dir)
    former = load_region(paths.former_region) if paths.former_region.exists() else None
    if former is not None and node_id not in former:
        former = None
    credentials = load_node_credentials(data_dir, node_id, hierarchy, utc_now(clock), former)
    return Foundations(paths, settings, hierarchy, profile, credentials, former)


def utc_now(clock: Clock) -> datetime:
    """The wall clock as an aware UTC time, for certificates."""
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
