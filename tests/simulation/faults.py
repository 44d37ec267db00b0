"""The faults of a schedule: which kinds, when, where, all from the seed.

Every schedule draws a handful of kinds and uses those often (swarm testing: Groce et al., ISSTA
2012), because a schedule with a little of everything rarely goes deep. `world.fired` counts a fault
when it has really happened, which for some is noticed elsewhere (network.py, process.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from tests.simulation.tree import TREE

if TYPE_CHECKING:
    from tests.simulation.network import Connection
    from tests.simulation.process import SimNode
    from tests.simulation.store import Durable, SimStore
    from tests.simulation.world import World

__all__ = ["FAULTS", "FIRED_KINDS", "Faults"]

_TEN_YEARS_MS: Final = 10 * 365 * 86_400_000

FIRED_KINDS: Final = (
    "clock_jump",
    "crash",
    "crash_in_recovery",
    "delay",
    "dial_twice",
    "disk_full",
    "frame_lost",
    "frame_repeated",
    "isolate",
    "late_segment",
    "one_way",
    "reordered_across_streams",
    "restore",
    "slow_node",
    "stream_broken",
)
"""What must each have happened at least once in a run of a few hundred schedules."""


class Faults:
    """Plants faults over the first phase of one schedule."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self._backed_up: set[str] = set()

    def plan(self, until_ms: int) -> None:
        """Choose kinds and put their moments into the schedule."""
        random, variant = self._random, self._world.variant
        kinds = variant.faults or tuple(
            random.sample(sorted(FAULTS), 2 + random.randrange(len(FAULTS) - 2))
        )
        for _ in range(2 + random.randrange(variant.fault_count_max)):
            kind = random.choice(kinds)
            self._world.at(random.randrange(until_ms), self._strike, kind)

    def _strike(self, kind: str) -> None:
        if self._world.healed:
            return
        self._world.note_text(f"fault {kind}")
        FAULTS[kind](self)

    def _node(self) -> SimNode:
        return self._world.nodes[self._random.choice(self._world.variant.fault_nodes)]

    def _child(self) -> str:
        nodes = [n for n in self._world.variant.fault_nodes if n in TREE.parent]
        return self._random.choice(nodes)

    def _stream(self) -> Connection | None:
        living = [c for c in self._world.network.connections.get(self._child(), ()) if not c.broken]
        return self._random.choice(living) if living else None

    def _for_a_while(self, end: Callable[..., None], *arguments: object) -> None:
        """End the fault later; the second phase ends it at once if it comes first."""
        self._world.after(500 + self._random.randrange(12_000), self._end, end, arguments)

    def _end(self, end: Callable[..., None], arguments: tuple[object, ...]) -> None:
        if not self._world.healed:
            end(*arguments)

    # -- the kinds ------------------------------------------------------------------------------

    def delay(self) -> None:
        """Everything on the network is late for a while."""
        self._world.fired["delay"] += 1
        self._world.network.delay_ms_max = self._random.choice((400, 2000, 5000))
        self._for_a_while(self._prompt_again)

    def _prompt_again(self) -> None:
        self._world.network.delay_ms_max = 40

    def break_stream(self) -> None:
        """A stream breaks; what is under way is lost, or arrives late."""
        connection = self._stream()
        if connection is not None:
            self._world.fired["stream_broken"] += 1
            self._world.network.break_connection(connection, late=self._random.random() < 0.6)

    def dial_twice(self) -> None:
        """A child opens a second stream beside its first."""
        child = self._world.nodes[self._child()]
        if child.alive and child.sessions:
            self._world.fired["dial_twice"] += 1
            self._world.guard(child, child.dial_now)

    def lose_frame(self) -> None:
        """One frame vanishes from a living stream."""
        self._world.network.lose_next.add(self._way())

    def repeat_frame(self) -> None:
        """One frame comes twice on a living stream."""
        self._world.network.repeat_next.add(self._way())

    def _way(self) -> tuple[str, str]:
        child = self._child()
        parent = TREE.parent[child]
        return (child, parent) if self._random.random() < 0.5 else (parent, child)

    def one_way(self) -> None:
        """One direction of a link is silent; its streams may break meanwhile."""
        self._world.fired["one_way"] += 1
        source, target = self._way()
        self._world.network.block(source, target)
        self._for_a_while(self._world.network.unblock, source, target)

    def isolate(self) -> None:
        """A node is cut off from all its neighbours; several end in any order."""
        self._world.fired["isolate"] += 1
        node = self._node().node_id
        around = (*TREE.children[node], *([TREE.parent[node]] if node in TREE.parent else []))
        for other in around:
            for way in ((node, other), (other, node)):
                self._world.network.block(*way)
                self._for_a_while(self._world.network.unblock, *way)

    def crash(self) -> None:
        """A process dies between two of its next steps, and boots again a little later."""
        node = self._node()
        node.crash_in = self._random.randrange(30)

    def crash_now(self) -> None:
        """A process dies at rest; when it boots it may die again, while recovering."""
        node = self._node()
        if node.alive:
            self._world.fired["crash"] += 1
            self._world.crash(node)

    def fill_disk(self) -> None:
        """Every transaction of a node fails for a while."""
        store = self._node().store
        store.disk_full = True
        self._for_a_while(_empty, store)

    def jump_clock(self) -> None:
        """A node's clock jumps, by minutes or by years."""
        self._world.fired["clock_jump"] += 1
        far = self._random.choice((_TEN_YEARS_MS, 300_000, 7_000))
        self._node().clock_offset += self._random.choice((far, -far))

    def slow(self) -> None:
        """A node does everything a hundred times slower for a while."""
        self._world.fired["slow_node"] += 1
        node = self._node()
        node.slowness = 100
        self._for_a_while(_hurry, node)

    def restore(self) -> None:
        """A node is backed up, and some time later put back to that backup."""
        node = self._node()
        if node.node_id in self._backed_up:
            return
        self._backed_up.add(node.node_id)
        backup = node.store.disk.copy()
        self._world.note_text(f"backup of {node.node_id} at {backup.head}")
        self._world.after(1000 + self._random.randrange(15_000), self._put_back, node, backup)

    def _put_back(self, node: SimNode, backup: Durable) -> None:
        self._backed_up.discard(node.node_id)
        if not self._world.healed:
            self._world.restore(node, backup)


def _empty(store: SimStore) -> None:
    store.disk_full = False


def _hurry(node: SimNode) -> None:
    node.slowness = 1


FAULTS: Final[Mapping[str, Callable[[Faults], None]]] = {
    "break_stream": Faults.break_stream,
    "crash": Faults.crash,
    "crash_now": Faults.crash_now,
    "delay": Faults.delay,
    "dial_twice": Faults.dial_twice,
    "fill_disk": Faults.fill_disk,
    "isolate": Faults.isolate,
    "jump_clock": Faults.jump_clock,
    "lose_frame": Faults.lose_frame,
    "one_way": Faults.one_way,
    "repeat_frame": Faults.repeat_frame,
    "restore": Faults.restore,
    "slow": Faults.slow,
}
