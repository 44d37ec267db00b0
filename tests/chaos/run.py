"""One run: start, write, break, heal, wait until all has drained, look."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

import protos.fenhe.node.v1.maintenance_pb2 as maintenance
import protos.fenhe.node.v1.operations_pb2 as pb
from hierarchy_config import CareLevel, NodeId
from node.demo.processes import NodeStartError
from node.security.credentials import load_credentials
from node.security.tls import GrpcLimits, channel_credentials, channel_options
from protos.fenhe.node.v1 import maintenance_pb2_grpc, operations_pb2_grpc
from tests.chaos.acknowledged import read_all
from tests.chaos.faults import KINDS, Faults, plan
from tests.chaos.place import ChaosPlace, Teller
from tests.chaos.verify import Verdict, verify
from tests.services.stores import opened
from tests.services.waiting import CLOCK

__all__ = ["Outcome", "run"]

DRAIN_S_MAX: Final = 180.0
_TICK_S: Final = 0.1
_CALL_S: Final = 10.0
_LOOK_S: Final = 10.0
_COMPARE_S: Final = 120.0


@dataclass
class Outcome:
    """What a run found."""

    verdict: Verdict
    fired: Counter[str]
    impossible: set[str]
    drained_s: float | None
    write_s: float
    refused: Counter[str] = field(default_factory=Counter)
    ended_by_themselves: Counter[NodeId] = field(default_factory=Counter)
    fell: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)
    """Links whose ends hold different content, by the nodes' own comparison of what they seal."""

    @property
    def never_fired(self) -> list[str]:
        """Kinds that were planned, are possible here, and did not fire."""
        return [kind for kind in KINDS if not self.fired[kind] and kind not in self.impossible]

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, all drained, and every kind of fault fired."""
        return (
            self.verdict.holds
            and self.drained_s is not None
            and not self.never_fired
            and not self.fell
            and not self.unequal
        )


def run(root: Path, *, seed: int, minutes: float, rate: float, tell: Teller) -> Outcome:
    """Run fifteen nodes under faults for some minutes of writing, then verify.

    Args:
        root: An empty or absent folder; it is left as it is at the end.
        seed: Of the plan of faults, and of the lines' luck.
        minutes: How long faults and writers go on.
        rate: Rows a second over all writers.
        tell: Is told of progress.
    """
    with ChaosPlace(root, seed) as place:
        tell(f"starting {len(place.nodes)} nodes")
        for node in place.nodes:
            place.fleet.start(node)
        place.fleet.wait_ready()
        faults = Faults(place, seed, tell)
        versions = VersionWatch(place)
        with _writers(place, rate) as writers:
            started = CLOCK.monotonic_ms()
            faults.back_up()
            _break(faults, versions, seed, minutes)
            tell("healing")
            faults.heal()
            refused = writers.finish()
            written_s = (CLOCK.monotonic_ms() - started) / 1000
        drained = _drain(place, faults, tell)
        tell("comparing")
        unequal = _compared(place) if drained is not None else []
        place.fleet.stop()
        tell("verifying")
        noted = list(read_all(root / "acknowledged"))
        verdict = verify(place, noted, faults)
        return Outcome(
            verdict,
            faults.fired,
            faults.impossible,
            drained,
            written_s,
            refused,
            faults.ended_by_themselves,
            versions.fell,
            unequal,
        )


def _break(faults: Faults, versions: VersionWatch, seed: int, minutes: float) -> None:
    """Begin and end faults by the clock."""
    planned = plan(seed, minutes)
    pause = threading.Event()
    started = CLOCK.monotonic_ms()
    looked_s = 0.0
    while (now_s := (CLOCK.monotonic_ms() - started) / 1000) < minutes * 60:
        due = [fault for fault in planned if fault.at_s <= now_s]
        # Who finds nobody to strike waits for his turn, so that every kind fires.
        late = [fault for fault in due if not faults.begin(fault, now_s)]
        planned = late + planned[len(due) :]
        faults.end_due(now_s)
        if now_s - looked_s > _LOOK_S:
            looked_s = now_s
            versions.look(faults.restored)
        pause.wait(_TICK_S)


class VersionWatch:
    """Looks now and then at the stores of two nodes: a row's version never falls."""

    def __init__(self, place: ChaosPlace) -> None:
        self._place = place
        tree = place.place.hierarchy
        self._watched = [
            node
            for node in place.nodes
            if place.on_sqlite(node) and tree.entry(node).level is CareLevel.COUNTY
        ]
        self._seen: dict[NodeId, dict[tuple[str, str], tuple[int, int]]] = {}
        self.fell: list[str] = []

    def look(self, restored: Counter[NodeId]) -> None:
        """Compare with the look before; a node that was put back begins anew."""
        for node in self._watched:
            if restored[node]:
                self._seen.pop(node, None)
            with opened(self._place.place, node) as store:
                now = {key: row.version for key, row in store.rows().items()}
            before = self._seen.get(node, {})
            self.fell += [
                f"{key[0]} at {node}"
                for key, version in before.items()
                if now.get(key, (0, 0)) < version
            ]
            self._seen[node] = now


