"""The protocol as it is, and variants of it with one rule removed that the checkers must catch.

A variant that another rule would cover for removes that one too (`broken` names several): defences
hide bugs from each other, and each is to be shown to matter. `faults` narrows the schedule to what
can hurt, so that a bug is found within few seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from replication.core.link import LinkEnd
from tests.simulation.tree import TREE

__all__ = ["REAL", "Variant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A protocol under test.

    Args:
        caught_by: Invariants any of which may be the first to break; empty for the real protocol.
        faults: Kinds to draw from; empty: each schedule draws its own.
    """

    name: str
    link_end: type[LinkEnd] = LinkEnd
    broken: frozenset[str] = field(default_factory=frozenset)
    caught_by: frozenset[str] = field(default_factory=frozenset)
    faults: tuple[str, ...] = ()
    fault_count_max: int = 14
    fault_nodes: tuple[str, ...] = TREE.nodes
    write_nodes: tuple[str, ...] = (*TREE.villages, *TREE.nodes)
    writes: int = 45


REAL = Variant(name="real")
