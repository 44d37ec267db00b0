"""Proposals: identity edits that an old home made late, kept until the new home decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Row, select, update
from sqlalchemy import insert as insert_into

from node.residence.tables import ResidenceTables
from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.model import RowChange

__all__ = ["ACCEPTED", "FORWARDED", "REJECTED", "WAITING", "PayloadSealer", "Proposal", "Proposals"]

WAITING: Final = "waiting"
ACCEPTED: Final = "accepted"
REJECTED: Final = "rejected"
FORWARDED: Final = "forwarded"
"""He has moved on: his present home decides."""


class PayloadSealer(Protocol):
    """Seals and opens under this node's data key: node/security's DataKeys."""

    def seal(self, clear: bytes, aad: bytes) -> bytes:
        """An envelope around `clear`, bound to `aad`."""

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """What was sealed. Raises SealBrokenError, DataKeyUnknownError."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A late edit. `change`: the row as the old home has it. Times in ms since 1970."""

    proposal_id: str
    change: RowChange
    arrived_at: int
    state: str
    decided_at: int
    decided_by: str
    reason: str


class Proposals:
    """Statements on proposals, in the caller's transaction."""

    def __init__(self, tables: ResidenceTables, node_id: str, sealer: PayloadSealer) -> None:
        self._p = tables.proposals
        self._node_id = node_id
        self._sealer = sealer

    def add(self, connection: Connection, proposal_id: str, change: RowChange, now_ms: int) -> bool:
        """Keep a late edit; False if this very edit is there already."""
        p = self._p
        same = select(p.c.proposal_id).where(
            p.c.row_id == change.row_id,
            p.c.author_node == change.author_node,
            p.c.version_epoch == change.version.author_epoch,
            p.c.version_number == change.version.number,
        )
        if connection.execute(same).first() is not None:
            return False
        connection.execute(
            insert_into(p).values(
                proposal_id=proposal_id,
                resident_id=change.resident_id,
                table_name=change.table,
                row_id=change.row_id,
                version_epoch=change.version.author_epoch,
                version_number=change.version.number,
                author_node=change.author_node,
                recorded_at=change.recorded_at,
                arrived_at=now_ms,
                state=WAITING,
                decided_at=None,
                decided_by="",
                reason="",
                payload=self._sealer.seal(encode_changes([change]), self._aad(proposal_id)),
            )
        )
        return True

    def listed(
        self,
        connection: Connection,
        *,
        resident_id: str = "",
        state: str = WAITING,
        after: str = "",
        limit: int,
    ) -> list[Proposal]:
        """Proposals in the order of their ids, which is about that of their arrival."""
        p = self._p
        query = select(p).where(p.c.proposal_id > after)
        if state:
            query = query.where(p.c.state == state)
        if resident_id:
            query = query.where(p.c.resident_id == resident_id)
        rows = connection.execute(query.order_by(p.c.proposal_id).limit(limit))
        return [self._proposal(row) for row in rows]

    def get(self, connection: Connection, proposal_id: str) -> Proposal | None:
        """One proposal, locked until the commit."""
        query = select(self._p).where(self._p.c.proposal_id == proposal_id).with_for_update()
        row = connection.execute(query).first()
        return None if row is None else self._proposal(row)

    def decide(
        self,
        connection: Connection,
        proposal_id: str,
        state: str,
        *,
        by: str,
        reason: str,
        now_ms: int,
    ) -> None:
        """Close a proposal; it stays, with who decided and why."""
        p = self._p
        connection.execute(
            update(p)
            .where(p.c.proposal_id == proposal_id)
            .values(state=state, decided_by=by[:200], reason=reason[:200], decided_at=now_ms)
        )

    def _proposal(self, row: Row[Any]) -> Proposal:
        clear = self._sealer.open(bytes(row.payload), self._aad(row.proposal_id))
        (change,) = decode_changes(CODEC_JSON, clear)
        return Proposal(
            row.proposal_id,
            change,
            row.arrived_at,
            row.state,
            row.decided_at or 0,
            row.decided_by,
            row.reason,
        )

    def _aad(self, proposal_id: str) -> bytes:
        return b"|".join((self._node_id.encode(), b"proposals", b"payload", proposal_id.encode()))
