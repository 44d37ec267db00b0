"""`hop_single`: rows a second over one hop, end to end, beside MariaDB's own replication.

Ours: four clients at a village put one observation a bundle, each waiting for its acknowledgement
before its next one. They are in the node's own process and call what a gRPC handler calls
(village_clients.py): bundles that come together share a durable transaction, in which each has its
request id remembered, its resident's home read and locked, its row and its audit entry; one sealed
log entry has the rows of all. The same process sends them over its link (gRPC, mutual TLS) to the
township's node, which applies rows, its own relay entries and the cursor in one durable transaction
and signs a receipt. The clock runs from the first write until the last receipt is durable at the
village. Each node has a MariaDB of its own.

Beside: four processes insert the same rows, one a transaction, straight into the same table
(indexes included) at a server that replicates to another. The clock runs until the replica has
applied the last. No log, audit, request id, sealing or TLS is in it.

Not in the figure: checks of a bundle and gRPC at the front door; `by_grpc` in the detail has them,
with four clinics as processes of their own. `sixteen` is ours with sixteen clients beside MariaDB
with sixteen. Processor time a row is there too, by process: it says what more cores would give.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from itertools import count
from typing import Final

from benchmarks.hop import Hop, NativeHop, Round
from benchmarks.native_pair import native_pair
from benchmarks.places import TOWNSHIP, VILLAGE, running_nodes
from benchmarks.result import Result, Scale, alternate, ratio_of

__all__ = ["run"]

WRITERS: Final = 4
SIXTEEN: Final = 16
_GOAL: Final = 1.0


def run(scale: Scale) -> Result:
    """Measure; RuntimeError if a row did not arrive."""
    with (
        running_nodes(scale.folder / "ours", (TOWNSHIP, VILLAGE), "mysql") as nodes,
        native_pair(scale.folder / "native") as pair,
    ):
        hop, native, fleet = Hop(nodes), NativeHop(pair), nodes.fleet
        data = str(nodes.place.node_dir(VILLAGE))
        client = str(nodes.place.credentials_dir(f"client-{VILLAGE}"))
        seconds = str(scale.pick(6, 3))
        rounds: dict[str, list[Round]] = defaultdict(list)
        numbers = count()

        def noted(name: str, measured: Round) -> float:
            rounds[name].append(measured)
            return measured.rows_s

        def inside(name: str, clients: int) -> float:
            fleet.stop(tuple(fleet.started & {VILLAGE}))
            arguments = (data, f"bench-{next(numbers)}", seconds, "1", str(clients), "0")
            return noted(name, hop.measure("village_clients", [arguments]))

        def by_grpc() -> float:
            if VILLAGE not in fleet.started:
                fleet.start(VILLAGE)
                fleet.wait_ready((VILLAGE,))
            writers = [(client, f"bench-{next(numbers)}", seconds, "1") for _ in range(WRITERS)]
            return noted("by_grpc", hop.measure("grpc_writer", writers))

        def beside_it(name: str, clients: int) -> float:
            writers = [(pair.source, f"bench-{next(numbers)}", seconds) for _ in range(clients)]
            return noted(name, native.measure("native_writer", writers))

        ours, beside, _, _, _ = alternate(
            scale.pick(3, 1),
            lambda: inside("ours", WRITERS),
            lambda: beside_it("native", WRITERS),
            lambda: inside("ours_sixteen", SIXTEEN),
            lambda: beside_it("native_sixteen", SIXTEEN),
            by_grpc,
        )
        hop.close()
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
            "by_grpc_ratio": _rate(rounds["by_grpc"]) / _rate(rounds["native"]),
            "sixteen_ratio": _rate(rounds["ours_sixteen"]) / _rate(rounds["native_sixteen"]),
            **{f"{name}_rows_s": _rate(each) for name, each in rounds.items()},
            **{f"{name}_written_rows_s": _written(each) for name, each in rounds.items()},
            **{f"{name}_cpu_ms_a_row": _cpu(each) for name, each in rounds.items()},
        },
    )


def _rate(rounds: list[Round]) -> float:
    return statistics.median(each.rows_s for each in rounds)


def _written(rounds: list[Round]) -> float:
    return statistics.median(each.written_s for each in rounds)


def _cpu(rounds: list[Round]) -> dict[str, float]:
    """By process, the median of the rounds."""
    return {
        name: statistics.median(each.cpu_ms_a_row[name] for each in rounds)
        for name in rounds[0].cpu_ms_a_row
    }
