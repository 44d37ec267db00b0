"""Letters in the log: which still have their payload, and the erasing of those handed on.

An erased letter stays as a number, so that the log keeps its sequence; its codec is 0 and nobody is
sent it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from replication.changelog.tables import ChangelogTables
from replication.core.model import Form, Lane

__all__ = ["CODEC_ERASED", "LetterEntries", "WaitingLetter"]

CODEC_ERASED = 0


@dataclass(frozen=True, slots=True)
class WaitingLetter:
    """A letter whose payload lies in the log, by its number there."""

    sequence: int
    lane: Lane
    origin_node: str
    home_node: str


class LetterEntries:
    """The log's entries of form sealed."""

    def __init__(self, tables: ChangelogTables) -> None:
        self._log = tables.change_log

    def waiting(self, connection: Connection, after: int, up_to: int) -> list[WaitingLetter]:
        """Letters with their payload, numbered in (after, up_to], in order. Reads no payload."""
        t = self._log
        query = (
            select(t.c.sequence, t.c.lane, t.c.origin_node, t.c.home_node)
            .where(
                t.c.sequence > after,
                t.c.sequence <= up_to,
                t.c.form == Form.SEALED.value,
                t.c.codec != CODEC_ERASED,
            )
            .order_by(t.c.sequence)
        )
        return [
            WaitingLetter(row.sequence, Lane(row.lane), row.origin_node, row.home_node)
            for row in connection.execute(query)
        ]

    def erase(self, connection: Connection, sequences: Sequence[int]) -> None:
        """Take the payload away from letters that were handed on."""
        if not sequences:
            return
        t = self._log
        connection.execute(
            update(t)
            .where(t.c.sequence.in_(sequences), t.c.form == Form.SEALED.value)
            .values(payload=b"", bytes=0, codec=CODEC_ERASED)
        )
