"""`point_read`: reads of a resident's summary a second, beside an empty echo on the same stack.

Ours: ResidentService.Get at a village's node over mutual TLS, warm: the interceptor identifies the
caller and asks the method table, the storage reads the resident and his identifiers, opens the
sealed cells, and commits the audit entry of the read, durably, before the answer leaves. Beside: a
server of the same kind with the same certificates and options that answers with what it was sent.
One client process keeps the same number of calls under way at either.

The headline is on SQLite, a village's default; `detail` has MariaDB too. A read that need not wait
for its audit entry would be faster; here none is answered that is not audited.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.places import VILLAGE, ended, running_nodes
from benchmarks.reading import CALLS, read_for
from benchmarks.result import Result, Scale, alternate, ratio_of
from benchmarks.trust_people import register

__all__ = ["run"]

_RESIDENTS: Final = 200
_GOAL: Final = 0.6


def run(scale: Scale) -> Result:
    """Measure on SQLite, then on MariaDB."""
    (ours, beside, ratio), latency = _measure(scale, "sqlite")
    (mysql, _, mysql_ratio), mysql_latency = _measure(scale, "mysql")
    return Result(
        name="point_read",
        figure=ours,
        unit="reads/s",
        beside="an empty echo on the same stack",
        beside_figure=beside,
        ratio=ratio,
        goal=f">= {_GOAL}",
        met=ratio >= _GOAL,
        detail={
            "calls_under_way": CALLS,
            **latency,
            "mysql_reads_s": mysql,
            "mysql_ratio": mysql_ratio,
            **{f"mysql_{name}": value for name, value in mysql_latency.items()},
        },
    )


def _measure(scale: Scale, database: str) -> tuple[tuple[float, float, float], dict[str, float]]:
    folder = scale.folder / database
    seconds = scale.pick(5, 2)
    with running_nodes(folder, (VILLAGE,), database) as nodes:
        place = nodes.place
        ids = folder / "residents.txt"
        ids.write_text("\n".join(register(place, VILLAGE, _RESIDENTS)))
        said: dict[str, dict[str, Any]] = {}

        def read(method: str, address: str) -> float:
            who = place.credentials_dir(f"client-{VILLAGE}")
            said[method] = read_for(who, address, method, seconds, ids)
            return float(said[method]["calls_s"])

        with _echo_server(place.node_dir(VILLAGE)) as echo:
            ours, beside = alternate(
                scale.pick(5, 2),
                lambda: read("get", place.address(VILLAGE)),
                lambda: read("echo", echo),
            )
    latency = {
        f"{method}_{name}": each[name]
        for method, each in said.items()
        for name in ("p50_ms", "p99_ms")
    }
    return ratio_of(ours, beside), latency


@contextmanager
def _echo_server(data_dir: Path) -> Iterator[str]:
    """The echo's address; it ends when its input does."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.echo_server", str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise ended("benchmarks.echo_server", process.wait())
        yield address
