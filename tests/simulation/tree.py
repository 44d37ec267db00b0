"""The simulated hierarchy: one city, two counties, four townships, eight villages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["CITY", "TREE", "Tree"]

CITY: Final = "1410"


@dataclass(frozen=True, slots=True)
class Tree:
    """Who is above whom, with closures computed once."""

    parent: Mapping[str, str]
    children: Mapping[str, tuple[str, ...]]
    subtree: Mapping[str, frozenset[str]]
    path_up: Mapping[str, tuple[str, ...]]

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(self.path_up)

    @property
    def villages(self) -> tuple[str, ...]:
        return tuple(n for n in self.nodes if not self.children[n])

    def route(self, author: str, home: str) -> dict[str, tuple[str, ...]]:
        """Every node a full record must reach, and by which nodes (itself last) it gets there.

        It climbs from its author to the root, and goes down to its home from the lowest node above
        both, unless that is the city, which holds no full rows but its own.
        """
        up = self.path_up[author]
        ways = {node: up[: i + 1] for i, node in enumerate(up)}
        meeting = next(node for node in up if home in self.subtree[node])
        if meeting == CITY and author != CITY:
            return ways
        down = self.path_up[home][: self.path_up[home].index(meeting)]
        way = ways[meeting]
        for node in reversed(down):
            way = (*way, node)
            ways[node] = way
        return ways


def _build() -> Tree:
    children: dict[str, tuple[str, ...]] = {CITY: ("141002", "141024")}
    for county in children[CITY]:
        children[county] = (county + "001", county + "002")
        for township in children[county]:
            children[township] = (township + "201", township + "202")
            children.update(dict.fromkeys(children[township], ()))
    parent = {child: node for node, below in children.items() for child in below}
    path_up: dict[str, tuple[str, ...]] = {CITY: (CITY,)}
    for node in sorted(parent, key=len):
        path_up[node] = (node, *path_up[parent[node]])
    subtree = {
        node: frozenset(other for other, path in path_up.items() if node in path)
        for node in path_up
    }
    return Tree(parent, children, subtree, path_up)


TREE: Final = _build()
