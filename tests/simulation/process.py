"""A simulated node: one process around the real core, which can die between any two steps.

Does what replication/runner.py does: keeps a LinkEnd per stream, carries effects out one by one,
answers reads and applies later, numbers what has committed, tells freshness. Everything but the
store's Durable is gone after a crash.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
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
from replication.core.greeting import RECOVERING
from replication.core.link import LinkEnd
from replication.core.model import PROTOCOL_MAX, Batch, Cursor, Hello, Lane, RowChange
from tests.simulation.fairness import Watch
from tests.simulation.network import Connection
from tests.simulation.post import MAIL_SPEED
from tests.simulation.sending import PeerView
from tests.simulation.signing import is_signed, signed
from tests.simulation.store import RefusedError, SimStore

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["CrashError", "Session", "SimNode"]

TICK_MS = 1000
MARK_MS = 3000


class CrashError(Exception):
    """The process dies here."""


class Session:
    """A LinkEnd with its stream."""

    __slots__ = ("closed", "connection", "effects", "end", "peer", "performing", "watch")

    def __init__(self, end: LinkEnd, connection: Connection, peer: str) -> None:
        self.end = end
        self.connection = connection
        self.peer = peer
        self.closed = False
        self.effects: deque[Effect] = deque()
        self.performing = False
        self.watch = Watch()


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
        self.protocol_max = PROTOCOL_MAX
        self.tree = world.tree
        self.store = SimStore(
            node_id,
            world.tree,
            self.crash_point,
            world.checkers,
            broken=world.variant.broken,
            random=world.random,
        )
        self.store.sync_failed = self._sync_failed
        self.sessions: dict[int, Session] = {}
        self.met: dict[str, PeerView] = {}
        """By peer, what its last Hello said: reads of an older stream go by it too."""
        self._dial_due = False
        self._numbering = False
        self._told = 0

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
        self.store.count_lanes()
        self.crash_point("recovery.loaded")
        self._try(self.store.number)
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
        self.met.clear()

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

    def _sync_failed(self) -> None:
        self.world.fired["sync_failed"] += 1
        if self.world.random.random() < 0.3:
            self.crash_in = 0

    def _try(self, work: Callable[..., Any], *arguments: Any) -> bool:
        """Do something that a full disk or a failing fsync may prevent."""
        try:
            work(*arguments)
        except RefusedError as refused:
            self._count(refused)
            return False
        return True

    def _count(self, refused: RefusedError) -> None:
        if refused.code == "DISK_FULL":
            self.world.fired["disk_full"] += 1

    def _clock(self) -> int:
        return self.world.now + self.clock_offset

    def _mail_clock(self) -> int:
        return self.world.now * MAIL_SPEED + self.clock_offset

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
        changes = self.world.writes.make(self, number)
        if not changes:
            return
        rows = [row for _, row in changes]
        early = "acknowledge_before_commit" in self.world.variant.broken
        if early:
            self._acknowledge(rows)
        mail_ms = self._mail_clock()
        if not self._try(self.store.commit_write, changes, self._clock(), numbers, mail_ms):
            return
        if not early:
            self._acknowledge(rows)
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
        before = dict(self.store.disk.lane_heads)
        self._try(self.store.number)
        if "lane_heads_of_before" in self.world.variant.broken:
            self._tell_head(self.store.disk.head, before)
        self._tell_head(self.store.disk.head)

    def _tell_head(self, head: int, overtaken: dict[Lane, int] | None = None) -> None:
        self._told = head
        lane_heads = overtaken or dict(self.store.disk.lane_heads)
        for session in tuple(self.sessions.values()):
            effects = session.end.log_advanced(head, self._clock(), lane_heads)
            session.watch.news(session.end, lane_heads)
            self._perform(session, effects)

    # -- streams --------------------------------------------------------------------------------

    def _dial_later(self, delay_ms: int) -> None:
        if self.node_id in self.tree.parent and not self._dial_due:
            self._dial_due = True
            self._later(delay_ms, self._dial)

    def _dial(self) -> None:
        self._dial_due = False
        if any(not session.closed for session in self._to(self.tree.parent[self.node_id])):
            return
        self.dial_now()

    def dial_now(self) -> None:
        """Dial the parent, whatever streams there are."""
        connection = self.world.network.dial(self.node_id)
        if connection is None:
            self._dial_later(300 + self.world.random.randrange(1200))
            return
        session = self._open(connection, self.tree.parent[self.node_id], PeerRole.PARENT)
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
            features=self.store.features(peer),
            protocol_max=self.protocol_max,
            save_after_entries=self.world.variant.save_after_entries,
            sign=partial(signed, self.node_id, peer),
            verify=partial(is_signed, self.node_id, peer),
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
            except RefusedError as refused:
                self._count(refused)
                self._close(session)
        session.performing = False

    def _carry_out(self, session: Session, effect: Effect) -> None:
        self.world.note(self.node_id, session.peer, effect)
        match effect:
            case Send(frame):
                if isinstance(frame, Batch):
                    self.world.fair(session.watch.sent(session.end, frame), self.node_id)
                self.world.network.send(session.connection, self.node_id, frame)
            case ReadLog():
                self._later(self._work_ms(12), self._read, session, effect)
            case ApplyBatch():
                self._begin_apply(session, effect)
            case SaveDelivered(cursor, _):
                # As the real driver does: behind what follows.
                self._later(self._work_ms(12), self._save, session, cursor)
            case SaveMark(mark):
                self.store.save_mark(mark)
            case LinkUp(hello):
                self._go_up(session, hello)
            case Close():
                self.world.closes[effect.code] += 1
                self._close(session)
            case _:
                assert_never(effect)

    def _save(self, session: Session, cursor: Cursor) -> None:
        if not self._try(self.store.save_delivered, session.peer, cursor):
            self._close(session)

    def _go_up(self, session: Session, hello: Hello) -> None:
        store, peer, protocol = self.store, session.peer, session.end.protocol
        before = store.disk.protocols.get(peer, protocol)
        store.save_peer(peer, hello, protocol, self._mail_clock())
        if store.disk.unnumbered:
            self._number_soon()
        if before < protocol:
            self.world.fired["peer_upgraded"] += 1
        self.met[peer] = PeerView(protocol, recovering=RECOVERING in hello.features)
        if any(cursor.position for cursor in hello.cursors):
            self.world.fired["snapshot_resumed"] += 1
        disk = store.disk
        session.effects.extend(
            session.end.log_advanced(disk.head, self._clock(), dict(disk.lane_heads))
        )

    def _read(self, session: Session, effect: ReadLog) -> None:
        if session.closed:
            return
        part = self.store.sending.part(
            session.peer,
            effect.lane,
            effect.after,
            bytes_max=effect.bytes_max,
            position=effect.position,
            view=self.met[session.peer],
        )
        answered = session.end.entries_read(
            effect.lane,
            part.entries,
            part.scanned_to,
            self._clock(),
            position=part.position,
            coalesced=part.coalesced,
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
        if self._try(
            self.store.apply, session.peer, effect.batch, effect.cursor_after, self._mail_clock()
        ):
            self._number_soon()

    def _apply(self, session: Session, effect: ApplyBatch) -> None:
        lane = effect.batch.lane
        recovering = self.store.disk.recovering
        try:
            self.store.apply(session.peer, effect.batch, effect.cursor_after, self._mail_clock())
        except RefusedError as refused:
            self._count(refused)
            answered = session.end.batch_failed(lane, refused.code, self._clock())
        else:
            self._number_soon()
            answered = session.end.batch_applied(lane, effect.cursor_after, self._clock())
            if recovering and not self.store.disk.recovering:
                self._later(50, self._whole_again)
            if effect.batch.position and self.world.snapshots_to_break:
                self.world.snapshots_to_break -= 1
                self.world.network.break_connection(session.connection, late=False)
        self._perform(session, answered)

    def _whole_again(self) -> None:
        """Begin every link anew: children that recover too are served from now on."""
        for session in tuple(self.sessions.values()):
            self._perform(session, session.end.goodbye("recovered"))

    # -- time -----------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._later(TICK_MS, self._tick)
        disk = self.store.disk
        if disk.outbox:
            self._try(self._send_again)
        if disk.unnumbered:
            self._number_soon()
        for session in tuple(self.sessions.values()):
            self._perform(session, session.end.tick(self._clock()))
        if self.node_id in self.tree.parent and not self._to(self.tree.parent[self.node_id]):
            self._dial_later(100)

    def _send_again(self) -> None:
        self.world.fired["letter_sent_again"] += self.store.post.send_again(self._mail_clock())

    def prune(self, to: int | None = None) -> None:
        """Drop the log up to a place, whoever has not read it; old peers cannot do without it."""
        disk = self.store.disk
        around = self.tree.neighbours(self.node_id)
        if all(disk.protocols.get(peer, 1) >= 2 for peer in around) and disk.head:
            up_to = self.world.random.randrange(disk.head + 1) if to is None else to
            dropped: list[int] = []
            if self._try(lambda: dropped.append(self.store.prune(up_to))) and dropped[0]:
                self.world.fired["log_pruned"] += 1

    def grant_move(self, resident: str, to: str) -> None:
        """Decide about a move, and tell both homes."""
        is_dead = self.world.random.random() < 0.5
        moves, mail_ms = self.store.moves, self._mail_clock()
        if self._try(lambda: moves.grant(resident, to, mail_ms, is_dead=is_dead)):
            self._number_soon()

    def upgrade(self) -> None:
        """Restart under the newest protocol."""
        if self.protocol_max < PROTOCOL_MAX:
            self.protocol_max = PROTOCOL_MAX
            self.world.fired["older_peer"] += 1
            if self.alive:
                self.world.crash(self)

    def _make_marks(self) -> None:
        self._later(MARK_MS, self._make_marks)
        parent = self.tree.parent.get(self.node_id)
        try:
            mark = self.store.mark()
        except RefusedError as refused:
            self._count(refused)
            return
        if self.store.disk.head > self._told:
            self._tell_head(self.store.disk.head)
        if mark is None:
            return
        for session in self._to(parent) if parent else []:
            self._perform(session, session.end.marks_ready(mark, self._clock()))

    def is_idle(self) -> bool:
        """Whether nothing waits here: all numbered, a stream up, every lane delivered."""
        disk = self.store.disk
        if not self.alive or disk.unnumbered or disk.outbox or disk.sealed or disk.recovering:
            return False
        return all(
            any(session.end.is_delivered(disk.head) for session in self._to(peer))
            for peer in self.tree.neighbours(self.node_id)
        )
