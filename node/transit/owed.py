"""Receipts that wait for the parent: whoever holds one may rely on it that the parent has the rows.

A receipt that climbs follows the rows it speaks of, past the parent. One for an author below this
node goes down and passes nobody. So it waits until the parent has confirmed the log up to where
those rows lie: from then on this node may lose them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.transit.tables import TransitTables
from replication.changelog import ChangeLog
from replication.core.model import Lane

__all__ = ["UNPLACED", "Owed", "OwedReceipts"]

UNPLACED = 0
"""Of `answer_after`: where the rows lie is not known yet, for their transaction had no number."""
_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Owed:
    """A receipt that is owed; `after`: the sequence that the parent is to confirm first."""

    sender: NodeId
    letter_id: str
    lane: Lane
    after: int


class OwedReceipts:
    """Statements on transit_in about `answer_after`, in the caller's transaction."""

    def __init__(
        self, tables: TransitTables, changelog: ChangeLog, *, node_id: NodeId, hierarchy: Hierarchy
    ) -> None:
        self._table = tables.received
        self._changelog = changelog
        self._node_id = node_id
        self._hierarchy = hierarchy

    def waits(self, sender: NodeId) -> bool:
        """Whether a receipt to that author waits for the parent."""
        has_parent = self._hierarchy.parent(self._node_id) is not None
        return has_parent and self._hierarchy.is_in_subtree(sender, self._node_id)

    def is_open(self, connection: Connection, sender: str, letter_id: str) -> bool:
        """Whether the receipt of a letter is still owed."""
        t = self._table
        query = select(t.c.answer_after).where(t.c.sender == sender, t.c.letter_id == letter_id)
        return connection.execute(query).scalar() is not None

    def is_any(self, connection: Connection) -> bool:
        """Whether any receipt is owed: mostly none is, and then nothing need be written."""
        owed = select(self._table.c.letter_id).where(self._table.c.answer_after.is_not(None))
        return connection.execute(owed.limit(1)).first() is not None

    def place(self, connection: Connection) -> None:
        """Note where the log stands for receipts owed since the last time.

        What brought them has committed, so the rows lie at or below the ends of the lanes.
        """
        t = self._table
        lanes = connection.execute(
            select(t.c.lane).where(t.c.answer_after == UNPLACED).distinct()
        ).scalars()
        for lane in [Lane(value) for value in lanes]:
            ends = self._changelog.lane_heads(connection, self._changelog.head(connection))
            connection.execute(
                update(t)
                .where(t.c.answer_after == UNPLACED, t.c.lane == lane.value)
                .values(answer_after=max(ends[lane], UNPLACED + 1))
            )

    def due(self, connection: Connection, delivered: Callable[[Lane], int]) -> list[Owed]:
        """Some of those whose rows the parent has; `delivered`: up to where, by lane."""
        t = self._table
        found: list[Owed] = []
        for lane in Lane:
            query = (
                select(t.c.sender, t.c.letter_id, t.c.answer_after)
                .where(
                    t.c.lane == lane.value,
                    t.c.answer_after > UNPLACED,
                    t.c.answer_after <= delivered(lane),
                )
                .limit(_AT_ONCE)
            )
            found += [
                Owed(NodeId(row.sender), row.letter_id, lane, row.answer_after)
                for row in connection.execute(query)
            ]
        return found

    def settle(self, connection: Connection, owed: Owed) -> bool:
        """Note that it is answered; False if it was meanwhile."""
        t = self._table
        done = connection.execute(
            update(t)
            .where(
                t.c.sender == owed.sender,
                t.c.letter_id == owed.letter_id,
                t.c.answer_after == owed.after,
            )
            .values(answer_after=None)
        )
        return done.rowcount == 1
