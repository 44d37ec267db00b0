"""`lag_hop`: milliseconds from a commit at a village until its township has the row."""

from __future__ import annotations

from benchmarks.latency import latency_result, native_latency, our_latency
from benchmarks.places import TOWNSHIP, VILLAGE
from benchmarks.result import Result, Scale

__all__ = ["run"]


def run(scale: Scale) -> Result:
    """Measure MariaDB's own hop, then ours."""
    times = scale.pick(300, 60)
    native = native_latency(scale.folder / "native", times)
    ours = our_latency(scale.folder / "ours", (TOWNSHIP, VILLAGE), TOWNSHIP, times)
    return latency_result("lag_hop", ours, native, p50_ms_max=5, p99_ms_max=20)
