"""The demo's slice of Linfen in a data folder: which nodes, where they lie, who may call them.

demo-data/demo.json              what this folder holds; written last, so that it is complete
demo-data/nodes/CODE/            one data folder a node, as any installed node has
demo-data/credentials/NAME/      credentials to paste after --as
demo-data/mariadb/CODE/          with --database mysql: one private server a node
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from hardware_profiles import read_machine
from hierarchy_config import (
    CareLevel,
    Hierarchy,
    NodeId,
    load_region,
    shipped_region,
    slice_hierarchy,
    with_endpoints,
)
from node.clock import Clock
from node.errors import SettingsError
from node.initialise import NewNode, write_settings
from node.security.authority import create_region
from node.security.caller import CallerKind
from node.security.credentials import issue_credentials, load_node_credentials
from node.security.errors import CertificateUnusableError
from node.settings import load_settings, save_settings

__all__ = ["DEMO_NODES", "DemoPlace"]

DEMO_NODES: Final = tuple(
    NodeId(code)
    for code in (
        "1410",
        "141002",
        "141002100",
        "141002100200",
        "141002100203",
        "141002104",
        "141002104200",
        "141002104201",
        "141024",
        "141024100",
        "141024100207",
        "141024100208",
    )
)
_HOST: Final = "127.0.0.1"
# Many nodes share this machine, so the port after a node's own may be another's.
_DOOR: Final = "127.0.0.1:0"
_PORT_MIN: Final = 10_000
_LENT_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_MEMORY_MB_A_NODE: Final = 1024


@dataclass(frozen=True)
class DemoPlace:
    """The demo's data folder."""

    root: Path
    hierarchy: Hierarchy
    database: str

    @staticmethod
    def slice(nodes: tuple[NodeId, ...] = DEMO_NODES) -> Hierarchy:
        """The nodes cut out of the shipped hierarchy."""
        return slice_hierarchy(load_region(shipped_region()), nodes)

    @classmethod
    def open(
        cls, root: Path, database: str, clock: Clock, nodes: tuple[NodeId, ...] = DEMO_NODES
    ) -> tuple[DemoPlace, bool]:
        """Open the folder, or make it; the second value says whether it was there already.

        Raises:
            SettingsError: The folder holds something else, or a demo that was not made whole.
        """
        description = root / "demo.json"
        if description.exists():
            said = _described(description)
            if said.get("database") != database:
                raise SettingsError(
                    f"{root} holds a demo on {said.get('database')}",
                    hint=f"Delete it (rm -r {root}) or give another folder with --data.",
                )
            place = cls(root, cls.slice(nodes), database)
            place.renew(clock)
            return place, True
        if root.exists() and any(root.iterdir()):
            raise SettingsError(
                f"{root} is not empty and holds no complete demo",
                hint=f"Delete it (rm -r {root}) or give another folder with --data.",
            )
        return cls.make(root, cls.slice(nodes), database, clock), False

    @classmethod
    def make(cls, root: Path, hierarchy: Hierarchy, database: str, clock: Clock) -> DemoPlace:
        """Make an empty folder's nodes, keys and credentials, of any hierarchy."""
        place = cls(root, hierarchy, database)
        place._make(clock)
        return place

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """Every node of the place, each after the one above it."""
        return tuple(sorted(self.hierarchy.nodes))

    @property
    def villages(self) -> tuple[NodeId, ...]:
        """The villages, where the people live."""
        return tuple(
            node for node in self.nodes if self.hierarchy.entry(node).level is CareLevel.VILLAGE
        )

    def node_dir(self, node: NodeId) -> Path:
        """A node's data folder."""
        return self.root / "nodes" / node

    def credentials_dir(self, name: str) -> Path:
        """A folder of credentials."""
        return self.root / "credentials" / name

    def address(self, node: NodeId) -> str:
        """Where the node listens."""
        return load_settings(self.node_dir(node)).listen

    def complete(self) -> None:
        """Note that everything has been made."""
        self._describe(self.visits)

    @property
    def visits(self) -> int:
        """Records that earlier runs wrote beside the input: one a run, at a township."""
        description = self.root / "demo.json"
        if not description.exists():
            return 0
        return int(_described(description).get("visits", 0))

    def count_visit(self) -> None:
        """One more record was written beside the input."""
        self._describe(self.visits + 1)

    def _describe(self, visits: int) -> None:
        said = {"database": self.database, "nodes": list(self.nodes), "visits": visits}
        path = self.root / "demo.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        fresh.replace(path)

    def set_database(self, node: NodeId, url: str) -> None:
        """Point a node at another database."""
        folder = self.node_dir(node)
        save_settings(folder, load_settings(folder).model_copy(update={"database": url}))

    def delete(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.root)

    def renew(self, clock: Clock) -> None:
        """Give every node a free port of this machine, and its callers new credentials.

        Raises:
            SettingsError: The nodes' own certificates have expired.
        """
        now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
        addresses = _free_addresses(self.nodes)
        for node in self.nodes:
            folder = self.node_dir(node)
            self._refuse_expired(node, now)
            parent = self.hierarchy.parent(node)
            changes = {
                "listen": addresses[node],
                "door_listen": _DOOR,
                "parent_endpoint": addresses[parent] if parent is not None else None,
            }
            save_settings(folder, load_settings(folder).model_copy(update=changes))
        shutil.rmtree(self.root / "credentials", ignore_errors=True)
        for node in self.nodes:
            self._issue_credentials(node, addresses[node], now)

    def _refuse_expired(self, node: NodeId, now: datetime) -> None:
        try:
            found = load_node_credentials(self.node_dir(node), node, self.hierarchy, now)
        except CertificateUnusableError as error:
            reason = error.message
        else:
            if found.limited is None:
                return
            reason = f"the certificate of {node} holds until {found.limited.ends:%Y-%m-%d}"
        raise SettingsError(
            f"the demo in {self.root} can no longer run: {reason}",
            hint=f"Delete it (rm -r {self.root}) and run the demo again.",
        )

    def _issue_credentials(self, node: NodeId, address: str, now: datetime) -> None:
        for kind in _CALLERS[self.hierarchy.entry(node).level]:
            issue_credentials(
                self.node_dir(node),
                kind,
                "demo",
                self.credentials_dir(f"{kind.value}-{node}"),
                address=address,
                server_name=self.hierarchy.dns_name(node),
                now=now,
                lifetime=timedelta(days=30),
            )

    def _make(self, clock: Clock) -> None:
        addresses = _free_addresses(self.nodes)
        hierarchy = with_endpoints(self.hierarchy, addresses)
        now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
        # All nodes share this machine, so each profile is cut to a small part of it.
        share = replace(read_machine(), memory_mb=_MEMORY_MB_A_NODE)
        create_region(self.root / "nodes", hierarchy, now)
        for node in self.nodes:
            parent = hierarchy.parent(node)
            write_settings(
                self.node_dir(node),
                hierarchy,
                NewNode(
                    node,
                    addresses[node],
                    parent_endpoint=addresses[parent] if parent is not None else None,
                    machine=share,
                    door_listen=_DOOR,
                ),
            )
            # Each would take its part of a machine's time, and of its memory, for itself.
            alone = load_settings(self.node_dir(node)).model_copy(update={"matching": "off"})
            save_settings(self.node_dir(node), alone)
            self._issue_credentials(node, addresses[node], now)


