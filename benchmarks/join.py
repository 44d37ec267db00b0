"""`join`: seconds from `fenhe node join` until the node is up and has its first seed.

A township runs and has invited a village. Timed are the operator's two commands, each a process:
`fenhe node join` makes keys and folder and gets its certificate at the township's door, `fenhe node
run` starts the node, which links and is given what its neighbours hold. It is up when its link is
and it is no longer recovering. The village was linked before and its machine is lost, so that there
is a seed to be given. Beside: the same village stopped and started again, until it is linked.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import grpc

from benchmarks.places import TOWNSHIP, VILLAGE, Running, ended, running_nodes
from benchmarks.result import Result, Scale, ratio_of
from benchmarks.trust_people import register
from hierarchy_config import NodeId

__all__ = ["run"]

_GOAL_S: Final = 10.0
_PATIENCE_S: Final = 120.0
_LOOK_S: Final = 0.02
_RESIDENTS: Final = 20


def run(scale: Scale) -> Result:
    """Join and lose the machine again, several times."""
    joins: list[float] = []
    made: list[float] = []
    starts: list[float] = []
    with running_nodes(scale.folder / "place", (TOWNSHIP, VILLAGE)) as nodes:
        place, fleet = nodes.place, nodes.fleet
        register(place, VILLAGE, _RESIDENTS)
        _until(lambda: _is_seeded(nodes, TOWNSHIP), "the township has its residents")
        listen = place.address(VILLAGE)
        for _ in range(scale.pick(5, 2)):
            fleet.stop((VILLAGE,))
            began = time.perf_counter()
            fleet.start(VILLAGE)
            _until(lambda: _is_up(nodes), "the node is linked")
            starts.append(time.perf_counter() - began)
            fleet.stop((VILLAGE,))
            shutil.rmtree(place.node_dir(VILLAGE))
            joined_s, up_s = _join(nodes, listen)
            made.append(joined_s)
            joins.append(up_s)
    join, start, ratio = ratio_of(joins, starts)
    return Result(
        name="join",
        figure=join,
        unit="s",
        beside="a start of the same node",
        beside_figure=start,
        ratio=ratio,
        goal=f"<= {_GOAL_S:.0f} s",
        met=max(joins) <= _GOAL_S,
        detail={
            "command_s": ratio_of(made, [1.0])[0],
            "longest_s": max(joins),
            "seeded_residents": _RESIDENTS,
        },
    )


def _join(nodes: Running, listen: str) -> tuple[float, float]:
    """Seconds until the machine has its folder, and until the node is up with its seed."""
    place, fleet = nodes.place, nodes.fleet
    who = place.credentials_dir(f"operator-{TOWNSHIP}")
    said = json.loads(_fenhe("node", "invite", VILLAGE, "--as", str(who), "--json"))
    began = time.perf_counter()
    _fenhe(
        *("node", "join", "--parent", said["door"], "--code", "-"),
        *("--data", str(place.node_dir(VILLAGE)), "--listen", listen),
        given=said["code"] + "\n",
    )
    joined_s = time.perf_counter() - began
    fleet.start(VILLAGE)
    _until(lambda: _is_up(nodes) and _is_seeded(nodes, VILLAGE), "the node has its seed")
    return joined_s, time.perf_counter() - began


def _is_up(nodes: Running) -> bool:
    """Whether the village has its link to the township, and recovers from nothing."""
    status = nodes.fleet.status(VILLAGE)
    up = [link.connected for link in status.links if link.role == "parent"]
    return up == [True] and not status.recovering


def _is_seeded(nodes: Running, node: NodeId) -> bool:
    """Whether a node has every resident that was registered."""
    return nodes.fleet.status(node).rows.get("residents", 0) == _RESIDENTS


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.perf_counter() + _PATIENCE_S
    while time.perf_counter() < deadline:
        # Not served yet, or not by this certificate's node.
        with suppress(grpc.RpcError, OSError):
            if condition():
                return
        time.sleep(_LOOK_S)
    raise RuntimeError(f"not within {_PATIENCE_S:.0f} s: {what}")


def _fenhe(*words: str, given: str = "") -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "node", *words],
        input=given,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ended(f"fenhe {' '.join(words[:2])}", done.returncode)
    return done.stdout
