"""`hop_hundred`: rows a second over one hop, a hundred rows a transaction, one and four writers.

As `hop_single`, but for the size of a bundle: ours is clients inside the village's node, MariaDB's
own is processes that insert a hundred rows with one statement. The headline is the worse of both.
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

ROWS: Final = 100
WRITERS: Final = (1, 4)
_GOAL: Final = 0.7


def run(scale: Scale) -> Result:
    """Measure; RuntimeError if a row did not arrive."""
    with (
        running_nodes(scale.folder / "ours", (TOWNSHIP, VILLAGE), "mysql") as nodes,
        native_pair(scale.folder / "native") as pair,
    ):
        nodes.fleet.stop((VILLAGE,))
        hop, native = Hop(nodes), NativeHop(pair)
        data = str(nodes.place.node_dir(VILLAGE))
        seconds, rows = str(scale.pick(6, 3)), str(ROWS)
        rounds: dict[str, list[Round]] = defaultdict(list)
        numbers = count()

        def ours(clients: int) -> float:
            writer = (data, f"bench-{next(numbers)}", seconds, rows, str(clients), "0")
            measured = hop.measure("village_clients", [writer])
            rounds[f"ours_{clients}"].append(measured)
            return measured.rows_s

        def beside(clients: int) -> float:
            writers = [(pair.source, f"b-{next(numbers)}", seconds, rows) for _ in range(clients)]
            measured = native.measure("native_writer", writers)
            rounds[f"native_{clients}"].append(measured)
            return measured.rows_s

        one, one_beside, four, four_beside = alternate(
            scale.pick(3, 1),
            lambda: ours(1),
            lambda: beside(1),
            lambda: ours(4),
            lambda: beside(4),
        )
        hop.close()
    by_writers = {1: ratio_of(one, one_beside), 4: ratio_of(four, four_beside)}
    figure, other, ratio = min(by_writers.values(), key=lambda each: each[2])
    return Result(
        name="hop_hundred",
        figure=figure,
        unit="rows/s",
        beside="MariaDB's own replication, parallel apply",
        beside_figure=other,
        ratio=ratio,
        goal=f">= {_GOAL}",
        met=ratio >= _GOAL,
        detail={
            **{f"ratio_{writers}_writers": each[2] for writers, each in by_writers.items()},
            **{f"{name}_rows_s": _rate(each) for name, each in rounds.items()},
            **{f"{name}_cpu_ms_a_row": each[-1].cpu_ms_a_row for name, each in rounds.items()},
        },
    )


def _rate(rounds: list[Round]) -> float:
    return statistics.median(each.rows_s for each in rounds)
