"""Durable state of this node's links, as replication/runner.py asks for it.

A thin joint: rows and log are node/storage's, cursors and marks replication/changelog's. What one
method here changes is one transaction there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, Engine

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.errors import DiskFullError
from node.fresh_marks import FreshMarks
from node.storage import Storage
from node.storage.outgoing import PeerAbility
from node.storage.tables import CHANGELOG
from replication.changelog import (
    ChangeLog,
    LinkState,
    Marks,
    StoreState,
    read_transaction,
    write_transaction,
)
from replication.core.config import PeerRole
from replication.core.effects import LogPart
from replication.core.greeting import RECOVERING
from replication.core.model import PROTOCOL_MAX, Batch, Cursor, Hello, Lane, Mark, Receipt

__all__ = ["LinkMemory", "NodeLinkStore", "PeerNow", "protocol_fact"]

_STEERING_BYTES_MAX: Final = 16 << 10
"""Of a batch in the control lane that is taken although the disk is below its watermark."""


def protocol_fact(peer: str) -> str:
    """Name in store_state of the link protocol that a peer spoke last."""
    return f"protocol:{peer}"


@dataclass(frozen=True, slots=True)
class LinkMemory:
    """What was remembered of a link before this connection."""

    inbound: Mapping[Lane, Cursor]
    outbound: Mapping[Lane, Cursor]
    peer_store_epoch: int
    peer_incarnation: str
    features: tuple[str, ...] = ()
    """What this node's Hello is to say of itself."""
    confirmed: Mapping[Lane, Cursor] = field(default_factory=dict)
    """The peer's own cursors, as it would claim them: `outbound` may be beyond."""


@dataclass(frozen=True, slots=True)
class PeerNow:
    """What a peer's last Hello said: the protocol both speak, and what it wishes."""

    protocol: int
    features: tuple[str, ...] = ()

    @property
    def recovering(self) -> bool:
        """Whether it is getting back what it lost."""
        return RECOVERING in self.features


