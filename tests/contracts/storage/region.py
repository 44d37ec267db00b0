"""A small region of storages without a wire: a city, two counties, a township, two villages.

`ship` does what a link does, by hand: reads what is for the peer and applies it there.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, Table, func, select, text

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import CareLevel, NodeEntry, NodeId
from node.cache import Cache
from node.clock import Ids
from node.opening import NodeLog
from node.records.model import Bundle, NewIdentifier, NewRecord, NewResident
from node.security.blind_index import BlindIndex, Pseudonymizer, RegionalIndex
from node.security.caller import Caller, CallerKind, caller_for
from node.security.sealing import DataKeys
from node.storage import CHANGELOG, ApplyOutcome, Storage
from node.storage.tables import REPLICATED
from replication.changelog import ChangeLog, LinkState, read_transaction
from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.config import PeerRole
from replication.core.hashing import batch_digest, running_hash
from replication.core.model import (
    Batch,
    Cursor,
    Form,
    Lane,
    LogEntry,
    Operation,
    RowChange,
    StreamEpoch,
    Value,
    Version,
)
from tests.schema import migrated

__all__ = [
    "CITY",
    "COUNTY",
    "NOW_MS",
    "OTHER_COUNTY",
    "TOWNSHIP",
    "VILLAGE",
    "VILLAGE_2",
    "FakeClock",
    "NodeStore",
    "Region",
    "batch_of",
    "bundle",
    "change",
    "count",
    "hierarchy",
    "log_entry",
    "observation",
    "person",
    "send",
    "stored_files",
]

CITY: Final = NodeId("1410")
COUNTY: Final = NodeId("141002")
OTHER_COUNTY: Final = NodeId("141024")
TOWNSHIP: Final = NodeId("141002001")
VILLAGE: Final = NodeId("141002001201")
VILLAGE_2: Final = NodeId("141002001202")
NOW_MS: Final = 1_795_000_000_123

_REGIONAL_KEY: Final = b"r" * 32
_PSEUDONYM_KEY: Final = b"p" * 32
_LINKS: Final = LinkState(CHANGELOG)


def hierarchy() -> Hierarchy:
    """The region's six nodes."""
    above = {
        CITY: None,
        COUNTY: CITY,
        OTHER_COUNTY: CITY,
        TOWNSHIP: COUNTY,
        VILLAGE: TOWNSHIP,
        VILLAGE_2: TOWNSHIP,
    }
    levels = {4: CareLevel.CITY, 6: CareLevel.COUNTY, 9: CareLevel.TOWNSHIP, 12: CareLevel.VILLAGE}
    return Hierarchy(
        region="linfen",
        epoch=1,
        nodes={
            node_id: NodeEntry(node_id, levels[len(node_id)], "地", "di", parent, None, "village")
            for node_id, parent in above.items()
        },
    )


@dataclass
class FakeClock:
    """Stands still until it is told."""

    ms: int = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms


@dataclass
class NodeStore:
    """One node: its storage on a migrated database, with what a node has around it."""

    node_id: NodeId
    engine: Engine
    tree: Hierarchy
    clock: FakeClock
    seed: int
    store_epoch: int = 1
    storage: Storage = field(init=False)
    log: ChangeLog = field(init=False)
    keys: DataKeys = field(init=False)
    _starts: int = field(default=0, init=False)
    _index: BlindIndex | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        migrated(self.engine)
        source = random.Random(self.seed)
        self.keys = DataKeys.fresh(self.node_id, source.randbytes)
        self.storage = self._opened(source)

    def open_storage_again(self) -> Storage:
        """What a restarted process would open: nothing that was in memory is left."""
        self._starts += 1
        # No start gives out the ids of another again.
        return self._opened(random.Random(f"{self.seed} {self._starts}"))

    def _opened(self, source: random.Random) -> Storage:
        """Log and storage as `node.opening.open_store` makes them."""
        self._node_log = NodeLog(
            self.engine,
            node_id=self.node_id,
            store_epoch=self.store_epoch,
            keys=self.keys,
            random_bytes=source.randbytes,
        )
        self.log = self._node_log.log
        storage = self.open_storage(source, None)
        self._node_log.take_over()
        return storage

    def open_storage(self, source: random.Random, cache: Cache | None) -> Storage:
        """The node's storage, with a cache of answers or none."""
        # Its key is the node's, and outlives every start.
        self._index = self._index or BlindIndex(source.randbytes(32))
        level = self.tree.nodes[self.node_id].level
        regional = level in {CareLevel.CITY, CareLevel.COUNTY}
        county = level is CareLevel.COUNTY
        return Storage(
            self.engine,
            node_id=self.node_id,
            hierarchy=self.tree,
            sealer=self.keys,
            blind_index=self._index,
            changelog=self.log,
            clock=self.clock,
            ids=Ids(self.clock, source.randbytes),
            regional_index=RegionalIndex(_REGIONAL_KEY) if regional else None,
            pseudonymizer=Pseudonymizer(_PSEUDONYM_KEY) if county else None,
            random_bytes=source.randbytes,
            cache=cache,
        )

    def caller(self, kind: CallerKind = CallerKind.CLIENT, name: str = "his") -> Caller:
        """A caller of this node, who may see its subtree."""
        principal = f"{self.tree.spiffe_id(self.node_id)}/{kind}/{name}"
        return caller_for(kind, principal, self.node_id, self.tree, "treatment")

    def durable_head(self) -> int:
        """The log's head, as the node asks for it."""
        return self._node_log.durable_head()

    def entries(self, lane: Lane | None = None) -> tuple[LogEntry, ...]:
        """The whole log, as the database has it."""
        with read_transaction(self.engine) as connection:
            return self.log.read(connection, after=0, lane=lane, bytes_max=1 << 30).entries

    def changes(self) -> list[RowChange]:
        """Every row change in the log, in order."""
        return [row for entry in self.entries() for row in decode_changes(entry.codec, entry.rows)]

    def cursor(self, peer: NodeId, lane: Lane) -> Cursor:
        """Where this node stands in a peer's lane."""
        return self.cursors(peer)[lane]

    def cursors(self, peer: NodeId) -> dict[Lane, Cursor]:
        """Where this node stands in each of a peer's lanes."""
        with read_transaction(self.engine) as connection:
            held = _LINKS.load_inbound(connection, peer)
        return {lane: held.get(lane, Cursor(lane, StreamEpoch(1, 1), 0, 0)) for lane in Lane}


