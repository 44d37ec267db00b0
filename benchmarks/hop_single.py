"""`hop_single`: rows a second over one hop, end to end, beside MariaDB's own replication.

Ours: four processes call Storage.put_bundle at a village with one observation a bundle. Each is one
durable transaction: the request id looked up and remembered, the resident's home read and locked,
the row, its log entry (sealed), its audit entry. The village's node process numbers what has
committed, reads and opens it, and sends it over its link (gRPC, mutual TLS) to the township's,
which applies rows, its own relay entries and the cursor in one durable transaction and signs a
receipt. The clock runs from the first write until the last receipt is durable at the village. Each
node has a MariaDB of its own. Writers are not the node's process, so the node sees their rows only
when it looks, once a second: up to a second of the time is that wait.

Beside: four processes insert the same rows, one a transaction, straight into the same table
(indexes included) at a server that replicates to another. The clock runs until the replica has
applied the last. No log, audit, request id, sealing or TLS is in it.

Not in the figure: checks of a bundle and gRPC at the front door; `detail.by_grpc` has them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count
from typing import Final

from sqlalchemy import Engine, create_engine, func, select

from benchmarks.crew import Crew
from benchmarks.native_pair import NativePair, native_pair
from benchmarks.places import TOWNSHIP, VILLAGE, running_nodes
from benchmarks.result import Result, Scale, alternate, ratio_of
from node.demo.processes import Fleet
from node.settings import load_settings
from node.storage.tables import CHANGELOG, REPLICATED
from replication.changelog import LinkState
from replication.core.model import Lane

__all__ = ["run"]

WRITERS: Final = 4
_GOAL: Final = 1.0
_POLL_S: Final = 0.02
_PATIENCE_S: Final = 180.0


@dataclass(frozen=True)
class _Hop:
    """A village and its township, seen from their databases."""

    fleet: Fleet
    below: Engine
    above: Engine

    def delivered(self) -> bool:
        """Whether the township's receipt for the newest entry is durable at the village."""
        t, s = CHANGELOG.change_log, CHANGELOG.sequencer
        with self.below.connect() as connection:
            waiting = select(func.count()).select_from(t).where(t.c.sequence.is_(None))
            if connection.execute(waiting).scalar_one():
                return False
            head = connection.execute(select(s.c.head)).scalar_one()
            cursors = LinkState(CHANGELOG).load_outbound(connection, TOWNSHIP)
            newest = connection.execute(
                select(func.max(t.c.sequence)).where(t.c.lane == Lane.BULK.value)
            ).scalar()
        reached = cursors[Lane.BULK].covers_to if Lane.BULK in cursors else 0
        return int(head) > 0 and reached >= int(newest or 0)

    def wait_until_delivered(self) -> None:
        """Poll the village's database; RuntimeError after three minutes."""
        deadline = time.perf_counter() + _PATIENCE_S
        while not self.delivered():
            if time.perf_counter() > deadline:
                raise RuntimeError("the township's receipts did not arrive")
            time.sleep(_POLL_S)

    def rows(self) -> int:
        """Observations at the township."""
        with self.above.connect() as connection:
            t = REPLICATED["observations"]
            return connection.execute(select(func.count()).select_from(t)).scalar_one()


def run(scale: Scale) -> Result:
    """Measure; RuntimeError if a row did not arrive."""
    seconds = scale.pick(6, 3)
    with (
        running_nodes(scale.folder / "ours", (TOWNSHIP, VILLAGE), "mysql") as fleet,
        native_pair(scale.folder / "native") as pair,
    ):
        hop = _Hop(fleet, _engine(fleet, VILLAGE), _engine(fleet, TOWNSHIP))
        numbers = count()
        writing: list[float] = []
        data = str(fleet.place.node_dir(VILLAGE))
        client = str(fleet.place.credentials_dir(f"client-{VILLAGE}"))

        def storage() -> float:
            return _ours(hop, "storage_writer", data, seconds, next(numbers), writing)

        def front_door() -> float:
            return _ours(hop, "grpc_writer", client, seconds, next(numbers), [])

        ours, beside, by_grpc = alternate(
            scale.pick(3, 1), storage, lambda: _native(pair, seconds, next(numbers)), front_door
        )
        for engine in (hop.below, hop.above):
            engine.dispose()
    figure, other, ratio = ratio_of(ours, beside)
    return Result(
        name="hop_single",
        figure=figure,
        unit="rows/s",
        beside="MariaDB's own replication, parallel apply",
        beside_figure=other,
        ratio=ratio,
        goal=f">= {_GOAL}",
        met=ratio >= _GOAL,
        detail={
            "writers": WRITERS,
            "seconds_of_writing_a_round": seconds,
            "writers_alone_rows_s": ratio_of(writing, [1.0])[0],
            "by_grpc_rows_s": ratio_of(by_grpc, [1.0])[0],
            "by_grpc_ratio": ratio_of(by_grpc, beside)[2],
        },
    )


def _ours(
    hop: _Hop, module: str, place: str, seconds: int, number: int, writing: list[float]
) -> float:
    """One round; appends the rate at which the writers alone were done to `writing`."""
    arguments = [(place, f"bench-{number}-{each}", str(seconds), "1") for each in range(WRITERS)]
    with Crew(module, arguments) as crew:
        hop.wait_until_delivered()
        before = hop.rows()
        started = time.perf_counter()
        said = crew.work()
        hop.wait_until_delivered()
        taken = time.perf_counter() - started
    rows = int(sum(each["steps"] for each in said))
    _check(hop.rows() - before, rows)
    writing.append(rows / max(each["seconds"] for each in said))
    return rows / taken


def _native(pair: NativePair, seconds: int, number: int) -> float:
    arguments = [(pair.source, f"bench-{number}-{each}", str(seconds)) for each in range(WRITERS)]
    with Crew("native_writer", arguments) as crew:
        before = pair.rows()
        started = time.perf_counter()
        said = crew.work()
        pair.wait_until_applied()
        taken = time.perf_counter() - started
    rows = int(sum(each["steps"] for each in said))
    _check(pair.rows() - before, rows)
    return rows / taken


def _check(arrived: int, sent: int) -> None:
    if arrived != sent:
        raise RuntimeError(f"{arrived} rows arrived of {sent}")


def _engine(fleet: Fleet, node: str) -> Engine:
    """A plain engine that only looks; READ COMMITTED is the server's default here."""
    return create_engine(load_settings(fleet.place.root / "nodes" / node).database)
