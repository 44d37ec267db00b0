"""A node's fake store: what is committed survives a crash, and a transaction is all or nothing.

Speaks the rules the real store must keep (replication/DESIGN.md): the cursor is compared and saved
in the rows' transaction, apply is guarded by version, numbers are durable before a reader sees
them. A variant of the protocol removes a rule by naming it in `broken`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Protocol

from replication.core.admission import AdmissionContext, Decision, Held, judge
from replication.core.coalesce import coalesce
from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.config import PeerRole
from replication.core.model import Batch, Cursor, Form, Hello, Lane, LogEntry, Mark, RowChange
from replication.core.routing import goes_down, goes_up
from tests.simulation.tree import CITY, TREE

__all__ = ["ApplyRefusedError", "Durable", "RowKey", "SimStore", "StoreObserver", "entry_key"]

RowKey = tuple[str, str]
EntryKey = tuple[str, int, int, Lane, str, Form]


class ApplyRefusedError(Exception):
    """The transaction left no trace; the argument is its stable code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class StoreObserver(Protocol):
    """What checkers see of a store, at the moment it happens."""

    def put(self, store: SimStore, before: RowChange | None, after: RowChange) -> None: ...
    def committed(self, store: SimStore) -> None: ...
    def numbered(self, store: SimStore, entry: LogEntry) -> None: ...
    def applying(self, store: SimStore, peer: str, batch: Batch, at: Cursor | None) -> None: ...
    def cursor_moved(
        self, store: SimStore, peer: str, before: Cursor | None, after: Cursor
    ) -> None: ...
    def delivered(
        self, store: SimStore, peer: str, before: Cursor | None, after: Cursor
    ) -> None: ...
    def marked(self, store: SimStore) -> None: ...
    def quarantined(self, store: SimStore, peer: str, change: RowChange, cause: str) -> None: ...


def entry_key(entry: LogEntry) -> EntryKey:
    """What the real log's unique index is on."""
    return (
        entry.origin_node,
        entry.origin_epoch,
        entry.origin_sequence,
        entry.lane,
        entry.home_node,
        entry.form,
    )


@dataclass(slots=True)
class Durable:
    """What is on disk. Only whole transactions change it."""

    store_epoch: int = 1
    incarnation: str = "first"
    recovering: bool = False
    rows: dict[RowKey, RowChange] = field(default_factory=dict)
    log: dict[int, LogEntry] = field(default_factory=dict)
    head: int = 0
    unnumbered: list[LogEntry] = field(default_factory=list)
    lane_heads: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    inbound: dict[tuple[str, Lane], Cursor] = field(default_factory=dict)
    outbound: dict[tuple[str, Lane], Cursor] = field(default_factory=dict)
    peers: dict[str, tuple[int, str]] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    effects: Counter[tuple[str, str, int, int]] = field(default_factory=Counter)
    logged: set[EntryKey] = field(default_factory=set)
    quarantined: list[tuple[str, RowChange]] = field(default_factory=list)
    own_writes: int = 0

    def copy(self) -> Durable:
        """A backup."""
        return Durable(
            self.store_epoch,
            self.incarnation,
            self.recovering,
            dict(self.rows),
            dict(self.log),
            self.head,
            list(self.unnumbered),
            dict(self.lane_heads),
            dict(self.inbound),
            dict(self.outbound),
            dict(self.peers),
            dict(self.marks),
            Counter(self.effects),
            set(self.logged),
            list(self.quarantined),
            self.own_writes,
        )


