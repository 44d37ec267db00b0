"""The demo's databases: SQLite needs nothing; for MySQL, one private MariaDB a node."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from hardware_profiles import load_profile, mariadb_configuration
from hierarchy_config import NodeId
from node.demo.place import DemoPlace
from node.mariadb_server import PrivateMariaDB

__all__ = ["DATABASE", "DemoDatabases"]

DATABASE: Final = "fenhe"
_ANY_PORT: Final = 3306
_LOG_FILE_MB: Final = 32
_BUFFER_POOL_MB: Final = 48


@dataclass
class DemoDatabases:
    """Starts what the place's database asks for; stops it on leaving."""

    place: DemoPlace
    _servers: dict[NodeId, PrivateMariaDB] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        with ThreadPoolExecutor(max(1, len(self._servers))) as threads:
            list(threads.map(PrivateMariaDB.stop, self._servers.values()))

    def start(self) -> None:
        """Start the servers and point each node at its own.

        Raises:
            MariaDBMissingError: MySQL was asked for and no server program is installed.
        """
        if self.place.database != "mysql":
            return
        for node in self.place.nodes:
            self._start(node)

    def _start(self, node: NodeId) -> None:
        # In the main thread: a server ends with the thread that started it.
        folder = self.place.root / "mariadb" / node
        profile = load_profile(self.place.node_dir(node) / "profile.yaml")
        small = profile.mariadb.model_copy(
            update={"innodb_log_file_mb": _LOG_FILE_MB, "innodb_buffer_pool_mb": _BUFFER_POOL_MB}
        )
        profile = profile.model_copy(update={"mariadb": small})
        server = PrivateMariaDB(
            folder,
            # The server takes its own folder, socket and free port, which win over these.
            configuration=mariadb_configuration(
                profile, folder / "data", _ANY_PORT, Path("socket")
            ),
        )
        server.start()
        self._servers[node] = server
        self.place.set_database(node, server.create_database(DATABASE))
