"""Changes that were not admitted: kept sealed with their cause, tried again, closed by an exit.

One bad row must not stop a township: its batch is applied, the row waits here, and its resident
counts as not covered until it is released or discarded. An entry whose rows cannot be read at all
waits whole; as many residents count as not covered as it has rows by its sender's word.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Row,
    and_,
    case,
    delete,
    func,
    insert,
    not_,
    null,
    or_,
    select,
    update,
)

from replication.changelog.log import PayloadSealer
from replication.changelog.tables import ChangelogTables
from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.model import Form, Lane, LogEntry, RowChange

__all__ = [
    "KEPT_CLOSED_MS",
    "RETRY_MS_MAX",
    "RETRY_MS_MIN",
    "Quarantine",
    "QuarantineExit",
    "QuarantinedItem",
    "retry_after_ms",
]

RETRY_MS_MIN: Final = 60_000
RETRY_MS_MAX: Final = 6 * 3_600_000
KEPT_CLOSED_MS: Final = 90 * 24 * 3_600_000
"""How long what has left the quarantine can still be looked at: 90 days."""
_UID_BYTES: Final = 16
_NAME_MAX: Final = 64
_REASON_MAX: Final = 200
_ROWS_MAX: Final = 2**31 - 1


def retry_after_ms(attempts: int) -> int:
    """The pause before an item is tried again by itself: a minute, doubling up to six hours."""
    return min(RETRY_MS_MIN << min(max(attempts - 1, 0), 16), RETRY_MS_MAX)


class QuarantineExit(StrEnum):
    """How a change left the quarantine."""

    RELEASED = "released"
    DISCARDED = "discarded"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class QuarantinedItem:
    """What waits, or waited, without its content. Times are ms since 1970 UTC.

    `retry_at` None: only on request. `whole_entry`: an entry whose rows cannot be read; then
    `table`, `resident_id` and `author_node` are "", `row_id` is a hash that tells it from others,
    the version is the origin's epoch and number, and `home_epoch` is 0. `closed_as` "": it waits.
    """

    item_id: int
    peer: str
    lane: Lane
    origin_node: str
    origin_epoch: int
    origin_sequence: int
    whole_entry: bool
    row_count: int
    table: str
    row_id: str
    resident_id: str
    home_node: str
    home_epoch: int
    author_node: str
    version_epoch: int
    version_number: int
    form: Form
    cause: str
    attempts: int
    first_at: int
    last_at: int
    retry_at: int | None
    closed_as: str
    closed_at: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Kept:
    """What goes into the quarantine: what tells it from others, what is said of it, its content."""

    entry: LogEntry
    key: Mapping[str, Any]
    about: Mapping[str, Any]
    payload: bytes
    cause: str
    now_ms: int
    retry_at_ms: int | None


class Quarantine:
    """The changes of all peers that wait for a decision."""

    def __init__(
        self,
        tables: ChangelogTables,
        *,
        node_id: str,
        sealer: PayloadSealer,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._table = tables.quarantine
        self._node_id = node_id
        self._sealer = sealer
        self._random_bytes = random_bytes

    def add(
        self,
        connection: Connection,
        *,
        peer: str,
        entry: LogEntry,
        change: RowChange,
        cause: str,
        now_ms: int,
        retry_at_ms: int | None = None,
    ) -> None:
        """Keep a change of `entry`; of one that waits (or waited) already, what came last.

        The same version under another home epoch is another change: its resident has moved.

        Args:
            connection: The transaction that applies the rest of the batch.
            peer: Who sent it.
            entry: The entry it came in; its rows are not looked at.
            change: The row, kept whole under seal.
            cause: Stable code of the refusal, at most 64 ASCII characters.
            now_ms: The node's clock.
            retry_at_ms: When to try again by itself.
        """
        key = {
            "peer": peer,
            "table_name": _plain(change.table),
            "row_id": _plain(change.row_id),
            "version_epoch": change.version.author_epoch,
            "version_number": change.version.number,
            "home_epoch": change.home_epoch,
            "form": change.form.value,
        }
        about = {
            "resident_id": _plain(change.resident_id),
            "home_node": _plain(change.home_node, 32),
            "author_node": _plain(change.author_node, 32),
            "whole_entry": 0,
            "row_count": 1,
        }
        self._keep(
            connection,
            _Kept(entry, key, about, encode_changes([change]), cause, now_ms, retry_at_ms),
        )

    def add_entry(
        self,
        connection: Connection,
        *,
        peer: str,
        entry: LogEntry,
        cause: str,
        now_ms: int,
        retry_at_ms: int | None = None,
    ) -> None:
        """Keep a whole entry whose rows cannot be read. Arguments as for `add`."""
        said = f"{entry.origin_node}|{entry.codec}|".encode() + entry.rows
        key = {
            "peer": peer,
            "table_name": "",
            "row_id": hashlib.sha256(said).hexdigest(),
            "version_epoch": entry.origin_epoch,
            "version_number": entry.origin_sequence,
            "home_epoch": 0,
            "form": entry.form.value,
        }
        about = {
            "resident_id": "",
            "home_node": _plain(entry.home_node, 32),
            "author_node": "",
            "whole_entry": 1,
            "row_count": min(max(entry.row_count, 1), _ROWS_MAX),
        }
        head = json.dumps([entry.codec, entry.schema_version, entry.committed_at_ms]).encode()
        payload = head + b"\n" + entry.rows
        self._keep(connection, _Kept(entry, key, about, payload, cause, now_ms, retry_at_ms))

    def _keep(self, connection: Connection, kept: _Kept) -> None:
        t, entry = self._table, kept.entry
        same = (t.c[name] == value for name, value in kept.key.items())
        found = select(t.c.item_id, t.c.closed_as).where(*same).with_for_update()
        held = connection.execute(found).first()
        counted = {"attempts": t.c.attempts + 1, "cause": kept.cause, "last_at": kept.now_ms}
        if held is not None and held.closed_as == QuarantineExit.DISCARDED.value:
            # What an operator discarded stays out, however often it is sent again.
            connection.execute(update(t).where(t.c.item_id == held.item_id).values(counted))
            return
        uid = self._random_bytes(_UID_BYTES)
        suite, key_id, payload = self._sealer.seal_named(kept.payload, self._aad(uid))
        content = {
            "item_uid": uid,
            "lane": entry.lane.value,
            "origin_node": entry.origin_node,
            "origin_epoch": entry.origin_epoch,
            "origin_sequence": entry.origin_sequence,
            "retry_at": kept.retry_at_ms,
            "suite": suite,
            "key_id": key_id,
            "payload": payload,
            **kept.about,
        }
        if held is not None:
            opened = {**content, **counted, "closed_as": None, "closed_at": None}
            connection.execute(update(t).where(t.c.item_id == held.item_id).values(opened))
            return
        first = {"attempts": 1, "cause": kept.cause, "first_at": kept.now_ms}
        connection.execute(insert(t).values(**kept.key, **content, **first, last_at=kept.now_ms))

    def count(self, connection: Connection) -> int:
        """Items that wait."""
        t = self._table
        waiting = select(func.count()).select_from(t).where(t.c.closed_as.is_(null()))
        return connection.execute(waiting).scalar_one()

    def by_cause(self, connection: Connection) -> dict[str, int]:
        """Items that wait, by cause."""
        t = self._table
        waiting = (
            select(t.c.cause, func.count().label("items"))
            .where(t.c.closed_as.is_(null()))
            .group_by(t.c.cause)
        )
        return {row.cause: row.items for row in connection.execute(waiting)}

    def residents_by_home(self, connection: Connection) -> dict[str, int]:
        """Residents with a change that waits, by home: they count as not covered.

        An entry that cannot be read stands for as many residents as it has rows.
        """
        t = self._table
        whole = t.c.whole_entry == 1
        waiting = (
            select(
                t.c.home_node,
                func.count(case((whole, null()), else_=t.c.resident_id).distinct()).label("named"),
                func.coalesce(func.sum(case((whole, t.c.row_count), else_=0)), 0).label("unread"),
            )
            .where(t.c.closed_as.is_(null()))
            .group_by(t.c.home_node)
        )
        return {
            row.home_node: int(row.named) + int(row.unread) for row in connection.execute(waiting)
        }

    def waiting(
        self,
        connection: Connection,
        *,
        after: int = 0,
        limit: int = 100,
        cause: str = "",
        resident_id: str = "",
        due_ms: int | None = None,
    ) -> list[QuarantinedItem]:
        """Items that wait, oldest first, after item `after`.

        Args:
            connection: In a transaction.
            after: The last item seen before.
            limit: How many at most.
            cause: Only of this cause; "" for all.
            resident_id: Only of this resident; "" for all.
            due_ms: Only those to be tried again by then.
        """
        t = self._table
        chosen = self._shown().where(t.c.item_id > after, t.c.closed_as.is_(null()))
        if cause:
            chosen = chosen.where(t.c.cause == cause)
        if resident_id:
            chosen = chosen.where(t.c.resident_id == resident_id)
        if due_ms is not None:
            chosen = chosen.where(t.c.retry_at <= due_ms)
        rows = connection.execute(chosen.order_by(t.c.item_id).limit(limit))
        return [_item(row) for row in rows]

    def item(
        self, connection: Connection, item_id: int, *, locked: bool = False
    ) -> QuarantinedItem | None:
        """One item, open or closed; `locked`: until the commit."""
        chosen = self._shown().where(self._table.c.item_id == item_id)
        row = connection.execute(chosen.with_for_update() if locked else chosen).first()
        return None if row is None else _item(row)

    def change(self, connection: Connection, item: QuarantinedItem) -> RowChange:
        """The row that waits, opened. Not for a whole entry."""
        [change] = decode_changes(CODEC_JSON, self._opened(connection, item.item_id))
        return change

    def entry(self, connection: Connection, item: QuarantinedItem) -> LogEntry:
        """The entry that waits, opened, or the row in an entry of its own.

        Its origin's number is withheld: the log may hold the entry it came in, without it.
        """
        clear = self._opened(connection, item.item_id)
        codec, schema_version, committed_at_ms = CODEC_JSON, 1, item.first_at
        if item.whole_entry:
            head, _, clear = clear.partition(b"\n")
            codec, schema_version, committed_at_ms = json.loads(head)
        return LogEntry(
            sequence=0,
            origin_node=item.origin_node,
            origin_epoch=item.origin_epoch,
            origin_sequence=0,
            lane=item.lane,
            home_node=item.home_node,
            form=item.form,
            codec=codec,
            schema_version=schema_version,
            committed_at_ms=committed_at_ms,
            row_count=item.row_count,
            rows=clear,
        )

    def postpone(
        self,
        connection: Connection,
        item_id: int,
        *,
        cause: str,
        now_ms: int,
        retry_at_ms: int | None,
    ) -> None:
        """Count another attempt at an item that still waits."""
        t = self._table
        connection.execute(
            update(t)
            .where(t.c.item_id == item_id, t.c.closed_as.is_(null()))
            .values(attempts=t.c.attempts + 1, cause=cause, last_at=now_ms, retry_at=retry_at_ms)
        )

    def hurry(
        self, connection: Connection, resident_id: str, causes: Collection[str], now_ms: int
    ) -> None:
        """Make due what waits for something about a resident that has come by now.

        Letters and rows without a name do not say whose they are: all of them are.
        """
        t = self._table
        waits = (t.c.closed_as.is_(null()), t.c.cause.in_(sorted(causes)), t.c.retry_at > now_ms)
        his = or_(t.c.resident_id.in_((resident_id, "")), t.c.form == Form.DEIDENTIFIED.value)
        connection.execute(update(t).where(*waits, his).values(retry_at=now_ms))

    def close(
        self,
        connection: Connection,
        item_id: int,
        exit_as: QuarantineExit,
        now_ms: int,
        reason: str = "",
    ) -> bool:
        """Let an item out, in the transaction that applies it; False if it was out already."""
        t = self._table
        closed = connection.execute(
            update(t)
            .where(t.c.item_id == item_id, t.c.closed_as.is_(null()))
            .values(
                closed_as=exit_as.value,
                closed_at=now_ms,
                retry_at=None,
                reason=reason[:_REASON_MAX],
            )
        )
        return closed.rowcount == 1

    def forget_closed(self, connection: Connection, *, now_ms: int, limit: int) -> int:
        """Delete up to `limit` items closed KEPT_CLOSED_MS ago; how many. What waits never goes.

        Of what an operator discarded the content goes and the item stays: it is for good.
        """
        t = self._table
        old = (t.c.closed_as.is_not(null()), t.c.closed_at <= now_ms - KEPT_CLOSED_MS)
        discarded = t.c.closed_as == QuarantineExit.DISCARDED.value
        full = and_(discarded, t.c.payload != b"")
        found = select(t.c.item_id).where(*old, or_(not_(discarded), full)).limit(limit)
        ids = list(connection.execute(found).scalars())
        if ids:
            # Compared once more: what has come again since then waits again.
            these = (t.c.item_id.in_(ids), *old)
            connection.execute(delete(t).where(*these, not_(discarded)))
            connection.execute(update(t).where(*these, discarded).values(payload=b""))
        return len(ids)

    def _shown(self) -> Any:
        t = self._table
        return select(*(column for column in t.c if column.name not in {"payload", "item_uid"}))

    def _opened(self, connection: Connection, item_id: int) -> bytes:
        t = self._table
        row = connection.execute(
            select(t.c.payload, t.c.item_uid, t.c.key_id).where(t.c.item_id == item_id)
        ).one()
        return self._sealer.open(bytes(row.payload), self._aad(row.item_uid), row.key_id)

    def _aad(self, uid: bytes) -> bytes:
        return b"|".join((self._node_id.encode(), b"quarantine", b"payload", uid.hex().encode()))


def _item(row: Row[Any]) -> QuarantinedItem:
    return QuarantinedItem(
        item_id=row.item_id,
        peer=row.peer,
        lane=Lane(row.lane),
        origin_node=row.origin_node,
        origin_epoch=row.origin_epoch,
        origin_sequence=row.origin_sequence,
        whole_entry=bool(row.whole_entry),
        row_count=row.row_count,
        table=row.table_name,
        row_id=row.row_id,
        resident_id=row.resident_id,
        home_node=row.home_node,
        home_epoch=row.home_epoch,
        author_node=row.author_node,
        version_epoch=row.version_epoch,
        version_number=row.version_number,
        form=Form(row.form),
        cause=row.cause,
        attempts=row.attempts,
        first_at=row.first_at,
        last_at=row.last_at,
        retry_at=row.retry_at,
        closed_as=row.closed_as or "",
        closed_at=row.closed_at or 0,
        reason=row.reason,
    )


def _plain(text: str, length: int = _NAME_MAX) -> str:
    """The word if it fits an ASCII column, else its hash; the sealed change has the word."""
    if text.isascii() and len(text) <= length:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
