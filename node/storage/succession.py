"""Which rows of a closed home its successor takes over from the nodes above, and as what.

The node above has them from the closed one; its word is judged like that of every peer. What the
successor holds itself, in a version that is not older, it takes from its own store. Reads the rows
held, writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.storage.rows import HeldRow
from node.storage.shapes import fits_schema, refuse_unspeakable
from node.storage.specs import TABLES
from replication.core.model import Form, Lane, RowChange, Version
from replication.errors import RemoteProtocolError

__all__ = ["Succession", "Taken"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of some rows; `refused` were not taken, `known` had been before."""

    rows: tuple[RowChange, ...]
    refused: int
    known: int


@dataclass(frozen=True, slots=True)
class Succession:
    """From a closed home to this node, in the hierarchy in force."""

    closed: NodeId
    here: NodeId
    hierarchy: Hierarchy

    def judge(
        self,
        given: Sequence[RowChange],
        held: Callable[[str, set[str]], Mapping[str, HeldRow]],
        own: Callable[[str, set[str]], Mapping[str, RowChange]],
    ) -> Taken:
        """Judge rows that were given. `held` and `own` read this node's, by table and row ids."""
        fit = [each for each in given if self._is_fit(each)]
        # Of a row that was given twice the newest.
        newest = {
            (each.table, each.row_id): each for each in sorted(fit, key=lambda one: one.version)
        }
        rows: list[RowChange] = []
        known = 0
        for table in sorted({table for table, _ in newest}):
            group = {row_id: each for (name, row_id), each in newest.items() if name == table}
            kept = held(table, set(group))
            done = {row_id for row_id, row in kept.items() if self._is_done(group[row_id], row)}
            known += len(done)
            may = {
                row_id: each
                for row_id, each in sorted(group.items())
                if row_id not in done and self._may_take(each, kept.get(row_id))
            }
            current = {row_id for row_id in may if _is_current(may[row_id], kept.get(row_id))}
            mine = own(table, current)
            rows += [self._as_own(mine.get(row_id, each)) for row_id, each in may.items()]
        spoken = [each for each in rows if _is_spoken(each)]
        return Taken(
            tuple(spoken), len(newest) - known - len(spoken) + len(given) - len(fit), known
        )

    def _is_fit(self, change: RowChange) -> bool:
        return (
            change.home_node == self.closed
            and change.form is Form.FULL
            and change.table in TABLES
            and _is_spoken(change)
            and fits_schema(change)
        )

    def _is_done(self, change: RowChange, held: HeldRow) -> bool:
        """Taken over before, or here for longer: the node above has nothing to say about it."""
        return held.resident_id == change.resident_id and held.home_node == self.here

    def _may_take(self, change: RowChange, held: HeldRow | None) -> bool:
        is_record = TABLES[change.table].lane is not Lane.IDENTITY
        mine = is_record and change.author_node == self.here
        if held is None:
            # What this node wrote itself it holds, or gets back by its recovery.
            return not mine
        if held.resident_id != change.resident_id:
            return False
        if mine:
            follows = held.home_node == self.closed or change.home_epoch > held.home_epoch
            return follows and held.author_node == self.here and held.version >= change.version
        return held.home_node == self.closed and (not is_record or self._may_write(change, held))

    def _may_write(self, change: RowChange, held: HeldRow) -> bool:
        """A record keeps its author, unless a successor took over."""
        author = self.hierarchy.nodes.get(NodeId(change.author_node))
        succeeded = author is not None and author.succeeds == held.author_node
        later = change.version.author_epoch > held.version.author_epoch
        return change.author_node == held.author_node or (succeeded and later)

    def _as_own(self, change: RowChange) -> RowChange:
        moved = replace(change, home_node=self.here, home_epoch=change.home_epoch + 1)
        if TABLES[change.table].lane is not Lane.IDENTITY and change.author_node != self.closed:
            return moved
        version = Version(change.version.author_epoch + 1, 1)
        return replace(moved, author_node=self.here, version=version)


def _is_current(change: RowChange, held: HeldRow | None) -> bool:
    return held is not None and held.form == Form.FULL.value and held.version >= change.version


def _is_spoken(change: RowChange) -> bool:
    try:
        refuse_unspeakable(change)
    except RemoteProtocolError:
        return False
    return True