class Region:
    """Opens nodes on demand, each on a database of its own."""

    def __init__(self, new_engine: Callable[[], Engine]) -> None:
        self.tree = hierarchy()
        self.clock = FakeClock()
        self._new_engine = new_engine
        self._nodes: dict[NodeId, NodeStore] = {}
        self._more: list[NodeStore] = []
        self._nothing: dict[tuple[int, int, Lane], tuple[int, Cursor]] = {}
        """Head and cursor between which a lane had nothing for a receiver."""

    def node(self, node_id: NodeId) -> NodeStore:
        """The node of that id."""
        if node_id not in self._nodes:
            seed = int(node_id)
            self._nodes[node_id] = NodeStore(
                node_id, self._new_engine(), self.tree, self.clock, seed
            )
        return self._nodes[node_id]

    def another(self, node_id: NodeId) -> NodeStore:
        """A second store under a node's id: what it would be if it were made anew."""
        made = NodeStore(
            node_id, self._new_engine(), self.tree, self.clock, int(node_id) + len(self._more) + 1
        )
        self._more.append(made)
        return made

    def close(self) -> None:
        """Close every engine."""
        for node in (*self._nodes.values(), *self._more):
            node.engine.dispose()

    def ship(self, sender: NodeStore, receiver: NodeStore) -> list[LogEntry]:
        """Send everything that is for the receiver; what was sent."""
        up = self.tree.parent(sender.node_id) == receiver.node_id
        to, frm = (PeerRole.PARENT, PeerRole.CHILD) if up else (PeerRole.CHILD, PeerRole.PARENT)
        head = sender.durable_head()
        sent: list[LogEntry] = []
        for lane, cursor in receiver.cursors(sender.node_id).items():
            stretch = (id(sender), id(receiver), lane)
            if self._nothing.get(stretch) == (head, cursor):
                continue
            entries, scanned_to = sender.storage.outgoing(
                receiver.node_id, to, lane, cursor.covers_to, 1 << 20
            )
            if entries:
                sent.extend(entries)
                batch, after = batch_of(cursor, entries, scanned_to)
                receiver.storage.apply_batch(sender.node_id, frm, batch, after)
            else:
                self._nothing[stretch] = (head, cursor)
        return sent

    def ship_up(self, *path: NodeId) -> None:
        """Send along a path of nodes, each to the next."""
        for sender, receiver in itertools.pairwise(path):
            self.ship(self.node(sender), self.node(receiver))


def stored_files(*nodes: NodeStore) -> list[Path]:
    """Every file in which the nodes' databases keep rows: tables, write-ahead and redo logs."""
    found: set[Path] = set()
    for node in nodes:
        url = node.engine.url
        assert url.database is not None
        if node.engine.dialect.name == "sqlite":
            main = Path(url.database)
            found.update(main.parent.glob(f"{main.name}*"))
            continue
        with node.engine.connect() as connection:
            folder = Path(connection.execute(text("SELECT @@datadir")).scalar_one())
        found.update(path for path in folder.glob("ib*") if path.is_file())
        found.update((folder / url.database).iterdir())
    return sorted(found)


