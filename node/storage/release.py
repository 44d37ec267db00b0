"""The exits of the quarantine: judged again, skipped with a reason, superseded by a newer version.

An item that is judged again takes the way it would take if it had just come: the same admission,
the same guarded write, the same entry in the log for those further on, in one transaction with its
leaving the quarantine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from hierarchy_config.model import NodeId
from node.security.caller import Caller
from node.storage.apply import BatchApplier
from node.storage.audit import Action, Deed, Outcome
from node.storage.causes import retry_at
from node.storage.context import StoreContext
from node.storage.entry_work import EntryWork
from node.storage.errors import QuarantineItemError
from node.storage.rows import held_rows
from node.storage.shapes import is_row_id
from node.storage.specs import TABLES
from node.transit.model import RECEIPT
from replication.changelog import QuarantinedItem, QuarantineExit, Together
from replication.core.admission import Held
from replication.core.config import PeerRole
from replication.core.model import Version

__all__ = ["WAITING", "QuarantineDesk", "Released"]

WAITING: Final = "waiting"
_OBJECT: Final = "quarantine"
_ON_ITS_WAY_MS: Final = 24 * 3_600_000
"""How long a letter waits here for a way: by then its author has sent it again, several times."""
_TAKEN: Final = "a later sending of the letter was taken"
_GOES_AGAIN: Final = "its author sends it again until there is a receipt"


@dataclass(frozen=True, slots=True)
class Released:
    """What became of an item: an exit's name, or WAITING with the cause; rows applied."""

    item_id: int
    outcome: str
    cause: str = ""
    applied: int = 0


