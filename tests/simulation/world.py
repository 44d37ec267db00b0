"""One schedule: 15 or 40 nodes, virtual time, faults from a seed, checkers, and the two phases.

Phase one: clients write, faults strike, checkers look at every step. Phase two: everything heals;
within a bounded virtual time all that was acknowledged must be everywhere it belongs (I8). Nothing
here reads a clock or shares a random source, so one seed replays exactly.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any

from replication.core.effects import Effect
from tests.simulation.checkers import Checkers, ViolationError
from tests.simulation.durable import Durable
from tests.simulation.faults import Faults
from tests.simulation.network import Network
from tests.simulation.process import CrashError, SimNode
from tests.simulation.tree import LARGE, SMALL
from tests.simulation.variants import REAL, Variant
from tests.simulation.writes import Writes

__all__ = ["Outcome", "World", "run_schedule"]

FAULT_PHASE_MS = 25_000
DRAIN_MS_MAX = 180_000
EVENTS_MAX = 1_500_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one schedule."""

    seed: int
    violation: ViolationError | None
    fired: Counter[str]
    crash_points: Counter[str]
    closes: Counter[str]
    acknowledged: int
    applied_batches: int
    drained_ms: int


class World:
    """Everything of one schedule."""

    def __init__(self, seed: int, variant: Variant, trace: Callable[[str], None] | None) -> None:
        self.random = Random(seed)
        self.variant = variant
        self.now = 0
        self.healed = False
        self.snapshots_to_break = 0
        self.fired: Counter[str] = Counter()
        self.crash_points: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        is_large = variant.large_every and seed % variant.large_every == variant.large_every - 1
        self.tree = LARGE if is_large else SMALL
        self.checkers = Checkers(self.tree, self._disks, variant.unchecked)
        away = self.random.choice((0.0, 0.15, 0.4))
        self.writes = Writes(self.random, self.tree, away if variant.away is None else variant.away)
        batch_bytes = self.random.choice((400, 1500, 20_000))
        self.batch_bytes = variant.batch_bytes or batch_bytes
        self._trace = trace
        self._queue: list[tuple[int, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._ticket = count()
        self._epochs: Counter[str] = Counter(dict.fromkeys(self.tree.nodes, 1))
        self.network = Network(self)
        self.nodes = {node: SimNode(self, node) for node in self.tree.nodes}
        self._writers = (*self.tree.villages, *self.tree.nodes)
        coalescing = self.random.random() < 0.3
        for node in self.nodes.values():
            node.store.coalescing = coalescing

    # -- time -----------------------------------------------------------------------------------

    def at(self, moment: int, work: Callable[..., Any], *arguments: Any) -> None:
        """Do something at a moment."""
        heapq.heappush(self._queue, (moment, next(self._ticket), work, arguments))

    def after(self, delay_ms: int, work: Callable[..., Any], *arguments: Any) -> None:
        """Do something later."""
        self.at(self.now + delay_ms, work, *arguments)

    def after_on(
        self, node: SimNode, delay_ms: int, work: Callable[..., Any], *arguments: Any
    ) -> None:
        """Do something later in the same life of a process."""
        self.at(self.now + delay_ms, self._if_same_boot, node, node.boot, work, arguments)

    def _if_same_boot(
        self, node: SimNode, boot: int, work: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        if node.alive and node.boot == boot:
            self.guard(node, work, *arguments)

    def guard(self, node: SimNode, work: Callable[..., Any], *arguments: Any) -> None:
        """Run one event of a node; a crash in it ends the process."""
        try:
            work(*arguments)
        except CrashError as crash:
            self.note_text(f"{node.node_id} crashes at {crash}")
            self.crash(node)

    def crash(self, node: SimNode) -> None:
        """End a process and boot it later."""
        node.crash()
        if self.random.random() < 0.4 and not self.healed:
            node.crash_in = self.random.randrange(4)
        self.after(200 + self.random.randrange(4000), self.guard, node, node.start)

    def restore(self, node: SimNode, backup: Durable) -> None:
        """Put a node back to a backup, as a restore does: a new store epoch, recovering."""
        node.crash()
        self.fired["restore"] += 1
        self._epochs[node.node_id] += 1
        if any(other.store.disk.recovering for other in self.nodes.values()):
            self.fired["restore_while_recovering"] += 1
        disk = backup.copy()
        if "epoch_kept" not in self.variant.broken:
            disk.store_epoch = self._epochs[node.node_id]
            disk.incarnation = f"life {disk.store_epoch}"
        disk.recovering = "amends_after_restore" not in self.variant.broken
        disk.served.clear()
        lost = node.store.disk
        node.store.put_back(disk)
        self.note_text(f"{node.node_id} restored to {disk.head}, epoch {disk.store_epoch}")
        self.checkers.restored(
            node.node_id, {name: other.store.disk for name, other in self.nodes.items()}, lost
        )
        self.after(100 + self.random.randrange(3000), self.guard, node, node.start)

    # -- the schedule ---------------------------------------------------------------------------

    def run(self) -> int:
        """Run both phases; returns the virtual milliseconds the second one took."""
        for node in self.nodes.values():
            self.guard(node, node.start)
        for number in range(self.variant.writes * len(self.tree.nodes) // 15):
            self.at(self.random.randrange(FAULT_PHASE_MS), self._write, number)
        Faults(self).plan(FAULT_PHASE_MS)
        self._run_until(FAULT_PHASE_MS)
        self._heal()
        while self.now < FAULT_PHASE_MS + DRAIN_MS_MAX:
            self._run_until(self.now + 500)
            if self._is_settled():
                break
        disks = self._disks()
        self.checkers.arrived_everywhere(disks)
        self.checkers.one_content_a_version(disks)
        self.checkers.rows_are_logged(disks)
        self.checkers.letters_are_gone(disks)
        for node in self.nodes.values():
            self.checkers.recovered(node.store)
            if not node.is_idle():
                raise ViolationError("I8", f"{node.node_id} still has a backlog or no link")
        return self.now - FAULT_PHASE_MS

    def _disks(self) -> dict[str, Durable]:
        return {name: node.store.disk for name, node in self.nodes.items()}

    def _is_settled(self) -> bool:
        return all(node.is_idle() for node in self.nodes.values()) and self.checkers.is_settled(
            self._disks()
        )

    def _write(self, number: int) -> None:
        node = self.nodes[self.random.choice(self._writers)]
        if node.alive:
            self.guard(node, node.begin_write, number)

    def _run_until(self, moment: int) -> None:
        queue = self._queue
        while queue and queue[0][0] <= moment:
            self.now, ticket, work, arguments = heapq.heappop(queue)
            if ticket > EVENTS_MAX:
                raise ViolationError("I8", f"more than {EVENTS_MAX} events: something spins")
            work(*arguments)
        self.now = moment

    def _heal(self) -> None:
        self.note_text("all faults end")
        self.healed = True
        self.snapshots_to_break = 0
        self.network.heal()
        for node in self.nodes.values():
            node.crash_in = None
            node.slowness = 1
            node.store.disk_full = False
            node.store.failing_syncs = 0
            node.upgrade()
            if not node.alive:
                self.guard(node, node.start)
        for child in self.tree.parent:
            self.network.narrow(child, 0)

    def fair(self, complaint: str, node: str) -> None:
        """Take note of what a sender lets overtake an urgent entry."""
        if complaint:
            self.checkers.fail("FAIR", f"at {node} {complaint}")

    def count_what_happened(self) -> None:
        """Fill in what is counted where it happens rather than where it is planned."""
        self.fired.update(self.checkers.counts)
        for node in self.nodes.values():
            self.fired["snapshot"] += node.store.sending.begun

    # -- the trace ------------------------------------------------------------------------------

    def note(self, node: str, peer: str, effect: Effect) -> None:
        """Trace an effect."""
        if self._trace is not None:
            self._trace(f"{self.now:7d} {node:>12} ~ {peer:<12} {effect}")

    def note_text(self, text: str) -> None:
        """Trace a happening."""
        if self._trace is not None:
            self._trace(f"{self.now:7d} ** {text}")


def run_schedule(
    seed: int, variant: Variant = REAL, trace: Callable[[str], None] | None = None
) -> Outcome:
    """Run the schedule of one seed to its end or its first violation."""
    world = World(seed, variant, trace)
    violation: ViolationError | None = None
    drained_ms = 0
    try:
        drained_ms = world.run()
    except ViolationError as found:
        violation = found
    world.count_what_happened()
    return Outcome(
        seed,
        violation,
        world.fired,
        world.crash_points,
        world.closes,
        len(world.checkers.acknowledgements),
        world.checkers.applied_batches,
        drained_ms,
    )