def send(
    receiver: NodeStore, peer: NodeId, role: PeerRole, *entries: LogEntry, lane: Lane = Lane.BULK
) -> ApplyOutcome:
    """Hand the receiver a batch as a peer would, whatever is in it."""
    cursor = receiver.cursor(peer, lane)
    batch, after = batch_of(cursor, entries, cursor.covers_to + len(entries))
    return receiver.storage.apply_batch(peer, role, batch, after)


def batch_of(cursor: Cursor, entries: Sequence[LogEntry], covers_to: int) -> tuple[Batch, Cursor]:
    """The batch that follows `cursor`, and the cursor once it is applied."""
    digest = batch_digest(cursor.lane, entries, covers_from=cursor.covers_to, covers_to=covers_to)
    number = cursor.number + 1
    batch = Batch(
        lane=cursor.lane,
        stream_epoch=cursor.stream_epoch,
        number=number,
        previous=cursor.number,
        covers_from=cursor.covers_to,
        covers_to=covers_to,
        coalesced=False,
        digest=digest,
        entries=tuple(entries),
        row_count=sum(entry.row_count for entry in entries),
        body_bytes=sum(len(entry.rows) for entry in entries),
    )
    after = Cursor(
        cursor.lane,
        cursor.stream_epoch,
        number,
        covers_to,
        running_hash(cursor.running_hash, digest),
    )
    return batch, after


def person(number: str = "14260119800101001X", name: str = "张三", **more: str) -> NewResident:
    """A resident with an identity number; `more` replaces fields."""
    return NewResident(
        resident_id=more.get("resident_id"),
        name=name,
        sex=more.get("sex", "female"),
        birth_date=more.get("birth_date", "1980-01-01"),
        identifiers=(NewIdentifier("identity_number", number),) if number else (),
        phone=more.get("phone"),
        address=more.get("address"),
        home_node=more.get("home_node"),
        deceased_on=more.get("deceased_on"),
    )


def observation(
    resident_id: str, value: float = 128.0, day: str = "2026-03-01", record_id: str | None = None
) -> NewRecord:
    """A systolic blood pressure."""
    values: dict[str, Value] = {
        "code": "8480-6",
        "value": value,
        "unit": "mm[Hg]",
        "observed_on": day,
    }
    return NewRecord(record_id, "observations", resident_id, values)


def bundle(request_id: str, *rows: NewResident | NewRecord) -> Bundle:
    """A bundle of residents and records."""
    return Bundle(
        request_id,
        tuple(row for row in rows if isinstance(row, NewResident)),
        tuple(row for row in rows if isinstance(row, NewRecord)),
    )


def change(
    table: str = "observations",
    *,
    row: int = 1,
    resident: int = 1,
    version: tuple[int, int] = (1, 1),
    author: str = VILLAGE,
    home: str = VILLAGE,
    home_epoch: int = 1,
    form: Form = Form.FULL,
    operation: Operation = Operation.PUT,
    values: dict[str, Value] | None = None,
) -> RowChange:
    """A row change as a peer sends it; `row` and `resident` become ids.

    A resident's own row, and his index entry, have his id for both.
    """
    resident_id = f"00000000-0000-7000-9000-{resident:012d}"
    own = table in {"residents", "resident_index"}
    return RowChange(
        table=table,
        row_id=resident_id if own else f"00000000-0000-7000-8000-{row:012d}",
        resident_id=resident_id,
        version=Version(*version),
        operation=operation,
        author_node=author,
        home_node=home,
        home_epoch=home_epoch,
        schema_version=1,
        recorded_at="2026-03-01T08:00:00.000Z",
        form=form,
        values={"code": "8480-6", "value": 120.0} if values is None else values,
    )


def log_entry(
    *changes: RowChange, sequence: int = 1, lane: Lane = Lane.BULK, origin: str = VILLAGE
) -> LogEntry:
    """An entry around changes of one home and form."""
    return LogEntry(
        sequence=0,
        origin_node=origin,
        origin_epoch=1,
        origin_sequence=sequence,
        lane=lane,
        home_node=changes[0].home_node,
        form=changes[0].form,
        codec=CODEC_JSON,
        schema_version=1,
        committed_at_ms=NOW_MS,
        row_count=len(changes),
        rows=encode_changes(changes),
    )


def count(node: NodeStore, table: Table | str) -> int:
    """Rows in a table."""
    chosen = REPLICATED[table] if isinstance(table, str) else table
    with read_transaction(node.engine) as connection:
        return connection.execute(select(func.count()).select_from(chosen)).scalar_one()