_CALLERS: Final[Mapping[CareLevel, tuple[CallerKind, ...]]] = {
    CareLevel.CITY: (CallerKind.ANALYST, CallerKind.OPERATOR),
    CareLevel.COUNTY: (CallerKind.ANALYST, CallerKind.OPERATOR),
    CareLevel.TOWNSHIP: (CallerKind.CLIENT, CallerKind.OPERATOR),
    CareLevel.VILLAGE: (CallerKind.CLIENT, CallerKind.OPERATOR),
}


def _described(description: Path) -> dict[str, Any]:
    """What demo.json says.

    Raises:
        SettingsError: It is not whole, as after a power cut.
    """
    try:
        said = json.loads(description.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = None
    if not isinstance(said, dict):
        raise SettingsError(
            f"{description} is not whole",
            hint=f"Delete it (rm -r {description.parent}) or give another folder with --data.",
        )
    return said


def _free_addresses(nodes: tuple[NodeId, ...]) -> dict[NodeId, str]:
    """One free loopback port a node; all are held until all are found."""
    candidates = _ports_not_lent()
    with ExitStack() as held:
        addresses: dict[NodeId, str] = {}
        for node in nodes:
            probe = held.enter_context(socket.socket())
            port = next(port for port in candidates if _taken(probe, port))
            addresses[node] = f"{_HOST}:{port}"
        return addresses


def _ports_not_lent() -> Iterator[int]:
    """Ports in random order that the system does not lend to outgoing connections.

    One that it does may be taken by any connection of this machine before the node starts, or
    while it is down.
    """
    lent = range(32_768, 61_000)
    with suppress(OSError, ValueError):
        first, last = map(int, _LENT_PORTS.read_text(encoding="ascii").split())
        lent = range(first, last + 1)
    ports = [port for port in range(_PORT_MIN, 65_536) if port not in lent]
    ports = ports or list(range(_PORT_MIN, 65_536))
    SystemRandom().shuffle(ports)
    return iter(ports)


def _taken(probe: socket.socket, port: int) -> bool:
    """Whether the probe could take the port."""
    try:
        probe.bind((_HOST, port))
    except OSError:
        return False
    return True
