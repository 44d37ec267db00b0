"""A simulated node: one process around the real core, which can die between any two steps.

Does what replication/runner.py does: keeps a LinkEnd per stream, carries effects out one by one,
answers reads and applies later, numbers what has committed, tells freshness. Everything but the
store's Durable is gone after a crash.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from replication.core.config import LinkConfig, PeerRole
from replication.core.effects import (
    ApplyBatch,
    Close,
    Effect,
    LinkFrame,
    LinkUp,
    ReadLog,
    SaveDelivered,
    SaveMark,
    Send,
)
from replication.core.link import LinkEnd
from replication.core.model import Hello, RowChange
from tests.simulation.network import Connection
from tests.simulation.store import ApplyRefusedError, SimStore
from tests.simulation.tree import TREE

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["CrashError", "Session", "SimNode"]

TICK_MS = 1000
MARK_MS = 3000


class CrashError(Exception):
    """The process dies here."""


class Session:
    """A LinkEnd with its stream."""

    __slots__ = ("closed", "connection", "effects", "end", "peer", "performing")

    def __init__(self, end: LinkEnd, connection: Connection, peer: str) -> None:
        self.end = end
        self.connection = connection
        self.peer = peer
        self.closed = False
        self.effects: deque[Effect] = deque()
        self.performing = False


class SimNode:
    """One node of the tree. Every public method is one event and may end in a crash."""

    def __init__(self, world: World, node_id: str) -> None:
        self.world = world
        self.node_id = node_id
        self.alive = False
        self.boot = 0
        self.life = 0
        self.clock_offset = world.random.randrange(-300_000, 300_000)
        self.slowness = 1
        self.crash_in: int | None = None
        self.store = SimStore(node_id, self.crash_point, world.checkers, world.variant.broken)
        self.sessions: dict[int, Session] = {}
        self._dial_due = False
        self._numbering = False

    # -- life and death -------------------------------------------------------------------------

    def start(self) -> None:
        """Boot from what is on disk."""
        if self.alive:
            return
        self.alive = True
        self.boot += 1
        self._dial_due = False
        self._numbering = False
        self.world.checkers.recovered(self.store)
        self.crash_point("recovery.loaded")
        self.store.number()
        self.crash_point("recovery.numbered")
        self._later(self.world.random.randrange(TICK_MS), self._tick)
        self._later(self.world.random.randrange(MARK_MS), self._make_marks)
        self._dial_later(self.world.random.randrange(300))

    def crash(self) -> None:
        """Die: every stream ends, everything volatile is gone."""
        if not self.alive:
            return
        self.alive = False
        self.crash_in = None
        for session in self.sessions.values():
            session.closed = True
            self.world.network.break_connection(
                session.connection, late=self.world.random.random() < 0.5
            )
        self.sessions.clear()

    def crash_point(self, name: str) -> None:
        """A place between two steps; the world may have decided that the process dies here."""
        if self.crash_in is None:
            return
        self.crash_in -= 1
        if self.crash_in < 0:
            self.crash_in = None
            self.world.fired["crash"] += 1
            if name.startswith("recovery"):
                self.world.fired["crash_in_recovery"] += 1
            self.world.crash_points[name] += 1
            raise CrashError(name)

    def _clock(self) -> int:
        return self.world.now + self.clock_offset

    def _work_ms(self, longest: int) -> int:
        return (1 + self.world.random.randrange(longest)) * self.slowness

    def _later(self, delay_ms: int, work: Callable[..., Any], *arguments: Any) -> None:
        self.world.after_on(self, delay_ms, work, *arguments)

    # -- writing --------------------------------------------------------------------------------

    def begin_write(self, number: int) -> None:
        """A client's write arrives; it commits a little later, others in between."""
        numbers = (
            self.store.reserve_numbers(4) if "numbers_at_begin" in self.world.variant.broken else []
        )
        self._later(self._work_ms(60), self._commit_write, number, numbers)

    def _commit_write(self, number: int, numbers: list[int]) -> None:
        changes = self.world.writes.make(self.node_id, self.store.disk, number)
        if not changes:
            return
        if "acknowledge_before_commit" in self.world.variant.broken:
            self.world.checkers.acknowledged(self.node_id, [row for _, row in changes])
            self.crash_point("write.acknowledged_early")
        try:
            self.store.commit_write(changes, self._clock(), numbers)
        except ApplyRefusedError:
            self.world.fired["disk_full"] += 1
            return
        self._acknowledge([row for _, row in changes])
        self._number_soon()

    def _acknowledge(self, rows: Sequence[RowChange]) -> None:
        self.world.checkers.acknowledged(self.node_id, rows)
        self.crash_point("write.acknowledged")

    def _number_soon(self) -> None:
        if not self._numbering:
            self._numbering = True
            self._later(self._work_ms(10), self._number)

    def _number(self) -> None:
        self._numbering = False
        head = self.store.number()
        self._tell_head(head)

    def _tell_head(self, head: int) -> None:
        lane_heads = dict(self.store.disk.lane_heads)
        for session in tuple(self.sessions.values()):
            self._perform(session, session.end.log_advanced(head, self._clock(), lane_heads))

    # -- streams --------------------------------------------------------------------------------

    def _dial_later(self, delay_ms: int) -> None:
        if self.node_id in TREE.parent and not self._dial_due:
            self._dial_due = True
            self._later(delay_ms, self._dial)

    def _dial(self) -> None:
        self._dial_due = False
        if any(not session.closed for session in self._to(TREE.parent[self.node_id])):
            return
        self.dial_now()

    def dial_now(self) -> None:
        """Dial the parent, whatever streams there are."""
        connection = self.world.network.dial(self.node_id)
        if connection is None:
            self._dial_later(300 + self.world.random.randrange(1200))
            return
        session = self._open(connection, TREE.parent[self.node_id], PeerRole.PARENT)
        self._perform(session, session.end.start(self._clock()))

    def _to(self, peer: str) -> list[Session]:
        return [session for session in self.sessions.values() if session.peer == peer]

    def _open(self, connection: Connection, peer: str, role: PeerRole) -> Session:
        disk = self.store.disk
        epoch, incarnation = disk.peers.get(peer, (0, ""))
        config = LinkConfig(
            node_id=self.node_id,
            peer_id=peer,
            peer_role=role,
            store_epoch=disk.store_epoch,
            store_incarnation=disk.incarnation,
            peer_store_epoch_seen=epoch,
            peer_incarnation_seen=incarnation,
            batch_bytes_max=self.world.batch_bytes,
            batch_bytes_min=min(256, self.world.batch_bytes),
            window_bytes=4 * self.world.batch_bytes,
            stall_ms=6000,
            backoff_ms_min=200,
            backoff_ms_max=3000,
        )
        inbound = {lane: cursor for (who, lane), cursor in disk.inbound.items() if who == peer}
        outbound = {lane: cursor for (who, lane), cursor in disk.outbound.items() if who == peer}
        end = self.world.variant.link_end(config, inbound, outbound)
        session = Session(end, connection, peer)
        self.sessions[connection.number] = session
        return session

    def frame_arrived(self, connection: Connection, frame: LinkFrame) -> None:
        """A frame of a stream; the first one at a parent opens its end."""
        if not self.alive:
            return
        session = self.sessions.get(connection.number)
        if session is None and isinstance(frame, Hello) and self._may_accept(connection):
            session = self._accept(connection)
        if session is None or session.closed:
            return
        self.crash_point(f"receive.{type(frame).__name__}")
        self._perform(session, session.end.receive(frame, self._clock()))

    def _may_accept(self, connection: Connection) -> bool:
        return connection.parent == self.node_id and not connection.down.cut

    def _accept(self, connection: Connection) -> Session:
        for old in self._to(connection.child):
            # The new stream replaces the old one, but the old one's last work may still be done.
            self._later(self.world.random.randrange(800), self._replace, old)
        session = self._open(connection, connection.child, PeerRole.CHILD)
        self._perform(session, session.end.start(self._clock()))
        return session

    def _replace(self, session: Session) -> None:
        self._perform(session, session.end.goodbye("replaced by a newer stream"))

    def stream_ended(self, connection: Connection) -> None:
        """The stream is gone; a child dials again."""
        session = self.sessions.pop(connection.number, None)
        if session is not None:
            session.closed = True
            if self.alive:
                self._dial_later(200 + self.world.random.randrange(800))

    def _close(self, session: Session) -> None:
        if not session.closed:
            session.closed = True
            self.sessions.pop(session.connection.number, None)
            self.world.network.send(session.connection, self.node_id, None)
            self._dial_later(200 + self.world.random.randrange(800))

    # -- effects --------------------------------------------------------------------------------

    def _perform(self, session: Session, effects: Sequence[Effect]) -> None:
        session.effects.extend(effects)
        if session.performing:
            return
        session.performing = True
        while session.effects and not session.closed:
            effect = session.effects.popleft()
            self.crash_point(f"before.{type(effect).__name__}")
            try:
                self._carry_out(session, effect)
            except ApplyRefusedError:
                self.world.fired["disk_full"] += 1
                self._close(session)
        session.performing = False

    def _carry_out(self, session: Session, effect: Effect) -> None:
        self.world.note(self.node_id, session.peer, effect)
        match effect:
            case Send(frame):
                self.world.network.send(session.connection, self.node_id, frame)
            case ReadLog():
                self._later(self._work_ms(12), self._read, session, effect)
            case ApplyBatch():
                self._begin_apply(session, effect)
            case SaveDelivered(cursor, _):
                self.store.save_delivered(session.peer, cursor)
            case SaveMark(mark):
                self.store.save_mark(mark)
            case LinkUp(hello):
                self.store.save_peer(session.peer, hello)
                disk = self.store.disk
                session.effects.extend(
                    session.end.log_advanced(disk.head, self._clock(), dict(disk.lane_heads))
                )
            case Close():
                self.world.closes[effect.code] += 1
                self._close(session)
            case _:
                assert_never(effect)

    def _read(self, session: Session, effect: ReadLog) -> None:
        entries, scanned_to, coalesced = self.store.outgoing(
            session.peer, effect.lane, effect.after, effect.bytes_max
        )
        answered = session.end.entries_read(
            effect.lane, entries, scanned_to, self._clock(), coalesced=coalesced
        )
        self._perform(session, answered)

    def _begin_apply(self, session: Session, effect: ApplyBatch) -> None:
        if "receipt_before_commit" in self.world.variant.broken:
            self._later(self._work_ms(40), self._apply_late, session, effect)
            lane, cursor = effect.batch.lane, effect.cursor_after
            session.effects.extend(session.end.batch_applied(lane, cursor, self._clock()))
            return
        self._later(self._work_ms(20), self._apply, session, effect)

    def _apply_late(self, session: Session, effect: ApplyBatch) -> None:
        try:
            self.store.apply(session.peer, effect.batch, effect.cursor_after)
        except ApplyRefusedError:
            return
        self._number_soon()

    def _apply(self, session: Session, effect: ApplyBatch) -> None:
        lane = effect.batch.lane
        try:
            self.store.apply(session.peer, effect.batch, effect.cursor_after)
        except ApplyRefusedError as refused:
            if refused.code == "DISK_FULL":
                self.world.fired["disk_full"] += 1
            answered = session.end.batch_failed(lane, refused.code, self._clock())
        else:
            self._number_soon()
            answered = session.end.batch_applied(lane, effect.cursor_after, self._clock())
        self._perform(session, answered)

    # -- time -----------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._later(TICK_MS, self._tick)
        if self.store.disk.unnumbered:
            self._number_soon()
        for session in tuple(self.sessions.values()):
            self._perform(session, session.end.tick(self._clock()))
        if self.node_id in TREE.parent and not self._to(TREE.parent[self.node_id]):
            self._dial_later(100)

    def _make_marks(self) -> None:
        self._later(MARK_MS, self._make_marks)
        parent = TREE.parent.get(self.node_id)
        mark = self.store.mark()
        if mark is None:
            return
        for session in self._to(parent) if parent else []:
            self._perform(session, session.end.marks_ready(mark, self._clock()))

    def is_idle(self) -> bool:
        """Whether nothing waits here: all numbered, a stream up, every lane delivered."""
        disk = self.store.disk
        if not self.alive or disk.unnumbered:
            return False
        parent = TREE.parent.get(self.node_id)
        peers = (*TREE.children[self.node_id], *([parent] if parent else []))
        return all(
            any(session.end.is_delivered(disk.head) for session in self._to(peer)) for peer in peers
        )
