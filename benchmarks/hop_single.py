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

Not in the figure: checks of a bundle and gRPC at the front door; `by_grpc` in the detail has them.
Processor time a row is there too, by process: it says what the figure would be with more cores.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import count
from typing import Final

from benchmarks.hop import Hop, NativeHop, Round
from benchmarks.native_pair import native_pair
from benchmarks.places import TOWNSHIP, VILLAGE, running_nodes
from benchmarks.result import Result, Scale, alternate, ratio_of

__all__ = ["run"]

WRITERS: Final = 4
_GOAL: Final = 1.0


def run(scale: Scale) -> Result:
    """Measure; RuntimeError if a row did not arrive."""
    with (
        running_nodes(scale.folder / "ours", (TOWNSHIP, VILLAGE), "mysql") as nodes,
        native_pair(scale.folder / "native") as pair,
    ):
        hop, native, place = Hop(nodes), NativeHop(pair), nodes.place
        data = str(place.node_dir(VILLAGE))
        client = str(place.credentials_dir(f"client-{VILLAGE}"))
        seconds = str(scale.pick(6, 3))
        rounds: dict[str, list[Round]] = {"ours": [], "native": [], "by_grpc": []}
        numbers = count()

        def side(name: str, measure: Callable[..., Round], *arguments: str) -> float:
            module, target, *more = arguments
            number = next(numbers)
            writers = [
                (target, f"bench-{number}-{writer}", seconds, *more) for writer in range(WRITERS)
            ]
            rounds[name].append(measure(module, writers))
            return rounds[name][-1].rows_s

        ours, beside, by_grpc = alternate(
            scale.pick(3, 1),
            lambda: side("ours", hop.measure, "storage_writer", data, "1"),
            lambda: side("native", native.measure, "native_writer", pair.source),
            lambda: side("by_grpc", hop.measure, "grpc_writer", client, "1"),
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
            "by_grpc_rows_s": ratio_of(by_grpc, beside)[0],
            "by_grpc_ratio": ratio_of(by_grpc, beside)[2],
            **{f"{name}_written_rows_s": _written(each) for name, each in rounds.items()},
            **{f"{name}_cpu_ms_a_row": _cpu(each) for name, each in rounds.items()},
        },
    )


def _written(rounds: list[Round]) -> float:
    return statistics.median(each.written_s for each in rounds)


def _cpu(rounds: list[Round]) -> dict[str, float]:
    """By process, the median of the rounds."""
    return {
        name: statistics.median(each.cpu_ms_a_row[name] for each in rounds)
        for name in rounds[0].cpu_ms_a_row
    }
