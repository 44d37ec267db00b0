"""Statements on transit_in, in the caller's transaction."""

from __future__ import annotations

from sqlalchemy import Connection, select

from node.transit.model import Letter
from node.transit.tables import TransitTables
from replication.changelog.dialects import upsert

__all__ = ["Inbox"]


class Inbox:
    """Which letters came, and what was answered."""

    def __init__(self, tables: TransitTables) -> None:
        self._table = tables.received

    def outcome(self, connection: Connection, sender: str, letter_id: str) -> str | None:
        """What became of a letter: "" accepted, a code; None: it has not come. Locked."""
        t = self._table
        query = select(t.c.outcome).where(t.c.sender == sender, t.c.letter_id == letter_id)
        row = connection.execute(query.with_for_update()).first()
        return None if row is None else str(row.outcome)

    def arrived_at(self, connection: Connection, sender: str, letter_id: str) -> int | None:
        """When its outcome was last decided, ms since 1970; None: it has not come."""
        t = self._table
        query = select(t.c.arrived_at).where(t.c.sender == sender, t.c.letter_id == letter_id)
        row = connection.execute(query).first()
        return None if row is None else int(row.arrived_at)

    def save(
        self,
        connection: Connection,
        letter: Letter,
        outcome: str,
        now_ms: int,
        *,
        answer_after: int | None = None,
    ) -> None:
        """Remember what became of a letter; `answer_after`: see OwedReceipts, None: answered."""
        row = {
            "sender": letter.sender,
            "letter_id": letter.letter_id,
            "kind": letter.kind,
            "outcome": outcome,
            "arrived_at": now_ms,
            "lane": letter.lane.value,
            "answer_after": answer_after,
        }
        changed = ["kind", "outcome", "arrived_at", "lane", "answer_after"]
        upsert(connection, self._table, [row], changed)
