"""The directory: which region is in force, and where each node is reached.

The contract of every directory, and its errors. A revision is opaque text that differs whenever the
region's file differs. Registrations say where a node is reached right now; what the region file
says is the fallback. Nothing here is trusted for identity: that is what certificates are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hierarchy_config.errors import Fault, HierarchyError
from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId

__all__ = [
    "ConsulMissingError",
    "DirectoryConflictError",
    "DirectoryError",
    "DirectoryState",
    "DirectoryUnreachableError",
    "NodeDirectory",
    "RegionMissingError",
    "split_endpoint",
]


class DirectoryError(HierarchyError):
    """Base of the errors of a directory."""

    code = "DIRECTORY_ERROR"


class RegionMissingError(DirectoryError):
    """The directory holds no region."""

    code = "REGION_MISSING"
    default_hint = "Publish a region file first."


class DirectoryConflictError(DirectoryError):
    """Someone else changed the region meanwhile, or its epoch does not rise."""

    code = "DIRECTORY_CONFLICT"
    default_hint = "Read the region again, make the change on it, raise its epoch, publish again."


class DirectoryUnreachableError(DirectoryError):
    """The directory does not answer, or refuses."""

    code = "DIRECTORY_UNREACHABLE"
    fault = Fault.PEER
    retryable = True
    default_hint = "Look at the directory's address, its log and its access rules."


class ConsulMissingError(HierarchyError):
    """A directory in Consul was asked for, and py-consul is not installed."""

    code = "CONSUL_MISSING"
    default_hint = "Install it: pip install 'fenhe[consul]'; or use a directory in a folder."

    def __init__(self) -> None:
        super().__init__("a directory in Consul needs the extra `consul`, which is not installed")


@dataclass(frozen=True, slots=True)
class DirectoryState:
    """The region in force, and the revision of the text it was read from."""

    hierarchy: Hierarchy
    revision: str


class NodeDirectory(Protocol):
    """Where the region is kept and nodes are found. Safe to use from several threads."""

    def read(self) -> DirectoryState:
        """Return the region in force.

        Raises:
            RegionMissingError: None has been published.
            RegionFileError: What was published is no region file.
            DirectoryUnreachableError: The directory does not answer.
        """

    def publish(self, hierarchy: Hierarchy, *, expected: str | None) -> str:
        """Put a region in force if nobody changed it meanwhile; return the new revision.

        Args:
            hierarchy: Its epoch must be higher than that of the region in force.
            expected: The revision it was made from; None: there is none yet.

        Raises:
            DirectoryConflictError: Another revision is in force, or the epoch does not rise.
        """

    def wait_for_change(self, revision: str, timeout_s: float) -> DirectoryState | None:
        """Block until the region differs from `revision`; None when the time is over.

        Raises as `read` does.
        """

    def register(self, node_id: NodeId, endpoint: str) -> None:
        """Say that a node is reached at host:port. A later registration replaces it."""

    def deregister(self, node_id: NodeId) -> None:
        """Take a registration back; nothing happens if there is none."""

    def registration_of(self, node_id: NodeId) -> str | None:
        """Return where a node registered itself, if it is healthy as far as that is known.

        Raises:
            NodeUnknownError: The node is not in the region in force.
        """

    def endpoint_of(self, node_id: NodeId) -> str | None:
        """Return where a node is reached: as registered and healthy, else as the region says.

        Raises:
            NodeUnknownError: The node is not in the region in force.
        """


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Return host (without brackets) and port of host:port. Raises ValueError if it is none."""
    host, _, port = endpoint.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise ValueError("host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