class NodeLinkStore:
    """replication.runner.LinkStore over this node's database."""

    def __init__(
        self,
        engine: Engine,
        storage: Storage,
        log: ChangeLog,
        links: LinkState,
        marks: Marks,
        *,
        node_id: NodeId,
        hierarchy: Hierarchy,
        clock: Clock,
        notify: Callable[[], None],
        durable_head: Callable[[], int],
        head: Callable[[], int],
        disk_is_full: Callable[[], bool],
    ) -> None:
        """Nothing is read yet.

        Args:
            engine: Of this node's database.
            storage: Applies and gives rows.
            log: The change log.
            links: Cursors.
            marks: Freshness of copies.
            node_id: This node.
            hierarchy: Who its neighbours are.
            clock: For this node's own mark.
            notify: Called after a peer's rows were applied: the log has grown.
            durable_head: Of the log; how far readers may go.
            head: The newest durable head that was told to the links; nothing newer is read.
            disk_is_full: Whether free space is below the watermark.
        """
        self._engine = engine
        self._storage = storage
        self._log = log
        self._links = links
        self._marks = marks
        self._fresh = FreshMarks(self._save_marks, clock.monotonic_ms)
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._clock = clock
        self._notify = notify
        self._durable_head = durable_head
        self._head = head
        self._disk_is_full = disk_is_full
        self._met: dict[str, PeerNow] = {}
        self.greeted: list[Callable[[Connection, str, Hello, int], None]] = []
        """Told of each peer whose link comes up, with its store epoch before, 0 if never met."""
        self._facts = StoreState(CHANGELOG)

    @property
    def store_epoch(self) -> int:
        """This node's store epoch."""
        return self._log.store_epoch

    def role(self, peer: str) -> PeerRole:
        """What the peer is to this node."""
        is_parent = self._hierarchy.parent(self._node_id) == peer
        return PeerRole.PARENT if is_parent else PeerRole.CHILD

    def met(self, peer: str) -> PeerNow | None:
        """What is known of a peer since this process has met it."""
        return self._met.get(peer)

    def is_recovering(self, peer: str) -> bool:
        """Whether a peer said so when its link came up."""
        met = self._met.get(peer)
        return met is not None and met.recovering

    def load(self, peer: str) -> LinkMemory:
        """Cursors and the peer's last known epoch."""
        with read_transaction(self._engine) as connection:
            seen = self._links.peer_epoch_seen(connection, peer)
            return LinkMemory(
                self._links.load_inbound(connection, peer),
                self._links.load_outbound(connection, peer),
                seen.store_epoch if seen is not None else 0,
                seen.incarnation if seen is not None else "",
                self._storage.recovery.features(connection, NodeId(peer)),
                self._links.load_confirmed(connection, peer),
            )

    def read(
        self,
        peer: str,
        lane: Lane,
        after: int,
        bytes_max: int,
        position: str,
    ) -> LogPart:
        """What is for this peer after a sequence: of the log, or of a snapshot in its place."""
        met = self._met.get(peer)
        part = self._storage.outgoing_part(
            NodeId(peer),
            self.role(peer),
            lane,
            after,
            bytes_max,
            position=position,
            up_to=self._head(),
            ability=PeerAbility(met.protocol, met.recovering) if met else None,
        )
        if position or part.position:
            # A row is read as it stands, maybe before its commit has reached the disk here.
            self._durable_head()
        return part

    def apply(self, peer: str, batch: Batch, cursor: Cursor) -> None:
        """Rows, relayed entries and cursor in one durable transaction.

        Raises:
            DiskFullError: Below the watermark; the peer backs off and sends the batch again. What
                steers the network is little, and passes as long as it is.
        """
        steers = batch.lane is Lane.CONTROL and batch.body_bytes <= _STEERING_BYTES_MAX
        if not steers and self._disk_is_full():
            raise DiskFullError("free space is below this node's watermark; nothing was applied")
        self._storage.apply_batch(NodeId(peer), self.role(peer), batch, cursor)
        self._notify()

    def save_delivered(self, peer: str, cursor: Cursor, receipt: Receipt | None) -> None:
        """What the peer has confirmed; the newest receipt is kept as proof, as it was signed."""
        at_ms = self._clock.now_ms()
        with write_transaction(self._engine) as connection:
            self._links.save_outbound(connection, peer, cursor, receipt, at_ms)

    def save_mark(self, peer: str, mark: Mark) -> None:
        """How fresh the copies are: a child speaks for its subtree, a parent for the rest."""
        subtree = self._hierarchy.subtree(NodeId(peer))
        from_child = self.role(peer) is PeerRole.CHILD
        homes = {h: ms for h, ms in mark.homes.items() if from_child and h in subtree}
        if homes:
            self._fresh.add(homes)

    def _save_marks(self, homes: Mapping[str, int]) -> None:
        with write_transaction(self._engine) as connection:
            self._marks.save(connection, homes)

    def save_peer(self, peer: str, hello: Hello) -> None:
        """The peer's store epoch and incarnation."""
        with write_transaction(self._engine) as connection:
            before = self._links.peer_epoch_seen(connection, peer)
            self._links.save_peer_epoch(
                connection, peer, hello.store_epoch, hello.store_incarnation
            )
            epoch_before = 0 if before is None else before.store_epoch
            for told in self.greeted:
                told(connection, peer, hello, epoch_before)
            protocol = min(PROTOCOL_MAX, hello.protocol_max)
            self._facts.save(connection, protocol_fact(peer), str(protocol))
        self._met[peer] = PeerNow(protocol, hello.features)

    def mark_for(self, peer: str) -> Mark:
        """This node's homes and how far its copies of them reach, as of the log's head.

        Times first, then the head: whatever had committed by those times is at or below it.
        """
        if self.role(peer) is PeerRole.CHILD:
            return Mark({}, 0)
        now_ms = self._clock.now_ms()
        with read_transaction(self._engine) as connection:
            homes = self._marks.load(connection)
        if not self._storage.recovery.active:
            homes[self._node_id] = now_ms
        return Mark(homes, self._durable_head())
