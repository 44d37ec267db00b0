"""What a simulated store gives a peer of its log, and of its rows where the log does not serve.

A snapshot stands in for (after, S] of the log: the rows of the tables in the order of their keys,
then the letters that still wait in it. Its position names S and the last key, nothing in memory, so
it goes on after a crash of either end. Rows changed meanwhile lie beyond S in the log.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from replication.core.coalesce import coalesce
from replication.core.codec import decode_changes, encode_changes
from replication.core.effects import SEED, LogPart
from replication.core.model import Audience, Form, Lane, LogEntry, RowChange
from replication.core.routing import goes_down, goes_up

if TYPE_CHECKING:
    from tests.simulation.store import SimStore

__all__ = ["ENTITLED", "OWNED", "RECOVERY", "PeerView", "Sending", "table_of"]

ENTITLED: Final = "S"
"""What the log would have brought, for a peer that stands before what is left of it."""
RECOVERY: Final = "R"
"""That, and what a recovering peer itself owned."""
OWNED: Final = "O"
"""Only what it owned: the rest comes from the log."""
_START: Final = "^"
_LETTERS: Final = "@"
_END: Final = "$"
_ROW_BYTES: Final = 150


@dataclass(frozen=True, slots=True)
class PeerView:
    """What a peer's Hello said of what it can take, and whether it is recovering."""

    protocol: int
    recovering: bool = False


def table_of(lane: Lane) -> str:
    """One table a lane."""
    return "residents" if lane is Lane.IDENTITY else lane.name.lower()


