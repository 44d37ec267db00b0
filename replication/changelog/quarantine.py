"""Changes that were not admitted: kept sealed with their cause, tried again, closed by an exit.

One bad row must not stop a township: its batch is applied, the row waits here, and its resident
counts as not covered until it is released or discarded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, case, func, insert, null, select, update

from replication.changelog.log import PayloadSealer
from replication.changelog.tables import ChangelogTables
from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.model import Lane, LogEntry, RowChange

__all__ = ["Quarantine", "QuarantineExit", "QuarantinedChange"]

_UID_BYTES: Final = 16
_NAME_MAX: Final = 64


class QuarantineExit(StrEnum):
    """How a change left the quarantine."""

    RELEASED = "released"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class QuarantinedChange:
    """A change that waits. Times are ms since 1970 UTC; `retry_at` None: only on request."""

    item_id: int
    peer: str
    lane: Lane
    origin_node: str
    origin_epoch: int
    origin_sequence: int
    change: RowChange
    cause: str
    attempts: int
    first_at: int
    last_at: int
    retry_at: int | None


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
        """Keep a change of `entry`, or count another attempt if it waits (or waited) already.

        Args:
            connection: The transaction that applies the rest of the batch.
            peer: Who sent it.
            entry: The entry it came in; its rows are not looked at.
            change: The row, kept whole under seal.
            cause: Stable code of the refusal, at most 64 ASCII characters.
            now_ms: The node's clock.
            retry_at_ms: When to try again by itself.
        """
        t = self._table
        key = {
            "peer": peer,
            "table_name": _plain(change.table),
            "row_id": _plain(change.row_id),
            "version_epoch": change.version.author_epoch,
            "version_number": change.version.number,
            "form": change.form.value,
        }
        discarded = t.c.closed_as == QuarantineExit.DISCARDED.value
        again = connection.execute(
            update(t)
            .where(*(t.c[name] == value for name, value in key.items()))
            .values(
                attempts=t.c.attempts + 1,
                cause=cause,
                last_at=now_ms,
                retry_at=retry_at_ms,
                # What an operator discarded stays out, however often it is sent again.
                closed_as=case((discarded, t.c.closed_as), else_=null()),
                closed_at=case((discarded, t.c.closed_at), else_=null()),
            )
        )
        if again.rowcount:
            return
        uid = self._random_bytes(_UID_BYTES)
        connection.execute(
            insert(t).values(
                item_uid=uid,
                lane=entry.lane.value,
                origin_node=entry.origin_node,
                origin_epoch=entry.origin_epoch,
                origin_sequence=entry.origin_sequence,
                resident_id=_plain(change.resident_id),
                home_node=_plain(change.home_node, 32),
                author_node=_plain(change.author_node, 32),
                cause=cause,
                attempts=1,
                first_at=now_ms,
                last_at=now_ms,
                retry_at=retry_at_ms,
                suite=self._sealer.suite,
                key_id=self._sealer.key_id,
                payload=self._sealer.seal(encode_changes([change]), self._aad(uid)),
                **key,
            )
        )

    def count(self, connection: Connection) -> int:
        """Changes that wait."""
        t = self._table
        waiting = select(func.count()).select_from(t).where(t.c.closed_as.is_(null()))
        return connection.execute(waiting).scalar_one()

    def residents_by_home(self, connection: Connection) -> dict[str, int]:
        """Distinct residents with a change that waits, by home: they count as not covered."""
        t = self._table
        waiting = (
            select(t.c.home_node, func.count(t.c.resident_id.distinct()).label("residents"))
            .where(t.c.closed_as.is_(null()))
            .group_by(t.c.home_node)
        )
        return {row.home_node: row.residents for row in connection.execute(waiting)}

    def waiting(
        self,
        connection: Connection,
        *,
        after: int = 0,
        limit: int = 100,
        due_ms: int | None = None,
    ) -> list[QuarantinedChange]:
        """Changes that wait, oldest first, after item `after`; with `due_ms` only those due."""
        t = self._table
        chosen = select(t).where(t.c.item_id > after, t.c.closed_as.is_(null()))
        if due_ms is not None:
            chosen = chosen.where(t.c.retry_at <= due_ms)
        rows = connection.execute(chosen.order_by(t.c.item_id).limit(limit))
        return [self._item(row) for row in rows]

    def close(
        self, connection: Connection, item_id: int, exit_as: QuarantineExit, now_ms: int
    ) -> bool:
        """Let a change out, in the transaction that applies it; False if it was out already."""
        t = self._table
        closed = connection.execute(
            update(t)
            .where(t.c.item_id == item_id, t.c.closed_as.is_(null()))
            .values(closed_as=exit_as.value, closed_at=now_ms, retry_at=None)
        )
        return closed.rowcount == 1

    def _item(self, row: Row[Any]) -> QuarantinedChange:
        clear = self._sealer.open(bytes(row.payload), self._aad(row.item_uid), row.key_id)
        [change] = decode_changes(CODEC_JSON, clear)
        return QuarantinedChange(
            item_id=row.item_id,
            peer=row.peer,
            lane=Lane(row.lane),
            origin_node=row.origin_node,
            origin_epoch=row.origin_epoch,
            origin_sequence=row.origin_sequence,
            change=change,
            cause=row.cause,
            attempts=row.attempts,
            first_at=row.first_at,
            last_at=row.last_at,
            retry_at=row.retry_at,
        )

    def _aad(self, uid: bytes) -> bytes:
        return b"|".join((self._node_id.encode(), b"quarantine", b"payload", uid.hex().encode()))


def _plain(text: str, length: int = _NAME_MAX) -> str:
    """The word if it fits an ASCII column, else its hash; the sealed change has the word."""
    if text.isascii() and len(text) <= length:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
