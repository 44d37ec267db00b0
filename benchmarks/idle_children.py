"""The children of `children_idle`: one process with many villages' ends of a link, nothing more.

Each has its own certificate, channel (TCP, TLS on both sides) and stream, and the node's own runner
over a store in memory: it greets, sends its mark every two seconds, confirms what it is sent.
Arguments: folder of the nodes' data folders, region file, address and id of the parent.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.crew import report
from hierarchy_config import Hierarchy, NodeId, load_region
from node.clock import SystemClock
from node.foundations import utc_now
from node.links.proof import ReceiptProof
from node.links.streams import ClientStream, dial
from node.security.credentials import NodeCredentials, load_node_credentials
from node.security.tls import GrpcLimits, open_channel
from replication.core.config import LinkConfig, PeerRole
from replication.core.effects import LogPart
from replication.core.model import Batch, Cursor, Hello, Lane, Mark, Receipt, Request
from replication.runner import LinkRunner


class _Memory:
    """A child's store: a log that stays empty."""

    def __init__(self, node_id: NodeId, clock: SystemClock) -> None:
        self._node_id = node_id
        self._clock = clock

    def read(self, peer: str, lane: Lane, after: int, bytes_max: int, position: str) -> LogPart:
        """Nothing."""
        return LogPart((), after)

    def apply(self, peer: str, batch: Batch, cursor: Cursor) -> None:
        """Forget it."""

    def save_delivered(self, peer: str, cursor: Cursor, receipt: Receipt | None) -> None:
        """Forget it."""

    def save_mark(self, peer: str, mark: Mark) -> None:
        """Forget it."""

    def save_peer(self, peer: str, hello: Hello) -> None:
        """Forget it."""

    def mark_for(self, peer: str) -> Mark:
        """Its own home, as of now."""
        return Mark({self._node_id: self._clock.now_ms()}, 0)


class _Here:
    """What the children share: threads, and how many of them are linked."""

    def __init__(self, wanted: int) -> None:
        self.threads = ThreadPoolExecutor(2)
        self.all_up = asyncio.Event()
        self.up = 0
        self._wanted = wanted

    def count(self, change: int) -> None:
        """One more link, or one less."""
        self.up += change
        if self.up == self._wanted:
            self.all_up.set()


async def _no_answer(_request: Request) -> bytes:
    return b""


@dataclass(frozen=True)
class _Parent:
    node_id: NodeId
    address: str
    hierarchy: Hierarchy


async def _link(child: NodeId, credentials: NodeCredentials, to: _Parent, here: _Here) -> None:
    """One child's stream, until it ends."""
    hierarchy, parent, address = to.hierarchy, to.node_id, to.address
    clock = SystemClock()
    proof = ReceiptProof(credentials, parent, hierarchy, lambda: utc_now(clock))

    def went_up(hello: Hello) -> None:
        proof.meet(hello)
        here.count(1)

    config = LinkConfig(
        node_id=child,
        peer_id=parent,
        peer_role=PeerRole.PARENT,
        store_epoch=1,
        store_incarnation=f"idle-{child}",
        config_epoch=hierarchy.epoch,
        signing_certificate=proof.certificate,
        clock_ms=clock.now_ms(),
        verify=proof.verify,
        sign=proof.sign,
    )
    nothing: Mapping[Lane, Cursor] = {}
    channel = open_channel(address, hierarchy.dns_name(parent), credentials.tls, GrpcLimits())
    runner = LinkRunner(
        config,
        inbound=nothing,
        outbound=nothing,
        stream=ClientStream(dial(channel), parent),
        store=_Memory(child, clock),
        answer=_no_answer,
        threads=here.threads,
        clock=clock,
        on_up=went_up,
    )
    ended = await runner.run(lambda: 0)
    here.count(-1)
    print(f"{child}: {ended.code}: {ended.reason}", file=sys.stderr)


async def _main(folder: Path, region: Path, address: str, parent: NodeId) -> None:
    hierarchy = load_region(region)
    children = hierarchy.children(parent)
    here, to = _Here(len(children)), _Parent(parent, address, hierarchy)
    tasks = []
    for child in children:
        now = utc_now(SystemClock())
        credentials = load_node_credentials(folder / child, child, hierarchy, now)
        tasks.append(asyncio.create_task(_link(child, credentials, to, here)))
    await here.all_up.wait()
    print("ready", flush=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    told = partial(loop.call_soon_threadsafe, stop.set)
    threading.Thread(target=lambda: (sys.stdin.readline(), told()), daemon=True).start()
    await stop.wait()
    report({"up": here.up})
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main(folder: str, region: str, address: str, parent: str) -> None:
    """Bring every child's link up, say so, hold them until the word."""
    asyncio.run(_main(Path(folder), Path(region), address, NodeId(parent)))


if __name__ == "__main__":
    main(*sys.argv[1:])
