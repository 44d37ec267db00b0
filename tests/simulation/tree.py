"""The simulated hierarchies: a city over 2-4-8 or 3-9-27 nodes, closures computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

__all__ = ["LARGE", "SMALL", "Tree"]

_ROOT: Final = "1410"


@dataclass(frozen=True, slots=True)
class Tree:
    """Who is above whom. Above the counties policy lets only reduced rows pass."""

    root: str
    parent: Mapping[str, str]
    children: Mapping[str, tuple[str, ...]]
    subtree: Mapping[str, frozenset[str]]
    path_up: Mapping[str, tuple[str, ...]]
    nodes: tuple[str, ...]
    villages: tuple[str, ...]

    def neighbours(self, node: str) -> tuple[str, ...]:
        """Its parent, if it has one, and its children."""
        above = self.parent.get(node)
        return (*([above] if above else ()), *self.children[node])

    def is_local(self, author: str, home: str) -> bool:
        """Whether the home is at or below the author, so that no letter is needed."""
        return home in self.subtree[author]

    def destinations(self, author: str, home: str) -> tuple[str, ...]:
        """Every node that is to hold a row: its author, its home, and what is above the home."""
        up = self.path_up[home]
        return up if author in up else (author, *up)

    def meeting(self, one: str, other: str) -> str:
        """The lowest node above both."""
        return next(node for node in self.path_up[one] if other in self.subtree[node])


@cache
def _build(fanouts: Sequence[int]) -> Tree:
    children: dict[str, tuple[str, ...]] = {}
    level = [_ROOT]
    for depth, fanout in enumerate(fanouts):
        width = 2 if depth == 0 else 3
        for node in level:
            children[node] = tuple(f"{node}{i + 1:0{width}d}" for i in range(fanout))
        level = [child for node in level for child in children[node]]
    children.update(dict.fromkeys(level, ()))
    parent = {child: node for node, below in children.items() for child in below}
    path_up: dict[str, tuple[str, ...]] = {_ROOT: (_ROOT,)}
    for node in sorted(parent, key=len):
        path_up[node] = (node, *path_up[parent[node]])
    subtree = {
        node: frozenset(other for other, path in path_up.items() if node in path)
        for node in path_up
    }
    return Tree(_ROOT, parent, children, subtree, path_up, tuple(path_up), tuple(level))


SMALL: Final = _build((2, 2, 2))
"""15 nodes."""
LARGE: Final = _build((3, 3, 3))
"""40 nodes."""
