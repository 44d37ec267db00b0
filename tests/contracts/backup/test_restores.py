"""What is restored is what was there, table by table, whatever happened between two backups."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, select, text, update

from node.backup.chains import Shelf
from node.backup.place import open_place
from node.backup.restoring import restore
from node.records.model import Bundle, NewRecord
from node.settings import load_settings, save_settings
from node.storage import EngineLimits, migrate, open_engine
from node.storage.migrations import head_revision, revision_of
from node.storage.purging import note_purged
from node.storage.tables import AUDIT, CHANGELOG, REPLICATED
from replication.changelog import (
    LogReaders,
    NewEntry,
    StoreState,
    read_transaction,
    write_transaction,
)
from replication.core.config import PeerRole
from replication.core.model import Cursor, Form, Lane, LogEntry, StreamEpoch
from tests.contracts.backup.nodes import SECRET, BackedUpNode, Contents, contents
from tests.contracts.storage.region import (
    NOW_MS,
    TOWNSHIP,
    batch_of,
    bundle,
    change,
    log_entry,
    observation,
    person,
)

Url = Callable[[], str]


class Days:
    """What happens at a node from day to day."""

    def __init__(self, node: BackedUpNode, seed: int) -> None:
        self._node = node
        self._random = random.Random(seed)
        self._residents: list[str] = []
        self._records: list[tuple[str, str]] = []
        self._bundles = 0
        self._rows_from_above = 0

    def pass_one(self) -> None:
        """A few things of every kind."""
        self._node.clock.ms += 3_600_000
        for act in self._random.sample(self.acts, k=4):
            act()

    @property
    def acts(self) -> list[Callable[[], None]]:
        return [
            self.register,
            self.amend,
            self.retract,
            self.arrive,
            self.read_head,
            self.chain,
            self.prune,
            self.letter,
            self.hand_on,
        ]

    def register(self) -> None:
        """Two new residents with a record each."""
        storage = self._node.store.storage
        for _ in range(2):
            self._bundles += 1
            number = f"1426011980{self._bundles:08d}"
            made = storage.put_bundle(
                self._node.caller, bundle(f"r{self._bundles}", person(number, phone="139"))
            )
            resident = made.resident_ids[0]
            self._bundles += 1
            record = storage.put_bundle(
                self._node.caller, bundle(f"r{self._bundles}", observation(resident))
            ).record_ids[0]
            self._residents.append(resident)
            self._records.append((resident, record))

    def amend(self) -> None:
        """A record gets another value."""
        if self._records:
            resident, record = self._random.choice(self._records)
            self._put(replace(observation(resident, record_id=record), values={"value": 99.5}))

    def retract(self) -> None:
        """A record becomes a tombstone."""
        if self._records:
            resident, record = self._records.pop()
            self._put(NewRecord(record, "", resident, {}, retracted=True))

    def arrive(self) -> None:
        """A row comes down; another is quarantined."""
        self._rows_from_above += 1
        row = 500 + self._rows_from_above
        good = change(row=row, author=TOWNSHIP)
        bad = change(row=row + 5000, author=TOWNSHIP, home="141024")
        self._apply(
            log_entry(good, sequence=2 * row, origin=TOWNSHIP),
            log_entry(bad, sequence=2 * row + 1, origin=TOWNSHIP),
        )

    def read_head(self) -> None:
        """As far as readers may go, as links ask."""
        self._node.store.durable_head()

    def chain(self) -> None:
        """Audit entries are chained."""
        self._node.store.storage.link_audit()

    def prune(self) -> None:
        """The older half of what the newest backup holds goes."""
        with write_transaction(self._node.store.engine) as connection:
            held = connection.execute(select(CHANGELOG.log_readers.c.sequence)).scalar() or 0
            self._node.store.log.prune(connection, int(held) // 2)

    def letter(self) -> None:
        """A letter is on its way through."""
        entry = NewEntry(
            origin_node=self._node.node_id,
            origin_epoch=1,
            origin_sequence=None,
            lane=Lane.BULK,
            home_node=TOWNSHIP,
            form=Form.SEALED,
            codec=2,
            schema_version=1,
            committed_at_ms=NOW_MS,
            row_count=0,
            rows=b"sealed to another node",
        )
        with write_transaction(self._node.store.engine) as connection:
            self._node.store.log.append(connection, [entry])

    def hand_on(self) -> None:
        """Letters were handed on: what they said is erased."""
        t = CHANGELOG.change_log
        with write_transaction(self._node.store.engine) as connection:
            connection.execute(update(t).where(t.c.form == "sealed").values(payload=b"", bytes=0))

    def _put(self, record: NewRecord) -> None:
        self._bundles += 1
        self._node.store.storage.put_bundle(
            self._node.caller, Bundle(f"r{self._bundles}", (), (record,))
        )

    def _apply(self, *entries: LogEntry) -> None:
        store = self._node.store
        with read_transaction(store.engine) as connection:
            held = store.links.load_inbound(connection, TOWNSHIP)
        cursor = held.get(Lane.BULK, Cursor(Lane.BULK, StreamEpoch(1, 1), 0, 0))
        batch, after = batch_of(cursor, entries, cursor.covers_to + len(entries))
        store.storage.apply_batch(TOWNSHIP, PeerRole.PARENT, batch, after)


def shelf_at(node: BackedUpNode) -> Shelf:
    """The node's backups."""
    return Shelf(open_place(str(node.shelf)), node.node_id)


