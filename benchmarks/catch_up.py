"""`catch_up`: rows a second at which a backlog of one-row changes is made up after an outage.

The receiver is stopped, the same number of one-row changes is written at both sources by four
clients, the receivers are started, and the rows that arrive are counted from the first on. Ours:
clients inside the village's node while the township's is down, each bundle one observation; what
came together shares a transaction and a log entry. Beside: MariaDB's replica (parallel apply in
four threads) with its replication stopped and started.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from benchmarks.crew import Crew
from benchmarks.hop import Hop
from benchmarks.native_pair import NativePair, native_pair
from benchmarks.places import TOWNSHIP, VILLAGE, Running, running_nodes
from benchmarks.process_figures import cpu_s_of
from benchmarks.result import Result, Scale

__all__ = ["run"]

WRITERS: Final = 4
_GOAL: Final = 5.0
_LOOK_S: Final = 0.05
_PATIENCE_S: Final = 600.0
_NO_END: Final = "86400"


def run(scale: Scale) -> Result:
    """Write the backlogs, one side after the other, and let each receiver make up for it."""
    changes = scale.pick(100_000, 10_000)
    with running_nodes(scale.folder / "ours", (TOWNSHIP, VILLAGE), "mysql") as nodes:
        ours, cpu = _ours(nodes, changes)
    with native_pair(scale.folder / "native") as pair:
        beside = _native(pair, changes)
    ratio = ours / beside
    return Result(
        name="catch_up",
        figure=ours,
        unit="rows/s",
        beside="MariaDB's own replication, parallel apply",
        beside_figure=beside,
        ratio=ratio,
        goal=f">= {_GOAL}",
        met=ratio >= _GOAL,
        detail={"changes": changes, "cpu_us_a_row": cpu},
    )


def _ours(nodes: Running, changes: int) -> tuple[float, dict[str, float]]:
    fleet = nodes.fleet
    fleet.stop((VILLAGE,))
    hop = Hop(nodes)
    data = str(nodes.place.node_dir(VILLAGE))
    writer = (data, "backlog", _NO_END, "1", str(WRITERS), str(changes))
    with Crew("village_clients", [writer]) as crew:
        # Once the residents are there: a backlog of theirs is not what is measured.
        hop.wait_until_delivered()
        fleet.stop((TOWNSHIP,))
        crew.work()
        fleet.start(TOWNSHIP)
        fleet.wait_ready((TOWNSHIP,))
        pids = {**nodes.pids, "village": crew.pids[0]}
        used = {name: cpu_s_of(pid) for name, pid in pids.items()}
        rate = _rate(hop.rows, changes)
        cpu = {name: 1e6 * (cpu_s_of(pid) - used[name]) / changes for name, pid in pids.items()}
    hop.close()
    return rate, cpu


def _native(pair: NativePair, changes: int) -> float:
    pair.stop_replica()
    writers = [
        (pair.source, f"backlog-{number}", _NO_END, "1", str(changes // WRITERS))
        for number in range(WRITERS)
    ]
    with Crew("native_writer", writers) as crew:
        crew.work()
    pair.start_replica()
    return _rate(pair.rows, changes)


def _rate(rows: Callable[[], int], wanted: int) -> float:
    """Rows a second from the first that arrives to the last.

    Raises:
        RuntimeError: They do not come.
    """
    deadline = time.perf_counter() + _PATIENCE_S
    while not (first := rows()):
        _look_again(deadline)
    started = time.perf_counter()
    while (here := rows()) < wanted:
        _look_again(deadline)
    if here == first:
        raise RuntimeError("all rows arrived at once: there are too few to measure")
    return (here - first) / (time.perf_counter() - started)


def _look_again(deadline: float) -> None:
    if time.perf_counter() > deadline:
        raise RuntimeError("the backlog was not made up")
    time.sleep(_LOOK_S)
