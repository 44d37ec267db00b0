"""A village's node with clients inside: the node's process, whose clients call its front desk.

Everything of the node runs here (numbering, links, columnar replica, audit chain); a client hands
its bundle to the gatherer as a gRPC handler does, and waits for the acknowledgement before its next
one. What is not in it is gRPC and the checks of a bundle.
Arguments: data folder, name, seconds, rows a bundle, clients, bundles in all (0: until the time is
up).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.bundles import observation_bundles, resident_bundle
from benchmarks.crew import report
from node.app import Node
from node.clock import SystemClock
from node.foundations import read_foundations
from node.logs import configure_logs
from node.parts import Assembly, Parts
from node.records.model import Bundle
from node.security.caller import Caller, local_operator
from node.services.bundle_writes import BundleWrites, Gathered
from node.services.care import CareDesk

_RESIDENTS = 25
_ROW_BYTES = 200


class _Parts(Assembly):
    """The node's parts; keeps what its services write through."""

    writes: BundleWrites | None = None

    def _desk(self, parts: Parts) -> CareDesk:
        desk = super()._desk(parts)
        self.writes = desk.writes
        return desk


class _Village(Node):
    """The node with those parts."""

    assembly = _Parts

    @property
    def writes(self) -> BundleWrites | None:
        """What its services write through, once it has started."""
        assert isinstance(self._assembly, _Parts)
        return self._assembly.writes


class _Clients:
    def __init__(self, writes: BundleWrites, caller: Caller) -> None:
        self._writes = writes
        self._caller = caller

    async def put(self, bundle: Bundle) -> tuple[str, ...]:
        """Store one bundle; the ids of its residents."""
        size = _ROW_BYTES * (len(bundle.records) + len(bundle.residents))
        what = Gathered(self._caller, lambda: bundle, size)
        return (await self._writes.put(what)).resident_ids

    async def work(self, bundles: Iterator[Bundle], until: float, most: int) -> int:
        """One client: bundles put one after the other."""
        steps = 0
        while time.perf_counter() < until and steps < most:
            await self.put(next(bundles))
            steps += 1
        return steps


async def _main(
    data_dir: Path, name: str, seconds: float, rows: int, clients: int, bundles: int
) -> None:
    clock = SystemClock()
    base = read_foundations(data_dir, clock)
    # The process's own output is what it reports.
    configure_logs(base.settings.log_level, data_dir / "node.log")
    node = _Village(base, clock)
    await node.start()
    assert node.writes is not None
    here = _Clients(node.writes, local_operator(base.node_id, base.hierarchy, "benchmark"))
    made = []
    for number in range(clients):
        known = await here.put(resident_bundle(f"{name}-{number}", _RESIDENTS))
        made.append(observation_bundles(f"{name}-{number}", known, rows))
    print("ready", flush=True)
    if not await asyncio.to_thread(sys.stdin.readline):
        return
    started = time.perf_counter()
    most = bundles // clients if bundles else sys.maxsize
    each = (here.work(some, started + seconds, most) for some in made)
    steps = sum(await asyncio.gather(*each))
    taken = time.perf_counter() - started
    # The processor time of the clients is the node's, whose process this is.
    report({"steps": steps * rows, "seconds": taken, "cpu_s": 0.0})
    # It goes on sending until whoever started it closes the line.
    await asyncio.to_thread(sys.stdin.readline)
    await node.stop()


def main(data_dir: str, name: str, seconds: str, *more: str) -> None:
    """Start the node, wait for the word, write, go on until the line is closed."""
    rows, clients, bundles = map(int, more)
    with suppress(KeyboardInterrupt):
        asyncio.run(_main(Path(data_dir), name, float(seconds), rows, clients, bundles))


if __name__ == "__main__":
    main(*sys.argv[1:])
