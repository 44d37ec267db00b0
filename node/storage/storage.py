"""The storage of one node: the door to everything in this room.

Every method blocks on the database and may be called from several threads. A method that writes
returns when the write is durable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, RowMapping

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.cache import Cache, ChangedResidents, InProcessCache
from node.clock import Clock, Ids, RandomBytes
from node.records.model import Bundle
from node.residence.homes import Homes
from node.security.caller import Caller
from node.security.sealing import DataKeys
from node.storage.answers import AnswerCounts, Encode, Joined, ResidentAnswers, ResidentQuestion
from node.storage.apply import BatchApplier
from node.storage.audit import Action, AuditBreak, Auditor, Deed, Outcome
from node.storage.away import AwayRows
from node.storage.columnar_source import ColumnarSource
from node.storage.context import KeyedIndex, Pseudonyms, StoreContext
from node.storage.counting import Counter
from node.storage.model import (
    ApplyOutcome,
    AuditEntry,
    BundleRequest,
    BundleResult,
    ColumnarChanges,
    ColumnarRows,
    Counts,
    Page,
    StoredRecord,
    StoredResident,
)
from node.storage.moved import refuse_if_away
from node.storage.moving import MovingRows
from node.storage.outgoing import OutgoingReader, PeerAbility
from node.storage.reads import Reader, named_id
from node.storage.recovering import Recovery
from node.storage.release import QuarantineDesk
from node.storage.resend import Resender
from node.storage.rows import RowMaker
from node.storage.scope import Glasses, Scopes
from node.storage.sealing import CellSealer
from node.storage.specs import TABLES
from node.storage.tables import CHANGELOG, RESIDENCE, TRANSIT
from node.storage.transactions import Transactions
from node.storage.writes import BundleWriter
from node.transit import Post
from replication.changelog import (
    ChangeLog,
    LinkState,
    Marks,
    Quarantine,
    StoreState,
    Together,
)
from replication.core.config import PeerRole
from replication.core.effects import LogPart
from replication.core.model import Batch, Cursor, Lane, LogEntry, Value

__all__ = ["LogState", "Storage"]

_QUERY_ID: Final = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class LogState:
    """The change log: last number given, entries that an earlier release left without one."""

    head: int
    left_unnumbered: int


class Storage:
    """Rows with their log and audit. Construction touches no database."""

    def __init__(
        self,
        engine: Engine,
        *,
        node_id: NodeId,
        hierarchy: Hierarchy,
        sealer: DataKeys,
        blind_index: KeyedIndex,
        changelog: ChangeLog,
        clock: Clock,
        ids: Ids,
        regional_index: KeyedIndex | None = None,
        pseudonymizer: Pseudonyms | None = None,
        random_bytes: RandomBytes = os.urandom,
        cache: Cache | None = None,
        post: Post | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        """`regional_index` and `pseudonymizer`: only where the node holds those keys.

        `cache`: of residents' answers, followed by a CacheFollower; None keeps nothing. `post`:
        None relays letters, and neither seals nor opens any. `recovery`: None is whole.
        """
        transactions = Transactions(engine)
        self._store = store = StoreContext(
            node_id=node_id,
            hierarchy=hierarchy,
            transactions=transactions,
            scopes=Scopes(transactions, node_id=node_id, hierarchy=hierarchy, clock=clock),
            auditor=Auditor(clock, Glasses(node_id, clock)),
            cells=CellSealer(node_id, sealer),
            blind_index=blind_index,
            changelog=changelog,
            quarantine=_quarantine(node_id, sealer, random_bytes),
            links=LinkState(CHANGELOG),
            clock=clock,
            ids=ids,
            regional_index=regional_index,
            pseudonyms=pseudonymizer,
            post=post or _relay(node_id, hierarchy, changelog, sealer, clock=clock, ids=ids),
            recovery=recovery
            or Recovery(StoreState(CHANGELOG), node_id, hierarchy, changelog.store_epoch),
            homes=Homes(RESIDENCE),
        )
        maker = RowMaker(store.cells, blind_index)
        self._marks = Marks(CHANGELOG)
        self.away = AwayRows(store, maker)
        self._writer = BundleWriter(store, maker, self.away.send)
        self._applier = BatchApplier(store, maker)
        self.desk = QuarantineDesk(store, self._applier)
        self.resender = Resender(store)
        self._reader = Reader(store)
        self._answers = ResidentAnswers(
            store, self._reader, InProcessCache(0) if cache is None else cache
        )
        self._outgoing = OutgoingReader(store)
        self._columnar = ColumnarSource(store)
        self._counter = Counter(store)
        self._moving = MovingRows(store, maker)

    def put_bundle(self, caller: Caller, bundle: Bundle) -> BundleResult:
        """Store a bundle, all of it or nothing, with its log entries and audit.

        New rows get the first version of this life of the store, (1, 1) in the first; a given id
        that is held is amended: the next version, with all values as given. An amended resident
        keeps the identifiers he has. A retracted record's next version is a tombstone without
        values. The same request of the same principal again gives the first answer.

        Raises:
            BundleError: Of the kind that says why, with positions in the bundle; nothing stored.
            StorageBusyError: Lost against other transactions; nothing stored.
        """
        return self._writer.put(caller, bundle)

    def put_bundles(self, asked: Sequence[BundleRequest]) -> list[BundleResult | Exception]:
        """Store bundles that came together; each as `put_bundle` would, with its own audit.

        Those that can share one transaction, durable on return. A bundle that fails takes no other
        with it: in its place stands the error that `put_bundle` raises. They take effect in the
        order given, but for one that had to be tried again by itself.
        """
        return self._writer.put_all(asked)

    def put_beside(
        self, caller: Caller, bundle: Bundle, beside: Callable[[Together, BundleResult], None]
    ) -> BundleResult:
        """Store a bundle of any size and what `beside` adds, in one transaction, durable on return.

        What `beside` adds takes the place of a remembered request: whoever calls writes there how
        far he has come, and does not put the same bundle twice. The bundle may be empty. Record ids
        are derived under a key of this node. `beside` may be called several times, each time for
        another attempt of the transaction.

        Raises:
            BundleError: As put_bundle; nothing was stored, nor what stands beside.
            StorageBusyError: Lost against other transactions; nothing was stored.
        """
        return self._writer.put_beside(caller, bundle, beside)

    def resident(self, caller: Caller, resident_id: str) -> StoredResident | None:
        """A resident held in full; None: not there, or not for this caller. Audited."""
        return self._reader.resident(caller, resident_id)

    def resident_answers(
        self,
        asked: Sequence[ResidentQuestion],
        encode: Encode,
        joined: Joined = lambda resident_id, group: b"",  # noqa: ARG005
    ) -> list[bytes | None]:
        """Residents held in full, as bytes; None as for `resident`. Each audited for its caller.

        One transaction for all: if one of them fails, none is answered or audited.

        Args:
            asked: In the order of the answers.
            encode: Makes the bytes, if no answer is kept that the log still allows.
            joined: What stands behind the bytes of whoever is known under several ids.
        """
        return self._answers.answers(asked, encode, joined)

    def changed_residents(self, after: int, *, up_to: int) -> ChangedResidents:
        """Residents whose kept answers a part of the log after a sequence makes old."""
        return self._answers.changed_residents(after, up_to=up_to)

    @property
    def answer_counts(self) -> AnswerCounts:
        """How many answers came from the cache, and from the tables."""
        return self._answers.counts

    def refuse_if_moved(self, caller: Caller, resident_id: str) -> None:
        """Say where a resident is who is not here (any more, or yet), if the caller may know.

        Raises:
            ResidentMovedError: His home is elsewhere.
            ResidentInTransferError: It is here, and his history has not come yet.
        """
        named = named_id(resident_id)
        if named is not None:
            self._store.transactions.read(
                lambda connection: refuse_if_away(self._store, connection, caller, named)
            )

    def find_resident(self, caller: Caller, system: str, value: str) -> StoredResident | None:
        """The resident who carries an identifier, found by the keyed index. Audited."""
        return self._reader.find_resident(caller, system, value)

    def record(self, caller: Caller, record_id: str) -> StoredRecord | None:
        """A record held in full, retracted ones too; None as for residents. Audited."""
        return self._reader.record(caller, record_id)

    def timeline(
        self, caller: Caller, resident_id: str, *, size: int = 100, token: str = ""
    ) -> Page:
        """A resident's records, newest day of care first; rows that arrive later move no page.

        A record without a date of care stands at the day it was recorded. Retracted records are
        left out. Audited.

        Args:
            caller: Who asks.
            resident_id: Whose records.
            size: 1 to 500 records; beyond is cut to that.
            token: `next_token` of the page before; "" for the first.

        Raises:
            PageTokenError: The token is not of this resident's timeline.
            AuditUnanchoredError: It is a further page, and the audit cannot be relied on now.
        """
        return self._reader.timeline(caller, resident_id, size=size, token=token)

    def residents_by_home(self, caller: Caller) -> dict[str, int]:
        """Residents known, by home: held in full, or as entries of the main index. Audited."""
        return self._counter.residents_by_home(caller)

    def counts(self) -> Counts:
        """Rows held by table. Reads whole indexes; no patient data."""
        return self._counter.counts()

    def apply_batch(
        self, peer: NodeId, peer_role: PeerRole, batch: Batch, cursor: Cursor
    ) -> ApplyOutcome:
        """Apply a peer's batch, relay what was admitted through the log, and save the cursor.

        One transaction, durable on return. A batch applied before changes nothing.

        Args:
            peer: Who sent it.
            peer_role: What the peer is to this node.
            batch: In the order of its stream.
            cursor: Where the lane stands once it is applied.

        Raises:
            BatchOrderError: The stored cursor is not the batch's predecessor.
            RemoteProtocolError: An entry is not of this protocol; nothing was applied.
            CursorWentBackError: The stream is older than the one on record.
        """
        return self._applier.apply(peer, peer_role, batch, cursor)

    def outgoing(
        self,
        peer: NodeId,
        peer_role: PeerRole,
        lane: Lane,
        after: int,
        bytes_max: int,
        *,
        up_to: int | None = None,
    ) -> tuple[tuple[LogEntry, ...], int]:
        """Entries of a lane for a peer after a sequence, and how far the log was scanned.

        `bytes_max` bounds the rows read before they are transformed, beyond the first entry.
        `up_to`: read no further, such as the durable head.
        """
        return self._outgoing.read(peer, peer_role, lane, after, bytes_max=bytes_max, up_to=up_to)

    def outgoing_part(
        self,
        peer: NodeId,
        peer_role: PeerRole,
        lane: Lane,
        after: int,
        bytes_max: int,
        *,
        position: str = "",
        up_to: int | None = None,
        ability: PeerAbility | None = None,
    ) -> LogPart:
        """What a link is to send next in a lane: of the log, or of a snapshot in its place.

        Args:
            peer: A neighbour.
            peer_role: What it is to this node.
            lane: The lane.
            after: The log's sequence up to which the peer holds everything that is for it.
            bytes_max: Of rows, about; at least one entry comes if there is any.
            position: "" reads the log; SEED begins a snapshot for a recovering peer; else where a
                snapshot goes on.
            up_to: The durable head.
            ability: What the peer can take; None: everything.

        Raises:
            LogPrunedError: The log no longer reaches back to `after`, and the peer takes no
                snapshots.
        """
        return self._outgoing.part(
            peer,
            peer_role,
            lane,
            after,
            position=position,
            bytes_max=bytes_max,
            up_to=up_to,
            ability=ability or PeerAbility(),
        )

    @property
    def context(self) -> StoreContext:
        """What the parts of the storage work with, for rooms that write in its transactions."""
        return self._store

    @property
    def recovery(self) -> Recovery:
        """Whether this node is getting back what it lost."""
        return self._store.recovery

    def columnar_changes(
        self, after: int, limit: int, *, up_to: int | None = None
    ) -> ColumnarChanges:
        """Current rows of every dataset that the log touched after a sequence.

        At most `limit` log entries (and about 8 MiB of them) are looked at; a changed resident
        brings all of his records. Call again from `up_to` until it is `head`; 0 starts over.
        """
        return self._columnar.changes(after, limit, up_to)

    def columnar_rows(self, dataset: str, after: str, limit: int) -> ColumnarRows:
        """Current rows of a dataset after a row id, at most `limit`: the replica from the tables.

        For a replica that stands before what is left of the log.
        """
        return self._columnar.rows(dataset, after, limit)

    def unknown_fields(self, table: str, row: RowMapping) -> dict[str, Value]:
        """The columns of a stored row that a newer peer sent and this schema does not have."""
        return self._store.cells.open_unknown(TABLES[table], row)

    def log_state(self) -> LogState:
        """Where the change log stands."""
        log = self._store.changelog
        return self._store.transactions.read(
            lambda connection: LogState(log.head(connection), log.left_unnumbered(connection))
        )

    @property
    def moving(self) -> MovingRows:
        """Rows of homes that come to another branch of the region."""
        return self._moving

    @property
    def transactions(self) -> Transactions:
        """For the node's own small tables in the same database (region_epochs)."""
        return self._store.transactions

    @property
    def quarantine(self) -> Quarantine:
        """Changes that were not admitted; its methods take a connection."""
        return self._store.quarantine

    def quarantined(self) -> int:
        """Changes that wait in the quarantine."""
        return self._store.transactions.read(self._store.quarantine.count)

    def quarantined_by_home(self) -> dict[str, int]:
        """Residents with a change that waits, by home: they count as not covered."""
        return self._store.transactions.read(self._store.quarantine.residents_by_home)

    def marks(self) -> dict[str, int]:
        """How fresh the copies of each home are, ms since 1970 UTC; this node's own is now.

        While it recovers it has no mark for its own.
        """
        now_ms = self._store.clock.now_ms()
        held = self._store.transactions.read(self._marks.load)
        # What a recovering node holds of its own home is not all that was written there.
        return held if self.recovery.active else {**held, self._store.node_id: now_ms}

    def note_question(self, caller: Caller, dataset: str, query_id: str) -> None:
        """Audit a federated question before rows are counted for it. Durable on return.

        Args:
            caller: Who asks, under which node's authority, and why.
            dataset: Of the dictionary of datasets.
            query_id: The asker's; kept if it is 16 hexadecimal digits, since it may come from afar.

        Raises:
            AuditUnanchoredError, AuditReadsStoppedError: The audit cannot be relied on now.
        """
        self._store.auditor.gate.refuse_bulk()
        known = query_id if _QUERY_ID.fullmatch(query_id) else None
        self.note(caller, Deed(Action.QUESTION, dataset, Outcome.DONE, 0, object_id=known))

    def note(self, caller: Caller, deed: Deed) -> None:
        """Audit a deed before it is done. Durable on return."""
        self._store.transactions.write(
            lambda connection: self._store.auditor.write(connection, caller, deed)
        )

    def link_audit(self) -> int:
        """Chain audit entries that are not linked yet; how many. Call again until 0."""
        return self._store.transactions.write(self._store.auditor.link)

    def verify_audit(self) -> AuditBreak | None:
        """Walk the audit's chain; None if it holds."""
        return self._store.transactions.read(self._store.auditor.verify)

    def audit_entries(self, *, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        """Audit entries in the order they were written, after the first `after`."""
        return self._store.transactions.read(
            lambda connection: self._store.auditor.entries(connection, after=after, limit=limit)
        )


def _relay(
    node_id: NodeId,
    hierarchy: Hierarchy,
    changelog: ChangeLog,
    sealer: DataKeys,
    *,
    clock: Clock,
    ids: Ids,
) -> Post:
    """A post that relays letters, and neither seals nor opens any."""
    return Post(
        TRANSIT,
        node_id=node_id,
        hierarchy=hierarchy,
        changelog=changelog,
        sealer=sealer.of(TRANSIT.out.name),
        clock=clock,
        ids=ids,
    )


def _quarantine(node_id: NodeId, keys: DataKeys, random_bytes: RandomBytes) -> Quarantine:
    sealer = keys.of(CHANGELOG.quarantine.name)
    return Quarantine(CHANGELOG, node_id=node_id, sealer=sealer, random_bytes=random_bytes)
