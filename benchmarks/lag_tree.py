"""`lag_tree`: milliseconds from a commit at a village until the city has the row, de-identified.

Four levels, three hops: village, township, county, city. Beside it one hop of MariaDB's own.
"""

from __future__ import annotations

from typing import Final

from benchmarks.latency import latency_result, native_latency, our_latency
from benchmarks.places import TOWNSHIP, VILLAGE
from benchmarks.result import Result, Scale
from hierarchy_config import NodeId

__all__ = ["run"]

_CITY: Final = NodeId("1410")
_COUNTY: Final = NodeId("141002")


def run(scale: Scale) -> Result:
    """Measure MariaDB's own hop, then the tree."""
    times = scale.pick(300, 60)
    native = native_latency(scale.folder / "native", times)
    tree = (_CITY, _COUNTY, TOWNSHIP, VILLAGE)
    ours = our_latency(scale.folder / "ours", tree, _CITY, times)
    return latency_result("lag_tree", ours, native, p50_ms_max=25, p99_ms_max=100)
