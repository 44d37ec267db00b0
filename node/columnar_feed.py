"""Feeds the columnar replica: from the log, or from the tables where the log was pruned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from federation.columnar import COLUMN_NAMES, ColumnarChanges
from node.logs import get_logger
from node.storage import Storage
from node.storage.columnar_source import COLUMNAR_DATASETS
from node.storage.model import ColumnarChanges as StoredChanges
from replication.changelog import LogPrunedError

__all__ = ["StorageSource"]


@dataclass(frozen=True, slots=True)
class _Walk:
    """A reading of the tables under way: where the replica stands meanwhile, and what is next.

    `head`: the log's end when it was begun; from there the log goes on.
    """

    at: int
    head: int
    dataset: int
    row_id: str


class StorageSource:
    """federation.columnar.ReplicaSource over this node's storage. One feeder at a time.

    A replica that stands before what is left of the log is emptied and fed with the tables' current
    rows. Until the last of them it stands at small numbers, which the pruned log does not reach
    either: after a crash it begins anew.
    """

    def __init__(self, storage: Storage, head: Callable[[], int]) -> None:
        """`head` returns the log's durable end."""
        self._storage = storage
        self._head = head
        self._walk: _Walk | None = None
        self._log = get_logger("questions")
        self.rebuild: Callable[[], None] = lambda: None
        """Empties the replica, which then stands at 0; set once it is open."""

    def columnar_changes(self, after: int, limit: int) -> ColumnarChanges:
        """Current rows touched by the log after a sequence, as tuples in the schema's order."""
        if self._walk is not None and self._walk.at == after:
            return self._next(self._walk, limit)
        self._walk = None
        try:
            changes = self._storage.columnar_changes(after, limit, up_to=self._head())
        except LogPrunedError:
            self._log.warning("columnar replica fed from the tables", after=after)
            head = self._head()
            self.rebuild()
            return self._next(_Walk(0, head, 0, ""), limit)
        return _as_tuples(changes)

    def _next(self, walk: _Walk, limit: int) -> ColumnarChanges:
        dataset = COLUMNAR_DATASETS[walk.dataset].name
        found = self._storage.columnar_rows(dataset, walk.row_id, limit)
        rows = found.rows.get(dataset, ())
        if len(found.seen) == limit:
            after = _Walk(walk.at + 1, walk.head, walk.dataset, found.seen[-1])
        else:
            after = _Walk(walk.at + 1, walk.head, walk.dataset + 1, "")
        ended = after.dataset == len(COLUMNAR_DATASETS)
        self._walk = None if ended else after
        up_to = walk.head if ended else after.at
        return _as_tuples(StoredChanges(up_to, walk.head, {dataset: rows} if rows else {}, {}))


def _as_tuples(changes: StoredChanges) -> ColumnarChanges:
    rows = {
        dataset: [tuple(row[name] for name in COLUMN_NAMES[dataset]) for row in group]
        for dataset, group in changes.rows.items()
    }
    return ColumnarChanges(changes.up_to, rows, changes.deleted)
