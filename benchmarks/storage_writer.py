"""One writer of `hop_single`: a process that puts one bundle after the other through the storage.

Arguments: data folder of a running node on MariaDB, name of the writer, seconds, rows a bundle.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.bundles import observation_bundles, resident_bundle
from benchmarks.crew import wait_for_start, work_for
from benchmarks.stores import attach

_RESIDENTS = 25


def main(data_dir: str, name: str, seconds: str, rows: str) -> None:
    """Register residents, wait for the word, write until the time is up."""
    node = attach(Path(data_dir))
    known = node.storage.put_bundle(node.caller, resident_bundle(name, _RESIDENTS)).resident_ids
    made = observation_bundles(name, known, int(rows))
    wait_for_start()
    work_for(float(seconds), lambda: node.storage.put_bundle(node.caller, next(made)), int(rows))
    node.engine.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
