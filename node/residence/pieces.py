"""Pieces of histories that wait for the rest of their set; in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from hierarchy_config.errors import FenheError
from node.logs import get_logger
from node.residence.errors import HandoverInvalidError
from node.residence.papers import Piece, digest_of
from node.residence.proposals import PayloadSealer
from node.residence.tables import ResidenceTables
from replication.changelog.dialects import upsert
from replication.core.model import RowChange

__all__ = ["History", "Pieces"]


@dataclass(frozen=True, slots=True)
class History:
    """A set that has come whole: what one node held of a resident, or some rows of it.

    `home_epoch`: of the move for which it was sent.
    """

    handover_id: str
    home_epoch: int
    sender: str
    whole: bool
    judged: bool
    changes: tuple[RowChange, ...]


class Pieces:
    """Statements on residence_pieces. Rows lie sealed until they are taken."""

    def __init__(self, tables: ResidenceTables, node_id: str, sealer: PayloadSealer) -> None:
        self._p = tables.pieces
        self._node_id = node_id
        self._sealer = sealer
        self._log = get_logger("residence")

    def keep(self, connection: Connection, sender: str, piece: Piece, now_ms: int) -> None:
        """Keep a piece; the same again changes nothing.

        Raises:
            HandoverInvalidError: It contradicts a piece that is held under its set's id, or the set
                is whole with it and its pieces are not of one history.
            SealBrokenError: The set is whole with it, and a piece does not open.
        """
        self._refuse_other(connection, sender, piece)
        row = {
            "handover_id": piece.handover_id,
            "number": piece.number,
            "resident_id": piece.resident_id,
            "home_epoch": piece.home_epoch,
            "sender": sender,
            "total": piece.total,
            "digest": piece.digest,
            # One column says both: a set that was judged is never whole.
            "whole": piece.whole,
            "arrived_at": now_ms,
            "body": self._sealer.seal(
                (b"1" if piece.judged else b"0") + piece.rows,
                self._aad(piece.handover_id, piece.number),
            ),
        }
        upsert(connection, self._p, [row], ["arrived_at", "body"])
        rows = self._rows(connection, piece.handover_id, piece.resident_id)
        if not rows:
            raise HandoverInvalidError("a piece of a history is held under another resident")
        if len(rows) == rows[0].total:
            self._history(rows)

    def complete(self, connection: Connection, resident_id: str) -> list[History]:
        """The sets of a resident of which every piece has come, whole ones first.

        A set that cannot be put together, as when a piece does not open, stops no other.
        """
        p = self._p
        ids = connection.execute(
            select(p.c.handover_id).where(p.c.resident_id == resident_id).distinct()
        ).scalars()
        found: list[History] = []
        for handover_id in sorted(ids):
            rows = self._rows(connection, handover_id, resident_id)
            if len(rows) == rows[0].total:
                try:
                    found.append(self._history(rows))
                except FenheError as error:
                    said = {"handover": handover_id, "code": error.code}
                    self._log.error("a history that has come cannot be read", **said)
        return sorted(found, key=lambda history: not history.whole)

    def drop(self, connection: Connection, handover_id: str) -> None:
        """Delete a set that was taken."""
        connection.execute(delete(self._p).where(self._p.c.handover_id == handover_id))

    def _refuse_other(self, connection: Connection, sender: str, piece: Piece) -> None:
        """A set's id is its sender's: nobody else adds to it, and it is about one resident."""
        p = self._p
        said = (
            piece.resident_id,
            piece.home_epoch,
            sender,
            piece.total,
            piece.digest,
            piece.whole,
        )
        query = select(p).where(p.c.handover_id == piece.handover_id).with_for_update()
        for row in connection.execute(query):
            if _about(row) != said:
                raise HandoverInvalidError("a piece of a history contradicts one that is held")

    def _rows(
        self, connection: Connection, handover_id: str, resident_id: str
    ) -> Sequence[Row[Any]]:
        p = self._p
        query = select(p).where(p.c.handover_id == handover_id, p.c.resident_id == resident_id)
        return connection.execute(query.order_by(p.c.number).with_for_update()).all()

    def _history(self, rows: Sequence[Row[Any]]) -> History:
        first = rows[0]
        opened = [
            self._sealer.open(bytes(row.body), self._aad(row.handover_id, row.number))
            for row in rows
        ]
        parts = [clear[1:] for clear in opened]
        if len({_about(row) for row in rows}) != 1 or digest_of(parts) != first.digest:
            raise HandoverInvalidError("the pieces of a history are not of one set")
        judged = all(clear[:1] == b"1" for clear in opened)
        changes: list[RowChange] = []
        for number, rows_of in enumerate(parts, start=1):
            piece = Piece(
                first.handover_id,
                first.resident_id,
                first.home_epoch,
                number,
                first.total,
                first.digest,
                bool(first.whole),
                judged,
                rows_of,
            )
            changes.extend(piece.changes())
        return History(
            first.handover_id,
            first.home_epoch,
            first.sender,
            bool(first.whole),
            judged,
            tuple(changes),
        )

    def _aad(self, handover_id: str, number: int) -> bytes:
        return b"|".join(
            (self._node_id.encode(), b"residence_pieces", handover_id.encode(), b"%d" % number)
        )


def _about(row: Row[Any]) -> tuple[str, int, str, int, str, bool]:
    """What all pieces of one set say alike."""
    return (
        row.resident_id,
        row.home_epoch,
        row.sender,
        row.total,
        row.digest,
        bool(row.whole),
    )
