"""What a history may write here: a row keeps its resident and its author, as over any link."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection

from hierarchy_config.model import NodeId
from node.residence.rows import IDENTITY_TABLES
from node.storage.context import StoreContext
from node.storage.rows import HeldRow, held_rows
from replication.core.admission import Held
from replication.core.model import RowChange

__all__ = ["RowFence"]

_FIRST_LIFE = 1


class RowFence:
    """Judges rows of a history, as this home would store them, against what is held here."""

    def __init__(self, store: StoreContext) -> None:
        self._store = store

    def judged(
        self, connection: Connection, changes: Sequence[RowChange]
    ) -> tuple[list[RowChange], list[RowChange]]:
        """The rows that are newer than what is held, and those that may not be written at all."""
        ids: dict[str, set[str]] = defaultdict(set)
        for change in changes:
            ids[change.table].add(change.row_id)
        held = {table: held_rows(connection, table, ids[table]) for table in sorted(ids)}
        newer: list[RowChange] = []
        unfit: list[RowChange] = []
        for change in changes:
            row = held[change.table].get(change.row_id)
            is_newer = row is None or _offered(change) > Held(row.version, row.home_epoch)
            if not self._may_write(change, row, is_newer=is_newer):
                unfit.append(change)
            elif is_newer:
                newer.append(change)
        return newer, unfit

    def _may_write(self, change: RowChange, held: HeldRow | None, *, is_newer: bool) -> bool:
        if held is not None and held.resident_id != change.resident_id:
            return False
        if not is_newer or change.table in IDENTITY_TABLES:
            # A new home takes identity rows over from whoever had them.
            return True
        if change.author_node == self._store.node_id and not self._may_have_lost:
            # Nobody can tell this node what it wrote; under another home it is the same version.
            return held is not None and change.version <= held.version
        return held is None or self._keeps_author(change, held)

    @property
    def _may_have_lost(self) -> bool:
        """Whether this store was ever put back: then an old home may have what this node wrote.

        Recovery does not bring that: it was written away from home, and the nodes around this one
        never held it.
        """
        return self._store.recovery.active or self._store.changelog.store_epoch > _FIRST_LIFE

    def _keeps_author(self, change: RowChange, held: HeldRow) -> bool:
        """The same author, or one that took over the code of the one before."""
        if change.author_node == held.author_node:
            return True
        author = self._store.hierarchy.nodes.get(NodeId(change.author_node))
        later = change.version.author_epoch > held.version.author_epoch
        return author is not None and author.succeeds == held.author_node and later


def _offered(change: RowChange) -> Held:
    return Held(change.version, change.home_epoch)
