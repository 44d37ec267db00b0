"""What was acknowledged, what of it is forgiven, and where the rest must be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hierarchy_config import Hierarchy, NodeId
from tests.chaos.acknowledged import Acknowledged
from tests.chaos.restores import Forgiven

__all__ = ["Expected", "Whereabouts", "expected_of"]

Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Expected:
    """One row: the least number it must have, who wrote it when, whose home it belonged to then."""

    number: int
    author: NodeId
    home: NodeId
    resident_id: str
    load: str
    at_ms: int


def expected_of(
    noted: Iterable[Acknowledged], forgiven: Iterable[Forgiven]
) -> tuple[dict[Row, Expected], int]:
    """What must be there, and how many acknowledged row versions are forgiven.

    A version is forgiven if the node that had it alone was put back to a backup. Acknowledged
    again afterwards, the row must be there again.
    """
    pardons: dict[Row, list[Forgiven]] = defaultdict(list)
    for pardon in forgiven:
        pardons[pardon.row].append(pardon)
    expected: dict[Row, Expected] = {}
    forgiven_count = 0
    for ack in noted:
        row = (ack.table, ack.row_id)
        number = ack.number
        own = [p for p in pardons.get(row, ()) if p.node == ack.author and ack.at_ms <= p.until_ms]
        if own and number > (left := min(p.left for p in own)):
            forgiven_count += 1
            number = left
        elif pardons.get(row):
            # Written anew after the loss: it counts from there.
            number = 1
        held = expected.get(row)
        if number > (held.number if held else 0):
            expected[row] = Expected(
                number,
                NodeId(ack.author),
                NodeId(ack.home),
                ack.resident_id,
                ack.load,
                ack.at_ms,
            )
    return expected, forgiven_count


@dataclass(frozen=True)
class Whereabouts:
    """Where rows must be when all is over.

    Args:
        tree: The hierarchy at the end.
        homes: Residents who moved, by their last home.
        restored_ms: When a node was put back last.
        lost: Residents whom a restored home alone knew.
    """

    tree: Hierarchy
    homes: Mapping[str, NodeId]
    restored_ms: Mapping[NodeId, int]
    lost: frozenset[str]

    def nodes_of(self, table: str, must: Expected) -> frozenset[NodeId]:
        """The nodes that hold a row in full: its author, the home, all above it but the city.

        Who somebody is belongs to his home: one he has left keeps nothing of it.
        """
        home = self.home_of(must)
        line = frozenset(self.tree.path_to_root(home)) - {NodeId(self.tree.root)}
        if must.resident_id in self.lost:
            # His home cannot take it; it stays with its author.
            line = frozenset()
        if table == "residents" and must.resident_id in self.homes:
            return line
        if must.author in line or not self.had_alone(must):
            return line | {must.author}
        return line

    def home_of(self, must: Expected) -> NodeId:
        """Where its resident is at home now."""
        return self.homes.get(must.resident_id, must.home)

    def had_alone(self, must: Expected) -> bool:
        """Whether its author was put back since.

        His copy of what he wrote for another home is nobody's to give back to him.
        """
        return must.at_ms <= self.restored_ms.get(must.author, 0)
