"""`node_idle`: memory and start of a village's node, beside bare imports of its packages.

Memory is the resident set of the node's process some seconds after it serves, on SQLite, linked to
a running township, with its columnar replica open and nothing to do. Shared pages count in full, as
on a machine where it runs alone; `detail` has the proportional set too. Start is from the creation
of the process until run.json says that it serves: settings, certificates, the durability check,
migrations already done, columnar replica, gRPC server. Beside: a Python process that imports the
same packages of others, none of this project's code.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.places import TOWNSHIP, VILLAGE, ended, running_nodes
from benchmarks.process_figures import Memory, memory_of
from benchmarks.result import Result, Scale, alternate, ratio_of
from node.demo.processes import Fleet

__all__ = ["run"]

_MEMORY_GOAL_MB: Final = 150.0
_START_GOAL_S: Final = 2.0
_SETTLE_S: Final = 3.0
_LOOK_S: Final = 0.005
_PATIENCE_S: Final = 60.0


def run(scale: Scale) -> Result:
    """Start and stop the village several times; its township runs all the while."""
    memories: dict[str, list[Memory]] = {"node": [], "imports": []}
    names = _packages()
    with running_nodes(scale.folder / "place", (TOWNSHIP, VILLAGE)) as nodes:
        starts, imports = alternate(
            scale.pick(5, 2),
            lambda: _node(nodes.fleet, memories["node"]),
            lambda: _imports(names, memories["imports"]),
        )
    resident, beside, ratio = ratio_of(
        [each.resident_mb for each in memories["node"]],
        [each.resident_mb for each in memories["imports"]],
    )
    start, import_s, _ = ratio_of(starts, imports)
    return Result(
        name="node_idle",
        figure=resident,
        unit="MB",
        beside="bare imports of its packages",
        beside_figure=beside,
        ratio=ratio,
        goal=f"<= {_MEMORY_GOAL_MB:.0f} MB and start <= {_START_GOAL_S:.0f} s",
        met=resident <= _MEMORY_GOAL_MB and start <= _START_GOAL_S,
        detail={
            "start_s": start,
            "imports_s": import_s,
            "proportional_mb": _proportional(memories["node"]),
            "imports_proportional_mb": _proportional(memories["imports"]),
            "modules_imported": len(names),
        },
    )


def _proportional(memories: list[Memory]) -> float:
    return ratio_of([each.proportional_mb for each in memories], [1.0])[0]


def _node(fleet: Fleet, memories: list[Memory]) -> float:
    """Seconds until the village serves; notes its memory once it has settled."""
    fleet.stop((VILLAGE,))
    started = time.perf_counter()
    fleet.start(VILLAGE)
    taken = _until_exists(fleet.place.node_dir(VILLAGE) / "run.json", started)
    time.sleep(_SETTLE_S)
    memories.append(memory_of(fleet.pid(VILLAGE)))
    return taken


def _until_exists(path: Path, started: float) -> float:
    while not path.exists():
        if time.perf_counter() - started > _PATIENCE_S:
            raise RuntimeError("the village's node did not start")
        time.sleep(_LOOK_S)
    return time.perf_counter() - started


def _packages() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.idle_imports", "list"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ended("benchmarks.idle_imports", done.returncode)
    return done.stdout.split()


def _imports(names: list[str], memories: list[Memory]) -> float:
    """Seconds until a bare process has imported the packages; notes its memory."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.idle_imports"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(" ".join(names) + "\n")
        process.stdin.flush()
        if not process.stdout.readline():
            raise ended("benchmarks.idle_imports", process.wait())
        taken = time.perf_counter() - started
        memories.append(memory_of(process.pid))
    return taken
