"""Fifteen nodes of Linfen as real processes: a city, 2 counties, 4 townships, 8 villages.

Each child's link passes a proxy of its own. One county, one of its townships and a village of that
keep their stores on a private MariaDB, the others on SQLite; one village's disk is a small one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

import grpc
import yaml

from hierarchy_config import Hierarchy, NodeId, load_region, shipped_region
from node.demo.place import DemoPlace
from node.demo.processes import Fleet
from node.mariadb_server import PrivateMariaDB
from node.security.credentials import load_credentials
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from node.settings import load_settings, save_settings
from tests.chaos.proxy import LinkProxy, ProxyThread
from tests.services.nursery import forked
from tests.services.region import MARIADB
from tests.services.waiting import CLOCK

__all__ = ["ChaosFleet", "ChaosPlace", "nodes_of"]

COUNTIES: Final = (NodeId("141002"), NodeId("141024"))
_MARIADB_PORT: Final = 19_306
_SMALL_DISK_MB: Final = 96
_NODE_MEMORY_CALM: Final = {"ray": False, "ray_workers": 0, "ray_object_store_mb": 0}


def nodes_of() -> tuple[NodeId, ...]:
    """The fifteen, each after the one above it."""
    whole = DemoPlace.slice(tuple(_all_nodes()))
    return tuple(sorted(whole.nodes))


def _all_nodes() -> list[NodeId]:
    tree = load_region(shipped_region())
    chosen = [NodeId("1410")]
    for county in COUNTIES:
        chosen.append(county)
        for township in tree.children(county)[:2]:
            chosen += [township, *tree.children(township)[:2]]
    return chosen


class ChaosFleet(Fleet):
    """Processes that are stopped, continued, and found dead."""

    def signal(self, node: NodeId, number: signal.Signals) -> None:
        """Send a running node a signal; nothing if it has ended."""
        process = self._processes.get(node)
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def ended(self) -> list[NodeId]:
        """Nodes that were started and have ended by themselves."""
        return [node for node, each in self._processes.items() if each.poll() is not None]

    def is_running(self, node: NodeId) -> bool:
        """Whether its process lives."""
        process = self._processes.get(node)
        return process is not None and process.poll() is None


class ChaosPlace:
    """The nodes, their proxies, their database server. Use it as a context."""

    def __init__(self, root: Path, seed: int) -> None:
        """Make folders, keys and certificates; start the proxies and MariaDB, but no node."""
        self.root = root
        self._exit = contextlib.ExitStack()
        nodes = tuple(_all_nodes())
        self.place, _ = DemoPlace.open(root / "region", "sqlite", CLOCK, nodes)
        self.place.complete()
        self.fleet = ChaosFleet(self.place, CLOCK, forked)
        self.proxies = ProxyThread()
        self._exit.callback(self.proxies.close)
        self.lines: dict[NodeId, LinkProxy] = {}
        self.former_lines: list[LinkProxy] = []
        for number, node in enumerate(self.place.nodes):
            self._settle(node, seed + number)
        self.on_mariadb = self._on_mariadb()
        self.server = PrivateMariaDB(root / "mariadb", configuration=MARIADB, port=_MARIADB_PORT)
        self._exit.enter_context(self.server)
        for node in self.on_mariadb:
            self.place.set_database(node, self.server.create_database(f"node_{node}"))
        self.small_disk = self._small_disk(self.place.villages[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.place.nodes:
            self.fleet.signal(node, signal.SIGCONT)
        self.fleet.stop()
        self._exit.close()

    @property
    def nodes(self) -> tuple[NodeId, ...]:
        """All fifteen."""
        return self.place.nodes

    @property
    def city(self) -> NodeId:
        """The root."""
        return NodeId(self.place.hierarchy.root)

    @property
    def tree(self) -> Hierarchy:
        """The hierarchy in force at the root: it may change once in a run."""
        return self.tree_of(self.city)

    def tree_of(self, node: NodeId) -> Hierarchy:
        """The hierarchy in force at a node."""
        return load_region(self.place.node_dir(node) / "region.yaml")

    def parent(self, node: NodeId) -> NodeId | None:
        """The node above."""
        return self.tree.parent(node)

    @contextlib.contextmanager
    def channel(self, node: NodeId) -> Iterator[grpc.Channel]:
        """To a node, as its operator."""
        who = load_credentials(self.place.credentials_dir(f"operator-{node}"))
        options = channel_options(who.server_name, GrpcLimits())
        secrets = channel_credentials(who.tls)
        with grpc.secure_channel(who.address, secrets, options=options) as channel:
            yield channel

    def new_line(self, node: NodeId, parent: NodeId) -> str:
        """A proxy before another parent; from now on the node's line is this one."""
        address = load_settings(self.place.node_dir(parent)).listen
        self.former_lines.append(self.lines[node])
        self.lines[node] = line = self.proxies.add(address, int(node))
        return line.address

    def on_sqlite(self, node: NodeId) -> bool:
        """Whether the node's store is a file in its folder."""
        return node not in self.on_mariadb

    def _settle(self, node: NodeId, seed: int) -> None:
        """Put a proxy before the parent, and leave Ray out: fifteen nodes share two cores."""
        folder = self.place.node_dir(node)
        profile = yaml.safe_load((folder / "profile.yaml").read_text(encoding="utf-8"))
        profile.update(_NODE_MEMORY_CALM)
        (folder / "profile.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
        settings = load_settings(folder)
        if settings.parent_endpoint is None:
            return
        self.lines[node] = line = self.proxies.add(settings.parent_endpoint, seed)
        changed = settings.model_copy(update={"parent_endpoint": line.address})
        save_settings(folder, changed)

    def _on_mariadb(self) -> frozenset[NodeId]:
        county = COUNTIES[1]
        township = self.place.hierarchy.children(county)[0]
        return frozenset({county, township, self.place.hierarchy.children(township)[0]})

    def _small_disk(self, node: NodeId) -> NodeId | None:
        """Give a village a disk of its own that can be filled; None where that may not be done."""
        folder = self.place.node_dir(node)
        aside = folder.with_suffix(".aside")
        folder.rename(aside)
        folder.mkdir()
        options = f"size={_SMALL_DISK_MB}m,mode=700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        )
        if mounted.returncode != 0:
            folder.rmdir()
            aside.rename(folder)
            return None
        self._exit.callback(_unmount, folder)
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        shutil.rmtree(aside)
        return node


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def run_quietly(*words: str) -> str:
    """Run a program to its end; what it said. A failure is an error."""
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words[:6])}: {done.stderr[-500:]}")
    return done.stdout


Teller = Callable[[str], None]
"""Says one line of progress."""
