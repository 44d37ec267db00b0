"""The fake network: ordered streams that are late, stall, break, and go on talking when dead.

A stream keeps order and loses nothing while it lives, as TCP does. When it breaks, what is under
way is lost or still arrives, and each end notices in its own time. A frame that vanishes from a
live stream, or comes twice, is a fault of its own: a broken proxy, or a defect of the runner.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from replication.core.effects import LinkFrame
from replication.core.model import Batch, Receipt

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Connection", "Network", "Pipe"]

_Item = tuple[int, LinkFrame | None]
"""When it was sent, and the frame; None is the end of the stream."""


@dataclass(slots=True)
class Pipe:
    """One direction of a connection."""

    connection: Connection
    source: str
    target: str
    rate: int = 0
    """Bytes a second; 0: as many as there are."""
    free_at: int = 0
    last_arrival: int = 0
    cut: bool = False
    ended: bool = False
    stalled: deque[_Item] = field(default_factory=deque)


class Connection:
    """One stream between a child and its parent; `number` tells them apart."""

    __slots__ = ("broken", "child", "down", "number", "parent", "up")

    def __init__(self, number: int, child: str, parent: str) -> None:
        self.number = number
        self.child = child
        self.parent = parent
        self.up = Pipe(self, child, self.parent)
        self.down = Pipe(self, self.parent, child)
        self.broken = False

    def outgoing(self, node: str) -> Pipe:
        return self.up if node == self.child else self.down


class Network:
    """Carries frames between nodes; faults change what it does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.blocked: dict[tuple[str, str], int] = {}
        self.delay_ms_max = 40
        self.connections: dict[str, list[Connection]] = {}
        self.lose_next: set[tuple[str, str]] = set()
        self.repeat_next: set[tuple[str, str]] = set()
        self.alter_next: set[tuple[str, str]] = set()
        self.rates: dict[str, tuple[int, int]] = {}
        self._parent = world.tree.parent
        self._count = 0
        self._newest_arrival: dict[tuple[str, str], int] = {}

    # -- connections ----------------------------------------------------------------------------

    def dial(self, child: str) -> Connection | None:
        """A new stream, or None if the parent cannot be reached."""
        parent = self._parent[child]
        if self.is_blocked(child, parent) or self.is_blocked(parent, child):
            return None
        if not self._world.nodes[parent].alive:
            return None
        self._count += 1
        connection = Connection(self._count, child, parent)
        connection.up.rate, connection.down.rate = self.rates.get(child, (0, 0))
        self.connections.setdefault(child, []).append(connection)
        return connection

    def is_blocked(self, source: str, target: str) -> bool:
        return self.blocked.get((source, target), 0) > 0

    def block(self, source: str, target: str) -> None:
        """Hold back everything in one direction."""
        self.blocked[source, target] = self.blocked.get((source, target), 0) + 1

    def unblock(self, source: str, target: str) -> None:
        """Let it go on; what was held back on living streams arrives now."""
        left = self.blocked.get((source, target), 0) - 1
        self.blocked[source, target] = max(0, left)
        if left > 0:
            return
        child = source if self._parent.get(source) == target else target
        for connection in self.connections.get(child, ()):
            pipe = connection.outgoing(source)
            while pipe.stalled:
                self._under_way(pipe, pipe.stalled.popleft())

    def narrow(self, child: str, rate: int, *, only_up: bool = False) -> None:
        """Let the link of a child carry no more than this many bytes a second; 0: no limit."""
        self.rates[child] = (rate, 0 if only_up else rate)
        for connection in self.connections.get(child, ()):
            connection.up.rate, connection.down.rate = self.rates[child]

    def heal(self) -> None:
        """End every partition and delay."""
        self.delay_ms_max = 40
        self.lose_next.clear()
        self.repeat_next.clear()
        self.alter_next.clear()
        for source, target in [way for way, count in self.blocked.items() if count]:
            self.blocked[source, target] = 1
            self.unblock(source, target)

    def break_connection(self, connection: Connection, *, late: bool) -> None:
        """Cut a stream; with `late`, what is under way arrives until an end has noticed."""
        if connection.broken:
            return
        connection.broken = True
        world = self._world
        for pipe in (connection.up, connection.down):
            pipe.cut = True
            pipe.ended = not late
            pipe.stalled.clear()
            # The parent notices later: it waits for a child that may have dialled anew.
            slowest = 1200 if pipe is connection.down or not late else 5000
            world.after(1 + world.random.randrange(slowest), self._notice, connection, pipe)

    def _notice(self, connection: Connection, pipe: Pipe) -> None:
        pipe.ended = True
        self._world.nodes[pipe.target].stream_ended(connection)
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        if connection.up.ended and connection.down.ended:
            streams = self.connections.get(connection.child, [])
            if connection in streams:
                streams.remove(connection)

    # -- frames ---------------------------------------------------------------------------------

    def send(self, connection: Connection, source: str, frame: LinkFrame | None) -> None:
        """Put a frame on a stream, or its end."""
        pipe = connection.outgoing(source)
        if pipe.cut:
            return
        way = (source, pipe.target)
        if frame is None:
            pipe.cut = True
        elif way in self.lose_next:
            self.lose_next.discard(way)
            self._world.fired["frame_lost"] += 1
            return
        if frame is not None and way in self.alter_next:
            frame = self._altered(way, frame)
        item = (self._world.now, frame)
        copies = 1
        if frame is not None and way in self.repeat_next:
            self.repeat_next.discard(way)
            self._world.fired["frame_repeated"] += 1
            copies = 2
        for _ in range(copies):
            if self.is_blocked(source, pipe.target):
                pipe.stalled.append(item)
            else:
                self._under_way(pipe, item)

    def _altered(self, way: tuple[str, str], frame: LinkFrame) -> LinkFrame:
        """What a broken proxy makes of a batch or a receipt; other frames it leaves alone."""
        if isinstance(frame, Batch):
            # Under protocol 1 nothing proves what a batch stands for.
            has_proof = all(self._world.nodes[node].protocol_max > 1 for node in way)
            if has_proof and (not frame.entries or self._world.random.random() < 0.5):
                frame = self._misplaced(frame)
            elif frame.entries:
                first = frame.entries[0]
                spoilt = replace(first, rows=first.rows.replace(b"xxxx", b"yxxx", 1))
                frame = replace(frame, entries=(spoilt, *frame.entries[1:]))
            else:
                return frame
        elif isinstance(frame, Receipt) and not frame.refused:
            cursor = replace(frame.cursor, covers_to=frame.cursor.covers_to + 1)
            frame = replace(frame, cursor=cursor)
        else:
            return frame
        self.alter_next.discard(way)
        self._world.fired["frame_altered"] += 1
        return frame

    def _misplaced(self, batch: Batch) -> Batch:
        """The batch, said to stand for another stretch of the log, or of a snapshot."""
        self._world.fired["batch_misplaced"] += 1
        match self._world.random.randrange(3):
            case 0:
                return replace(batch, covers_from=max(0, batch.covers_from - 1))
            case 1 if batch.position:
                return replace(batch, position="")
            case _:
                return replace(batch, covers_to=batch.covers_to + 1)

    def _under_way(self, pipe: Pipe, item: _Item) -> None:
        world = self._world
        arrival = world.now + 1 + world.random.randrange(self.delay_ms_max)
        if pipe.rate:
            size = item[1].body_bytes if isinstance(item[1], Batch) else 0
            if size:
                world.fired["narrow_link"] += 1
            pipe.free_at = max(world.now, pipe.free_at) + (size + 64) * 1000 // pipe.rate
            arrival += pipe.free_at - world.now
        pipe.last_arrival = max(arrival, pipe.last_arrival)
        world.at(pipe.last_arrival, self._arrive, pipe, item)

    def _arrive(self, pipe: Pipe, item: _Item) -> None:
        """Deliver; but what a broken stream still carries gets there later yet, in order."""
        if pipe.connection.broken and not pipe.ended:
            moment = self._world.now + self._world.random.randrange(3000)
            pipe.last_arrival = max(moment, pipe.last_arrival)
            self._world.at(pipe.last_arrival, self._deliver, pipe, item)
        else:
            self._deliver(pipe, item)

    def _deliver(self, pipe: Pipe, item: _Item) -> None:
        if pipe.ended:
            return
        connection, (sent, frame) = pipe.connection, item
        if frame is None:
            self._notice(connection, pipe)
            return
        world = self._world
        way = (pipe.source, pipe.target)
        if connection.broken and any(
            not other.broken and other.number > connection.number
            for other in self.connections.get(connection.child, ())
        ):
            world.fired["late_segment"] += 1
        newest = self._newest_arrival.get(way, 0)
        if sent < newest:
            world.fired["reordered_across_streams"] += 1
        self._newest_arrival[way] = max(sent, newest)
        node = world.nodes[pipe.target]
        world.guard(node, node.frame_arrived, connection, frame)
