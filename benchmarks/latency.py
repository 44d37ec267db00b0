"""Milliseconds from an acknowledged commit until the row can be read further on.

One row at a time, so that nothing waits for anything but its own way. Ours: a clinic's PutBundle
over gRPC at the village; from its acknowledgement until the row is counted in the database of the
node above. Beside: an INSERT at MariaDB until its replica has the row. All count with the same
query, asked again and again by the process that wrote, some tenths of a millisecond apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pymysql
from sqlalchemy import make_url

from benchmarks.bundles import observation_bundles, resident_bundle
from benchmarks.grpc_writer import observations_request, residents_request
from benchmarks.native_pair import native_pair
from benchmarks.native_writer import inserting
from benchmarks.places import VILLAGE, Running, running_nodes
from benchmarks.result import Result, percentile
from hierarchy_config import NodeId
from node.cli.client import connected
from node.security.credentials import load_credentials
from node.settings import load_settings
from protos.fenhe.care.v1 import care_pb2_grpc

__all__ = ["Latency", "latency_result", "native_latency", "our_latency"]

_WARM: Final = 20
_PATIENCE_S: Final = 30.0
_LOOK_S: Final = 0.0003
_COUNT: Final = "SELECT COUNT(*) FROM observations"


@dataclass(frozen=True, slots=True)
class Latency:
    """What was measured of one way, milliseconds."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, measured: Sequence[float]) -> Latency:
        """Of single measurements."""
        return cls(percentile(measured, 0.5), percentile(measured, 0.99))


def native_latency(folder: Path, times: int) -> Latency:
    """MariaDB's own replication, one hop."""
    with (
        native_pair(folder) as pair,
        _counter(pair.replica) as count,
        inserting(pair.source) as insert,
    ):
        return Latency.of(_latencies(lambda: insert(1), count, times))


def latency_result(
    name: str, ours: Latency, native: Latency, *, p50_ms_max: float, p99_ms_max: float
) -> Result:
    """The line of the report; the p50 is the headline, both are the goal."""
    return Result(
        name=name,
        figure=ours.p50_ms,
        unit="ms",
        beside="MariaDB's own replication, one hop",
        beside_figure=native.p50_ms,
        ratio=ours.p50_ms / native.p50_ms,
        goal=f"p50/p99 <= {p50_ms_max:.0f}/{p99_ms_max:.0f} ms",
        met=ours.p50_ms <= p50_ms_max and ours.p99_ms <= p99_ms_max,
        detail={"p99_ms": ours.p99_ms, "native_p99_ms": native.p99_ms},
    )


def our_latency(folder: Path, nodes: tuple[NodeId, ...], end: NodeId, times: int) -> Latency:
    """From the acknowledgement at the village until the row is at `end`."""
    with running_nodes(folder, nodes, "mysql") as running:
        _wait_for_links(running)
        url = load_settings(running.place.node_dir(end)).database
        credentials = load_credentials(running.place.credentials_dir(f"client-{VILLAGE}"))
        with _counter(url) as count, connected(credentials) as channel:
            stub = care_pb2_grpc.RecordServiceStub(channel)
            known = stub.PutBundle(residents_request(resident_bundle("visible", 5))).resident_ids
            made = observation_bundles("visible", list(known), 1)
            return Latency.of(
                _latencies(
                    lambda: stub.PutBundle(observations_request(next(made)), timeout=60),
                    count,
                    times,
                )
            )


def _wait_for_links(running: Running) -> None:
    deadline = time.perf_counter() + _PATIENCE_S
    waiting = [node for node in running.place.nodes if running.place.hierarchy.parent(node)]
    while not all(map(running.fleet.is_connected, waiting)):
        if time.perf_counter() > deadline:
            raise RuntimeError("the links did not come up")
        time.sleep(0.2)


def _latencies(write: Callable[[], object], count: Callable[[], int], times: int) -> list[float]:
    """Milliseconds from the end of each write until one row more is counted."""
    found: list[float] = []
    for number in range(_WARM + times):
        before = count()
        write()
        written = time.perf_counter()
        while count() == before:
            if time.perf_counter() - written > _PATIENCE_S:
                raise RuntimeError("a row did not become visible")
            time.sleep(_LOOK_S)
        if number >= _WARM:
            found.append((time.perf_counter() - written) * 1000)
    return found


@contextmanager
def _counter(url: str) -> Iterator[Callable[[], int]]:
    """Counts the observations of a database over one connection."""
    address = make_url(url)
    connection: pymysql.Connection[Any] = pymysql.connect(
        host=address.host,
        port=address.port or 3306,
        user=address.username,
        password=str(address.password),
        database=address.database,
        autocommit=True,
    )
    with closing(connection), connection.cursor() as cursor:

        def count() -> int:
            cursor.execute(_COUNT)
            row = cursor.fetchone()
            return int(row[0]) if row else 0

        yield count
