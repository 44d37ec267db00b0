"""The change log itself: append in the writer's transaction, read by number.

Payloads are sealed here on the way in and opened on the way out, so that nothing clear lies in the
table, its backups or the database's own logs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import (
    Connection,
    Row,
    delete,
    func,
    insert,
    null,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from replication.changelog.dialects import after_commit
from replication.changelog.errors import (
    DuplicateEntryError,
    LogNotReadyError,
    LogPrunedError,
    SequencerFencedError,
)
from replication.changelog.letters import CODEC_ERASED
from replication.changelog.log_queries import end_query, slice_query
from replication.changelog.sequencer import (
    RAISED_HEAD,
    CounterSequencer,
    NumberBlock,
)
from replication.changelog.slices import LogSlice
from replication.changelog.tables import SEQUENCER_ROW, ChangelogTables
from replication.changelog.tail import LogTail
from replication.changelog.together import Raw, Together
from replication.core.model import Audience, Form, Lane, LogEntry

__all__ = [
    "ChangeLog",
    "LogEnd",
    "LogSlice",
    "NewEntry",
    "OriginKey",
    "PayloadSealer",
    "RandomBytes",
]

RandomBytes = Callable[[int], bytes]
"""n random bytes, unguessable."""

_UID_BYTES: Final = 16
_NO_LIMIT: Final = 2**63 - 1
_KEYS_A_QUERY: Final = 500
_LETTERS_A_READ: Final = 100
_ANOTHER_LIFE: Final = "the store is not in the life this log was opened for"
_DOUBLE: Final = "an entry of this origin is in the log already"


class PayloadSealer(Protocol):
    """Seals and opens under this node's data keys."""

    def seal_named(self, clear: bytes, aad: bytes) -> tuple[str, str, bytes]:
        """Encrypt, bound to `aad`: the suite, such as "intl", the key's id, and the sealed bytes.

        Of one moment: the key may be another at the next call.
        """
        ...

    def open(self, sealed: bytes, aad: bytes, key_id: str) -> bytes:
        """Decrypt what was sealed under `key_id` with the same `aad`; raises if it was not."""
        ...


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry to append.

    `origin_sequence` None: committed here for the first time; origin epoch and sequence become this
    log's own with its number, and `origin_epoch` is not looked at. 0: relayed, withheld by the
    sender. Otherwise relayed from (origin_node, origin_epoch, origin_sequence). `rows` is clear.
    """

    origin_node: str
    origin_epoch: int
    origin_sequence: int | None
    lane: Lane
    home_node: str
    form: Form
    codec: int
    schema_version: int
    committed_at_ms: int
    row_count: int
    rows: bytes
    audience: Audience = Audience.EVERYBODY


@dataclass(frozen=True, slots=True)
class OriginKey:
    """What makes an apply idempotent."""

    origin_node: str
    origin_epoch: int
    origin_sequence: int
    form: Form


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The last number given, and whether more of a lane has committed than a reader has seen."""

    head: int
    moved: bool


