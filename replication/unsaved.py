"""What a peer has said and no store has kept yet: the newest of each, one save at a time.

A durable transaction a receipt costs more than sending a small batch, so a stream saves after a
pause. What a crash loses of it, the peer says again. Knows nothing of threads or of time.
"""

from __future__ import annotations

from replication.core.model import Cursor, Lane, Mark, Receipt

__all__ = ["Unsaved"]


class Unsaved:
    """Cursors by lane, and one mark. What is taken must be saved before what is taken next."""

    def __init__(self) -> None:
        self._deliveries: dict[Lane, tuple[Cursor, Receipt | None]] = {}
        self._mark: Mark | None = None

    def note_delivery(self, cursor: Cursor, receipt: Receipt | None) -> None:
        """The lane's newest cursor; a receipt of the same batch that still waits stays with it."""
        waiting = self._deliveries.get(cursor.lane)
        if receipt is None and waiting is not None and waiting[0].is_at(cursor):
            receipt = waiting[1]
        self._deliveries[cursor.lane] = (cursor, receipt)

    def note_mark(self, mark: Mark) -> None:
        """Of each home the last word."""
        earlier = self._mark.homes if self._mark is not None else {}
        self._mark = Mark({**earlier, **mark.homes}, mark.at_sequence)

    def take_deliveries(self) -> list[tuple[Cursor, Receipt | None]]:
        """What waits to be saved."""
        taken, self._deliveries = self._deliveries, {}
        return list(taken.values())

    def take_mark(self) -> Mark | None:
        """What waits to be saved."""
        taken, self._mark = self._mark, None
        return taken