class Sending:
    """Reads of one store for its peers."""

    def __init__(self, store: SimStore) -> None:
        self._store = store
        self._transformed: dict[tuple[int, int], LogEntry] = {}
        self.begun = 0
        self.resumed_after = 0

    def forget(self) -> None:
        """The store was put back: numbers may name other entries now."""
        self._transformed.clear()

    def part(
        self, peer: str, lane: Lane, after: int, *, bytes_max: int, position: str, view: PeerView
    ) -> LogPart:
        """Answer a ReadLog."""
        store = self._store
        disk = store.disk
        if position == SEED:
            if disk.recovering and self._must_wait(peer):
                # What is missing here would be missing there.
                return LogPart((), after)
            # What came back here is kept from going where it came from, so the log tells not all.
            later = (entry for number, entry in disk.log.items() if number > after)
            told = all(entry.audience is Audience.EVERYBODY for entry in later)
            whole = after == 0 or after < disk.pruned_to or not told
            return self._begin(RECOVERY if whole else OWNED, peer, lane, after, bytes_max)
        if position:
            return self._snapshot(peer, lane, after, bytes_max, position)
        behind = after < disk.pruned_to and "prune_ignores_reader" not in store.broken
        if behind and view.protocol >= 2:
            return self._begin(ENTITLED, peer, lane, after, bytes_max)
        return self._log(peer, lane, after, bytes_max, view)

    def _must_wait(self, peer: str) -> bool:
        """Whether a peer that recovers is answered later: others have not given all back here.

        On a tree this cannot go round in a circle.
        """
        store = self._store
        if "recovery_answered_early" in store.broken:
            return False
        others = (each for each in store.tree.neighbours(store.node_id) if each != peer)
        return not all((each, lane) in store.disk.served for each in others for lane in Lane)

    # -- the log --------------------------------------------------------------------------------

    def _log(self, peer: str, lane: Lane, after: int, bytes_max: int, view: PeerView) -> LogPart:
        disk = self._store.disk
        found: list[LogEntry] = []
        size, scanned = 0, max(after, disk.head)
        if after < disk.lane_heads[lane]:
            for number in range(max(after, disk.pruned_to) + 1, disk.head + 1):
                entry = disk.log.get(number)
                if entry is None or entry.lane is not lane:
                    continue
                if not self._goes(entry, peer, view):
                    continue
                sent = self._transform(entry, peer)
                found.append(sent)
                size += len(sent.rows)
                if size >= bytes_max:
                    scanned = number
                    break
        if not self._store.coalescing:
            return LogPart(found, scanned)
        left, dropped = coalesce(found)
        return LogPart(left, scanned, coalesced=dropped)

    def _goes(self, entry: LogEntry, peer: str, view: PeerView) -> bool:
        store = self._store
        if entry.form is Form.SEALED and (view.protocol < 2 or not entry.rows):
            return False
        # What came from a peer is not sent back to it, unless it has lost it meanwhile.
        audience = Audience.EVERYBODY if view.recovering else entry.audience
        if "returned_stay_here" in store.broken:
            audience = entry.audience
        if peer == store.tree.parent.get(store.node_id):
            here = store.tree.subtree[store.node_id]
            upwards = audience in (Audience.EVERYBODY, Audience.ABOVE)
            return upwards and goes_up(entry.origin_node, entry.home_node, entry.form, here)
        below = store.tree.subtree[peer]
        if "route_by_author" in store.broken and entry.form is not Form.SEALED:
            return entry.origin_node not in below and entry.form is Form.FULL
        downwards = audience in (Audience.EVERYBODY, Audience.BELOW)
        return downwards and goes_down(entry.origin_node, entry.home_node, entry.form, below)

    def _transform(self, entry: LogEntry, peer: str) -> LogEntry:
        """What policy lets the peer have: the root gets reduced rows, all others full ones."""
        if peer != self._store.tree.root or entry.form is Form.SEALED:
            return entry
        key = (self._store.disk.store_epoch, entry.sequence)
        sent = self._transformed.get(key) if entry.sequence else None
        if sent is None:
            form = Form.INDEX if entry.lane is Lane.IDENTITY else Form.DEIDENTIFIED
            rows = [replace(row, form=form) for row in decode_changes(entry.codec, entry.rows)]
            sent = replace(entry, form=form, rows=encode_changes(rows), origin_sequence=0)
            if entry.sequence:
                self._transformed[key] = sent
        return sent

    # -- the rows -------------------------------------------------------------------------------

    def _begin(self, kind: str, peer: str, lane: Lane, after: int, bytes_max: int) -> LogPart:
        self.begun += 1
        begun = f"{kind}{max(after, self._store.disk.head)}:{_START}:"
        return self._snapshot(peer, lane, after, bytes_max, begun)

    def _snapshot(
        self, peer: str, lane: Lane, after: int, bytes_max: int, position: str
    ) -> LogPart:
        store = self._store
        kind, rest = position[0], position[1:]
        head_text, table, last = rest.split(":", 2)
        head = int(head_text)
        if "snapshot_covers_later" in store.broken:
            head = store.disk.head
        if table == _END:
            return LogPart((), after if kind == OWNED else max(after, head), "", coalesced=True)
        stages = [_START, table_of(lane), _LETTERS, _END]
        if "snapshot_letters_before_rows" in store.broken:
            stages = [_START, _LETTERS, table_of(lane), _END]
        if table == _START:
            table = stages[1]
        following = stages[stages.index(table) + 1]
        if table == _LETTERS:
            letters = [] if kind == OWNED else self._letters(peer, lane, after, head)
            return LogPart(letters, after, f"{kind}{head}:{following}:", coalesced=True)
        rows, last = self._rows_after(last, peer, lane, bytes_max, kind)
        table = table if last else following
        where = f"{kind}{head}:{table}:{last}"
        return LogPart(self._grouped(rows, lane, peer), after, where, coalesced=True)

    def _letters(self, peer: str, lane: Lane, after: int, head: int) -> list[LogEntry]:
        disk = self._store.disk
        if "snapshot_without_letters" in self._store.broken:
            return []
        waiting = (disk.log[number] for number in sorted(disk.sealed) if after < number <= head)
        return [e for e in waiting if e.lane is lane and self._goes(e, peer, PeerView(2))]

    def _rows_after(
        self, last: str, peer: str, lane: Lane, bytes_max: int, kind: str
    ) -> tuple[list[RowChange], str]:
        """Some rows for the peer beyond the last key, and the key reached; "" at the end."""
        disk = self._store.disk
        keys = sorted(key for key in disk.rows if key[0] == table_of(lane))
        found: list[RowChange] = []
        size = 0
        for key in keys:
            row = disk.rows[key]
            if key[1] <= last or not self._row_goes(row, peer, kind):
                continue
            found.append(row)
            size += _ROW_BYTES
            if size >= bytes_max:
                return found, key[1]
        return found, ""

    def _row_goes(self, row: RowChange, peer: str, kind: str) -> bool:
        """Whether a row is the peer's to have; a recovering one gets back what is its own too."""
        tree, here, author = self._store.tree, self._store.node_id, row.author_node
        if peer == tree.parent.get(here):
            inside, above = tree.subtree[here], tree.path_up[peer]
            routed = row.home_node in inside and (author in inside or author not in above)
            policy_is_full = peer != tree.root
            lost = author == peer or (author in above and policy_is_full)
            owned = row.form is Form.FULL and row.home_node in inside and lost
        else:
            inside = tree.subtree[peer]
            full = row.form is Form.FULL
            routed = full and row.home_node in inside and author not in inside
            from_above = author in tree.path_up[here]
            if "owned_without_letters" in self._store.broken:
                from_above = author not in inside
            owned = full and (author == peer or (row.home_node in inside and not from_above))
        return (kind != OWNED and routed) or (kind != ENTITLED and owned)

    def _grouped(self, rows: list[RowChange], lane: Lane, peer: str) -> list[LogEntry]:
        """Entries of the rows by home and origin: the author, or the home of what it got by letter.

        What a recovering peer wrote itself goes as it was written, not as policy would send it.
        """
        store = self._store
        tree, here = store.tree, store.node_id
        up = peer == tree.parent.get(here)
        inside = tree.subtree[here if up else peer]
        groups: dict[tuple[str, str], list[RowChange]] = {}
        for row in rows:
            author, home = row.author_node, row.home_node
            by_letter = home in inside and author not in inside and author not in tree.path_up[here]
            groups.setdefault((home, home if by_letter else author), []).append(row)
        made = []
        for (home, origin), some in groups.items():
            entry = store.entry(lane, home, some, 0, origin)
            made.append(entry if origin == peer else self._transform(entry, peer))
        return made
