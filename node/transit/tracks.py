"""What this node's database tells of a record's way: its entry in the log, receipts, outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, func, select

from node.storage.specs import TABLES
from node.transit.envelope import read_envelope
from node.transit.errors import TransitError
from node.transit.inbox import Inbox
from replication.changelog import ChangeLog, LinkState, Quarantine, read_transaction
from replication.changelog.tables import ChangelogTables
from replication.core.codec import decode_changes
from replication.core.model import Form, Lane
from replication.errors import RemoteProtocolError

__all__ = ["Origin", "RowTrack", "Tracks"]

_TAKEN_WITHIN_MS: Final = 5_000
"""A letter's rows are logged by its home within so long before their outcome is decided."""
_ITEMS_LOOKED_AT: Final = 500
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Origin:
    """An entry of the log: its number here, and by whom and as what it was first committed."""

    here: int
    node: str
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class RowTrack:
    """A row and the entry that took it on its way; `origin` None: the log no longer has it."""

    table: str
    lane: Lane
    home_node: str
    origin: Origin | None


class Tracks:
    """Reads for `fenhe record where`. Every method blocks."""

    def __init__(
        self,
        engine: Engine,
        tables: ChangelogTables,
        *,
        node_id: str,
        changelog: ChangeLog,
        quarantine: Quarantine,
        inbox: Inbox,
    ) -> None:
        self._engine = engine
        self._log = tables.change_log
        self._node_id = node_id
        self._changelog = changelog
        self._quarantine = quarantine
        self._inbox = inbox
        self._links = LinkState(tables)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run in a transaction that only reads."""
        with read_transaction(self._engine) as connection:
            return work(connection)

    def row(self, origin: str, home: str, lane: Lane, from_ms: int, to_ms: int) -> Origin | None:
        """The newest entry of an origin for a home that was committed at that time."""
        t = self._log
        newest = select(func.max(t.c.sequence)).where(
            t.c.origin_node == origin,
            t.c.home_node == home,
            t.c.lane == lane.value,
            t.c.form == Form.FULL.value,
            t.c.committed_at >= from_ms,
            t.c.committed_at <= to_ms,
        )

        def work(connection: Connection) -> Origin | None:
            return self._origin(connection, connection.execute(newest).scalar())

        return self.read(work)

    def relayed(self, origin: str, epoch: int, sequence: int) -> Origin | None:
        """The entry of that origin, as this node has it in its log."""
        t = self._log
        query = select(t.c.sequence).where(
            t.c.origin_node == origin,
            t.c.origin_epoch == epoch,
            t.c.origin_sequence == sequence,
            t.c.form == Form.FULL.value,
        )

        def work(connection: Connection) -> Origin | None:
            return self._origin(connection, connection.execute(query).scalar())

        return self.read(work)

    def delivered(self, peer: str, lane: Lane) -> tuple[int, int]:
        """How far a neighbour has confirmed a lane, and when he last did, ms since 1970 (or 0)."""

        def work(connection: Connection) -> tuple[int, int]:
            cursor = self._links.load_outbound(connection, peer).get(lane)
            at_ms = self._links.receipt_times(connection, peer).get(lane, 0)
            return (cursor.covers_to if cursor is not None else 0), at_ms

        return self.read(work)

    def received(self, sender: str, letter_id: str) -> tuple[str | None, int]:
        """What became of a letter addressed here, and when; (None, 0): it has not come."""

        def work(connection: Connection) -> tuple[str | None, int]:
            at_ms = self._inbox.arrived_at(connection, sender, letter_id)
            if at_ms is None:
                return None, 0
            return self._inbox.outcome(connection, sender, letter_id), at_ms

        return self.read(work)

    def taken(self, sender: str, at_ms: int) -> RowTrack | None:
        """The rows of a sender that were logged here as this node's when his letter was taken."""
        t = self._log
        query = (
            select(t.c.sequence)
            .where(
                t.c.origin_node == self._node_id,
                t.c.home_node == self._node_id,
                t.c.form == Form.FULL.value,
                t.c.committed_at >= at_ms - _TAKEN_WITHIN_MS,
                t.c.committed_at <= at_ms,
            )
            .order_by(t.c.sequence.desc())
        )

        def work(connection: Connection) -> RowTrack | None:
            for sequence in connection.execute(query).scalars():
                if sequence is None:
                    continue
                part = self._changelog.read(
                    connection, after=sequence - 1, lane=None, bytes_max=1, up_to=sequence
                )
                for entry in part.entries:
                    try:
                        rows = decode_changes(entry.codec, entry.rows)
                    except RemoteProtocolError:
                        continue
                    table = next((row.table for row in rows if row.author_node == sender), "")
                    if table in TABLES:
                        origin = self._origin(connection, sequence)
                        return RowTrack(table, entry.lane, entry.home_node, origin)
            return None

        return self.read(work)

    def quarantined(self, letter_id: str, sender: str, to: str) -> str:
        """The cause for which a letter waits in this node's quarantine; "" if it does not."""

        def work(connection: Connection) -> str:
            for item in self._quarantine.waiting(connection, limit=_ITEMS_LOOKED_AT):
                if item.form is not Form.SEALED or item.origin_node != sender:
                    continue
                entry = self._quarantine.entry(connection, item)
                try:
                    header = read_envelope(entry.codec, entry.rows).header
                except TransitError:
                    continue
                if (header.letter_id, header.to) == (letter_id, to):
                    return item.cause
            return ""

        return self.read(work)

    def _origin(self, connection: Connection, sequence: int | None) -> Origin | None:
        if not sequence:
            return None
        t = self._log
        row = connection.execute(
            select(t.c.origin_node, t.c.origin_epoch, t.c.origin_sequence).where(
                t.c.sequence == sequence
            )
        ).first()
        if row is None:
            return None
        return Origin(sequence, row.origin_node, row.origin_epoch, row.origin_sequence or 0)
