"""The other side of `trust_cost`: a node that puts neutral parts in the place of trust's.

Arguments: its data folder. The node's own program otherwise: the same server, mutual TLS, rooms and
background tasks. Serves until its input ends.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path

from benchmarks.neutral import AnybodyGuard, ReadsOnly, clear_context, open_answers
from node.app import Node
from node.clock import SystemClock
from node.foundations import read_foundations
from node.logs import configure_logs
from node.metrics import NodeMetrics
from node.parts import Assembly, Parts
from node.services.bundle_writes import BundleWrites
from node.services.care import CareDesk
from node.services.interceptor import GuardInterceptor
from node.services.point_reads import PointReads
from node.services.registration import Servicers
from node.services.wire import joined_wire, resident_wire
from node.storage.rows import RowMaker
from node.storage.writes import BundleWriter

__all__ = ["BareNode"]


class BareAssembly(Assembly):
    """Reads and registers residents without sealing, audit and scopes."""

    def _desk(self, parts: Parts) -> CareDesk:
        base, store, threads = self._base, parts.store, parts.threads
        clear = clear_context(store.storage.context)
        maker = RowMaker(clear.cells, clear.blind_index)
        writer = BundleWriter(clear, maker, store.storage.away.send)
        answers = open_answers(clear, ReadsOnly(store.engine), store.cache)
        return CareDesk(
            base.node_id,
            base.hierarchy,
            store.storage,
            threads,
            self._clock,
            lambda: False,
            PointReads(lambda asked: answers.answers(asked, resident_wire, joined_wire), threads),
            BundleWrites(writer.put_all, threads, parts.pump.notify),
        )


class BareNode(Node):
    """A node that takes every caller for the same one and lets him do everything."""

    assembly = BareAssembly

    def _guard(self, servicers: Servicers, metrics: NodeMetrics, parts: Parts) -> GuardInterceptor:
        base = self._base
        return AnybodyGuard(
            base.node_id, base.hierarchy, lambda: secrets.token_hex(4), count=metrics.count_call
        )


async def main(data_dir: Path) -> None:
    """Serve until standard input ends."""
    clock = SystemClock()
    base = read_foundations(data_dir, clock)
    configure_logs(base.settings.log_level, data_dir / "node.log")
    node = BareNode(base, clock)
    try:
        await node.start()
        print(node.address, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await node.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
