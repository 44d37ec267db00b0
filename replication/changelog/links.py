"""What a node remembers of its links: cursors in and out, peers' epochs, marks, other readers.

All of it is written in the transaction whose effect it records: an inbound cursor with the rows
that were applied, an outbound one with the receipt that moved it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)

from replication.changelog.dialects import upsert
from replication.changelog.errors import CursorWentBackError
from replication.changelog.tables import ChangelogTables
from replication.core.model import Cursor, Lane, Receipt, StreamEpoch

__all__ = ["LinkState", "LogReaders", "Marks", "PeerEpoch", "StoreState"]


@dataclass(frozen=True, slots=True)
class PeerEpoch:
    """The newest life of a peer's store that was met, and its random name."""

    store_epoch: int
    incarnation: str


class LinkState:
    """Cursors by (peer, lane). A cursor never goes back except with a newer stream epoch (I7)."""

    def __init__(self, tables: ChangelogTables) -> None:
        self._tables = tables
        self._follow = _follow_statement(tables.link_inbound, tables.peer_epochs)

    def load_inbound(self, connection: Connection, peer: str) -> dict[Lane, Cursor]:
        """How far we have applied the peer's lanes."""
        return _load(connection, self._tables.link_inbound, peer)

    def save_inbound(self, connection: Connection, peer: str, cursor: Cursor) -> None:
        """Move our cursor, in the transaction that applies what it stands for.

        Raises:
            CursorWentBackError: It would go back; the transaction must not commit.
        """
        _save(connection, self._tables.link_inbound, peer, cursor, {})

    def follow_inbound(
        self, connection: Connection, peer: str, previous: int, cursor: Cursor
    ) -> bool:
        """Move our cursor if it stands at `previous` of the same stream; whether it did.

        Never for a stream of a former life of the peer's store, once a newer life was met: such a
        batch may still be on its way when the peer, put back from a backup, greets anew.

        Compares and saves in one statement, so that it may stand first in the transaction that
        applies: nobody else moves the cursor before the commit.
        """
        moved = connection.execute(
            self._follow,
            {
                "of_peer": peer,
                "of_lane": cursor.lane.value,
                "of_sender": cursor.stream_epoch.sender,
                "of_receiver": cursor.stream_epoch.receiver,
                "previous": previous,
                "to_number": cursor.number,
                "to_covers": cursor.covers_to,
                "to_hash": cursor.running_hash,
                "to_position": cursor.position,
            },
        )
        return bool(moved.rowcount)

    def load_outbound(self, connection: Connection, peer: str) -> dict[Lane, Cursor]:
        """How far the peer has told us, by receipts, that it has applied."""
        return _load(connection, self._tables.link_outbound, peer)

    def load_confirmed(self, connection: Connection, peer: str) -> dict[Lane, Cursor]:
        """Where the peer's own cursors stand: load_outbound without what was passed over since."""
        t = self._tables.link_outbound
        return {
            Lane(row.lane): replace(_cursor(row), covers_to=row.receipt_covers_to or row.covers_to)
            for row in connection.execute(select(t).where(t.c.peer == peer))
        }

    def save_outbound(
        self,
        connection: Connection,
        peer: str,
        cursor: Cursor,
        receipt: Receipt | None = None,
        receipt_at_ms: int = 0,
    ) -> None:
        """Record how far the peer has confirmed, and the receipt that proves it.

        Args:
            connection: Of the transaction.
            peer: The neighbour.
            cursor: Its covers_to may lie beyond the receipt's, by entries that were passed over.
            receipt: None where there is no new one. The one recorded stays if it is of the same
                batch; of another it proves nothing about this cursor, and goes.
            receipt_at_ms: When it came, ms since 1970 UTC.

        Raises:
            CursorWentBackError: It would take back what an earlier receipt of this stream said.
        """
        table = self._tables.link_outbound
        if receipt is None:
            self._drop_other_proof(connection, peer, cursor)
            started = {"receipt_signature": b"", "receipt_key_id": ""}
            _save(connection, table, peer, cursor, {}, started)
            return
        proof = {
            "receipt_signature": receipt.signature,
            "receipt_key_id": receipt.key_id,
            "receipt_at": receipt_at_ms,
            "receipt_covers_to": receipt.cursor.covers_to,
        }
        _save(connection, table, peer, cursor, proof)

    def _drop_other_proof(self, connection: Connection, peer: str, cursor: Cursor) -> None:
        t = self._tables.link_outbound
        epoch = cursor.stream_epoch
        is_same = and_(
            t.c.sender_epoch == epoch.sender,
            t.c.receiver_epoch == epoch.receiver,
            t.c.number == cursor.number,
        )
        connection.execute(
            update(t)
            .where(t.c.peer == peer, t.c.lane == cursor.lane.value, not_(is_same))
            .values(receipt_signature=b"", receipt_key_id="", receipt_covers_to=0)
        )

    def receipts(self, connection: Connection, peer: str) -> dict[Lane, Receipt]:
        """The receipt of each lane's cursor, as it was signed; none where it never came here."""
        t = self._tables.link_outbound
        chosen = select(t).where(t.c.peer == peer, t.c.receipt_key_id != "")
        return {
            Lane(row.lane): Receipt(
                replace(_cursor(row), covers_to=row.receipt_covers_to),
                signature=bytes(row.receipt_signature),
                key_id=row.receipt_key_id,
            )
            for row in connection.execute(chosen)
        }

    def all_cursors(
        self, connection: Connection
    ) -> tuple[dict[str, dict[Lane, Cursor]], dict[str, dict[Lane, tuple[Cursor, int]]]]:
        """By peer and lane: cursors in; cursors out with the time of their receipt, ms UTC."""
        inbound: dict[str, dict[Lane, Cursor]] = defaultdict(dict)
        outbound: dict[str, dict[Lane, tuple[Cursor, int]]] = defaultdict(dict)
        for row in connection.execute(select(self._tables.link_inbound)):
            inbound[row.peer][Lane(row.lane)] = _cursor(row)
        for row in connection.execute(select(self._tables.link_outbound)):
            outbound[row.peer][Lane(row.lane)] = (_cursor(row), row.receipt_at)
        return inbound, outbound

    def receipt_times(self, connection: Connection, peer: str) -> dict[Lane, int]:
        """When the last receipt of each lane came, ms since 1970 UTC; 0: before this was kept."""
        t = self._tables.link_outbound
        chosen = select(t.c.lane, t.c.receipt_at).where(t.c.peer == peer)
        return {Lane(row.lane): row.receipt_at for row in connection.execute(chosen)}

    def delivered_to(self, connection: Connection, peer: str) -> int:
        """Sequence up to which every lane ever sent to the peer is delivered; 0 if none was."""
        t = self._tables.link_outbound
        lowest = connection.execute(select(func.min(t.c.covers_to)).where(t.c.peer == peer))
        return int(lowest.scalar() or 0)

    def peer_epoch_seen(self, connection: Connection, peer: str) -> PeerEpoch | None:
        """The newest life of the peer's store we met; None if we never met it."""
        t = self._tables.peer_epochs
        row = connection.execute(select(t).where(t.c.peer == peer)).first()
        return None if row is None else PeerEpoch(row.store_epoch, row.incarnation)

    def save_peer_epoch(
        self, connection: Connection, peer: str, store_epoch: int, incarnation: str
    ) -> None:
        """Remember the life of the peer's store.

        Raises:
            CursorWentBackError: A newer life of it was met before.
        """
        t = self._tables.peer_epochs
        values = {"store_epoch": store_epoch, "incarnation": incarnation}
        not_back = and_(t.c.peer == peer, t.c.store_epoch <= store_epoch)
        if connection.execute(update(t).where(not_back).values(values)).rowcount:
            return
        if connection.execute(select(t.c.peer).where(t.c.peer == peer)).first() is not None:
            raise CursorWentBackError(f"{peer} says store epoch {store_epoch}, older than seen")
        connection.execute(insert(t).values(peer=peer, **values))


