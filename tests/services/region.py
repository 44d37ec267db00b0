"""A region of real node processes for a test module, and the ways to talk to them.

The nodes are the same program that an operator runs, each on a data folder of its own, linked by
mutual TLS over the loopback. Databases are SQLite, or one private MariaDB with a database a node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import grpc

import protos.fenhe.care.v1.care_pb2 as care
from hierarchy_config import NodeId
from node.clock import Clock
from node.demo.place import DemoPlace
from node.demo.processes import Fleet, NodeProcess
from node.mariadb_server import PrivateMariaDB
from node.security.credentials import Credentials, load_credentials
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from node.settings import load_settings, save_settings
from protos.fenhe.care.v1 import care_pb2_grpc
from protos.fenhe.empi.v1 import empi_pb2_grpc
from tests.services.nursery import forked
from tests.services.waiting import CLOCK, until

__all__ = ["MARIADB", "Region", "database_file", "nodes"]

CALL_S = 20.0

MARIADB = """\
[mariadbd]
innodb_buffer_pool_size = 64M
innodb_log_file_size = 48M
innodb_flush_log_at_trx_commit = 1
innodb_doublewrite = ON
max_connections = 400
transaction_isolation = READ-COMMITTED
character_set_server = utf8mb4
performance_schema = OFF
skip_log_bin
"""
"""Durable, small, and with room for the pools of every node of a region."""


def database_file(path: Path, url: str) -> str:
    """The word for --database of a URL with a password: a file of its owner's alone."""
    path.write_text(url, encoding="utf-8")
    path.chmod(0o600)
    return f"@{path}"


def nodes(*codes: str) -> tuple[NodeId, ...]:
    """Division codes as node ids."""
    return tuple(NodeId(code) for code in codes)


class Region:
    """Some nodes of Linfen. Made once; processes start and stop as a test says."""

    def __init__(
        self,
        root: Path,
        codes: tuple[NodeId, ...],
        database: str = "sqlite",
        made_by: Clock = CLOCK,
        launch: Callable[[Sequence[str], Path], NodeProcess] = forked,
        *,
        matching: bool = False,
    ) -> None:
        """Make the data folders, and with "mysql" one server; start no node yet.

        `made_by`: the clock by which certificates are made. `launch`: see Fleet. `matching`: the
        nodes look who of their residents may be one person.
        """
        self._exit = ExitStack()
        self.place, _ = DemoPlace.open(root, database, made_by, codes)
        self.place.complete()
        for node in codes if matching else ():
            folder = self.place.node_dir(node)
            save_settings(folder, load_settings(folder).model_copy(update={"matching": "on"}))
        self.fleet = Fleet(self.place, CLOCK, launch)
        if database == "mysql":
            server = PrivateMariaDB(root / "mariadb", configuration=MARIADB)
            self._exit.enter_context(server)
            for node in codes:
                self.place.set_database(node, server.create_database(f"node_{node}"))
            self._server = server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.stop()
        self._exit.close()

    def start(self, *codes: NodeId) -> None:
        """Start nodes (none named: all) and wait until they serve."""
        chosen = codes or self.place.nodes
        for node in chosen:
            self.fleet.start(node)
        self.fleet.wait_ready(chosen)

    def new_database(self, name: str) -> str:
        """URL of one more empty database on the region's server."""
        return self._server.create_database(name)

    def linked(self, *codes: NodeId) -> None:
        """Wait until the nodes (none named: all) have their link to the parent."""
        for node in codes or self.place.nodes:
            until(f"{node} is linked", lambda node=node: self.fleet.is_connected(node))  # type: ignore[misc]

    def rows(self, node: NodeId) -> dict[str, int]:
        """Rows held by table, by the node's own account."""
        return dict(self.fleet.status(node).rows)

    def credentials(self, kind: str, node: NodeId) -> Credentials:
        """Credentials of a caller of a node."""
        return load_credentials(self.place.credentials_dir(f"{kind}-{node}"))

    def open_channel(self, node: NodeId, kind: str = "operator") -> grpc.Channel:
        """A new channel to a node; whoever opens it closes it, best by `with`."""
        who = self.credentials(kind, node)
        options = channel_options(who.server_name, GrpcLimits())
        return grpc.secure_channel(who.address, channel_credentials(who.tls), options=options)

    def put(
        self, node: NodeId, request: care.PutBundleRequest, kind: str = "operator"
    ) -> care.PutBundleResponse:
        """Store a bundle; returns once it is acknowledged."""
        answer: care.PutBundleResponse = self.records(node, "PutBundle", request, kind)
        return answer

    def records(self, node: NodeId, method: str, request: Any, kind: str = "operator") -> Any:
        """Call RecordService once."""
        with self.open_channel(node, kind) as channel:
            stub = care_pb2_grpc.RecordServiceStub(channel)
            return getattr(stub, method)(request, timeout=CALL_S)

    def residents(self, node: NodeId, method: str, request: Any, kind: str = "operator") -> Any:
        """Call ResidentService once."""
        with self.open_channel(node, kind) as channel:
            stub = empi_pb2_grpc.ResidentServiceStub(channel)
            return getattr(stub, method)(request, timeout=CALL_S)
