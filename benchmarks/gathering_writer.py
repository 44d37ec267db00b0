"""The clients of one node: a process whose clients put bundles through the node's own gatherer.

Each client waits for the acknowledgement of one bundle before it sends the next; those that wait
together share a transaction, as at a node's front door, but for gRPC.
Arguments: data folder of a running node on MariaDB, name, seconds, rows a bundle, clients.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.bundles import observation_bundles, resident_bundle
from benchmarks.crew import report, wait_for_start
from benchmarks.stores import attach
from node.records.model import Bundle
from node.services.bundle_writes import BundleWrites, Gathered

_RESIDENTS = 25
_SIZE = 200


def _given(bundle: Bundle) -> Bundle:
    return bundle


def main(data_dir: str, name: str, seconds: str, rows: str, clients: str) -> None:
    """Register residents, wait for the word, write until the time is up."""
    node = attach(Path(data_dir))
    made = []
    for number in range(int(clients)):
        each = f"{name}-{number}"
        known = node.storage.put_bundle(node.caller, resident_bundle(each, _RESIDENTS)).resident_ids
        made.append(observation_bundles(each, known, int(rows)))
    wait_for_start()

    async def work() -> int:
        with ThreadPoolExecutor(2) as threads:
            writes = BundleWrites(node.storage.put_bundles, threads, lambda: None)
            until = time.perf_counter() + float(seconds)

            async def client(bundles: Iterator[Bundle]) -> int:
                steps = 0
                while time.perf_counter() < until:
                    bundle = next(bundles)
                    size = _SIZE * len(bundle.records)
                    await writes.put(Gathered(node.caller, partial(_given, bundle), size))
                    steps += 1
                return steps

            return sum(await asyncio.gather(*map(client, made)))

    started, used = time.perf_counter(), time.process_time()
    steps = asyncio.run(work())
    report(
        {
            "steps": steps * int(rows),
            "seconds": time.perf_counter() - started,
            "cpu_s": time.process_time() - used,
        }
    )
    node.engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
