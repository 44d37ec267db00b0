"""Statements on transit_in and node_certificates, in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from hierarchy_config.model import NodeId
from node.transit.model import Letter
from node.transit.tables import TransitTables
from replication.changelog.dialects import upsert

__all__ = ["Certificates", "Inbox", "KnownKey"]


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


@dataclass(frozen=True, slots=True)
class KnownKey:
    """Another node's chain, leaf first, and the name of its key."""

    node_id: NodeId
    key_id: str
    chain_pem: bytes


class Certificates:
    """Other nodes' chains."""

    def __init__(self, tables: TransitTables) -> None:
        self._table = tables.certificates

    def get(self, connection: Connection, node_id: NodeId) -> KnownKey | None:
        """The chain last learnt of a node."""
        t = self._table
        row = connection.execute(select(t).where(t.c.node_id == node_id)).first()
        return None if row is None else KnownKey(node_id, row.key_id, bytes(row.chain))

    def save(self, connection: Connection, known: KnownKey, now_ms: int) -> None:
        """Remember a chain that was verified; it replaces the one before."""
        row = {
            "node_id": known.node_id,
            "key_id": known.key_id,
            "chain": known.chain_pem,
            "learnt_at": now_ms,
        }
        upsert(connection, self._table, [row], ["key_id", "chain", "learnt_at"])

    def forget(self, connection: Connection, node_id: NodeId, key_id: str) -> None:
        """Drop a chain whose key its owner no longer has."""
        t = self._table
        connection.execute(delete(t).where(t.c.node_id == node_id, t.c.key_id == key_id))