class Marks:
    """What is here: everything of a home up to its mark.

    The last word counts, even an earlier time: after a clock was set back, keeping the greatest
    would claim freshness that nobody has.
    """

    def __init__(self, tables: ChangelogTables) -> None:
        self._table = tables.home_marks

    def save(self, connection: Connection, homes: Mapping[str, int]) -> None:
        """Set the marks of these homes, ms since 1970 UTC."""
        rows = [{"home_node": home, "as_of_ms": at} for home, at in sorted(homes.items())]
        upsert(connection, self._table, rows, ["as_of_ms"])

    def load(self, connection: Connection) -> dict[str, int]:
        """All marks, by home."""
        return {row.home_node: row.as_of_ms for row in connection.execute(select(self._table))}


class LogReaders:
    """Cursors of readers inside the node (columnar replica, cache, push, backup), by name."""

    def __init__(self, tables: ChangelogTables) -> None:
        self._table = tables.log_readers

    def save(self, connection: Connection, name: str, sequence: int) -> None:
        """The reader has everything up to `sequence`. May go back: the reader starts over."""
        upsert(connection, self._table, [{"name": name, "sequence": sequence}], ["sequence"])

    def load(self, connection: Connection) -> dict[str, int]:
        """All readers' cursors."""
        return {row.name: row.sequence for row in connection.execute(select(self._table))}