class Writers:
    """The writer processes."""

    def __init__(self, place: ChaosPlace, rate: float) -> None:
        folder = place.root / "acknowledged"
        folder.mkdir()
        tree = place.place.hierarchy
        townships = [n for n in place.nodes if tree.entry(n).level is CareLevel.TOWNSHIP]
        self._processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.chaos.writer", str(place.place.root)),
                    *(str(folder / f"{township}.log"), str(rate / len(townships))),
                    *(township, *tree.children(township)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for township in townships
        ]

    def finish(self) -> Counter[str]:
        """Let what is under way be answered, then end; what was refused for good, by code."""
        refused: Counter[str] = Counter()
        for process in self._processes:
            said, _ = process.communicate(timeout=60)
            for line in said.splitlines():
                _, code, count = line.split()
                refused[code] += int(count)
        return refused

    def end(self) -> None:
        """End at once."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()


@contextmanager
def _writers(place: ChaosPlace, rate: float) -> Iterator[Writers]:
    writers = Writers(place, rate)
    try:
        yield writers
    finally:
        writers.end()


def _drain(place: ChaosPlace, faults: Faults, tell: Teller) -> float | None:
    """Wait until every node runs, is linked and has nothing to send; seconds, None: not in time."""
    started = CLOCK.monotonic_ms()
    pause = threading.Event()
    calm = 0
    why = ""
    while (elapsed := (CLOCK.monotonic_ms() - started) / 1000) < DRAIN_S_MAX:
        faults.end_due(float("inf"))
        waiting = [said for node in place.nodes if (said := _not_drained(place, node))]
        calm = 0 if waiting else calm + 1
        # Twice: what one node has just passed on may lie before the next.
        if calm > 1:
            return elapsed
        if waiting and waiting[0] != why:
            why = waiting[0]
            tell(f"draining: {why}")
        pause.wait(1.0)
    return None


@contextmanager
def _channel(place: ChaosPlace, node: NodeId) -> Iterator[grpc.Channel]:
    """To a node, as its operator."""
    who = load_credentials(place.place.credentials_dir(f"operator-{node}"))
    options = channel_options(who.server_name, GrpcLimits())
    with grpc.secure_channel(who.address, channel_credentials(who.tls), options=options) as channel:
        yield channel


def _compared(place: ChaosPlace) -> list[str]:
    """What the comparison of each node with its parent finds, by digests of clear content."""
    unequal = []
    for node in place.nodes:
        parent = place.parent(node)
        if parent is None:
            continue
        with _channel(place, node) as channel:
            stub = maintenance_pb2_grpc.MaintenanceServiceStub(channel)
            for event in stub.Verify(maintenance.VerifyRequest(peer=parent), timeout=_COMPARE_S):
                report = event.report if event.HasField("report") else None
        if report is None or not report.equal:
            found = [] if report is None else [dict(link.causes) for link in report.links]
            unequal.append(f"{node} and {parent}: {found}")
    return unequal


def _not_drained(place: ChaosPlace, node: NodeId) -> str:
    """Why a node is not done; "" if it is."""
    try:
        place.fleet.wait_ready((node,))
        with _channel(place, node) as channel:
            stub = operations_pb2_grpc.ReplicationServiceStub(channel)
            said = stub.Status(pb.ReplicationStatusRequest(), timeout=_CALL_S)
    except (grpc.RpcError, NodeStartError) as error:
        return f"{node}: {type(error).__name__}"
    for link in said.links:
        if not link.connected:
            return f"{node} is not linked to {link.peer}: {link.last_error[:80]}"
        lag = sum(lane.lag_entries for lane in link.lanes)
        if lag or any(lane.owes_snapshot for lane in link.lanes):
            return f"{node} has {lag} entries, or a snapshot, for {link.peer}"
    return ""
