"""How often a child may ask each question over its link. Pure; time is given.

A child may be in a thief's hands. What it asks costs this node work, and some of it rows that are
kept for ever. The rates are far above what an honest child of any size asks: one comparison or one
long list of revoked keys is a few thousand questions in a row, everything else a few a minute. The
parent is not counted: it asks for people, and it can do worse than ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hierarchy_config.model import NodeId
from node.limits.buckets import Buckets

__all__ = ["COMMON", "NODES_MAX", "Rate", "Rates"]

NODES_MAX: Final = 32
"""So many nodes behind a child count at most where the rate is by node."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` questions at once after a pause, and `per_s` from then on.

    `by_node`: for each node at and below the child, because their questions come through it; so
    one of them cannot use up what the others need.
    """

    burst: int
    per_s: float
    by_node: bool = False


COMMON: Final = Rate(4096, 256.0)
"""Of a question that names no rate of its own."""


class Rates:
    """One bucket for each child and question. Keys come from handlers and the hierarchy alone."""

    def __init__(self) -> None:
        self._held: dict[tuple[NodeId, str], Buckets] = {}

    def take(self, peer: NodeId, method: str, rate: Rate, nodes: int, now_ms: int) -> int:
        """Count a question; 0, or in how many milliseconds there is room for it.

        `nodes`: how many there are at and below the peer.
        """
        held = self._held.get((peer, method))
        if held is None:
            times = min(nodes, NODES_MAX) if rate.by_node else 1
            held = Buckets(rate.per_s * times, rate.burst * times, keys_max=1)
            self._held[peer, method] = held
        return held.take("", now_ms)
