"""`log_cost`: rows a second written through the storage with its change log, beside without it.

Both sides put the same bundles of observations into the same store, one writer, durable, with
audit, request id and everything else; the side without has a log whose append does nothing. With
the log, a second thread asks for its durable head, as a node's pump does. On SQLite and on a
private MariaDB, with 1 and with 100 rows a transaction; the headline is the worst of the four.
Making and encoding the entries happens on both sides: what differs is sealing them, and numbering
and storing them in the same transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from benchmarks.bundles import observation_bundles, resident_bundle
from benchmarks.places import VILLAGE, made_place, server_configuration
from benchmarks.result import Result, Scale, alternate, ratio_of
from benchmarks.stores import OpenNode, without_log
from node.clock import SystemClock
from node.foundations import read_foundations
from node.mariadb_server import PrivateMariaDB
from node.opening import OpenStore, open_store
from node.storage import Storage

__all__ = ["run"]

_GOAL: Final = 0.7
_SIZES: Final = (1, 100)
_RESIDENTS: Final = 100


class _Pump:
    """Asks for the head after commits in a thread of its own; many commits share one asking."""

    def __init__(self, store: OpenStore) -> None:
        self._store = store
        self._more = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="head")

    def __enter__(self) -> _Pump:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._more.set()
        self._thread.join()

    def notify(self) -> None:
        """Something committed."""
        self._more.set()

    def _run(self) -> None:
        while not self._stopping:
            self._more.wait()
            self._more.clear()
            self._store.durable_head()


def run(scale: Scale) -> Result:
    """Measure the four settings; each pair of sides alternates."""
    measured: dict[str, tuple[float, float, float]] = {}
    for database in ("sqlite", "mysql"):
        with _opened(scale.folder / database, database) as (store, plain):
            for size in _SIZES:
                name = f"{database}_{size}"
                measured[name] = _measure(store, plain, size, scale)
    figure, beside, ratio = min(measured.values(), key=lambda each: each[2])
    return Result(
        name="log_cost",
        figure=figure,
        unit="rows/s",
        beside="the same writes without the log",
        beside_figure=beside,
        ratio=ratio,
        goal=f">= {_GOAL}",
        met=ratio >= _GOAL,
        detail={
            f"{name}_{part}": value
            for name, figures in measured.items()
            for part, value in zip(("rows_s", "without_rows_s", "ratio"), figures, strict=True)
        },
    )


@contextmanager
def _opened(folder: Path, database: str) -> Iterator[tuple[OpenStore, OpenNode]]:
    """A village's store, and the same store without its log."""
    place = made_place(folder, (VILLAGE,), database)
    server = None
    if database == "mysql":
        configuration = server_configuration("village", folder / "server")
        server = PrivateMariaDB(folder / "server", configuration=configuration)
        server.start()
        place.set_database(VILLAGE, server.create_database("fenhe"))
    try:
        base = read_foundations(place.node_dir(VILLAGE), SystemClock())
        store = open_store(
            base.paths.data, base.settings, base.hierarchy, base.profile, SystemClock()
        )
        try:
            yield store, without_log(base, store.engine)
        finally:
            store.close()
    finally:
        if server is not None:
            server.stop()


def _measure(
    store: OpenStore, plain: OpenNode, size: int, scale: Scale
) -> tuple[float, float, float]:
    seconds = scale.pick(4, 1)
    numbers = count()
    known = store.storage.put_bundle(
        plain.caller, resident_bundle(f"bench-{size}", _RESIDENTS)
    ).resident_ids

    def rows_a_second(storage: Storage, pump: _Pump | None) -> float:
        made = observation_bundles(f"bench-{size}-{next(numbers)}", known, size)
        started, rows = time.perf_counter(), 0
        while (taken := time.perf_counter() - started) < seconds:
            storage.put_bundle(plain.caller, next(made))
            rows += size
            if pump is not None:
                pump.notify()
        return rows / taken

    with _Pump(store) as pump:
        ours, beside = alternate(
            scale.pick(5, 3),
            lambda: rows_a_second(store.storage, pump),
            lambda: rows_a_second(plain.storage, None),
        )
    return ratio_of(ours, beside)
