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

from hierarchy_config import CareLevel, NodeId
from tests.chaos.acknowledged import AT_HOME, AWAY, read_all
from tests.chaos.drain import compared, drain
from tests.chaos.faults import Faults
from tests.chaos.moves import EDIT, MOVE, Mover, moving
from tests.chaos.place import ChaosPlace, Teller
from tests.chaos.plan import KINDS, plan
from tests.chaos.verify import Verdict, verify
from tests.chaos.verify_moves import edits_lost, granted_at
from tests.services.stores import opened
from tests.services.waiting import CLOCK

__all__ = ["Outcome", "run"]

LOADS: Final = (AT_HOME, AWAY, MOVE, EDIT)
"""What is written in every run."""
_TICK_S: Final = 0.1
_LOOK_S: Final = 10.0
_TURN_S_MAX: Final = 60.0


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
        """Kinds of faults that are possible here, and of loads, of which there was none."""
        faults = [kind for kind in KINDS if not self.fired[kind] and kind not in self.impossible]
        return faults + [load for load in LOADS if not self.verdict.loads[load]]

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


def run(
    root: Path, *, seed: int, minutes: float, rate: float, tell: Teller, reparent: bool = False
) -> Outcome:
    """Run fifteen nodes under faults for some minutes of writing, then verify.

    Args:
        root: An empty or absent folder; it is left as it is at the end.
        seed: Of the plan of faults, and of the lines' luck.
        minutes: How long faults and writers go on.
        rate: Rows a second over all writers.
        tell: Is told of progress.
        reparent: Whether a township goes to the other county meanwhile.
    """
    with ChaosPlace(root, seed) as place:
        tell(f"starting {len(place.nodes)} nodes")
        for node in place.nodes:
            place.fleet.start(node)
        place.fleet.wait_ready()
        faults = Faults(place, seed, tell, reparent=reparent)
        versions = VersionWatch(place)
        spared = faults.change.moving if reparent else frozenset[NodeId]()
        with _writers(place, rate) as writers, moving(place, seed, spared) as mover:
            started = CLOCK.monotonic_ms()
            faults.restores.back_up()
            _break(faults, versions, seed, minutes)
            tell("healing")
            faults.heal()
            refused = writers.finish()
            mover.finish()
            written_s = (CLOCK.monotonic_ms() - started) / 1000
        drained = drain(place, faults, tell)
        tell("comparing")
        unequal = compared(place) if drained is not None else []
        edits = _edits(place, faults, mover)
        place.fleet.stop()
        tell("verifying")
        noted = list(read_all(root / "acknowledged"))
        verdict = verify(place, noted, faults, mover)
        verdict.lost.update(edits)
        return Outcome(
            verdict,
            faults.fired,
            faults.impossible,
            drained,
            written_s,
            refused + mover.refused,
            faults.ended_by_themselves,
            versions.fell,
            unequal,
        )


def _edits(place: ChaosPlace, faults: Faults, mover: Mover) -> list[str]:
    lost, proposed = edits_lost(place, mover.edits, granted_at(place).homes, faults.restores)
    faults.tell(f"edits of old homes: {len(mover.edits)}, of them proposed: {proposed}")
    return lost


def _break(faults: Faults, versions: VersionWatch, seed: int, minutes: float) -> None:
    """Begin and end faults by the clock; on a slow machine, until every kind has had its turn."""
    planned = plan(seed, minutes)
    pause = threading.Event()
    started = CLOCK.monotonic_ms()
    looked_s = 0.0
    while (now_s := (CLOCK.monotonic_ms() - started) / 1000) < minutes * 60 + _TURN_S_MAX:
        if now_s >= minutes * 60:
            planned = [fault for fault in planned if not faults.has_had_its_turn(fault.kind)]
            if not planned:
                break
        due = [fault for fault in planned if fault.at_s <= now_s]
        # Who finds nobody to strike waits for his turn, so that every kind fires.
        late = [fault for fault in due if not faults.begin(fault, now_s)]
        planned = late + planned[len(due) :]
        faults.end_due(now_s)
        if now_s - looked_s > _LOOK_S:
            looked_s = now_s
            versions.look(faults.restores.times)
        pause.wait(_TICK_S)


class VersionWatch:
    """Looks now and then at the stores of two nodes: a row's version never falls.

    A row may go: its resident has moved away, or the township he lives in.
    """

    def __init__(self, place: ChaosPlace) -> None:
        self._place = place
        tree = place.tree
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
                if now.get(key, version) < version
            ]
            self._seen[node] = now


class Writers:
    """The writer processes."""

    def __init__(self, place: ChaosPlace, rate: float) -> None:
        folder = place.root / "acknowledged"
        folder.mkdir()
        tree = place.tree
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
