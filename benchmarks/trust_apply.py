"""Applying a village's batches with all of trust, beside the same with neutral parts."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.batches import VillageStream
from benchmarks.neutral import clear_context, clear_keys
from benchmarks.places import TOWNSHIP, VILLAGE, made_place, server_configuration
from benchmarks.process_figures import cpu_s_of
from benchmarks.result import Scale, alternate, ratio_of
from node.clock import SystemClock
from node.foundations import read_foundations
from node.mariadb_server import PrivateMariaDB
from node.opening import NodeLog, OpenStore, open_store
from node.storage.apply import BatchApplier
from node.storage.rows import RowMaker
from replication.core.config import PeerRole
from replication.core.model import Lane

__all__ = ["ApplyFigures", "measure_apply"]

_LANES: Final = {Lane.IDENTITY: "people", Lane.BULK: "records"}


@dataclass(frozen=True, slots=True)
class ApplyFigures:
    """Rows a second, and processor ms for a thousand rows in all and by lane; with, without.

    Processor time is this process's and the database server's.
    """

    rows_s: tuple[float, float]
    cpu_ms: tuple[float, float]
    lanes: dict[str, tuple[float, float]]

    @property
    def ratio(self) -> float:
        """Of the rates."""
        return self.rows_s[0] / self.rows_s[1]

    @property
    def cpu_cost(self) -> float:
        """Processor time that trust adds, as a share of what the rows cost without."""
        return self.cpu_ms[0] / self.cpu_ms[1] - 1


@dataclass
class _Side:
    """A township that takes a village's batches in."""

    applier: BatchApplier
    used_s: Callable[[], float]
    stream: VillageStream = field(default_factory=VillageStream)
    cpu_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def rows_a_second(self, steps: int) -> float:
        """Apply so many steps; notes the processor time of each lane and of both."""
        rows: dict[str, int] = defaultdict(int)
        used: dict[str, float] = defaultdict(float)
        taken = 0.0
        for _ in range(steps):
            for batch, cursor in self.stream.step():
                began, used_before = time.perf_counter(), self.used_s()
                done = self.applier.apply(VILLAGE, PeerRole.CHILD, batch, cursor)
                taken += time.perf_counter() - began
                if done.applied != batch.row_count:
                    raise RuntimeError(f"{batch.row_count - done.applied} rows were not applied")
                for name in (_LANES[batch.lane], "both"):
                    rows[name] += batch.row_count
                    used[name] += self.used_s() - used_before
        for name, seconds in used.items():
            self.cpu_ms[name].append(seconds * 1e6 / rows[name])
        return rows["both"] / taken


def measure_apply(scale: Scale, database: str) -> ApplyFigures:
    """Two stores of one township, by turns."""
    steps, rounds = scale.pick(10, 3), scale.pick(5, 3)
    folder = scale.folder / f"apply-{database}"
    with ExitStack() as held:
        server = None
        if database == "mysql":
            text = server_configuration("township", folder / "server")
            server = held.enter_context(PrivateMariaDB(folder / "server", configuration=text))
        stores = [
            held.enter_context(_opened(folder / name, server, name)) for name in ("with", "without")
        ]
        used_s = _used_by(server)
        ours = _Side(stores[0].storage._applier, used_s)
        other = _Side(_clear_applier(stores[1]), used_s)
        for side in (ours, other):
            side.rows_a_second(1)
            side.cpu_ms.clear()
        rates = alternate(
            rounds, lambda: ours.rows_a_second(steps), lambda: other.rows_a_second(steps)
        )
    cpu = {
        name: (statistics.median(ours.cpu_ms[name]), statistics.median(other.cpu_ms[name]))
        for name in ours.cpu_ms
    }
    return ApplyFigures(ratio_of(*rates)[:2], cpu.pop("both"), cpu)


@contextmanager
def _opened(folder: Path, server: PrivateMariaDB | None, name: str) -> Iterator[OpenStore]:
    place = made_place(folder, (TOWNSHIP, VILLAGE), "sqlite" if server is None else "mysql")
    if server is not None:
        place.set_database(TOWNSHIP, server.create_database(name))
    base = read_foundations(place.node_dir(TOWNSHIP), SystemClock())
    store = open_store(base.paths.data, base.settings, base.hierarchy, base.profile, SystemClock())
    try:
        yield store
    finally:
        store.close()


def _clear_applier(store: OpenStore) -> BatchApplier:
    """What applies on a store without sealing its cells and its log, and without keyed index."""
    numbered = NodeLog(
        store.engine, node_id=TOWNSHIP, store_epoch=store.epoch, keys=clear_keys(TOWNSHIP)
    )
    numbered.take_over()
    clear = clear_context(store.storage.context, numbered.log)
    return BatchApplier(clear, RowMaker(clear.cells, clear.blind_index))


def _used_by(server: PrivateMariaDB | None) -> Callable[[], float]:
    pid = None if server is None else server.pid
    if pid is None:
        return time.process_time
    return lambda: time.process_time() + cpu_s_of(pid)