class ChangeLog:
    """One node's log. Every method works in the caller's transaction."""

    def __init__(
        self,
        tables: ChangelogTables,
        *,
        node_id: str,
        store_epoch: int,
        sealer: PayloadSealer,
        numbering: CounterSequencer,
        random_bytes: RandomBytes = os.urandom,
        tail: LogTail | None = None,
    ) -> None:
        """`tail` is told of what was committed here."""
        self._tail = tail or LogTail()
        self._tables = tables
        self._node_id = node_id
        self._store_epoch = store_epoch
        self._sealer = sealer
        self._numbering = numbering
        self._random_bytes = random_bytes
        self._insert = insert(tables.change_log)
        self._end = end_query(tables)
        self._slices = {
            (sqlite, lane): slice_query(tables, lane, lane_as_range=not sqlite)
            for lane in (None, *Lane)
            for sqlite in (True, False)
        }

    @property
    def store_epoch(self) -> int:
        """The life of the store this log was opened in."""
        return self._store_epoch

    @property
    def tail(self) -> LogTail:
        """What this process has just committed, for readers who are at the end of the log."""
        return self._tail

    def append(
        self,
        connection: Connection,
        entries: Sequence[NewEntry],
        *,
        before: Together | None = None,
    ) -> None:
        """Add entries to the caller's transaction, with one INSERT.

        Call it last, and in no savepoint: no other append runs from here to the commit. `before`:
        statements that are carried out first, and sent together with these.

        Raises:
            DuplicateEntryError: An entry of that origin is in the log already (see `known`).
            SequencerFencedError: The store is in another life.
        """
        together = before or Together(connection)
        if not entries:
            together.send()
            return
        if together.in_packets:
            block = self._send_numbered(together, entries)
        else:
            together.send()
            block = self._append(connection, entries)
        numbered = [
            _numbered(entry, block, sequence)
            for sequence, entry in enumerate(entries, start=block.first)
        ]
        after_commit(connection, lambda: self._tail.committed(numbered))

    def _append(self, connection: Connection, entries: Sequence[NewEntry]) -> NumberBlock:
        values = [self._values(entry) for entry in entries]
        block = self._numbering.reserve(connection, len(values))
        for sequence, row in enumerate(values, start=block.first):
            row["epoch"], row["sequence"] = block.epoch, sequence
            if row["origin_epoch"] is None:
                row["origin_epoch"], row["origin_sequence"] = block.epoch, sequence
        try:
            connection.execute(self._insert, values)
        except IntegrityError as error:
            raise DuplicateEntryError(_DOUBLE) from error
        return block

    def _send_numbered(self, together: Together, entries: Sequence[NewEntry]) -> NumberBlock:
        """Counter and entries in one packet: the entries take their numbers from its answer."""
        counter = self._numbering
        count = len(entries)
        values = [self._values(entry) for entry in entries]
        for place, row in enumerate(values):
            sequence = Raw(f"{RAISED_HEAD}-{count - 1 - place}")
            row["epoch"], row["sequence"] = counter.store_epoch, sequence
            if row["origin_epoch"] is None:
                row["origin_epoch"], row["origin_sequence"] = counter.store_epoch, sequence
        together.add(counter.raising, [{"count": count}])
        together.add(self._insert, values)
        others = together.count - 2
        try:
            raised = together.send()[others]
        except IntegrityError as error:
            done = together.done
            if len(done) <= others:
                raise  # one of the statements before
            if done[others].rows != 1:
                # The entries took their numbers from what the variable held before.
                raise SequencerFencedError(_ANOTHER_LIFE) from error
            raise DuplicateEntryError(_DOUBLE) from error
        if raised.rows != 1:
            raise SequencerFencedError(_ANOTHER_LIFE)
        return NumberBlock(counter.store_epoch, raised.number - count + 1)

    def read(
        self,
        connection: Connection,
        *,
        after: int,
        lane: Lane | None,
        bytes_max: int,
        entries_max: int = 2000,
        up_to: int | None = None,
    ) -> LogSlice:
        """The numbered entries after `after`, opened, in order; one indexed query.

        Args:
            connection: In a transaction, read-only or not.
            after: The reader's cursor, 0 at the start.
            lane: One lane, or None for all.
            bytes_max: Clear bytes of rows; the first entry comes even if it is larger.
            entries_max: How many at most.
            up_to: Read no further than this sequence, such as the durable head.

        Raises:
            LogPrunedError: Entries after `after` were deleted.
            LogNotReadyError: The log's row is missing.
        """
        rows = connection.execute(
            self._slices[connection.dialect.name == "sqlite", lane],
            {
                "after": after,
                "up_to": _NO_LIMIT if up_to is None else up_to,
                "bytes_max": bytes_max,
                "entries_max": entries_max,
            },
        ).all()
        if not rows:
            raise LogNotReadyError("the log has no sequencer row")
        if after < rows[0].pruned_to:
            raise LogPrunedError(f"the log begins after {rows[0].pruned_to}, not at {after}")
        # Sorted here: the database would carry the payloads through its sort.
        found = sorted((row for row in rows if row.sequence is not None), key=_by_sequence)
        entries = tuple(self._entry(row) for row in found)
        head = rows[0].head if up_to is None else min(rows[0].head, up_to)
        cut = len(found) >= entries_max or sum(row.bytes for row in found) >= bytes_max
        scanned_to = entries[-1].sequence if entries and cut else max(head, after)
        return LogSlice(entries, scanned_to, head)

    def letters(
        self, connection: Connection, lane: Lane, *, after: int, up_to: int, bytes_max: int
    ) -> tuple[LogEntry, ...]:
        """Letters of a lane in (after, up_to], opened, in order; also those kept from pruning.

        About `bytes_max` clear bytes, at least one letter if there is any; empty at the end.
        """
        t = self._tables.change_log
        letters = (
            select(t)
            .where(
                t.c.lane == lane.value,
                t.c.sequence > after,
                t.c.sequence <= up_to,
                t.c.form == Form.SEALED.value,
                t.c.codec != CODEC_ERASED,
            )
            .order_by(t.c.sequence)
            .limit(_LETTERS_A_READ)
        )
        found: list[LogEntry] = []
        size = 0
        for row in connection.execute(letters):
            found.append(self._entry(row))
            size += row.bytes
            if size >= bytes_max:
                break
        return tuple(found)

    def head(self, connection: Connection) -> int:
        """The last number given, 0 in a new log."""
        t = self._tables.sequencer
        head = connection.execute(select(t.c.head).where(t.c.id == SEQUENCER_ROW)).scalar()
        return int(head or 0)

    def lane_heads(self, connection: Connection, up_to: int) -> dict[Lane, int]:
        """By lane, its greatest number at or below `up_to`; 0 for a lane that has none.

        Of a lane that is pruned to its end nobody knows how far it went: not beyond `pruned_to`,
        which is given then, so that whoever stands before it looks.
        """
        t = self._tables.change_log
        ends = [
            select(func.max(t.c.sequence))
            .where(t.c.lane == lane.value, t.c.sequence <= up_to)
            .scalar_subquery()
            for lane in Lane
        ]
        row = connection.execute(select(*ends)).one()
        floor = min(self.pruned_to(connection), up_to)
        return {lane: max(int(last or 0), floor) for lane, last in zip(Lane, row, strict=True)}

    def end(self, connection: Connection, lane: Lane, after: int) -> LogEnd:
        """Whether a reader of `lane` at `after` has seen all of it that has committed.

        One statement, so one moment of the log.

        Raises:
            LogNotReadyError: The log's row is missing.
        """
        row = connection.execute(self._end, {"lane": lane.value, "after": after}).first()
        if row is None:
            raise LogNotReadyError("the log has no sequencer row")
        return LogEnd(int(row.head), bool(row.later))

    def pruned_to(self, connection: Connection) -> int:
        """The last number deleted, 0 if none was."""
        t = self._tables.sequencer
        pruned = connection.execute(select(t.c.pruned_to).where(t.c.id == SEQUENCER_ROW)).scalar()
        return int(pruned or 0)

    def left_unnumbered(self, connection: Connection) -> int:
        """Entries that an earlier release left without a number; 0 once the log was taken over."""
        t = self._tables.change_log
        waiting = select(func.count()).select_from(t).where(t.c.sequence.is_(null()))
        return connection.execute(waiting).scalar_one()

    def left_unnumbered_entries(self, connection: Connection) -> list[LogEntry]:
        """The entries that `left_unnumbered` counts, opened, their sequence 0; for a backup."""
        t = self._tables.change_log
        waiting = select(t).where(t.c.sequence.is_(null())).order_by(t.c.entry_id)
        return [self._entry(row, 0) for row in connection.execute(waiting)]

    def known(self, connection: Connection, origins: Collection[OriginKey]) -> frozenset[OriginKey]:
        """Those of `origins` whose entry is in the log.

        Whoever relays only the rest of an entry, the first part of which is logged, appends it with
        origin_sequence 0.
        """
        t = self._tables.change_log
        columns = (t.c.origin_node, t.c.origin_epoch, t.c.origin_sequence, t.c.form)
        keys = [(o.origin_node, o.origin_epoch, o.origin_sequence, o.form.value) for o in origins]
        found: set[OriginKey] = set()
        for start in range(0, len(keys), _KEYS_A_QUERY):
            chosen = tuple_(*columns).in_(keys[start : start + _KEYS_A_QUERY])
            found.update(
                OriginKey(node, epoch, sequence, Form(form))
                for node, epoch, sequence, form in connection.execute(
                    select(*columns).where(chosen)
                )
            )
        return frozenset(found)

    def prune(
        self,
        connection: Connection,
        up_to: int,
        *,
        entries_max: int = 10_000,
        keep: Collection[int] = (),
    ) -> int:
        """Delete numbered entries up to and including `up_to`; return how many went.

        At most `entries_max` numbers are looked at, so that no transaction grows without bound.
        Which readers may be left behind is the caller's policy; a reader left behind gets
        LogPrunedError, never a silent gap. `keep`: letters that are nowhere else stay.
        """
        t, s = self._tables.change_log, self._tables.sequencer
        state = select(s.c.head, s.c.pruned_to).where(s.c.id == SEQUENCER_ROW)
        head, pruned = connection.execute(state).one()
        last = min(up_to, head, pruned + entries_max)
        if last <= pruned:
            return 0
        going = delete(t).where(t.c.sequence > pruned, t.c.sequence <= last)
        if keep:
            going = going.where(t.c.sequence.not_in(sorted(keep)))
        gone = connection.execute(going).rowcount
        # Last, for an append waits for this row.
        moved = update(s).where(s.c.id == SEQUENCER_ROW, s.c.pruned_to == pruned)
        if connection.execute(moved.values(pruned_to=last)).rowcount != 1:
            raise SequencerFencedError("another process prunes this log")
        return gone

    def _values(self, entry: NewEntry) -> dict[str, Any]:
        uid = self._random_bytes(_UID_BYTES)
        here = entry.origin_sequence is None
        suite, key_id, payload = self._sealer.seal_named(entry.rows, self._aad(uid))
        return {
            "entry_uid": uid,
            "epoch": None,
            "sequence": None,
            "origin_node": entry.origin_node,
            "origin_epoch": None if here else entry.origin_epoch,
            "origin_sequence": entry.origin_sequence or None,
            "lane": entry.lane.value,
            "home_node": entry.home_node,
            "form": entry.form.value,
            "codec": entry.codec,
            "schema_version": entry.schema_version,
            "suite": suite,
            "key_id": key_id,
            "payload": payload,
            "row_count": entry.row_count,
            "bytes": len(entry.rows),
            "committed_at": entry.committed_at_ms,
            "audience": entry.audience.value,
        }

    def _entry(self, row: Row[Any], sequence: int | None = None) -> LogEntry:
        return LogEntry(
            sequence=row.sequence if sequence is None else sequence,
            origin_node=row.origin_node,
            origin_epoch=row.origin_epoch or 0,
            origin_sequence=row.origin_sequence or 0,
            lane=Lane(row.lane),
            home_node=row.home_node,
            form=Form(row.form),
            codec=row.codec,
            schema_version=row.schema_version,
            committed_at_ms=row.committed_at,
            row_count=row.row_count,
            rows=self._opened(row) if row.bytes else b"",
            audience=Audience(row.audience),
        )

    def _opened(self, row: Row[Any]) -> bytes:
        return self._sealer.open(bytes(row.payload), self._aad(row.entry_uid), row.key_id)

    def _aad(self, uid: bytes) -> bytes:
        """Binds a payload to its entry by what is known before the number is."""
        return b"|".join((self._node_id.encode(), b"change_log", b"payload", uid.hex().encode()))


def _numbered(entry: NewEntry, block: NumberBlock, sequence: int) -> LogEntry:
    """The entry as `read` gives it."""
    here = entry.origin_sequence is None
    return LogEntry(
        sequence=sequence,
        origin_node=entry.origin_node,
        origin_epoch=block.epoch if here else entry.origin_epoch,
        origin_sequence=sequence if here else entry.origin_sequence or 0,
        lane=entry.lane,
        home_node=entry.home_node,
        form=entry.form,
        codec=entry.codec,
        schema_version=entry.schema_version,
        committed_at_ms=entry.committed_at_ms,
        row_count=entry.row_count,
        rows=entry.rows,
        audience=entry.audience,
    )


def _by_sequence(row: Row[Any]) -> int:
    return int(row.sequence)