def put_back(node: BackedUpNode, at: int, folder: Path, url: str) -> Contents:
    """Restore a backup and look at all of it."""
    restore(shelf_at(node), SECRET, folder, at=at, database=url)
    return contents(url)


@pytest.mark.parametrize("seed", range(4))
def test_every_backup_restores_its_moment(
    node: BackedUpNode, new_url: Url, tmp_path: Path, seed: int
) -> None:
    """Full, then incrementals over everything that happens at a node; each equals its moment."""
    days = Days(node, seed)
    days.register()
    then = [node.contents()]
    kinds = [node.backup().manifest.kind]
    for _ in range(5):
        days.pass_one()
        then.append(node.contents())
        kinds.append(node.backup().manifest.kind)
    assert kinds == ["full"] + ["incremental"] * 5
    for at in (1, 3, 6):
        assert put_back(node, at, tmp_path / f"restored{at}", new_url()) == then[at - 1]


def test_unknown_and_purged_rows_are_not_missed(
    node: BackedUpNode, new_url: Url, tmp_path: Path
) -> None:
    """A table nobody told of, rows purged with and without a word, an audit cut short."""
    days = Days(node, 1)
    for _ in range(3):
        days.register()
    node.store.storage.link_audit()
    with node.store.engine.begin() as connection:
        connection.execute(text("CREATE TABLE later_room (id INTEGER PRIMARY KEY, cell BLOB)"))
        connection.execute(text("INSERT INTO later_room VALUES (1, NULL), (2, NULL)"))
    node.backup()
    observations, audit = REPLICATED["observations"], AUDIT
    with node.store.engine.begin() as connection:
        connection.execute(text("DELETE FROM later_room WHERE id = 1"))
        one = connection.execute(select(observations.c.row_id)).scalars().first()
        connection.execute(delete(observations).where(observations.c.row_id == one))
        note_purged(connection)
        connection.execute(delete(audit).where(audit.c.chain_position <= 2))
    then = node.contents()
    assert node.backup().manifest.kind == "incremental"
    with node.store.engine.begin() as connection:
        connection.execute(delete(REPLICATED["identifiers"]))
    now = node.contents()
    node.backup()
    del then["later_room"], now["later_room"]
    with pytest.raises(Exception, match="later_room"):
        put_back(node, 2, tmp_path / "refused", new_url())
    with node.store.engine.begin() as connection:
        connection.execute(text("DROP TABLE later_room"))
    node.backup()
    assert put_back(node, 4, tmp_path / "restored", new_url()) == now


def test_a_pruned_log_makes_the_next_backup_full(node: BackedUpNode) -> None:
    """What happened since is no longer to be told from the log."""
    days = Days(node, 2)
    days.register()
    node.backup()
    days.register()
    head = node.store.durable_head()
    with write_transaction(node.store.engine) as connection:
        node.store.log.prune(connection, head)
    made = node.backup()
    assert (made.manifest.kind, made.reason) == (
        "full",
        "the log was pruned beyond the last backup",
    )


def test_a_reader_of_the_log_stands_at_the_newest_backup(node: BackedUpNode) -> None:
    """Pruning asks the readers how far they are."""
    Days(node, 3).register()
    node.store.durable_head()
    made = node.backup()
    with read_transaction(node.store.engine) as connection:
        readers = LogReaders(CHANGELOG).load(connection)
    assert readers["backup"] == made.manifest.head > 0


def test_a_restore_is_a_new_life_that_recovers(
    node: BackedUpNode, new_url: Url, tmp_path: Path
) -> None:
    """Epoch, incarnation, recovering; and the log goes on where it stood."""
    days = Days(node, 4)
    days.register()
    node.backup()
    folder, url = tmp_path / "restored", new_url()
    done = restore(shelf_at(node), SECRET, folder, database=url, epoch=7)
    assert (done.epoch, done.number) == (7, 1)
    assert load_settings(folder).database == url
    assert (folder / "keys" / "node.key").stat().st_mode & 0o777 == 0o600
    node.close()
    node.folder, node.url = folder, url
    node.store = node.open()
    assert node.store.epoch == 7
    with read_transaction(node.store.engine) as connection:
        assert StoreState(CHANGELOG).load(connection)["recovering"] == "1"
    days.register()
    made = node.backup()
    assert made.manifest.kind == "full"
    assert made.reason == "the store lives another life than at the last backup"


def test_a_store_of_the_first_release_is_kept_and_brought_up(
    node: BackedUpNode, new_url: Url, tmp_path: Path
) -> None:
    """Its schema has fewer columns: a full backup of it restores, and is migrated then."""
    old = new_url()
    engine = open_engine(old, EngineLimits(connections=2))
    migrate(engine, "0001")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO store_state VALUES ('store_epoch', '3')"))
        connection.execute(text("INSERT INTO store_state VALUES ('store_incarnation', 'old')"))
        connection.execute(text("INSERT INTO scope_homes VALUES ('key', '1410')"))
    engine.dispose()
    settings = load_settings(node.folder)
    save_settings(node.folder, settings.model_copy(update={"database": old}))
    made = node.backup()
    assert (made.manifest.kind, made.manifest.revision) == ("full", "0001")
    assert node.backup().reason == "the schema changed since the last backup"
    url = new_url()
    restore(shelf_at(node), SECRET, tmp_path / "restored", database=url)
    assert contents(url)["scope_homes"] == [("key", "1410")]
    engine = open_engine(url, EngineLimits(connections=2))
    assert revision_of(engine) == head_revision()
    engine.dispose()
