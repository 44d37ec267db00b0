"""Letters of a simulated node: the outbox, what passes through, what arrives, the receipts.

The decisions are those of replication/core/mailbox.py; here is only what a store does with them.
The receipt is a letter that follows the rows in the same lane of the addressee's log: whoever holds
it knows that the addressee's parent holds the rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from replication.core.codec import CODEC_JSON, decode_changes
from replication.core.config import PeerRole
from replication.core.mailbox import (
    Arrival,
    PostState,
    Way,
    arrived,
    hurried,
    is_due,
    judge_letter,
    posted,
    receipted,
    sent,
)
from replication.core.model import Form, Lane, LogEntry, RowChange
from tests.simulation.durable import OWN, OutLetter, entry_key

if TYPE_CHECKING:
    from tests.simulation.store import SimStore

__all__ = ["CODEC_SEALED", "MAIL_SPEED", "RECEIPT", "ROWS", "Post", "content_of"]

CODEC_SEALED: Final = 2
MAIL_SPEED: Final = 20
"""A minute of the outbox passes in three seconds of a schedule."""
ROWS: Final = "rows"
RECEIPT: Final = "receipt"


def content_of(rows: bytes) -> tuple[str, str, str, str]:
    """What only the addressee may open: letter id, sender, kind, body."""
    letter_id, sender, kind, body = json.loads(rows)
    return letter_id, sender, kind, body


class Post:
    """The letters of one store; whatever changes the disk runs inside a transaction of it."""

    def __init__(self, store: SimStore) -> None:
        self._store = store
        self.staged: list[Callable[[], object]] = []
        """What the running transaction does to outbox and inbox when it commits."""
        self.opened: set[str] = set()
        """Letters that it has opened already."""

    # -- at the author --------------------------------------------------------------------------

    def send(self, to: str, kind: str, body: str, lane: Lane, mail_ms: int) -> None:
        """Put a letter into the outbox and the log."""
        disk = self._store.disk
        disk.letter_count += 1
        letter_id = f"{self._store.node_id}.{disk.store_epoch}.{disk.letter_count}"
        parcel = sent(posted(mail_ms), mail_ms)
        letter = OutLetter(letter_id, to, kind, lane, body, parcel)
        disk.outbox[letter_id] = letter
        disk.unnumbered.append(self._sealed(letter_id, to, kind, body, lane))

    def send_again(self, mail_ms: int) -> int:
        """Write what is due into the log once more; a transaction of its own."""
        store = self._store
        due = [x for x in store.disk.outbox.values() if is_due(x.parcel.next_ms, mail_ms)]
        if not due or "letters_sent_once" in store.broken:
            return 0
        with store.transaction():
            for letter in due:
                again = replace(letter, parcel=sent(letter.parcel, mail_ms))
                store.disk.outbox[letter.letter_id] = again
                store.disk.unnumbered.append(
                    self._sealed(letter.letter_id, letter.to, letter.kind, letter.body, letter.lane)
                )
        store.crash_point("letter.sent_again")
        return len(due)

    def hurry(self, mail_ms: int) -> None:
        """A neighbour lives another life: what it had of letters may be gone."""
        outbox = self._store.disk.outbox
        for letter_id, letter in outbox.items():
            outbox[letter_id] = replace(letter, parcel=hurried(letter.parcel, mail_ms))

    def _sealed(self, letter_id: str, to: str, kind: str, body: str, lane: Lane) -> LogEntry:
        return LogEntry(
            sequence=0,
            origin_node=self._store.node_id,
            origin_epoch=self._store.disk.store_epoch,
            origin_sequence=OWN,
            lane=lane,
            home_node=to,
            form=Form.SEALED,
            codec=CODEC_SEALED,
            schema_version=1,
            committed_at_ms=0,
            row_count=0,
            rows=json.dumps([letter_id, self._store.node_id, kind, body]).encode(),
        )

    def _confirmed(self, letter_id: str, mail_ms: int) -> None:
        outbox = self._store.disk.outbox
        letter = outbox.get(letter_id)
        if letter is None:
            return  # An outbox put back from a backup.
        parcel = receipted(letter.parcel, "", mail_ms)
        if parcel.state is PostState.CONFIRMED:
            self._store.observe.confirmed(self._store, letter)
            del outbox[letter_id]

    # -- on the way -----------------------------------------------------------------------------

    def arrived(
        self, peer: str, entry: LogEntry, puts: list[RowChange], mail_ms: int
    ) -> list[LogEntry]:
        """Take a letter in: open it here, or pass it on unread. Returns what is to be logged."""
        store = self._store
        tree, here = store.tree, store.node_id
        way = judge_letter(
            entry.origin_node,
            entry.home_node,
            here=here,
            peer_role=PeerRole.PARENT if tree.parent.get(here) == peer else PeerRole.CHILD,
            here_subtree=tree.subtree[here],
            peer_subtree=tree.subtree[peer],
            region=tree.subtree,
        )
        if way is Way.HERE:
            return self._opened(entry, puts, mail_ms)
        if way is not Way.ON:
            store.observe.letter_refused(store, peer, str(way))
            return []
        if "letter_stored_by_relay" in store.broken and content_of(entry.rows)[2] == ROWS:
            puts += decode_changes(CODEC_JSON, content_of(entry.rows)[3].encode())
        key = entry_key(entry)
        if key in store.disk.logged or any(entry_key(e) == key for e in store.disk.unnumbered):
            return []
        return [entry]

    def handed_on(self, peer: str, lane: Lane, up_to: int) -> None:
        """The next hop holds them durably: erase the letters that went there."""
        store = self._store
        disk = store.disk
        if disk.protocols.get(peer, 2) < 2 or "letters_kept" in store.broken:
            return
        for number in [n for n in disk.sealed if n <= up_to]:
            entry = disk.log[number]
            if entry.lane is lane and self._next_hop(entry) == peer:
                disk.log[number] = replace(entry, rows=b"")
                disk.sealed.discard(number)
                if (
                    "letter_done_at_first_hop" in store.broken
                    and entry.origin_node == store.node_id
                ):
                    disk.outbox.pop(content_of(entry.rows)[0], None)

    def _next_hop(self, entry: LogEntry) -> str:
        tree, here = self._store.tree, self._store.node_id
        if entry.home_node not in tree.subtree[here]:
            return tree.parent[here]
        return next(
            child for child in tree.children[here] if entry.home_node in tree.subtree[child]
        )

    def log_anew(self, peer: str) -> None:
        """A neighbour was upgraded: what was passed over for it is put at the end of the log."""
        disk = self._store.disk
        if "old_peers_letters_dropped" in self._store.broken:
            return
        for number in sorted(disk.sealed):
            entry = disk.log[number]
            if self._next_hop(entry) == peer:
                disk.log[number] = replace(entry, rows=b"")
                disk.sealed.discard(number)
                disk.unnumbered.append(replace(entry, sequence=0, origin_sequence=0))

    # -- at the addressee -----------------------------------------------------------------------

    def _opened(self, entry: LogEntry, puts: list[RowChange], mail_ms: int) -> list[LogEntry]:
        store = self._store
        letter_id, sender, kind, body = content_of(entry.rows)
        if kind == RECEIPT:
            self.staged.append(lambda: self._confirmed(body, mail_ms))
            return []
        logged: list[LogEntry] = []
        before = "" if letter_id in self.opened else store.disk.letters_seen.get(letter_id)
        self.opened.add(letter_id)
        again = "letter_applied_twice" in store.broken
        if again or arrived(before) is Arrival.HANDLE:
            if kind == ROWS:
                rows = store.taken_from_letter(decode_changes(CODEC_JSON, body.encode()), puts)
                if rows:
                    logged.append(store.entry(entry.lane, store.node_id, rows, 0))
            else:
                logged += store.moves.arrived(sender, kind, body, puts, mail_ms)
            self.staged.append(lambda: store.disk.letters_seen.update({letter_id: ""}))
        lane = Lane.CONTROL if "receipt_in_another_lane" in store.broken else entry.lane
        receipt = self._sealed("", sender, RECEIPT, letter_id, lane)
        return [receipt, *logged] if "receipt_before_rows" in store.broken else [*logged, receipt]
