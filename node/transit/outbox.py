"""Statements on transit_out and transit_subjects; every method works in the caller's transaction.

Bodies are sealed by the node's data key on the way in and opened on the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Row, func, or_, select, update
from sqlalchemy import insert as insert_into

from hierarchy_config.model import NodeId
from node.clock import parse_ms
from node.transit.model import Proof, SentLetter, Subject, Unanswered
from node.transit.tables import TransitTables
from replication.core.mailbox import Parcel, PostState
from replication.core.model import Lane, Version

__all__ = ["BodySealer", "Outbox"]

_LONGEST_PAUSE_MS = 6 * 3_600_000


class BodySealer(Protocol):
    """Seals and opens under this node's data key: node/security's DataKeys."""

    def seal(self, clear: bytes, aad: bytes) -> bytes:
        """An envelope around `clear`, bound to `aad`."""

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """What was sealed. Raises SealBrokenError, DataKeyUnknownError."""


class Outbox:
    """Letters written here, until their receipts and after."""

    def __init__(self, tables: TransitTables, node_id: NodeId, sealer: BodySealer) -> None:
        self._out = tables.out
        self._subjects = tables.subjects
        self._node_id = node_id
        self._sealer = sealer

    def add(self, connection: Connection, letter: SentLetter) -> None:
        """Keep a new letter."""
        parcel = letter.parcel
        connection.execute(
            insert_into(self._out).values(
                letter_id=letter.letter_id,
                to_node=letter.to,
                kind=letter.kind,
                lane=letter.lane.value,
                open_letter=letter.open_letter,
                written_at=letter.written_at,
                state=parcel.state.value,
                attempts=parcel.attempts,
                next_at=parcel.next_ms,
                code=parcel.code,
                key_id=letter.key_id,
                body=self._sealer.seal(letter.body or b"", self._aad(letter.letter_id)),
                receipt_key_id="",
            )
        )
        if letter.subjects:
            rows = [
                {
                    "letter_id": letter.letter_id,
                    "table_name": each.table,
                    "row_id": each.row_id,
                    "resident_id": each.resident_id,
                    "version_epoch": each.version.author_epoch,
                    "version_number": each.version.number,
                }
                for each in letter.subjects
            ]
            connection.execute(insert_into(self._subjects), rows)

    def get(
        self,
        connection: Connection,
        letter_id: str,
        *,
        locked: bool = False,
        with_body: bool = True,
    ) -> SentLetter | None:
        """A letter with its subjects; `locked`: until the commit.

        `with_body` False: for whoever asks what became of it. A body that does not open cannot
        keep its receipt from being taken.

        Raises:
            SealBrokenError, DataKeyUnknownError: Its body does not open.
        """
        query = select(self._out).where(self._out.c.letter_id == letter_id)
        row = connection.execute(query.with_for_update() if locked else query).first()
        return None if row is None else self._letter(connection, row, with_body=with_body)

    def due(self, connection: Connection, now_ms: int, limit: int) -> list[str]:
        """Letters about which something is to be done by now, the longest overdue first."""
        t = self._out
        overdue = or_(t.c.next_at <= now_ms, t.c.next_at > now_ms + _LONGEST_PAUSE_MS)
        query = select(t.c.letter_id).where(overdue).order_by(t.c.next_at).limit(limit)
        return [row.letter_id for row in connection.execute(query)]

    def of_row(self, connection: Connection, row_id: str) -> list[SentLetter]:
        """Letters that carry versions of a row, without their bodies, the newest version last."""
        s = self._subjects
        query = (
            select(self._out)
            .join(s, s.c.letter_id == self._out.c.letter_id)
            .where(s.c.row_id == row_id)
            .order_by(s.c.version_epoch, s.c.version_number, self._out.c.written_at)
        )
        rows = connection.execute(query).all()
        return [self._letter(connection, row, with_body=False) for row in rows]

    def save(self, connection: Connection, letter: SentLetter) -> None:
        """Keep what became of a letter. A confirmed one gives its body up."""
        parcel, proof = letter.parcel, letter.proof
        changed: dict[str, Any] = {
            "to_node": letter.to,
            "state": parcel.state.value,
            "attempts": parcel.attempts,
            "next_at": parcel.next_ms,
            "code": parcel.code,
            "key_id": letter.key_id,
        }
        if proof is not None:
            changed |= {
                "receipt_at": proof.at_ms,
                "receipt_signature": proof.signature,
                "receipt_key_id": proof.key_id,
            }
        if parcel.state is PostState.CONFIRMED:
            changed["body"] = None
        t = self._out
        connection.execute(update(t).where(t.c.letter_id == letter.letter_id).values(changed))

    def unanswered(self, connection: Connection) -> list[Unanswered]:
        """What is not confirmed, by addressee and state."""
        t = self._out
        open_states = [state.value for state in PostState if state is not PostState.CONFIRMED]
        query = (
            select(
                t.c.to_node,
                t.c.state,
                func.count(),
                func.min(t.c.written_at),
                func.max(t.c.written_at),
            )
            .where(t.c.state.in_(open_states))
            .group_by(t.c.to_node, t.c.state)
            .order_by(t.c.to_node, t.c.state)
        )
        return [
            Unanswered(NodeId(to), PostState(state), count, parse_ms(oldest), parse_ms(newest))
            for to, state, count, oldest, newest in connection.execute(query)
        ]

    def hurry(self, connection: Connection, now_ms: int) -> int:
        """Make every letter that is under way due now (mailbox.hurried, for all); how many."""
        t = self._out
        waiting = update(t).where(t.c.next_at > now_ms).values(next_at=now_ms)
        return connection.execute(waiting).rowcount

    def put_off(self, connection: Connection, letter_id: str, next_ms: int) -> None:
        """Look at a letter again at another time, whatever is the matter with it."""
        t = self._out
        waiting = update(t).where(t.c.letter_id == letter_id, t.c.next_at.is_not(None))
        connection.execute(waiting.values(next_at=next_ms))

    def _letter(self, connection: Connection, row: Row[Any], *, with_body: bool) -> SentLetter:
        s = self._subjects
        subjects: Sequence[Row[Any]] = connection.execute(
            select(s).where(s.c.letter_id == row.letter_id).order_by(s.c.row_id)
        ).all()
        body = row.body if with_body else None
        return SentLetter(
            letter_id=row.letter_id,
            to=NodeId(row.to_node),
            kind=row.kind,
            lane=Lane(row.lane),
            written_at=row.written_at,
            open_letter=bool(row.open_letter),
            parcel=Parcel(PostState(row.state), row.attempts, row.next_at, row.code),
            key_id=row.key_id,
            body=None if body is None else self._sealer.open(body, self._aad(row.letter_id)),
            subjects=tuple(
                Subject(
                    each.table_name,
                    each.row_id,
                    each.resident_id,
                    Version(each.version_epoch, each.version_number),
                )
                for each in subjects
            ),
            proof=Proof(row.receipt_at, bytes(row.receipt_signature or b""), row.receipt_key_id)
            if row.receipt_at is not None
            else None,
        )

    def _aad(self, letter_id: str) -> bytes:
        return b"|".join((self._node_id.encode(), b"transit_out", b"body", letter_id.encode()))
