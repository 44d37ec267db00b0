"""The invariants of replication/GUARANTEES.md, each watched by a checker blind to the protocol.

They see what stores do and what clients were told, and keep their own books: what was acknowledged,
who holds what, which (origin, epoch, sequence) carried which content. The first breach raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from replication.core.codec import CODEC_JSON, decode_changes
from replication.core.hashing import batch_digest, running_hash
from replication.core.model import PROTOCOL_MAX, Batch, Cursor, Form, LogEntry, RowChange
from replication.core.residence import Grant
from tests.simulation.durable import Durable, EntryKey, OutLetter, entry_key, holds
from tests.simulation.post import ROWS, content_of
from tests.simulation.tree import Tree

if TYPE_CHECKING:
    from tests.simulation.store import SimStore

__all__ = ["Checkers", "ViolationError"]


class ViolationError(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


class Checkers:
    """All checkers of one schedule; a store calls them at every step, the world at the end."""

    def __init__(
        self,
        tree: Tree,
        disks: Callable[[], Mapping[str, Durable]],
        unchecked: AbstractSet[str] = frozenset(),
    ) -> None:
        self._tree = tree
        self._disks = disks
        self._unchecked = unchecked
        self.counts: Counter[str] = Counter()
        self.acknowledgements: list[RowChange] = []
        self.forgiven: set[tuple[int, str]] = set()
        self.applied_batches = 0
        self._contents: dict[tuple[str, int, int], tuple[str, int, bytes]] = {}
        self._written_at_home: dict[str, list[RowChange]] = {}
        self._marks_void: set[str] = set()
        self.grants: dict[str, Grant] = {}
        self._acknowledged_at: dict[tuple[str, str, int], int] = {}
        self._said: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
        """Versions of a row that its author acknowledged: number and place in the list."""
        self._restored_at: dict[str, int] = {}
        self._answered: dict[tuple[str, str], int] = {}
        """By row, the newest version that an author need not send again."""

    # -- I1: an acknowledged commit survives ----------------------------------------------------

    def acknowledged(self, node: str, rows: Sequence[RowChange]) -> None:
        """A client was told that its write is stored."""
        for row in rows:
            self._made_of_the_newest(row)
            name = (row.table, row.row_id, row.version.number)
            self._acknowledged_at[name] = len(self.acknowledgements)
            self.acknowledgements.append(row)

    def _made_of_the_newest(self, row: RowChange) -> None:
        """An amendment follows the newest version that its author was ever told is stored.

        Else it would hide that version everywhere, though nobody has lost it. What a restore took
        from everybody is forgiven.
        """
        said = self._said.setdefault((row.table, row.row_id, row.author_node), [])
        seen = int(row.values.get("made_of") or row.version.number)
        for number, i in said:
            if number > seen and (i, row.author_node) not in self.forgiven:
                self.fail(
                    "I2",
                    f"{row.row_id} version {row.version} was made at {row.author_node} without"
                    f" having seen version {number}, which others hold",
                )
        said.append((row.version.number, len(self.acknowledgements)))

    def recovered(self, store: SimStore) -> None:
        """A process boots: what its clients were told must be on its disk.

        What was told before its last restore comes back while it recovers.
        """
        first = self._restored_at.get(store.node_id, 0) if store.disk.recovering else 0
        for i, row in enumerate(self.acknowledgements[first:], first):
            if row.author_node == store.node_id and (i, store.node_id) not in self.forgiven:
                self._require("I1", store.node_id, store.disk, row)

    # -- I2: it reaches every node that policy names --------------------------------------------

    def arrived_everywhere(self, disks: Mapping[str, Durable]) -> None:
        """The schedule is over: every acknowledged row version is at every destination."""
        for i, row in enumerate(self.acknowledgements):
            grant = self.grants.get(row.resident_id)
            if grant is not None:
                self._moved_along(grant, row, disks)
                continue
            for node in self._tree.destinations(row.author_node, row.home_node):
                if (i, node) not in self.forgiven:
                    self._require("I2", node, disks[node], row)

    def one_content_a_version(self, disks: Mapping[str, Durable]) -> None:
        """No version of a row, under one home epoch, stands for two contents anywhere."""
        contents: dict[tuple[object, ...], tuple[str, object]] = {}
        for node, disk in disks.items():
            for key, row in disk.rows.items():
                if row.form is not Form.FULL:
                    continue
                name = (*key, row.version, row.home_epoch)
                said = (row.operation.value, sorted(row.values.items()))
                first, content = contents.setdefault(name, (node, said))
                if content != said:
                    self.fail("I3", f"{row.row_id} {row.version} differs at {first} and {node}")

    def _moved_along(self, grant: Grant, row: RowChange, disks: Mapping[str, Durable]) -> None:
        """He has moved: the version is at his new home and above, or stands there as a proposal."""
        home = disks[grant.home_node]
        before = row.table == "residents" and row.author_node != grant.home_node
        base = home.taken_from.get(row.row_id)
        if before and base is not None and base[1] < row.version:
            known = any(
                late.row_id == row.row_id and late.version >= row.version for late in home.proposals
            )
            if not known:
                self.fail("MOVE", f"{row.row_id} version {row.version} came too late and is lost")
        for node in self._tree.path_up[grant.home_node]:
            held = disks[node].rows.get((row.table, row.row_id))
            late = before and held is not None and held.author_node == grant.home_node
            if not late:
                self._require("I2", node, disks[node], row)
            if held is not None and held.home_epoch != grant.home_epoch:
                self.fail("I2", f"{row.row_id} at {node} is still under home epoch 1")

    def granted(self, grant: Grant) -> None:
        """A node has granted a move."""
        self.counts["move_granted"] += 1
        held = self.grants.setdefault(grant.resident_id, grant)
        if held != grant:
            self.fail("MOVE", f"{grant.resident_id} was granted epoch {grant.home_epoch} twice")

    def is_settled(self, disks: Mapping[str, Durable]) -> bool:
        """Whether arrived_everywhere would pass."""
        try:
            self.arrived_everywhere(disks)
        except ViolationError:
            return False
        return True

    def _require(self, invariant: str, node: str, disk: Durable, row: RowChange) -> None:
        if not holds(disk, row):
            self.fail(
                invariant,
                f"{row.row_id} version {row.version.number}, written at {row.author_node} for"
                f" {row.home_node}, is not at {node}",
            )

    def fail(self, invariant: str, what: str) -> None:
        """Raise, unless this variant does not look at the invariant."""
        if invariant not in self._unchecked:
            raise ViolationError(invariant, what)

    # -- I10: what somebody else still has comes back -------------------------------------------

    def restored(self, node: str, disks: Mapping[str, Durable], lost: Durable) -> None:
        """A node was put back to a backup: forgive exactly what no other node has any more.

        A version that its home or a node above it has (in full), or an outbox or a letter under
        way, must reach every destination, the restored node included. The copy that an author
        keeps of what it wrote for a home elsewhere counts until the home has confirmed it, whatever
        the author believes; then it is not sent again. Such a copy, once lost, comes back where the
        author's parent has it. A letter that only the hop before still carries, because the receipt
        of the node's former life is on its way there, is nobody's: `lost` is that life.
        """
        self._restored_at[node] = len(self.acknowledgements)
        if node in self._tree.villages:
            self._marks_void.add(node)
        # An addressee opens what is for it, and answers, without logging it.
        opened = lost.letters_seen.keys() - disks[node].letters_seen.keys()
        lettered = _in_letters(disks, lost.logged - disks[node].logged, node, opened)
        for i, row in enumerate(self.acknowledgements):
            places = self._tree.destinations(row.author_node, row.home_node)
            kept = _anywhere(disks, self._tree.path_up[row.home_node], row, lettered)
            if kept or self._is_owed(i, row, disks[row.author_node]):
                if node == row.author_node and not self._comes_back(row, disks):
                    self.forgiven.add((i, node))
            else:
                self.forgiven.update((i, place) for place in places)

    def _is_owed(self, i: int, row: RowChange, author: Durable) -> bool:
        """Whether an author, never put back since, still has to see that its row arrives."""
        if self._tree.is_local(row.author_node, row.home_node):
            return False
        if self._restored_at.get(row.author_node, 0) > i:
            return False  # It owes what the outbox of its backup says.
        answered = self._answered.get((row.table, row.row_id), 0)
        return answered < row.version.number and holds(author, row)

    def _comes_back(self, row: RowChange, disks: Mapping[str, Durable]) -> bool:
        """Whether an author that lost a row has a neighbour that may give it back in full."""
        author = row.author_node
        above = self._tree.parent.get(author)
        if author in self._tree.path_up[row.home_node]:
            return True
        return above is not None and _holds_full(disks[above], row)

    # -- I3, I4: exactly-once effect, versions only rise ----------------------------------------

    def put(self, store: SimStore, before: RowChange | None, after: RowChange) -> None:
        """A row is about to be written."""
        key = (after.table, after.row_id)
        version = after.version
        name = (*key, version.author_epoch, version.number, after.home_epoch)
        if name in store.disk.effects:
            self.fail(
                "I3",
                f"{after.row_id} version {version.number} took effect twice at {store.node_id}",
            )
        if before is not None and after.home_epoch < before.home_epoch:
            self.fail("MOVE", f"{after.row_id} went back to home {after.home_node}")
        moved = before is not None and after.home_epoch > before.home_epoch
        if before is not None and (
            version < before.version or (version == before.version and not moved)
        ):
            self.fail("I4", f"{after.row_id} went from version {before.version} to {version}")
        if store.node_id == after.author_node == after.home_node:
            self._written_at_home.setdefault(store.node_id, []).append(after)
        self._leak(store.node_id, after)

    # -- I9: no leak between siblings -----------------------------------------------------------

    def _leak(self, node: str, row: RowChange) -> None:
        if row.author_node != node and row.home_node not in self._tree.subtree[node]:
            self.fail("I9", f"{row.row_id} of {row.home_node} leaked to {node}")
        reduced = row.form is not Form.FULL
        if reduced != (node == self._tree.root and row.author_node != node):
            self.fail("I9", f"{row.row_id} is at {node} in form {row.form}")

    def quarantined(self, store: SimStore, peer: str, change: RowChange, cause: str) -> None:
        """A row was rejected; in a tree of honest nodes none may be."""
        if cause == "HOME_EPOCH_OLD" and change.resident_id in self.grants:
            self.counts["late_edit"] += 1
            return  # His old home sends it after him by letter.
        invariant = "I9" if cause in ("HOME_NOT_HERE", "AUTHOR_NOT_BELOW") else "I2"
        self.fail(
            invariant, f"{store.node_id} was sent {change.row_id} by {peer} and rejects it: {cause}"
        )

    def letter_refused(self, store: SimStore, peer: str, cause: str) -> None:
        """A letter came from the wrong side."""
        self.fail("I9", f"{store.node_id} refuses a letter from {peer}: {cause}")

    def letters_are_gone(self, disks: Mapping[str, Durable]) -> None:
        """Nothing is under way any more, so no log keeps what a letter said, no outbox a letter."""
        for node, disk in disks.items():
            if disk.outbox:
                self.fail("I8", f"{node} still has {len(disk.outbox)} letters pending")
            kept = [number for number in disk.log if disk.log[number].form is Form.SEALED]
            if any(disk.log[number].rows for number in kept):
                self.fail("I9", f"{node} keeps the payload of letters it has handed on")

    def confirmed(self, store: SimStore, letter: OutLetter) -> None:
        """An author believes that a letter has arrived for good.

        It is rid of the rows if a node above the addressee holds them, as the receipt means, or was
        put back after they were written.
        """
        self.counts["letter_confirmed"] += 1
        if letter.kind != ROWS:
            return
        disks = self._disks()
        # The root has reduced rows only.
        above = self._tree.path_up[letter.to][1:-1]
        for row in decode_changes(CODEC_JSON, letter.body.encode()):
            key, number = (row.table, row.row_id), row.version.number
            written_at = self._acknowledged_at.get((*key, number), -1)
            if any(
                self._restored_at.get(node, -1) > written_at or _holds_full(disks[node], row)
                for node in above
            ):
                self._answered[key] = max(number, self._answered.get(key, 0))

    def whole_again(self, store: SimStore) -> None:
        """A node has got back what its neighbours had for it."""
        self.counts["recovered"] += 1

    # -- I5: no step over a gap -----------------------------------------------------------------

    def applying(self, store: SimStore, peer: str, batch: Batch, at: Cursor | None) -> None:
        """A batch is about to be committed on top of the cursor `at`."""
        self.applied_batches += 1
        if at is None or at.stream_epoch != batch.stream_epoch:
            at = Cursor(batch.lane, batch.stream_epoch, 0, batch.covers_from)
        continues = at.number == batch.previous == batch.number - 1
        if not continues or batch.covers_from > at.covers_to:
            self.fail(
                "I5",
                f"{store.node_id} applies batch {batch.number} after {batch.previous} of {peer}"
                f" {batch.lane.name} from {batch.covers_from}, standing at {at}",
            )
        if not _is_as_sent(batch):
            self.fail("I5", f"{store.node_id} applies a batch that is not as sent")

    # -- I6: row and log entry are atomic -------------------------------------------------------

    def rows_are_logged(self, disks: Mapping[str, Durable]) -> None:
        """Every row version that was put was logged too, or waits to be numbered."""
        for node, disk in disks.items():
            logged = disk.rows_logged + sum(entry.row_count for entry in disk.unnumbered)
            if logged != disk.rows_put:
                self.fail("I6", f"{node} put {disk.rows_put} row versions and logged {logged}")

    # -- I7: a cursor never goes back except with a new epoch -----------------------------------

    def cursor_moved(
        self, store: SimStore, peer: str, before: Cursor | None, after: Cursor
    ) -> None:
        """An inbound cursor was committed."""
        self._forward("inbound", store, peer, before, after)
        if before is None or before.stream_epoch != after.stream_epoch:
            return
        if len(after.running_hash) != len(running_hash(b"", b"")):
            self.fail("I5", f"{store.node_id} saved a cursor without its hash")

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
            self.fail(
                "I7", f"{way} cursor of {store.node_id} for {peer} went back: {before} to {after}"
            )

    # -- I10 (as far as it goes here): no (origin, epoch, sequence) is used twice ----------------

    def numbered(self, store: SimStore, entry: LogEntry) -> None:
        """An entry got its number."""
        key = (store.node_id, store.disk.store_epoch, entry.sequence)
        content = (entry.origin_node, entry.lane, entry.rows)
        names = [key]
        if entry.origin_node == store.node_id and entry.origin_sequence:
            names.append((store.node_id, entry.origin_epoch, entry.origin_sequence))
        if entry.origin_sequence and entry_key(entry) in store.disk.logged:
            self.fail("I3", f"{store.node_id} logs {entry_key(entry)} twice")
        for name in names:
            if self._contents.setdefault(name, content) != content:
                self.fail("I10", f"{name} stands for two contents")

    # -- freshness: what a mark says is true ----------------------------------------------------

    def marked(self, store: SimStore) -> None:
        """A node believes it holds the first n writes of each home."""
        for home, count in store.disk.marks.items():
            if home in self._marks_void:
                continue
            for row in self._written_at_home.get(home, [])[:count]:
                if row.resident_id not in self.grants:
                    self._require("MARK", store.node_id, store.disk, row)


def _is_as_sent(batch: Batch) -> bool:
    """Whether the digest fits, of either protocol: the lane knows which one the link speaks."""
    return any(
        batch.digest
        == batch_digest(
            batch.lane,
            batch.entries,
            covers_from=batch.covers_from,
            covers_to=batch.covers_to,
            position=batch.position,
            protocol=protocol,
        )
        for protocol in (PROTOCOL_MAX, 1)
    )


def _holds_full(disk: Durable, row: RowChange) -> bool:
    return holds(disk, row) and disk.rows[row.table, row.row_id].form is Form.FULL


def _anywhere(
    disks: Mapping[str, Durable],
    places: Sequence[str],
    row: RowChange,
    lettered: Mapping[tuple[str, str], int],
) -> bool:
    """Whether the version, or a newer one, is still somewhere it can come from."""
    if any(_holds_full(disks[place], row) for place in places):
        return True
    return lettered.get((row.table, row.row_id), 0) >= row.version.number


def _in_letters(
    disks: Mapping[str, Durable],
    confirmed: AbstractSet[EntryKey],
    restored: str,
    opened: AbstractSet[str],
) -> dict[tuple[str, str], int]:
    """By row, the newest version that an outbox or a letter under way, not confirmed, carries.

    `opened`: letters that the restored node took, and has forgotten.
    """
    found: dict[tuple[str, str], int] = {}
    for disk in disks.values():
        bodies = [letter.body for letter in disk.outbox.values() if letter.kind == ROWS]
        waiting = [disk.log[number] for number in disk.sealed]
        for entry in (*waiting, *disk.unnumbered):
            if entry.form is Form.SEALED and entry.rows and entry_key(entry) not in confirmed:
                letter_id, _, kind, body = content_of(entry.rows)
                if entry.home_node == restored and letter_id in opened:
                    continue
                bodies += [body] if kind == ROWS else []
        for body in bodies:
            for row in decode_changes(CODEC_JSON, body.encode()):
                key = (row.table, row.row_id)
                found[key] = max(found.get(key, 0), row.version.number)
    return found
