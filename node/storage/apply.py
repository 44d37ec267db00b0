"""Applies a peer's batch: rows, relayed entries and the cursor, in one transaction.

Apply is guarded by version, never by the order of arrival: a row only ever changes to a greater
version, here by the verdict and once more in the statement itself. What may not be applied waits in
the quarantine with its cause; the rest of the batch goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select

from hierarchy_config.model import CopyForm, NodeId
from node.storage.causes import Misfit, retry_at
from node.storage.context import StoreContext
from node.storage.entry_work import EntryWork, read_entry
from node.storage.errors import BatchOrderError
from node.storage.letters import LetterDesk
from node.storage.model import ApplyOutcome
from node.storage.moved import MovedHomes, taken_by_home
from node.storage.pieces import encoded_pieces
from node.storage.rows import HeldRow, RowMaker, chunks, held_rows
from node.storage.shapes import fits_schema, has_ids
from node.storage.specs import IDENTITY_LINKS, PEOPLE_NAMES, RESIDENT_INDEX, RESIDENTS, TABLES
from node.storage.tables import REPLICATED
from node.storage.upsert import guarded_upsert
from replication.changelog import (
    CursorWentBackError,
    DuplicateEntryError,
    NewEntry,
    OriginKey,
    Together,
)
from replication.core.admission import AdmissionContext, Cause, Decision, Held, judge
from replication.core.codec import CODEC_JSON
from replication.core.config import PeerRole
from replication.core.model import Audience, Batch, Cursor, Form, Lane, LogEntry, RowChange

__all__ = ["BatchApplier"]

_R = REPLICATED[RESIDENTS.name]
_HOMES: Final = select(_R.c.row_id, _R.c.home_node, _R.c.home_epoch).where(
    _R.c.row_id.in_(bindparam("ids", expanding=True))
)
_NO_OUTCOME: Final = ApplyOutcome(0, 0, 0)
_NO_HOME: Final = ("", 0)
_OWN_ROWS: Final = frozenset({RESIDENTS.name, RESIDENT_INDEX.name})


class BatchApplier:
    """Applies what peers send."""

    def __init__(self, store: StoreContext, maker: RowMaker) -> None:
        self._store = store
        self._maker = maker
        self._letters = LetterDesk(store)

    def apply(
        self, peer: NodeId, peer_role: PeerRole, batch: Batch, cursor: Cursor
    ) -> ApplyOutcome:
        """See Storage.apply_batch."""
        read = [self.read(entry) for entry in batch.entries]

        def work(connection: Connection, is_known: bool = False) -> ApplyOutcome:
            links, recovering = self._store.links, self._store.recovery.active
            # Mostly it is the next batch: then one statement compares the cursor and moves it.
            followed = not recovering and links.follow_inbound(
                connection, peer, batch.previous, cursor
            )
            if not followed and self._is_applied(connection, peer, batch, cursor):
                return _NO_OUTCOME
            works = [
                EntryWork(each.entry, each.rows, each.unreadable, each.letter) for each in read
            ]
            for each in works:
                each.is_known = is_known
            return self._apply(connection, peer, peer_role, works, None if followed else cursor)

        try:
            return self._store.transactions.write(work)
        except DuplicateEntryError:
            # An origin that uses a number twice, by malice or put back without a new epoch: were it
            # refused, this peer, which may only relay it, would send it for ever.
            return self._store.transactions.write(partial(work, is_known=True))

    def read(self, entry: LogEntry) -> EntryWork:
        """An entry as `admit` wants it: its rows, or the letter that it is."""
        if entry.form is Form.SEALED:
            return EntryWork(entry, [], letter=self._letters.read(entry))
        return read_entry(entry)

    def _is_applied(
        self, connection: Connection, peer: NodeId, batch: Batch, cursor: Cursor
    ) -> bool:
        """Whether this very batch was applied before (a commit whose answer was lost).

        Raises:
            BatchOrderError: The stored cursor is not the batch's predecessor.
            CursorWentBackError: The batch is of a former life of the peer's store, and a newer one
                was met: what its recovery has been given already would not come again.
        """
        life = self._store.links.peer_epoch_seen(connection, peer)
        if life is not None and batch.stream_epoch.sender < life.store_epoch:
            raise CursorWentBackError(
                f"{peer} is at store epoch {life.store_epoch}, the batch is of"
                f" {batch.stream_epoch.sender}"
            )
        held = self._store.links.load_inbound(connection, peer).get(batch.lane)
        if held is None or held.stream_epoch != batch.stream_epoch:
            number = 0
        elif held == cursor:
            return True
        else:
            number = held.number
        if number != batch.previous:
            raise BatchOrderError(
                f"batch {batch.number} of lane {batch.lane.name} follows {batch.previous},"
                f" the cursor stands at {number}"
            )
        return False

    def _apply(
        self,
        connection: Connection,
        peer: NodeId,
        peer_role: PeerRole,
        works: Sequence[EntryWork],
        cursor: Cursor | None,
    ) -> ApplyOutcome:
        """Apply and log; `cursor` is yet to be saved, None if it is."""
        together = Together(connection)
        self.admit(together, peer, peer_role, works)
        for work in works:
            self.set_aside(connection, peer, work)
        if cursor is not None:
            if self._store.recovery.active:
                held = self._store.links.load_inbound(connection, peer).get(cursor.lane)
                self._store.recovery.note_applied(connection, peer, held, cursor)
            self._store.links.save_inbound(connection, peer, cursor)
        self.log(together, works)
        return ApplyOutcome(
            sum(len(work.admitted) for work in works),
            sum(work.stale for work in works),
            sum(len(work.rejected) + bool(work.unreadable) for work in works),
        )

    def admit(
        self,
        together: Together,
        peer: NodeId,
        peer_role: PeerRole,
        works: Sequence[EntryWork],
    ) -> None:
        """Judge rows and store what is admitted.

        What becomes of each row is noted in its `EntryWork`: `set_aside` puts what was not admitted
        into the quarantine, `log` relays the rest.
        """
        judged = _Judgement(self._store, together.connection, peer, peer_role, works)
        for work in works:
            judged.decide(work)
        self._upsert(together, judged.newest.values())
        # After the rows: a letter may be about a resident who came in the same batch.
        passed: set[OriginKey] = set()
        for work in works:
            if work.letter is not None:
                work.unreadable, work.logged = self._letters.take(
                    together.connection, peer, peer_role, work.entry, work.letter, passed
                )

    def log(self, together: Together, works: Sequence[EntryWork]) -> None:
        """Append what was admitted to the log, sent with what waits; the last step of all."""
        connection = together.connection
        relayed = self._relayed(connection, works)
        self._store.changelog.append(connection, relayed, before=together)

    def set_aside(self, connection: Connection, peer: NodeId, work: EntryWork) -> None:
        """Put what was not admitted of an entry into the quarantine, with its cause."""
        now_ms = self._store.clock.now_ms()
        if work.unreadable:
            self._store.quarantine.add_entry(
                connection,
                peer=peer,
                entry=work.entry,
                cause=work.unreadable,
                now_ms=now_ms,
                retry_at_ms=retry_at(work.unreadable, 1, now_ms),
            )
        for change, cause in work.rejected:
            self._store.quarantine.add(
                connection,
                peer=peer,
                entry=work.entry,
                change=change,
                cause=cause,
                now_ms=now_ms,
                retry_at_ms=retry_at(cause, 1, now_ms),
            )

    def _upsert(self, together: Together, changes: Iterable[RowChange]) -> None:
        by_table: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for change in changes:
            by_table[change.table].append(self._maker.row(change))
        for table, rows in by_table.items():
            # In the order of the key, so that two transactions lock alike.
            rows.sort(key=_row_id)
            guarded_upsert(together, REPLICATED[table], rows)

    def _relayed(self, connection: Connection, works: Sequence[EntryWork]) -> list[NewEntry]:
        """Log entries of what was admitted, under their origin, for those further on.

        The rest of an entry whose first part is in the log already withholds its origin's number:
        that names the first part. Where the log was pruned, nobody knows whether it was.
        """
        doubtful = [
            w for w in works if w.admitted and (w.is_known or len(w.admitted) < len(w.rows))
        ]
        known = self._store.changelog.known(connection, [_origin(w.entry) for w in doubtful])
        cut = any(len(w.admitted) < len(w.rows) for w in doubtful)
        pruned = cut and self._store.changelog.pruned_to(connection) > 0
        given: set[OriginKey] = set()
        entries: list[NewEntry] = []
        for work in works:
            entry = work.entry
            entries.extend(work.logged)
            if not work.admitted:
                continue
            origin = _origin(entry)
            if len(work.admitted) == len(work.rows):
                if origin in known or origin in given:
                    entry = replace(entry, origin_sequence=0)
                given.add(origin)
                entries.append(_new_entry(entry))
                continue
            withheld = pruned or origin in known or origin in given
            given.add(origin)
            # Encoded anew they may be longer than they came: 1e15 is 1000000000000000.0 here.
            for rows, encoded in encoded_pieces(work.admitted):
                part = replace(
                    entry,
                    rows=encoded,
                    codec=CODEC_JSON,
                    row_count=len(rows),
                    origin_sequence=0 if withheld else entry.origin_sequence,
                )
                entries.append(_new_entry(part))
                withheld = True
        return entries


class _Judgement:
    """Decides a batch's rows one after the other, each against what the ones before made of it."""

    def __init__(
        self,
        store: StoreContext,
        connection: Connection,
        peer: NodeId,
        peer_role: PeerRole,
        works: Sequence[EntryWork],
    ) -> None:
        self._store = store
        self._peer = peer
        self._role = peer_role
        self._here = store.hierarchy.subtree(store.node_id)
        self._path = frozenset(store.hierarchy.path_to_root(store.node_id))
        self._below = store.hierarchy.subtree(peer) if peer_role is PeerRole.CHILD else frozenset()
        self._recovering = store.recovery.active
        self._allowed: dict[tuple[str, Form], bool] = {}
        rows = [
            change
            for work in works
            for change in work.rows
            if change.table in TABLES and has_ids(change)
        ]
        self._held = _held_by_table(connection, rows)
        residents = {change.resident_id for change in rows}
        self._homes = _homes(connection, residents)
        self._moves = MovedHomes(store, connection, residents, self._below)
        self.newest: dict[tuple[str, str], RowChange] = {}

    def decide(self, work: EntryWork) -> None:
        if self._recovering:
            work.entry = replace(work.entry, audience=self._audience(work.entry))
        for change in work.rows:
            cause = self._misfit(change, work.entry)
            if cause is not None:
                work.rejected.append((change, cause))
                continue
            held = self._held.get((change.table, change.row_id))
            known = self._moves.known(change, self._homes.get(change.resident_id, _NO_HOME))
            verdict = judge(
                change,
                Held(held.version, held.home_epoch) if held else None,
                AdmissionContext(
                    peer_role=self._role,
                    lane=work.entry.lane,
                    here_subtree=self._here,
                    peer_subtree=self._below,
                    here_path=self._path,
                    recovering=self._recovering,
                    home_epoch=known.home_epoch,
                    home_node=known.home_node,
                    granted_epoch=known.granted_epoch,
                    granted_home=known.granted_home,
                ),
            )
            if verdict.decision is Decision.STALE:
                work.stale += 1
            elif verdict.cause is Cause.HOME_EPOCH_OLD and self._moves.redirected(change):
                # Sent after him: it is merged by his present home.
                work.stale += 1
            elif verdict.decision is Decision.REJECT:
                work.rejected.append((change, verdict.cause.value if verdict.cause else "REJECTED"))
            elif held is not None and not self._may_write(change, held):
                work.rejected.append((change, Misfit.AUTHOR_CHANGED))
            else:
                work.admitted.append(change)
                self._note(change)

    def _audience(self, entry: LogEntry) -> Audience:
        """What a recovering node gets back goes on, but not to where it came from."""
        if self._role is PeerRole.PARENT and entry.origin_node in self._here:
            return Audience.BELOW
        if self._role is PeerRole.CHILD and entry.origin_node in self._path:
            return Audience.ABOVE
        return Audience.EVERYBODY

    def _note(self, change: RowChange) -> None:
        key = (change.table, change.row_id)
        self.newest[key] = change
        self._held[key] = _as_held(change)
        if change.table == RESIDENTS.name:
            self._homes[change.row_id] = (change.home_node, change.home_epoch)

    def _misfit(self, change: RowChange, entry: LogEntry) -> Misfit | None:
        """Faults that the core cannot see: it knows no table, schema or policy."""
        spec = TABLES.get(change.table)
        if spec is None:
            return Misfit.TABLE_UNKNOWN
        if spec.lane is not entry.lane:
            return Misfit.LANE_MISMATCH
        # Routing looks at the entry alone, so its word must be that of every row in it.
        if change.home_node != entry.home_node or change.form is not entry.form:
            return Misfit.ENTRY_MISMATCH
        if not fits_schema(change):
            return Misfit.ROW_MALFORMED
        if self._is_anothers(change, entry.lane):
            return Misfit.RESIDENT_OF_ANOTHER
        if self._role is PeerRole.CHILD:
            return self._misfit_of_child(change, entry)
        return self._misfit_of_parent(change, entry)

    def _is_anothers(self, change: RowChange, lane: Lane) -> bool:
        """Whether identity data names a resident whose home is not the row's.

        An identifier is found under its resident's id, whoever wrote it.
        """
        known = self._moves.known(change, self._homes.get(change.resident_id, _NO_HOME))
        home = known.home_node
        own = change.table in _OWN_ROWS
        return lane is Lane.IDENTITY and not own and home not in ("", change.home_node)

    def _misfit_of_parent(self, change: RowChange, entry: LogEntry) -> Misfit | None:
        # An entry under this subtree's name would take the number of one still to come, and a
        # row by an author below would replace what only he may change. A node that has lost them
        # gets them back without a number.
        returned = self._recovering and not entry.origin_sequence
        if entry.origin_node in self._here and not returned:
            return Misfit.ORIGIN_NOT_ABOVE
        mine = change.author_node in self._here
        return Misfit.AUTHOR_NOT_ABOVE if mine and not returned else None

    def _misfit_of_child(self, change: RowChange, entry: LogEntry) -> Misfit | None:
        # A sibling's name and number on an entry would shut out the sibling's own.
        if entry.origin_node not in self._below:
            lost = entry.origin_node in self._path and not entry.origin_sequence
            return None if self._recovering and lost else Misfit.ORIGIN_NOT_BELOW
        if change.table in PEOPLE_NAMES and self._says_who_works_elsewhere(change):
            return Misfit.AUTHOR_NOT_OVER_HOME
        # Who is one person is said over homes of its own: whoever wrote it below the child, the
        # child stands over the home, and has looked at the author itself.
        if change.table == IDENTITY_LINKS.name and NodeId(change.home_node) not in self._below:
            return Misfit.AUTHOR_NOT_OVER_HOME
        return None if self._policy_allows(change) else Misfit.FORM_NOT_IN_POLICY

    def _says_who_works_elsewhere(self, change: RowChange) -> bool:
        """Whether somebody below says who works at a node that he is not, nor is above.

        It would be told that node from above, and there it counts: a role is such a row.
        """
        author = NodeId(change.author_node)
        below = author in self._below and author in self._store.hierarchy
        return below and change.home_node not in self._store.hierarchy.subtree(author)

    def _policy_allows(self, change: RowChange) -> bool:
        """A child that sends more than policy copies is refused, not thanked."""
        key = (change.table, change.form)
        allowed = self._allowed.get(key)
        if allowed is None:
            table = RESIDENTS.name if change.table == RESIDENT_INDEX.name else change.table
            forms = self._store.hierarchy.copy_forms(self._peer, table)
            allowed = self._allowed[key] = CopyForm(change.form.value) in forms
        return allowed

    def _may_write(self, change: RowChange, held: HeldRow) -> bool:
        """A row keeps its resident, and its author unless a successor took over with a later epoch.

        A new home takes identity data over so; that the home is new was judged before.
        """
        if change.resident_id != held.resident_id:
            return False
        if change.author_node == held.author_node or taken_by_home(change, held):
            return True
        author = self._store.hierarchy.nodes.get(NodeId(change.author_node))
        return (
            author is not None
            and author.succeeds == held.author_node
            and change.version.author_epoch > held.version.author_epoch
        )


