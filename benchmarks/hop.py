"""One hop between a village and its township, and the same between two MariaDB servers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import create_engine, func, select

from benchmarks.crew import Crew
from benchmarks.native_pair import NativePair
from benchmarks.places import TOWNSHIP, VILLAGE, Running
from benchmarks.process_figures import cpu_s_of
from node.settings import load_settings
from node.storage.tables import CHANGELOG, REPLICATED
from replication.changelog import LinkState
from replication.core.model import Lane

__all__ = ["Hop", "NativeHop", "Round"]

_POLL_S: Final = 0.02
_PATIENCE_S: Final = 180.0


@dataclass(frozen=True, slots=True)
class Round:
    """One round: rows a second end to end and at the writers, processor time a row by process."""

    rows_s: float
    written_s: float
    cpu_ms_a_row: dict[str, float]


@dataclass
class Hop:
    """A village and its township, seen from their databases."""

    nodes: Running

    def __post_init__(self) -> None:
        """Plain engines that only look; READ COMMITTED is the servers' default."""
        place = self.nodes.place
        urls = [load_settings(place.node_dir(node)).database for node in (VILLAGE, TOWNSHIP)]
        self._below, self._above = (create_engine(url) for url in urls)

    def close(self) -> None:
        """Close the connections."""
        self._below.dispose()
        self._above.dispose()

    def measure(self, module: str, arguments: Sequence[tuple[str, ...]]) -> Round:
        """One round of these writers, until every row has its receipt.

        Raises:
            RuntimeError: Rows are missing at the township.
        """
        with Crew(module, arguments) as crew:
            pids = dict(self.nodes.pids)
            if VILLAGE not in self.nodes.fleet.started:
                pids["village_and_clients"] = crew.pids[0]
            self.wait_until_delivered()
            before, used = self.rows(), _used(pids)
            started = time.perf_counter()
            said = crew.work()
            self.wait_until_delivered()
            taken = time.perf_counter() - started
            return _round(said, taken, self.rows() - before, _since(used, pids))

    def _delivered(self) -> bool:
        """Whether the township's receipt for the newest entry is durable at the village."""
        t = CHANGELOG.change_log
        with self._below.connect() as connection:
            waiting = select(func.count()).select_from(t).where(t.c.sequence.is_(None))
            if connection.execute(waiting).scalar_one():
                return False
            newest = select(func.max(t.c.sequence)).where(t.c.lane == Lane.BULK.value)
            wanted = connection.execute(newest).scalar() or 0
            cursors = LinkState(CHANGELOG).load_outbound(connection, TOWNSHIP)
        return wanted == 0 or (Lane.BULK in cursors and cursors[Lane.BULK].covers_to >= wanted)

    def wait_until_delivered(self) -> None:
        """Return when every row of the village has its receipt.

        Raises:
            RuntimeError: They do not come.
        """
        deadline = time.perf_counter() + _PATIENCE_S
        while not self._delivered():
            if time.perf_counter() > deadline:
                raise RuntimeError("the township's receipts did not arrive")
            time.sleep(_POLL_S)

    def rows(self) -> int:
        """Observations at the township."""
        with self._above.connect() as connection:
            t = REPLICATED["observations"]
            return connection.execute(select(func.count()).select_from(t)).scalar_one()


@dataclass
class NativeHop:
    """MariaDB's own replication."""

    pair: NativePair

    def measure(self, module: str, arguments: Sequence[tuple[str, ...]]) -> Round:
        """One round of these writers, until the replica has applied every row. Raises as Hop."""
        with Crew(module, arguments) as crew:
            before, used = self.pair.rows(), _used(self.pair.pids)
            started = time.perf_counter()
            said = crew.work()
            self.pair.wait_until_applied()
            taken = time.perf_counter() - started
            return _round(said, taken, self.pair.rows() - before, _since(used, self.pair.pids))


def _round(said: list[dict[str, Any]], taken: float, arrived: int, cpu: dict[str, float]) -> Round:
    rows = int(sum(each["steps"] for each in said))
    if arrived != rows:
        raise RuntimeError(f"{arrived} rows arrived of {rows}")
    cpu = {"writers": sum(each["cpu_s"] for each in said), **cpu}
    return Round(
        rows / taken,
        rows / max(each["seconds"] for each in said),
        {name: 1000 * seconds / rows for name, seconds in cpu.items()},
    )


def _used(pids: dict[str, int]) -> dict[str, float]:
    return {name: cpu_s_of(pid) for name, pid in pids.items()}


def _since(before: dict[str, float], pids: dict[str, int]) -> dict[str, float]:
    return {name: now - before[name] for name, now in _used(pids).items()}
