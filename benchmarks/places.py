"""A few running nodes for a benchmark: processes of the program, each with its certificates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hardware_profiles import load_profile, mariadb_configuration, profile_text
from hierarchy_config import NodeId
from node.clock import SystemClock
from node.demo.place import DemoPlace
from node.demo.processes import Fleet
from node.mariadb_server import PrivateMariaDB

__all__ = [
    "TOWNSHIP",
    "VILLAGE",
    "Running",
    "ended",
    "made_place",
    "running_nodes",
    "server_configuration",
]

TOWNSHIP: Final = NodeId("141002100")
VILLAGE: Final = NodeId("141002100200")
_CONNECTIONS: Final = 64
_CALLS_PER_S: Final = 1_000_000
_POOL_MB_MAX: Final = 1024


def made_place(folder: Path, nodes: tuple[NodeId, ...], database: str) -> DemoPlace:
    """Data folders, keys and certificates of some nodes, with the profiles of their levels."""
    place, _ = DemoPlace.open(folder, database, SystemClock(), nodes)
    for node in place.nodes:
        # The demo's are cut to a share of the machine; here a node is what it will be.
        profile = load_profile(place.hierarchy.entry(node).profile)
        # What the node can serve is measured, not what one caller may ask.
        profile = profile.model_copy(update={"calls_per_s": _CALLS_PER_S})
        path = place.node_dir(node) / "profile.yaml"
        path.write_text(profile_text(profile), encoding="utf-8")
    return place


@dataclass
class Running:
    """Node processes, and the servers of their databases, if they have any."""

    fleet: Fleet
    servers: dict[NodeId, PrivateMariaDB]

    @property
    def place(self) -> DemoPlace:
        """Where their data lies."""
        return self.fleet.place

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by what they are: node or mariadb, and whose."""
        nodes = {f"node_{node}": self.fleet.pid(node) for node in sorted(self.fleet.started)}
        servers = {f"mariadb_{node}": server.pid for node, server in self.servers.items()}
        return {**nodes, **{name: pid for name, pid in servers.items() if pid is not None}}


@contextmanager
def running_nodes(
    folder: Path, nodes: tuple[NodeId, ...], database: str = "sqlite"
) -> Iterator[Running]:
    """The nodes as processes, linked and ready; stopped and their servers ended on leaving."""
    place = made_place(folder, nodes, database)
    fleet = Fleet(place, SystemClock())
    servers: dict[NodeId, PrivateMariaDB] = {}
    with ExitStack() as held:
        if database == "mysql":
            for node in place.nodes:
                text = server_configuration(place.hierarchy.entry(node).profile, folder / node)
                server = held.enter_context(PrivateMariaDB(folder / node, configuration=text))
                servers[node] = server
                place.set_database(node, server.create_database("fenhe"))
        try:
            for node in place.nodes:
                fleet.start(node)
            fleet.wait_ready()
            yield Running(fleet, servers)
        finally:
            fleet.stop()


def server_configuration(profile: str, folder: Path) -> str:
    """A MariaDB configuration as a node of that profile gets it, with room for who measures.

    A city's buffer pool is larger than the memory of the machine that measures.
    """
    said = load_profile(profile)
    pool_mb = min(said.mariadb.innodb_buffer_pool_mb, _POOL_MB_MAX)
    mariadb = said.mariadb.model_copy(update={"innodb_buffer_pool_mb": pool_mb})
    cut = said.model_copy(update={"mariadb": mariadb})
    text = mariadb_configuration(cut, folder / "data", None, folder / "socket")
    return f"{text}max_connections = {_CONNECTIONS}\n"


def ended(what: str, code: int) -> RuntimeError:
    """The error of a helper process that failed."""
    return RuntimeError(f"{what} ended with exit code {code}; its words stand above")