def _held_by_table(
    connection: Connection, rows: Sequence[RowChange]
) -> dict[tuple[str, str], HeldRow]:
    ids: dict[str, set[str]] = defaultdict(set)
    for change in rows:
        ids[change.table].add(change.row_id)
    return {
        (table, row_id): held
        for table in sorted(ids)
        for row_id, held in held_rows(connection, table, ids[table]).items()
    }


def _homes(connection: Connection, resident_ids: set[str]) -> dict[str, tuple[str, int]]:
    return {
        row.row_id: (row.home_node, row.home_epoch)
        for some in chunks(sorted(resident_ids))
        for row in connection.execute(_HOMES, {"ids": some})
    }


def _as_held(change: RowChange) -> HeldRow:
    return HeldRow(
        change.table,
        change.row_id,
        change.resident_id,
        change.version,
        change.author_node,
        change.home_node,
        change.home_epoch,
        change.form.value,
        False,
    )


def _row_id(row: dict[str, Any]) -> str:
    return str(row["row_id"])


def _origin(entry: LogEntry) -> OriginKey:
    return OriginKey(entry.origin_node, entry.origin_epoch, entry.origin_sequence, entry.form)


def _new_entry(entry: LogEntry) -> NewEntry:
    return NewEntry(
        origin_node=entry.origin_node,
        origin_epoch=entry.origin_epoch,
        origin_sequence=entry.origin_sequence,
        lane=entry.lane,
        home_node=entry.home_node,
        form=entry.form,
        codec=entry.codec,
        schema_version=entry.schema_version,
        committed_at_ms=entry.committed_at_ms,
        row_count=entry.row_count,
        rows=entry.rows,
        audience=entry.audience,
    )
