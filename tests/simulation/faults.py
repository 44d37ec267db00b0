"""The faults of a schedule: which kinds, when, where, all from the seed.

Every schedule draws a handful of kinds and uses those often (swarm testing: Groce et al., ISSTA
2012), because a schedule with a little of everything rarely goes deep. `world.fired` counts a fault
when it has really happened, which for some is noticed elsewhere (network.py, process.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.simulation.durable import Durable
    from tests.simulation.network import Connection
    from tests.simulation.process import SimNode
    from tests.simulation.store import SimStore
    from tests.simulation.world import World

__all__ = ["AIMED_FAULTS", "CRASH_POINTS", "FAULTS", "FIRED_KINDS", "Faults"]

_TEN_YEARS_MS: Final = 10 * 365 * 86_400_000

FIRED_KINDS: Final = (
    "batch_misplaced",
    "clock_jump",
    "crash",
    "crash_in_recovery",
    "delay",
    "dial_twice",
    "disk_full",
    "frame_altered",
    "frame_lost",
    "frame_repeated",
    "isolate",
    "late_edit",
    "late_segment",
    "letter_sent_again",
    "log_pruned",
    "move_granted",
    "narrow_link",
    "older_peer",
    "one_way",
    "peer_upgraded",
    "recovered",
    "reordered_across_streams",
    "restore",
    "restore_while_recovering",
    "slow_node",
    "snapshot",
    "snapshot_resumed",
    "stream_broken",
    "sync_failed",
)
"""What must each have happened at least once in a run of a few hundred schedules."""

CRASH_POINTS: Final = (
    "apply.committed",
    "apply.staged",
    "before.ApplyBatch",
    "before.LinkUp",
    "before.ReadLog",
    "before.SaveDelivered",
    "before.SaveMark",
    "before.Send",
    "number.committed",
    "number.staged",
    "receive.Batch",
    "receive.Hello",
    "receive.Mark",
    "receive.Receipt",
    "recovery.loaded",
    "recovery.numbered",
    "write.acknowledged",
    "write.committed",
    "write.staged",
)
"""Where a process must each have died at least once in as many."""


class Faults:
    """Plants faults over the first phase of one schedule."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self._backed_up: set[str] = set()
        self._kinds: set[str] = set()

    def plan(self, until_ms: int) -> None:
        """Choose kinds and put their moments into the schedule."""
        random, variant = self._random, self._world.variant
        kinds = variant.faults or tuple(
            random.sample(sorted(FAULTS), 2 + random.randrange(len(FAULTS) - 2))
        )
        self._kinds = set(kinds)
        count = 2 + random.randrange(variant.fault_count_max)
        for _ in range(count * len(self._world.tree.nodes) // 15):
            kind = random.choice(kinds)
            self._world.at(random.randrange(until_ms), self._strike, kind)
        if "older_peer" in kinds:
            for node in random.sample(self._world.tree.nodes, 1 + random.randrange(3)):
                self._world.nodes[node].protocol_max = 1
                self._world.at(random.randrange(until_ms), self._upgrade, node)

    def _strike(self, kind: str) -> None:
        if self._world.healed:
            return
        self._world.note_text(f"fault {kind}")
        (FAULTS.get(kind) or AIMED_FAULTS[kind])(self)

    def _node(self) -> SimNode:
        return self._world.nodes[self._random.choice(self._world.tree.nodes)]

    def _child(self) -> str:
        return self._random.choice(self._world.tree.nodes[1:])

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

    def break_snapshot(self) -> None:
        """The next part of a snapshot that is applied anywhere is the last of its stream."""
        self._world.snapshots_to_break += 1

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
        parent = self._world.tree.parent[child]
        return (child, parent) if self._random.random() < 0.5 else (parent, child)

    def alter_frame(self) -> None:
        """A batch's content or a receipt is changed on the way."""
        self._world.network.alter_next.add(self._way())

    def narrow(self) -> None:
        """A link carries few bytes a second for a while."""
        child = self._child()
        self._world.network.narrow(child, self._world.batch_bytes * self._random.randrange(1, 4))
        self._for_a_while(self._world.network.narrow, child, 0)

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
        for other in self._world.tree.neighbours(node):
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

    def fail_syncs(self) -> None:
        """The next commits of a node are reported failed; the data may be there or not."""
        self._node().store.failing_syncs = 1 + self._random.randrange(3)

    def prune(self) -> None:
        """A node drops its log, whoever has not read it yet."""
        node = self._node()
        if node.alive:
            self._world.guard(node, node.prune)

    def move(self) -> None:
        """Somebody asks for a resident to be moved to another village.

        The granter asks down both branches before it grants, so it knows of every earlier grant.
        Restores are kept apart from moves: see DESIGN.md.
        """
        world = self._world
        known = world.checkers.grants
        all_residents = [r for r in world.checkers.acknowledgements if r.table == "residents"]
        twice = "two_grants" in world.variant.broken
        residents = [r for r in all_residents if twice or r.resident_id not in known]
        if not residents or world.fired["restore"] or "restore" in self._kinds:
            return
        row = self._random.choice(residents)
        to = self._random.choice([v for v in world.tree.villages if v != row.home_node])
        node = world.nodes[world.tree.meeting(row.home_node, to)]
        if node.alive:
            world.guard(node, node.grant_move, row.resident_id, to)

    def older_peer(self) -> None:
        """Planned before the schedule: some nodes run the former protocol until they restart."""

    def _upgrade(self, name: str) -> None:
        if not self._world.healed:
            self._world.nodes[name].upgrade()

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
        self._back_up(self._node(), 1000, 15_000)

    def _back_up(self, node: SimNode, soonest_ms: int, span_ms: int) -> bool:
        if node.node_id in self._backed_up:
            return False
        self._backed_up.add(node.node_id)
        backup = node.store.disk.copy()
        self._world.note_text(f"backup of {node.node_id} at {backup.head}")
        delay_ms = soonest_ms + self._random.randrange(span_ms)
        self._world.after(delay_ms, self._put_back, node, backup)
        return True

    def restore_relay(self) -> None:
        """A node between loses what came to it while it could pass nothing on."""
        tree = self._world.tree
        node = self._world.nodes[self._random.choice([n for n in tree.nodes if tree.children[n]])]
        if self._back_up(node, 300, 4000):
            here = node.node_id
            for other in self._random.sample(tree.neighbours(here), 1 + self._random.randrange(2)):
                self._world.network.block(here, other)
                self._world.after(6000, self._end, self._world.network.unblock, (here, other))

    def restore_addressee(self) -> None:
        """A village that letters come to loses what it could not pass on: its way up is thin."""
        nodes = self._world.nodes
        outboxes = [node.store.disk.outbox.values() for node in nodes.values()]
        villages = set(self._world.tree.villages)
        expected = sorted({letter.to for box in outboxes for letter in box} & villages)
        if expected:
            node = nodes[self._random.choice(expected)]
            if self._back_up(node, 500, 5000):
                network, rate = self._world.network, self._random.choice((200, 400, 800))
                network.narrow(node.node_id, rate, only_up=True)
                self._world.after(7000, self._end, network.narrow, (node.node_id, 0))

    def restore_pruned_addressee(self) -> None:
        """The same, and its log is gone: what it still has to pass on comes out of its tables."""
        self.restore_addressee()
        for name in sorted(self._backed_up):
            node = self._world.nodes[name]
            for delay_ms in (400, 1500, 3000):
                self._world.after(delay_ms, self._drop_log, node)

    def drop_log_and_die(self) -> None:
        """A neighbour is cut off, the log is pruned to its end, and the process begins anew."""
        node = self._node()
        other = self._random.choice(self._world.tree.neighbours(node.node_id))
        self._world.network.block(node.node_id, other)
        self._world.after(1500, self._drop_log, node)
        self._world.after(1600, self._die, node)
        self._world.after(2500, self._end, self._world.network.unblock, (node.node_id, other))

    def _drop_log(self, node: SimNode) -> None:
        if node.alive and not self._world.healed:
            self._world.guard(node, node.prune, node.store.disk.head)

    def _die(self, node: SimNode) -> None:
        if node.alive and not self._world.healed:
            self._world.crash(node)

    def _put_back(self, node: SimNode, backup: Durable) -> None:
        self._backed_up.discard(node.node_id)
        if not self._world.healed:
            self._world.restore(node, backup)


def _empty(store: SimStore) -> None:
    store.disk_full = False


def _hurry(node: SimNode) -> None:
    node.slowness = 1


FAULTS: Final[Mapping[str, Callable[[Faults], None]]] = {
    "alter_frame": Faults.alter_frame,
    "break_snapshot": Faults.break_snapshot,
    "break_stream": Faults.break_stream,
    "crash": Faults.crash,
    "crash_now": Faults.crash_now,
    "delay": Faults.delay,
    "dial_twice": Faults.dial_twice,
    "fail_syncs": Faults.fail_syncs,
    "fill_disk": Faults.fill_disk,
    "isolate": Faults.isolate,
    "jump_clock": Faults.jump_clock,
    "lose_frame": Faults.lose_frame,
    "move": Faults.move,
    "narrow": Faults.narrow,
    "older_peer": Faults.older_peer,
    "one_way": Faults.one_way,
    "prune": Faults.prune,
    "repeat_frame": Faults.repeat_frame,
    "restore": Faults.restore,
    "slow": Faults.slow,
}
"""What a schedule draws its kinds from."""

AIMED_FAULTS: Final[Mapping[str, Callable[[Faults], None]]] = {
    "drop_log_and_die": Faults.drop_log_and_die,
    "restore_addressee": Faults.restore_addressee,
    "restore_pruned_addressee": Faults.restore_pruned_addressee,
    "restore_relay": Faults.restore_relay,
}
"""Aimed at one weakness: kinds that only a schedule which names them has."""
