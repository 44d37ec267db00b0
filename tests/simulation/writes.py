"""What clients write: residents and records at villages, records of villagers at all levels."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from replication.core.model import Form, Lane, Operation, RowChange, Version
from tests.simulation.store import Durable
from tests.simulation.tree import TREE

__all__ = ["Writes"]

_RECORD_LANES = (Lane.BULK, Lane.BULK, Lane.BULK, Lane.CARE, Lane.CONTROL)


class Writes:
    """Makes the rows of one write, from what the node holds at its commit."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def make(self, node: str, disk: Durable, number: int) -> list[tuple[Lane, RowChange]]:
        """Rows with their lanes; empty if there is nothing sensible to write."""
        random = self._random
        roll = random.random()
        if roll < 0.25:
            amended = self._amend(node, disk)
            if amended:
                return amended
        if not TREE.children[node]:
            if roll < 0.45:
                row_id = _row_id(node, disk, number)
                return [
                    (Lane.IDENTITY, _row("residents", node, node, row_id + "0")),
                    (Lane.BULK, _row("bulk", node, node, row_id + "1")),
                ]
            if roll < 0.8:
                return self._records(node, node, disk, number)
        return self._records(node, self._home_for(node), disk, number)

    def _home_for(self, node: str) -> str:
        """A village at or below this node whose resident is cared for here."""
        villages = [village for village in TREE.villages if village in TREE.subtree[node]]
        return self._random.choice(villages)

    def _records(
        self, node: str, home: str, disk: Durable, number: int
    ) -> list[tuple[Lane, RowChange]]:
        count = 1 + self._random.randrange(3)
        lanes = [self._random.choice(_RECORD_LANES) for _ in range(count)]
        row_id = _row_id(node, disk, number)
        return [
            (lane, _row(lane.name.lower(), node, home, f"{row_id}{i}"))
            for i, lane in enumerate(lanes)
        ]

    def _amend(self, node: str, disk: Durable) -> list[tuple[Lane, RowChange]]:
        if disk.recovering:
            return []
        own = [row for row in disk.rows.values() if row.author_node == node]
        if not own:
            return []
        row = self._random.choice(own)
        lane = Lane.IDENTITY if row.table == "residents" else Lane[row.table.upper()]
        version = Version(row.version.author_epoch, row.version.number + 1)
        # The content is new, so that two rows of one version are told apart.
        values = {**row.values, "amended": self._random.randrange(1 << 30)}
        return [(lane, replace(row, version=version, values=values))]


def _row(table: str, author: str, home: str, row_id: str) -> RowChange:
    return RowChange(
        table=table,
        row_id=row_id,
        resident_id=f"of-{home}",
        version=Version(1, 1),
        operation=Operation.PUT,
        author_node=author,
        home_node=home,
        home_epoch=1,
        schema_version=1,
        recorded_at="2026-11-23T20:00:00.000Z",
        form=Form.FULL,
        values={"note": "x" * 40},
    )


def _row_id(author: str, disk: Durable, number: int) -> str:
    # The epoch in it stands for the randomness that keeps a restored node's new ids apart.
    return f"{author}-{disk.store_epoch}-{number}-"
