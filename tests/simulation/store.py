"""A node's fake store: what is committed survives a crash, and a transaction is all or nothing.

Speaks the rules the real store must keep (replication/DESIGN.md): the cursor is compared and saved
in the rows' transaction, apply is guarded by version, numbers are durable before a reader sees
them. A variant of the protocol removes a rule by naming it in `broken`. What a peer is sent is in
sending.py, letters are in post.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from replication.core.admission import AdmissionContext, Cause, Decision, Held, judge
from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.config import PeerRole
from replication.core.greeting import RECOVERING, seed_feature
from replication.core.model import (
    Audience,
    Batch,
    Cursor,
    Form,
    Hello,
    Lane,
    LogEntry,
    Mark,
    RowChange,
)
from tests.simulation.durable import OWN, Durable, entry_key
from tests.simulation.moves import Moves
from tests.simulation.post import ROWS, Post
from tests.simulation.sending import ENTITLED, Sending
from tests.simulation.tree import Tree

if TYPE_CHECKING:
    from tests.simulation.checkers import Checkers

__all__ = ["RefusedError", "SimStore"]


class RefusedError(Exception):
    """The transaction reports a failure, with a stable code.

    After COMMIT_FAILED nobody knows whether it left a trace; after any other code it left none.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class SimStore:
    """The transactions of one node over its Durable.

    Args:
        crash_point: Called between any two steps; raises to kill the process there.
        observe: The checkers, told of every change at the moment it happens.
        broken: Names of rules this variant of the protocol does without.
        random: Decides what a failing fsync leaves behind.
    """

    def __init__(
        self,
        node_id: str,
        tree: Tree,
        crash_point: Callable[[str], None],
        observe: Checkers,
        *,
        broken: AbstractSet[str],
        random: Random,
    ) -> None:
        self.node_id = node_id
        self.tree = tree
        self.disk = Durable()
        self.disk_full = False
        self.failing_syncs = 0
        self.coalescing = False
        self.crash_point = crash_point
        self.observe = observe
        self.broken = broken
        self.sync_failed: Callable[[], None] = _nobody
        self._random = random
        self._reserved_to = 0
        self.sending = Sending(self)
        self.post = Post(self)
        self.moves = Moves(self)
        self._contexts: dict[tuple[str, Lane], AdmissionContext] = {}

    def put_back(self, disk: Durable) -> None:
        """Replace what is on disk by a backup."""
        self.disk = disk
        self.sending.forget()
        self._reserved_to = 0
        self._contexts.clear()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Fail before anything is written, or report a failure although all was (failing fsync)."""
        if self.disk_full:
            raise RefusedError("DISK_FULL")
        kept = True
        if self.failing_syncs:
            self.failing_syncs -= 1
            self.sync_failed()
            kept = self._random.random() < 0.5
            if not kept and "sync_failure_ignored" not in self.broken:
                raise RefusedError("COMMIT_FAILED")
            before = self.disk.copy() if not kept else None
            yield
            if before is not None:
                self.disk = before  # The page was dropped: what was written is gone.
                return
            raise RefusedError("COMMIT_FAILED")
        yield

    def count_lanes(self) -> None:
        """What a process that starts knows of the lanes' ends: what is left of the log says it."""
        disk = self.disk
        floor = 0 if "lane_heads_of_what_is_left" in self.broken else disk.pruned_to
        disk.lane_heads = dict.fromkeys(Lane, floor)
        for number, entry in disk.log.items():
            disk.lane_heads[entry.lane] = max(number, disk.lane_heads[entry.lane])

    # -- writing here ---------------------------------------------------------------------------

    def reserve_numbers(self, count: int) -> list[int]:
        """What a store does that numbers at the beginning of a transaction (a planted bug)."""
        first = max(self.disk.head, self._reserved_to) + 1
        self._reserved_to = first + count - 1
        return list(range(first, first + count))

    def commit_write(
        self,
        changes: list[tuple[Lane, RowChange]],
        now: int,
        numbers: list[int],
        mail_ms: int,
    ) -> None:
        """Commit rows written here and their log entries, one entry a lane and home.

        What belongs to a home that is not at or below this node goes into the outbox as well.
        """
        groups: dict[tuple[Lane, str], list[RowChange]] = {}
        for lane, change in changes:
            groups.setdefault((lane, change.home_node), []).append(change)
        with self.transaction():
            entries = [
                self.entry(lane, home, rows, now) for (lane, home), rows in sorted(groups.items())
            ]
            self.crash_point("write.staged")
            for _, change in changes:
                self.put(change)
                if change.author_node == change.home_node:
                    self.disk.own_writes += 1
            if "numbers_at_begin" in self.broken:
                self._number_as_begun(entries, numbers)
            else:
                self.disk.unnumbered.extend(entries)
            for (lane, home), rows in sorted(groups.items()):
                if not self.tree.is_local(self.node_id, home):
                    self.post.send(home, ROWS, encode_changes(rows).decode(), lane, mail_ms)
        self.crash_point("write.committed")

    def entry(
        self, lane: Lane, home: str, rows: Sequence[RowChange], now: int, origin: str = ""
    ) -> LogEntry:
        """A log entry of rows, not numbered yet; of this node's own unless an origin is named."""
        return LogEntry(
            sequence=0,
            origin_node=origin or self.node_id,
            origin_epoch=self.disk.store_epoch,
            origin_sequence=0 if origin else OWN,
            lane=lane,
            home_node=home,
            form=rows[0].form,
            codec=CODEC_JSON,
            schema_version=1,
            committed_at_ms=now,
            row_count=len(rows),
            rows=encode_changes(rows),
        )

    # -- numbering ------------------------------------------------------------------------------

    def _number_as_begun(self, entries: list[LogEntry], numbers: list[int]) -> None:
        for entry, number in zip(entries, numbers, strict=False):
            self._append(entry, number)
        self.disk.head = max(self.disk.log, default=0)

    def number(self) -> int:
        """Number what has committed, durably, in order; returns the new head."""
        if self.disk.unnumbered and not self.disk_full:
            with self.transaction():
                self.crash_point("number.staged")
                disk = self.disk
                for entry in tuple(disk.unnumbered):
                    disk.head = max(disk.head, self._reserved_to) + 1
                    self._append(entry, disk.head)
                disk.unnumbered.clear()
            self.crash_point("number.committed")
        return self.disk.head

    def _append(self, entry: LogEntry, number: int) -> None:
        disk = self.disk
        if entry.origin_sequence == OWN:
            entry = replace(entry, origin_sequence=number)
        entry = replace(entry, sequence=number)
        disk.log[number] = entry
        disk.lane_heads[entry.lane] = max(number, disk.lane_heads[entry.lane])
        self.observe.numbered(self, entry)
        if entry.form is Form.SEALED:
            disk.sealed.add(number)
        else:
            disk.rows_logged += entry.row_count
        if entry.origin_sequence:
            disk.logged.add(entry_key(entry))

    # -- applying what arrives ------------------------------------------------------------------

    def apply(self, peer: str, batch: Batch, cursor: Cursor, mail_ms: int) -> None:
        """Apply a batch and move the cursor in one transaction; a refusal leaves no trace."""
        disk = self.disk
        at = disk.inbound.get((peer, batch.lane))
        if "cursor_not_compared" not in self.broken:
            if at == cursor:
                return  # A commit whose answer was lost.
            any_epoch = "older_stream_applied" in self.broken
            met = disk.peers.get(peer)
            if met is not None and batch.stream_epoch.sender < met[0] and not any_epoch:
                # It may outlive the greeting of the peer's next life.
                raise RefusedError("CURSOR_WENT_BACK")
            _compare(batch, at, any_epoch=any_epoch)
        with self.transaction():
            if "cursor_before_rows" in self.broken:
                disk.inbound[peer, batch.lane] = cursor
                self.crash_point("apply.cursor_only")
            staged: dict[tuple[str, str], RowChange] = {}
            puts: list[RowChange] = []
            relayed: list[LogEntry] = []
            self.post.staged.clear()
            self.post.opened.clear()
            for entry in batch.entries:
                if entry.form is Form.SEALED:
                    relayed += self.post.arrived(peer, entry, puts, mail_ms)
                else:
                    relayed += self._admit(peer, batch.lane, entry, staged, puts)
            self.crash_point("apply.staged")
            self.observe.applying(self, peer, batch, at)
            for change in puts:
                self.put(change)
            for work in self.post.staged:
                work()
            if "log_outside_transaction" in self.broken:
                self.crash_point("apply.rows_only")
            disk.unnumbered.extend(relayed)
            disk.inbound[peer, batch.lane] = cursor
            self._note_served(peer, at, cursor)
            self.observe.cursor_moved(self, peer, at, cursor)
        self.crash_point("apply.committed")

    def _context(self, peer: str, lane: Lane) -> AdmissionContext:
        context = self._contexts.get((peer, lane))
        if context is None or context.recovering != self.disk.recovering:
            tree = self.tree
            role = PeerRole.PARENT if tree.parent.get(self.node_id) == peer else PeerRole.CHILD
            context = self._contexts[peer, lane] = AdmissionContext(
                peer_role=role,
                lane=lane,
                here_subtree=tree.subtree[self.node_id],
                peer_subtree=tree.subtree[peer],
                here_path=frozenset(tree.path_up[self.node_id]),
                recovering=self.disk.recovering,
            )
        return context

    def verdict(self, peer: str, lane: Lane, change: RowChange, held: RowChange | None) -> str:
        """ADMIT and STALE as they are, or the cause of a rejection."""
        known = Held(held.version, held.home_epoch) if held else None
        if held and "held_epoch_ignored" in self.broken:
            known = Held(held.version, max(held.home_epoch, change.home_epoch))
        found = judge(
            change,
            known,
            self._with_home(self._context(peer, lane), change),
        )
        if found.cause is Cause.HOME_EPOCH_OLD and "home_epoch_not_checked" in self.broken:
            return Decision.ADMIT
        return str(found.cause or found.decision)

    def _with_home(self, context: AdmissionContext, change: RowChange) -> AdmissionContext:
        """With what is known here of the resident's home, by his row and by grants."""
        resident = change.resident_id
        row = self.disk.rows.get(("residents", resident))
        grant = None if "grant_not_known" in self.broken else self.disk.grants.get(resident)
        if row is None and grant is None:
            return context
        return replace(
            context,
            home_epoch=row.home_epoch if row else 0,
            home_node=row.home_node if row else "",
            granted_epoch=grant.home_epoch if grant else 0,
            granted_home=grant.home_node if grant else "",
        )

    def _admit(
        self,
        peer: str,
        lane: Lane,
        entry: LogEntry,
        staged: dict[tuple[str, str], RowChange],
        puts: list[RowChange],
    ) -> list[LogEntry]:
        """Judge an entry's rows; what is admitted is staged and returned as an entry to relay."""
        rows = decode_changes(entry.codec, entry.rows)
        kept: list[RowChange] = []
        for change in rows:
            key = (change.table, change.row_id)
            verdict = self.verdict(peer, lane, change, staged.get(key) or self.disk.rows.get(key))
            stale = verdict == Decision.STALE
            if not stale and verdict != Decision.ADMIT and "admission" not in self.broken:
                self.observe.quarantined(self, peer, change, verdict)
            elif not stale or "version_guard" in self.broken:
                kept.append(change)
                staged[key] = change
        puts.extend(kept)
        if not kept:
            return []
        if len(kept) < len(rows):
            entry = replace(entry, rows=encode_changes(kept), row_count=len(kept))
        if self.disk.recovering:
            entry = replace(entry, audience=self._audience(peer, entry))
        return [replace(entry, lane=lane)]

    def taken_from_letter(
        self, rows: Sequence[RowChange], puts: list[RowChange]
    ) -> list[RowChange]:
        """What of a letter's rows is news here; it is staged, and logged as this node's own."""
        fresh = []
        for change in rows:
            held = self.disk.rows.get((change.table, change.row_id))
            for staged in puts:
                if (staged.table, staged.row_id) == (change.table, change.row_id):
                    held = staged
            if held is None or held.version < change.version or "version_guard" in self.broken:
                fresh.append(change)
        puts += fresh
        return fresh

    def _audience(self, peer: str, entry: LogEntry) -> Audience:
        """What a recovering node gets back goes on, but not to where it came from."""
        if "returned_stay_here" in self.broken and not entry.origin_sequence:
            return Audience.HERE
        if peer == self.tree.parent.get(self.node_id):
            own = entry.origin_node in self.tree.subtree[self.node_id]
            return Audience.BELOW if own else Audience.EVERYBODY
        above = entry.origin_node in self.tree.path_up[self.node_id]
        return Audience.ABOVE if above else Audience.EVERYBODY

    def put(self, change: RowChange) -> None:
        """Write one row."""
        key = (change.table, change.row_id)
        disk = self.disk
        self.observe.put(self, disk.rows.get(key), change)
        disk.rows[key] = change
        disk.rows_put += 1
        version = change.version
        disk.effects.add((*key, version.author_epoch, version.number, change.home_epoch))

    # -- the links ------------------------------------------------------------------------------

    def save_peer(self, peer: str, hello: Hello, protocol: int, mail_ms: int) -> None:
        """Remember the peer's store epoch and the protocol of the link."""
        life = (hello.store_epoch, hello.store_incarnation)
        with self.transaction():
            if self.disk.peers.get(peer, life) != life:
                self.post.hurry(mail_ms)
            if protocol > self.disk.protocols.get(peer, protocol):
                self.post.log_anew(peer)
            self.disk.peers[peer] = life
            self.disk.protocols[peer] = protocol

    def save_delivered(self, peer: str, cursor: Cursor) -> None:
        """Remember what the peer confirmed; only forward within a stream. Letters are erased."""
        disk = self.disk
        at = disk.outbound.get((peer, cursor.lane))
        if at is not None and at.stream_epoch > cursor.stream_epoch:
            return
        if at is not None and at.stream_epoch == cursor.stream_epoch:
            place = (at.number, at.covers_to)
            if place >= (cursor.number, cursor.covers_to):
                return
        with self.transaction():
            disk.outbound[peer, cursor.lane] = cursor
            self.observe.delivered(self, peer, at, cursor)
            self.post.handed_on(peer, cursor.lane, cursor.covers_to)

    def save_mark(self, mark: Mark) -> None:
        """Remember freshness; the last word counts."""
        with self.transaction():
            self.disk.marks.update(mark.homes)
            self.observe.marked(self)

    def mark(self) -> Mark | None:
        """This node's freshness: marks first, then numbers, then the head."""
        homes = dict(self.disk.marks)
        if not self.tree.children[self.node_id] and not self.disk.recovering:
            homes[self.node_id] = self.disk.own_writes
        head = self.number()
        if self.disk.unnumbered or not homes:
            return None
        return Mark(homes, head)

    def features(self, peer: str) -> tuple[str, ...]:
        """What this node's Hello says to a neighbour."""
        if not self.disk.recovering:
            return ()
        lanes = [lane for lane in Lane if (peer, lane) not in self.disk.served]
        return (RECOVERING, *map(seed_feature, lanes))

    def _note_served(self, peer: str, at: Cursor | None, cursor: Cursor) -> None:
        """A recovery snapshot has ended; once all have, the node may amend again."""
        disk = self.disk
        if not disk.recovering or at is None or cursor.position or not at.position:
            return
        if at.stream_epoch != cursor.stream_epoch or at.position[0] == ENTITLED:
            return
        disk.served.add((peer, cursor.lane))
        around = self.tree.neighbours(self.node_id)
        if all((each, lane) in disk.served for each in around for lane in Lane):
            disk.recovering = False
            disk.served.clear()
            self.observe.whole_again(self)

    def prune(self, up_to: int) -> int:
        """Drop the log up to a sequence, but for letters not handed on; returns how many."""
        disk = self.disk
        going = [
            number
            for number, entry in disk.log.items()
            if number <= up_to and not (entry.form is Form.SEALED and entry.rows)
        ]
        with self.transaction():
            for number in going:
                del disk.log[number]
            disk.pruned_to = max(disk.pruned_to, up_to)
        self.crash_point("prune.committed")
        return len(going)


def _compare(batch: Batch, at: Cursor | None, *, any_epoch: bool) -> None:
    """Refuse what does not follow the stored cursor, as the real store does."""
    epoch = batch.stream_epoch
    standing = at.number if at is not None and at.stream_epoch == epoch else 0
    if standing != batch.previous:
        raise RefusedError("BATCH_OUT_OF_ORDER")
    if at is None or any_epoch:
        return
    than = at.stream_epoch
    if epoch.sender < than.sender or epoch.receiver < than.receiver:
        # A stream with a former life of the peer may outlive the beginning of the next.
        raise RefusedError("CURSOR_WENT_BACK")


def _nobody() -> None:
    """No checker listens."""