class QuarantineDesk:
    """Lists, tries again and closes what waits in the quarantine."""

    def __init__(self, store: StoreContext, applier: BatchApplier) -> None:
        self._store = store
        self._applier = applier
        self._transactions = store.transactions

    def by_cause(self) -> dict[str, int]:
        """Items that wait, by cause."""
        return self._transactions.read(self._store.quarantine.by_cause)

    def waiting(
        self, caller: Caller, *, after: int, limit: int, cause: str = "", resident_id: str = ""
    ) -> tuple[list[QuarantinedItem], int]:
        """A page of items, oldest first, and how many wait in all. Audited."""

        def work(connection: Connection) -> tuple[list[QuarantinedItem], int]:
            keeper = self._store.quarantine
            items = keeper.waiting(
                connection, after=after, limit=limit, cause=cause, resident_id=resident_id
            )
            deed = Deed(Action.READ, _OBJECT, Outcome.DONE, len(items))
            self._store.auditor.write(connection, caller, deed)
            return items, keeper.count(connection)

        return self._transactions.write(work)

    def show(self, caller: Caller, item_id: int) -> QuarantinedItem:
        """One item, open or closed. Audited.

        Raises:
            QuarantineItemError: There is none of that number.
        """

        def work(connection: Connection) -> QuarantinedItem:
            item = self._item(connection, item_id)
            self._audit(connection, caller, Action.READ, item)
            return item

        return self._transactions.write(work)

    def due(self, now_ms: int, limit: int) -> list[int]:
        """Items that are to be tried again by now."""

        def work(connection: Connection) -> list[int]:
            items = self._store.quarantine.waiting(connection, limit=limit, due_ms=now_ms)
            return [item.item_id for item in items]

        return self._transactions.read(work)

    def retry(self, item_id: int, caller: Caller | None = None) -> Released:
        """Judge an item again, as if it had just come. Durable on return.

        Args:
            item_id: As listed.
            caller: Who asks for it; audited. None: the node by itself.

        Raises:
            QuarantineItemError: There is none of that number, or it is closed.
        """

        def work(connection: Connection) -> Released:
            item = self._open_item(connection, item_id)
            if caller is not None:
                self._audit(connection, caller, Action.RETRY, item)
            return self._retry(connection, item)

        return self._transactions.write(work)

    def skip(self, caller: Caller, item_id: int, reason: str) -> Released:
        """Close an item for good without applying it; audited with its reason.

        Raises:
            QuarantineItemError: There is none of that number, or it is closed.
        """

        def work(connection: Connection) -> Released:
            item = self._open_item(connection, item_id)
            self._audit(connection, caller, Action.SKIP, item)
            now_ms = self._store.clock.now_ms()
            keeper, exit_as = self._store.quarantine, QuarantineExit.DISCARDED
            keeper.close(connection, item_id, exit_as, now_ms, reason)
            return Released(item_id, exit_as.value)

        return self._transactions.write(work)

    def note_asked(self, caller: Caller, item_id: int) -> QuarantinedItem:
        """Audit that its sender is asked for an item again; the item.

        Raises:
            QuarantineItemError: There is none of that number, or it is closed.
        """

        def work(connection: Connection) -> QuarantinedItem:
            item = self._open_item(connection, item_id)
            self._audit(connection, caller, Action.ASK, item)
            return item

        return self._transactions.write(work)

    def close_superseded(self, after: int, limit: int) -> tuple[int, int]:
        """Close items whose row is held here at that version or a newer one, as admission has it.

        Looks at `limit` items after item `after`; returns how many were closed and the last item
        looked at, 0 at the end.
        """

        def work(connection: Connection) -> tuple[int, int]:
            items = self._store.quarantine.waiting(connection, after=after, limit=limit)
            now_ms = self._store.clock.now_ms()
            old = _superseded(connection, items)
            for item in old:
                self._store.quarantine.close(
                    connection, item.item_id, QuarantineExit.SUPERSEDED, now_ms
                )
            return len(old), items[-1].item_id if len(items) == limit else 0

        return self._transactions.write(work)

    def forget_closed(self, limit: int) -> int:
        """Delete items that were closed long ago; how many, `limit` at most. Durable on return."""
        now_ms = self._store.clock.now_ms()

        def work(connection: Connection) -> int:
            return self._store.quarantine.forget_closed(connection, now_ms=now_ms, limit=limit)

        return self._store.transactions.write(work)

    def _retry(self, connection: Connection, item: QuarantinedItem) -> Released:
        role = self._role(item.peer)
        work = self._applier.read(self._store.quarantine.entry(connection, item))
        now_ms = self._store.clock.now_ms()
        if over := self._letter_is_over(connection, item, work, now_ms):
            exit_as = QuarantineExit.SUPERSEDED
            self._store.quarantine.close(connection, item.item_id, exit_as, now_ms, over)
            return Released(item.item_id, exit_as.value)
        if role is None or work.unreadable:
            return self._still(connection, item, work.unreadable or item.cause, now_ms)
        peer = NodeId(item.peer)
        together = Together(connection)
        self._applier.admit(together, peer, role, [work])
        if cause := self._refused_letter(connection, work):
            if cause != item.cause:
                # Its author goes by the last word: who has moved is written to elsewhere.
                self._applier.log(together, [work])
            return self._still(connection, item, cause, now_ms)
        if work.rejected and not item.whole_entry:
            return self._still(connection, item, work.rejected[0][1], now_ms)
        # The rest of an entry that can be read by now waits row by row, each with its cause.
        self._applier.set_aside(connection, peer, work)
        superseded = work.stale and not work.admitted and not work.rejected
        exit_as = QuarantineExit.SUPERSEDED if superseded else QuarantineExit.RELEASED
        self._store.quarantine.close(connection, item.item_id, exit_as, now_ms)
        self._applier.log(together, [work])
        return Released(item.item_id, exit_as.value, applied=len(work.admitted))

    def _letter_is_over(
        self, connection: Connection, item: QuarantinedItem, work: EntryWork, now_ms: int
    ) -> str:
        """Why a letter need not wait any longer, "" if it must: its author sends it again.

        Each sending is another entry, so what was refused while two hierarchies met stays behind
        what was taken later. A receipt is answered again as often as its letter comes again.
        """
        examined = work.letter.examined if work.letter else None
        envelope = examined.envelope if examined else None
        if envelope is None:
            return ""
        head = envelope.header
        if head.to == self._store.node_id and head.kind != RECEIPT:
            said = self._store.post.inbox.outcome(connection, head.sender, head.letter_id)
            return _TAKEN if said == "" else ""
        return _GOES_AGAIN if now_ms - item.first_at > _ON_ITS_WAY_MS else ""

    def _refused_letter(self, connection: Connection, work: EntryWork) -> str:
        """Why a letter is still not taken: the way it came, or what its handler said just now."""
        examined = work.letter.examined if work.letter else None
        letter = examined.letter if examined else None
        if work.unreadable or letter is None:
            return work.unreadable
        inbox = self._store.post.inbox
        return inbox.outcome(connection, letter.sender, letter.letter_id) or ""

    def _still(
        self, connection: Connection, item: QuarantinedItem, cause: str, now_ms: int
    ) -> Released:
        self._store.quarantine.postpone(
            connection,
            item.item_id,
            cause=cause,
            now_ms=now_ms,
            retry_at_ms=retry_at(cause, item.attempts + 1, now_ms),
        )
        return Released(item.item_id, WAITING, cause)

    def _role(self, peer: str) -> PeerRole | None:
        """What the sender is to this node by now; None: no neighbour any more."""
        tree, here = self._store.hierarchy, self._store.node_id
        if tree.parent(here) == peer:
            return PeerRole.PARENT
        return PeerRole.CHILD if peer in tree.children(here) else None

    def _item(
        self, connection: Connection, item_id: int, *, locked: bool = False
    ) -> QuarantinedItem:
        item = self._store.quarantine.item(connection, item_id, locked=locked)
        if item is None:
            raise QuarantineItemError(f"the quarantine has no item {item_id}")
        return item

    def _open_item(self, connection: Connection, item_id: int) -> QuarantinedItem:
        item = self._item(connection, item_id, locked=True)
        if item.closed_as:
            raise QuarantineItemError(f"item {item_id} was {item.closed_as} already")
        return item

    def _audit(
        self, connection: Connection, caller: Caller, action: Action, item: QuarantinedItem
    ) -> None:
        resident = item.resident_id if is_row_id(item.resident_id) else None
        deed = Deed(action, _OBJECT, Outcome.DONE, item.row_count, str(item.item_id), resident)
        self._store.auditor.write(connection, caller, deed)


def _superseded(connection: Connection, items: Sequence[QuarantinedItem]) -> list[QuarantinedItem]:
    ids: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.table in TABLES and is_row_id(item.row_id):
            ids[item.table].add(item.row_id)
    held = {
        (table, row_id): Held(row.version, row.home_epoch)
        for table in sorted(ids)
        for row_id, row in held_rows(connection, table, ids[table]).items()
    }
    return [
        item
        for item in items
        if (row := held.get((item.table, item.row_id))) is not None and _offered(item) <= row
    ]


def _offered(item: QuarantinedItem) -> Held:
    return Held(Version(item.version_epoch, item.version_number), item.home_epoch)
