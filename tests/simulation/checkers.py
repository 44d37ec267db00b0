"""The invariants of GUARANTEES §1, each watched by a checker that knows nothing of the protocol.

They see what stores do and what clients were told, and keep their own books: what was acknowledged,
who holds what, which (origin, epoch, sequence) carried which content. The first breach raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from replication.core.admission import Cause
from replication.core.hashing import batch_digest, running_hash
from replication.core.model import Batch, Cursor, Form, LogEntry, RowChange
from tests.simulation.store import Durable, RowKey, SimStore, entry_key
from tests.simulation.tree import CITY, TREE

__all__ = ["Checkers", "ViolationError"]


class ViolationError(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


class Checkers:
    """All checkers of one schedule; a store calls them at every step, the world at the end."""

    def __init__(self, unchecked: AbstractSet[str] = frozenset()) -> None:
        self._unchecked = unchecked
        self.acknowledgements: list[RowChange] = []
        self.forgiven: set[tuple[int, str]] = set()
        self.applied_batches = 0
        self._contents: dict[tuple[str, int, int], tuple[str, int, bytes]] = {}
        self._written_at_home: dict[str, list[RowChange]] = {}
        self._marks_void: set[str] = set()

    # -- I1: an acknowledged commit survives ----------------------------------------------------

    def acknowledged(self, node: str, rows: Sequence[RowChange]) -> None:
        """A client was told that its write is stored."""
        self.acknowledgements += rows

    def recovered(self, store: SimStore) -> None:
        """A process boots: what its clients were told must be on its disk."""
        for i, row in enumerate(self.acknowledgements):
            if row.author_node == store.node_id and (i, store.node_id) not in self.forgiven:
                self._require("I1", store.node_id, store.disk, row)

    # -- I2: it reaches every node that policy names --------------------------------------------

    def arrived_everywhere(self, disks: Mapping[str, Durable]) -> None:
        """The schedule is over: every acknowledged row version is at every destination."""
        for i, row in enumerate(self.acknowledgements):
            for node in TREE.route(row.author_node, row.home_node):
                if (i, node) not in self.forgiven:
                    self._require("I2", node, disks[node], row)

    def _require(self, invariant: str, node: str, disk: Durable, row: RowChange) -> None:
        if not _holds(disk, row):
            self._fail(
                invariant,
                f"{row.row_id} version {row.version.number}, written at {row.author_node} for"
                f" {row.home_node}, is not at {node}",
            )

    def _fail(self, invariant: str, what: str) -> None:
        if invariant not in self._unchecked:
            raise ViolationError(invariant, what)

    def restored(self, node: str, disks: Mapping[str, Durable]) -> None:
        """A node was put back to a backup: forgive exactly what nobody upstream still holds.

        What the node lost and some node before it on the row's way still has must come again.
        Filling the author itself from its parent is the next step's work (re-seeding).
        """
        if node in TREE.villages:
            self._marks_void.add(node)
        for i, row in enumerate(self.acknowledgements):
            for place, way in TREE.route(row.author_node, row.home_node).items():
                if node in way and not any(_holds(disks[step], row) for step in way):
                    self.forgiven.add((i, place))

    def is_settled(self, disks: Mapping[str, Durable]) -> bool:
        """Whether arrived_everywhere would pass."""
        try:
            self.arrived_everywhere(disks)
        except ViolationError:
            return False
        return True

    # -- I3, I4: exactly-once effect, versions only rise ----------------------------------------

    def put(self, store: SimStore, before: RowChange | None, after: RowChange) -> None:
        """A row is about to be written."""
        key = (after.table, after.row_id)
        version = after.version
        if (*key, version.author_epoch, version.number) in store.disk.effects:
            self._fail(
                "I3",
                f"{after.row_id} version {version.number} took effect twice at {store.node_id}",
            )
        if before is not None and version <= before.version:
            self._fail("I4", f"{after.row_id} went from version {before.version} to {version}")
        if store.node_id == after.author_node == after.home_node:
            self._written_at_home.setdefault(store.node_id, []).append(after)
        self._leak(store.node_id, after)

    # -- I9: no leak between siblings -----------------------------------------------------------

    def _leak(self, node: str, row: RowChange) -> None:
        below = TREE.subtree[node]
        if row.home_node not in below and row.author_node not in below:
            self._fail("I9", f"{row.row_id} of {row.home_node} leaked to {node}")
        reduced = row.form is not Form.FULL
        if reduced != (node == CITY and row.author_node != CITY):
            self._fail("I9", f"{row.row_id} is at {node} in form {row.form}")

    def quarantined(self, store: SimStore, peer: str, change: RowChange, cause: str) -> None:
        """A row was rejected; in a tree of honest nodes none may be."""
        invariant = "I9" if cause in (Cause.HOME_NOT_HERE, Cause.AUTHOR_NOT_BELOW) else "I2"
        self._fail(
            invariant, f"{store.node_id} was sent {change.row_id} by {peer} and rejects it: {cause}"
        )

    # -- I5: no step over a gap -----------------------------------------------------------------

    def applying(self, store: SimStore, peer: str, batch: Batch, at: Cursor | None) -> None:
        """A batch is about to be committed on top of the cursor `at`."""
        self.applied_batches += 1
        if at is None or at.stream_epoch != batch.stream_epoch:
            at = Cursor(batch.lane, batch.stream_epoch, 0, batch.covers_from)
        continues = at.number == batch.previous == batch.number - 1
        if not continues or batch.covers_from > at.covers_to:
            self._fail(
                "I5",
                f"{store.node_id} applies batch {batch.number} after {batch.previous} of {peer}"
                f" {batch.lane.name} from {batch.covers_from}, standing at {at}",
            )
        if batch.digest != batch_digest(batch.lane, batch.entries):
            self._fail("I5", f"{store.node_id} applies a batch that is not as sent")

    # -- I6: row and log entry are atomic -------------------------------------------------------

    def committed(self, store: SimStore) -> None:
        """A transaction with rows has just committed."""

    def rows_are_logged(self, disks: Mapping[str, Durable]) -> None:
        """Every row held stands in the node's own log or waits to be numbered."""
        for node, disk in disks.items():
            logged = sum(entry.row_count for entry in disk.log.values())
            logged += sum(entry.row_count for entry in disk.unnumbered)
            if logged != sum(disk.effects.values()):
                self._fail(
                    "I6", f"{node} holds {sum(disk.effects.values())} row versions, logged {logged}"
                )

    # -- I7: a cursor never goes back except with a new epoch -----------------------------------

    def cursor_moved(
        self, store: SimStore, peer: str, before: Cursor | None, after: Cursor
    ) -> None:
        """An inbound cursor was committed."""
        self._forward("inbound", store, peer, before, after)
        if before is None or before.stream_epoch != after.stream_epoch:
            return
        if len(after.running_hash) != len(running_hash(b"", b"")):
            self._fail("I5", f"{store.node_id} saved a cursor without its hash")

    def delivered(self, store: SimStore, peer: str, before: Cursor | None, after: Cursor) -> None:
        """An outbound cursor was committed."""
        self._forward("outbound", store, peer, before, after)

    def _forward(
        self, way: str, store: SimStore, peer: str, before: Cursor | None, after: Cursor
    ) -> None:
        if before is None:
            return
        back = after.stream_epoch < before.stream_epoch
        if after.stream_epoch == before.stream_epoch:
            back = (after.number, after.covers_to) < (before.number, before.covers_to)
            back = back or after.covers_to < before.covers_to
        if back:
            self._fail(
                "I7", f"{way} cursor of {store.node_id} for {peer} went back: {before} to {after}"
            )

    # -- I10 (as far as it goes here): no (origin, epoch, sequence) is used twice ----------------

    def numbered(self, store: SimStore, entry: LogEntry) -> None:
        """An entry got its number."""
        key = (store.node_id, store.disk.store_epoch, entry.sequence)
        content = (entry.origin_node, entry.lane, entry.rows)
        names = [key]
        if entry.origin_node == store.node_id:
            names.append((store.node_id, entry.origin_epoch, entry.origin_sequence))
        if entry.origin_sequence and entry_key(entry) in store.disk.logged:
            self._fail("I3", f"{store.node_id} logs {entry_key(entry)} twice")
        for name in names:
            if self._contents.setdefault(name, content) != content:
                self._fail("I10", f"{name} stands for two contents")

    # -- freshness: what a mark says is true ----------------------------------------------------

    def marked(self, store: SimStore) -> None:
        """A node believes it holds the first n writes of each home."""
        for home, count in store.disk.marks.items():
            if home in self._marks_void:
                continue
            for row in self._written_at_home.get(home, [])[:count]:
                self._require("MARK", store.node_id, store.disk, row)


def _holds(disk: Durable, row: RowChange) -> bool:
    key: RowKey = (row.table, row.row_id)
    held = disk.rows.get(key)
    if held is None or held.version < row.version:
        return False
    return held.version > row.version or held.values == row.values
