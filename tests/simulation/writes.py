"""What clients write: residents and records at villages, records at all levels, some far away."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from replication.core.model import Form, Lane, Operation, RowChange, Version, next_version
from tests.simulation.durable import lane_of

if TYPE_CHECKING:
    from tests.simulation.process import SimNode
    from tests.simulation.tree import Tree

__all__ = ["Writes"]

_RECORD_LANES = (Lane.BULK, Lane.BULK, Lane.BULK, Lane.CARE, Lane.CONTROL)


class Writes:
    """Makes the rows of one write, from what the node holds at its commit."""

    def __init__(self, random: Random, tree: Tree, away: float) -> None:
        self._random = random
        self._tree = tree
        self._away = away

    def make(self, node: SimNode, number: int) -> list[tuple[Lane, RowChange]]:
        """Rows with their lanes; empty if there is nothing sensible to write."""
        random, tree, here = self._random, self._tree, node.node_id
        roll = random.random()
        if roll < 0.25:
            amended = self._amend(node)
            if amended:
                return amended
        is_old = node.protocol_max < 2
        if random.random() < self._away and not is_old:
            elsewhere = [v for v in tree.villages if v not in tree.subtree[here]]
            if elsewhere:
                return self._records(node, random.choice(elsewhere), number)
        if not tree.children[here]:
            if roll < 0.45:
                row_id = _row_id(node, number)
                return [
                    (Lane.IDENTITY, _row("residents", here, here, row_id + "0", row_id + "0")),
                    (Lane.BULK, _row("bulk", here, here, row_id + "1", row_id + "0")),
                ]
            if roll < 0.8:
                return self._records(node, here, number)
        below = [village for village in tree.villages if village in tree.subtree[here]]
        return self._records(node, random.choice(below), number)

    def _records(self, node: SimNode, home: str, number: int) -> list[tuple[Lane, RowChange]]:
        count = 1 + self._random.randrange(3)
        lanes = [self._random.choice(_RECORD_LANES) for _ in range(count)]
        row_id = _row_id(node, number)
        return [
            (lane, _row(lane.name.lower(), node.node_id, home, f"{row_id}{i}"))
            for i, lane in enumerate(lanes)
        ]

    def _amend(self, node: SimNode) -> list[tuple[Lane, RowChange]]:
        disk, here = node.store.disk, node.node_id
        if disk.recovering and "amends_while_recovering" not in node.store.broken:
            return []
        local = self._tree.subtree[here]
        far = node.protocol_max >= 2
        own = [
            row
            for row in disk.rows.values()
            if row.author_node == here and (far or row.home_node in local)
        ]
        if not own:
            return []
        row = self._at_present(node, self._random.choice(own))
        if row is None:
            return []
        # A former life of this store may have given a later version away.
        epoch = 1 if "amends_under_used_versions" in node.store.broken else disk.store_epoch
        version = next_version(row.version, epoch)
        # The content is new, so that two rows of one version are told apart, and says what its
        # author had before him.
        values = {
            **row.values,
            "amended": self._random.randrange(1 << 30),
            "made_of": row.version.number,
        }
        return [(lane_of(row), replace(row, version=version, values=values))]

    def _at_present(self, node: SimNode, row: RowChange) -> RowChange | None:
        """The row under its resident's present home; None where only that home may write it."""
        if node.store.moves.may_write_as_home(row.resident_id):
            return row
        present = node.store.moves.present(row.resident_id)
        if row.table == "residents" or present is None or node.protocol_max < 2:
            return None
        return replace(row, home_node=present.home_node, home_epoch=present.home_epoch)


def _row(table: str, author: str, home: str, row_id: str, resident: str = "") -> RowChange:
    return RowChange(
        table=table,
        row_id=row_id,
        resident_id=resident or f"of-{home}",
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


def _row_id(node: SimNode, number: int) -> str:
    # The epoch in it stands for the randomness that keeps a restored node's new ids apart.
    return f"{node.node_id}-{node.store.disk.store_epoch}-{number}-"
