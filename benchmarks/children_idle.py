"""`children_idle`: memory and processor time of a township whose 200 villages are linked and idle.

The township's node is a process of the program on SQLite. Its children are real links (a TCP
connection, mutual TLS, a stream and a certificate of its own each) held by one process that has
nothing to send (idle_children.py): marks every two seconds are all there is. Memory is the resident
set, processor time a share of one core over the seconds measured. Beside: the same node before any
child was linked.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from benchmarks.crew import Crew
from benchmarks.places import TOWNSHIP
from benchmarks.process_figures import cpu_s_of, memory_of
from benchmarks.result import Result, Scale
from hardware_profiles import load_profile, profile_text
from hierarchy_config import CareLevel, Hierarchy, NodeId, load_region, shipped_region
from node.clock import SystemClock
from node.demo.place import DemoPlace
from node.demo.processes import Fleet

__all__ = ["run"]

CHILDREN: Final = 200
_MEMORY_GOAL_MB: Final = 300.0
_CORE_GOAL: Final = 0.05
_SETTLE_S: Final = 5.0


def run(scale: Scale) -> Result:
    """Start the township, link the children, look for a while."""
    place = DemoPlace.make(scale.folder / "place", region_of(CHILDREN), "sqlite", SystemClock())
    profile = load_profile(place.hierarchy.entry(TOWNSHIP).profile)
    folder = place.node_dir(TOWNSHIP)
    (folder / "profile.yaml").write_text(profile_text(profile), encoding="utf-8")
    fleet = Fleet(place, SystemClock())
    fleet.start(TOWNSHIP)
    try:
        fleet.wait_ready((TOWNSHIP,))
        pid = fleet.pid(TOWNSHIP)
        seconds = scale.pick(60, 15)
        alone_mb, alone_core = _look(pid, seconds)
        arguments = (str(folder.parent), str(folder / "region.yaml"), place.address(TOWNSHIP))
        with Crew("idle_children", [(*arguments, TOWNSHIP)]) as crew:
            resident_mb, core = _look(pid, seconds)
            proportional_mb = memory_of(pid).proportional_mb
            [said] = crew.work()
    finally:
        fleet.stop()
    if said["up"] != CHILDREN:
        raise RuntimeError(f"{said['up']} links of {CHILDREN} were up at the end")
    return Result(
        name="children_idle",
        figure=resident_mb,
        unit="MB",
        beside="the same node without children linked",
        beside_figure=alone_mb,
        ratio=resident_mb / alone_mb,
        goal=f"<= {_MEMORY_GOAL_MB:.0f} MB and <= {_CORE_GOAL:.0%} of a core",
        met=resident_mb <= _MEMORY_GOAL_MB and core <= _CORE_GOAL,
        detail={
            "children": CHILDREN,
            "core_share": core,
            "core_share_alone": alone_core,
            "proportional_mb": proportional_mb,
        },
    )


def region_of(children: int) -> Hierarchy:
    """A township with so many villages: those of the shipped region, and made-up ones beside."""
    shipped = load_region(shipped_region())
    township = replace(shipped.entry(TOWNSHIP), parent=None)
    pattern = next(entry for entry in shipped.nodes.values() if entry.level is CareLevel.VILLAGE)
    codes = [NodeId(f"{TOWNSHIP}{200 + number}") for number in range(children)]
    villages = {code: replace(pattern, node_id=code, parent=TOWNSHIP) for code in codes}
    return replace(shipped, nodes={TOWNSHIP: township, **villages})


def _look(pid: int, seconds: int) -> tuple[float, float]:
    """Resident megabytes and the share of a core, once it has settled."""
    time.sleep(_SETTLE_S)
    used, started = cpu_s_of(pid), time.perf_counter()
    time.sleep(seconds)
    core = (cpu_s_of(pid) - used) / (time.perf_counter() - started)
    return memory_of(pid).resident_mb, core