class StoreState:
    """Small facts about the store itself: its epoch, incarnation, schema version."""

    def __init__(self, tables: ChangelogTables) -> None:
        self._table = tables.store_state

    def save(self, connection: Connection, name: str, value: str) -> None:
        """Set a fact; at most 255 characters."""
        upsert(connection, self._table, [{"name": name, "value": value}], ["value"])

    def forget(self, connection: Connection, name: str) -> None:
        """Take a fact away, if it is there."""
        connection.execute(delete(self._table).where(self._table.c.name == name))

    def load(self, connection: Connection) -> dict[str, str]:
        """All facts."""
        return {row.name: row.value for row in connection.execute(select(self._table))}


def _load(connection: Connection, table: Table, peer: str) -> dict[Lane, Cursor]:
    rows = connection.execute(select(table).where(table.c.peer == peer))
    return {Lane(row.lane): _cursor(row) for row in rows}


def _cursor(row: Row[Any]) -> Cursor:
    return Cursor(
        lane=Lane(row.lane),
        stream_epoch=StreamEpoch(row.sender_epoch, row.receiver_epoch),
        number=row.number,
        covers_to=row.covers_to,
        running_hash=bytes(row.running_hash),
        position=row.position,
    )


def _follow_statement(table: Table, epochs: Table) -> Update:
    c = table.c
    newer_life = select(epochs.c.peer).where(
        epochs.c.peer == bindparam("of_peer"), epochs.c.store_epoch > bindparam("of_sender")
    )
    return (
        update(table)
        .where(
            c.peer == bindparam("of_peer"),
            c.lane == bindparam("of_lane"),
            c.sender_epoch == bindparam("of_sender"),
            c.receiver_epoch == bindparam("of_receiver"),
            c.number == bindparam("previous"),
            c.covers_to <= bindparam("to_covers"),
            ~newer_life.exists(),
        )
        .values(
            number=bindparam("to_number"),
            covers_to=bindparam("to_covers"),
            running_hash=bindparam("to_hash"),
            position=bindparam("to_position"),
        )
    )


def _save(
    connection: Connection,
    table: Table,
    peer: str,
    cursor: Cursor,
    more: Mapping[str, Any],
    at_first: Mapping[str, Any] | None = None,
) -> None:
    """One conditional UPDATE, its row count checked; an INSERT, with `at_first`, the first time."""
    epoch, c = cursor.stream_epoch, table.c
    values = {
        "sender_epoch": epoch.sender,
        "receiver_epoch": epoch.receiver,
        "number": cursor.number,
        "covers_to": cursor.covers_to,
        "running_hash": cursor.running_hash,
        "position": cursor.position,
        **more,
    }
    same = and_(c.sender_epoch == epoch.sender, c.receiver_epoch == epoch.receiver)
    risen = and_(
        c.sender_epoch <= epoch.sender,
        c.receiver_epoch <= epoch.receiver,
        or_(c.sender_epoch < epoch.sender, c.receiver_epoch < epoch.receiver),
    )
    onward = and_(same, c.number <= cursor.number, c.covers_to <= cursor.covers_to)
    here = and_(c.peer == peer, c.lane == cursor.lane.value)
    if connection.execute(update(table).where(here, or_(onward, risen)).values(values)).rowcount:
        return
    if connection.execute(select(c.peer).where(here)).first() is not None:
        raise CursorWentBackError(
            f"{table.name} of {peer}, lane {cursor.lane.name}: {cursor.number} of stream "
            f"({epoch.sender}, {epoch.receiver}) is behind what is recorded"
        )
    first = {**values, **(at_first or {})}
    connection.execute(insert(table).values(peer=peer, lane=cursor.lane.value, **first))