class SimStore:
    """The transactions of one node over its Durable.

    Args:
        crash_point: Called between any two steps; raises to kill the process there.
        broken: Names of rules this variant of the protocol does without.
        observe: Called with ("commit" | "number", …) so that checkers see every change.
    """

    def __init__(
        self,
        node_id: str,
        crash_point: Callable[[str], None],
        observe: StoreObserver,
        broken: AbstractSet[str],
    ) -> None:
        self.node_id = node_id
        self.disk = Durable()
        self.disk_full = False
        self.coalescing = False
        self._crash_point = crash_point
        self._observe = observe
        self._broken = broken
        self._transformed: dict[tuple[int, int], LogEntry] = {}
        self._reserved_to = 0

    def put_back(self, disk: Durable) -> None:
        """Replace what is on disk by a backup."""
        self.disk = disk
        self._transformed.clear()

    # -- writing here ---------------------------------------------------------------------------

    def reserve_numbers(self, count: int) -> list[int]:
        """What a store does that numbers at the beginning of a transaction (a planted bug)."""
        first = max(self.disk.head, self._reserved_to) + 1
        self._reserved_to = first + count - 1
        return list(range(first, first + count))

    def commit_write(
        self, changes: list[tuple[Lane, RowChange]], now: int, numbers: list[int]
    ) -> None:
        """Commit rows written here and their log entries, one entry a lane and home."""
        if self.disk_full:
            raise ApplyRefusedError("DISK_FULL")
        groups: dict[tuple[Lane, str], list[RowChange]] = {}
        for lane, change in changes:
            groups.setdefault((lane, change.home_node), []).append(change)
        entries = [
            self._entry(lane, home, rows, now) for (lane, home), rows in sorted(groups.items())
        ]
        self._crash_point("write.staged")
        disk = self.disk
        for _, change in changes:
            self._put(change)
            if change.author_node == change.home_node:
                disk.own_writes += 1
        if "numbers_at_begin" in self._broken:
            self._number_as_begun(entries, numbers)
        else:
            disk.unnumbered.extend(entries)
        self._observe.committed(self)
        self._crash_point("write.committed")

    def _entry(self, lane: Lane, home: str, rows: list[RowChange], now: int) -> LogEntry:
        return LogEntry(
            sequence=0,
            origin_node=self.node_id,
            origin_epoch=self.disk.store_epoch,
            origin_sequence=0,
            lane=lane,
            home_node=home,
            form=Form.FULL,
            codec=CODEC_JSON,
            schema_version=1,
            committed_at_ms=now,
            row_count=len(rows),
            rows=encode_changes(rows),
        )

    def _number_as_begun(self, entries: list[LogEntry], numbers: list[int]) -> None:
        for entry, number in zip(entries, numbers, strict=False):
            self._append(entry, number)
        self.disk.head = max(self.disk.log, default=0)

    def number(self) -> int:
        """Number what has committed, durably, in order; returns the new head."""
        disk = self.disk
        waiting = list(disk.unnumbered)
        if waiting and not self.disk_full:
            self._crash_point("number.staged")
            for entry in waiting:
                disk.head = max(disk.head, self._reserved_to) + 1
                self._append(entry, disk.head)
            disk.unnumbered.clear()
            self._crash_point("number.committed")
        return disk.head

    def _append(self, entry: LogEntry, number: int) -> None:
        disk = self.disk
        if entry.origin_sequence == 0 and entry.origin_node == self.node_id:
            entry = replace(entry, origin_sequence=number)
        entry = replace(entry, sequence=number)
        disk.log[number] = entry
        disk.lane_heads[entry.lane] = max(number, disk.lane_heads[entry.lane])
        self._observe.numbered(self, entry)
        if entry.origin_sequence:
            disk.logged.add(entry_key(entry))

    # -- applying what arrives ------------------------------------------------------------------

    def apply(self, peer: str, batch: Batch, cursor: Cursor) -> None:
        """Apply a batch and move the cursor in one transaction; a refusal leaves no trace."""
        disk = self.disk
        if self.disk_full:
            raise ApplyRefusedError("DISK_FULL")
        at = disk.inbound.get((peer, batch.lane))
        standing = at.number if at is not None and at.stream_epoch == batch.stream_epoch else 0
        if standing != batch.previous and "cursor_not_compared" not in self._broken:
            raise ApplyRefusedError("BATCH_OUT_OF_ORDER")
        if "cursor_before_rows" in self._broken:
            disk.inbound[peer, batch.lane] = cursor
            self._crash_point("apply.cursor_only")
        staged: list[RowChange] = []
        relayed: list[LogEntry] = []
        for entry in batch.entries:
            admitted = self._admit(peer, batch.lane, entry, staged)
            if admitted:
                relayed.append(admitted)
        self._crash_point("apply.staged")
        self._observe.applying(self, peer, batch, at)
        for change in staged:
            self._put(change)
        if "log_outside_transaction" in self._broken:
            self._crash_point("apply.rows_only")
        disk.unnumbered.extend(relayed)
        disk.inbound[peer, batch.lane] = cursor
        self._observe.committed(self)
        self._observe.cursor_moved(self, peer, at, cursor)
        self._crash_point("apply.committed")

    def _admit(
        self, peer: str, lane: Lane, entry: LogEntry, staged: list[RowChange]
    ) -> LogEntry | None:
        """Judge an entry's rows; what is admitted is staged and returned as an entry to relay."""
        role = PeerRole.PARENT if TREE.parent.get(self.node_id) == peer else PeerRole.CHILD
        context = AdmissionContext(role, lane, TREE.subtree[self.node_id], TREE.subtree[peer])
        rows = decode_changes(entry.codec, entry.rows)
        kept: list[RowChange] = []
        for change in rows:
            held = self.disk.rows.get((change.table, change.row_id))
            verdict = judge(change, Held(held.version, held.home_epoch) if held else None, context)
            if verdict.decision is Decision.REJECT and "admission" not in self._broken:
                self.disk.quarantined.append((peer, change))
                self._observe.quarantined(self, peer, change, str(verdict.cause))
            elif verdict.decision is not Decision.STALE or "version_guard" in self._broken:
                kept.append(change)
        staged.extend(kept)
        if not kept:
            return None
        if len(kept) < len(rows):
            entry = replace(entry, rows=encode_changes(kept), row_count=len(kept))
        return replace(entry, lane=lane)

    def _put(self, change: RowChange) -> None:
        key = (change.table, change.row_id)
        self._observe.put(self, self.disk.rows.get(key), change)
        self.disk.rows[key] = change
        version = change.version
        self.disk.effects[(*key, version.author_epoch, version.number)] += 1

    # -- the links ------------------------------------------------------------------------------

    def outgoing(
        self, peer: str, lane: Lane, after: int, bytes_max: int
    ) -> tuple[list[LogEntry], int, bool]:
        """The log after a sequence as this peer is to see it: entries, scanned_to, coalesced."""
        disk = self.disk
        found: list[LogEntry] = []
        size, scanned = 0, after
        for number in range(after + 1, disk.head + 1):
            entry = disk.log.get(number)
            scanned = number
            if entry is None or entry.lane is not lane or not self._goes(entry, peer):
                continue
            sent = self._transform(entry, peer)
            found.append(sent)
            size += len(sent.rows)
            if size >= bytes_max:
                break
        if not self.coalescing:
            return found, scanned, False
        left, dropped = coalesce(found)
        return left, scanned, dropped

    def _goes(self, entry: LogEntry, peer: str) -> bool:
        if peer == TREE.parent.get(self.node_id):
            here = TREE.subtree[self.node_id]
            return goes_up(entry.origin_node, entry.home_node, entry.form, here)
        below = TREE.subtree[peer]
        if "route_by_author" in self._broken:
            return entry.origin_node not in below and entry.form is Form.FULL
        return goes_down(entry.origin_node, entry.home_node, entry.form, below)

    def _transform(self, entry: LogEntry, peer: str) -> LogEntry:
        """What policy lets the peer have: the city gets reduced rows, all others full ones."""
        if peer != CITY:
            return entry
        key = (self.disk.store_epoch, entry.sequence)
        sent = self._transformed.get(key)
        if sent is None:
            form = Form.INDEX if entry.lane is Lane.IDENTITY else Form.DEIDENTIFIED
            rows = [replace(row, form=form) for row in decode_changes(entry.codec, entry.rows)]
            sent = replace(entry, form=form, rows=encode_changes(rows), origin_sequence=0)
            self._transformed[key] = sent
        return sent

    def save_peer(self, peer: str, hello: Hello) -> None:
        """Remember the peer's store epoch."""
        self._write_small()
        self.disk.peers[peer] = (hello.store_epoch, hello.store_incarnation)

    def save_delivered(self, peer: str, cursor: Cursor) -> None:
        """Remember what the peer confirmed; only forward within a stream."""
        self._write_small()
        at = self.disk.outbound.get((peer, cursor.lane))
        if (
            at is not None
            and at.stream_epoch == cursor.stream_epoch
            and (at.number, at.covers_to) >= (cursor.number, cursor.covers_to)
        ):
            return
        self.disk.outbound[peer, cursor.lane] = cursor
        self._observe.delivered(self, peer, at, cursor)

    def save_mark(self, mark: Mark) -> None:
        """Remember freshness; the greater time stays."""
        self._write_small()
        for home, until in mark.homes.items():
            self.disk.marks[home] = max(until, self.disk.marks.get(home, 0))
        self._observe.marked(self)

    def mark(self) -> Mark | None:
        """This node's freshness: marks first, then numbers, then the head."""
        homes = dict(self.disk.marks)
        if not TREE.children[self.node_id] and not self.disk.recovering:
            homes[self.node_id] = self.disk.own_writes
        head = self.number()
        if self.disk.unnumbered or not homes:
            return None
        return Mark(homes, head)

    def _write_small(self) -> None:
        if self.disk_full:
            raise ApplyRefusedError("DISK_FULL")
