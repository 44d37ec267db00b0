"""A store with a change log, as a node would build it, and a sealer that checks what it is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Engine, MetaData, update

from replication.changelog import (
    ChangeLog,
    CounterSequencer,
    LogSlice,
    LogTail,
    NewEntry,
    define_tables,
    read_transaction,
    write_transaction,
)
from replication.core.codec import CODEC_JSON
from replication.core.model import Form, Lane, LogEntry
from tests.databases import Database

__all__ = ["FakeSealer", "LogStore", "SealBrokenError", "entry", "key_of"]

NODE: Final = "141002"
HOME: Final = "141002001201"


class SealBrokenError(Exception):
    """The seal is not of this text and these words."""


class FakeSealer:
    """Hides the text by XOR and binds it by SHA-256: no cipher, but as strict as one."""

    suite = "fake"
    key_id = "key-1"

    def seal_named(self, clear: bytes, aad: bytes) -> tuple[str, str, bytes]:
        sealed = hashlib.sha256(aad + clear).digest() + bytes(byte ^ 0x5A for byte in clear)
        return self.suite, self.key_id, sealed

    def open(self, sealed: bytes, aad: bytes, key_id: str) -> bytes:
        clear = bytes(byte ^ 0x5A for byte in sealed[32:])
        if key_id != self.key_id or hashlib.sha256(aad + clear).digest() != sealed[:32]:
            raise SealBrokenError
        return clear


class LogStore:
    """One life of one store; `again` opens the same database as a restarted node would."""

    def __init__(self, database: Database, *, store_epoch: int = 1) -> None:
        metadata = MetaData()
        self.database = database
        self.engine: Engine = database.open()
        self.tables = define_tables(metadata)
        metadata.create_all(self.engine)
        tail = LogTail()
        self.sequencer = CounterSequencer(
            self.tables, store_epoch=store_epoch, durable=lambda: tail.head
        )
        self.sequencer.take_over(lambda: write_transaction(self.engine))
        self.log = ChangeLog(
            self.tables,
            node_id=NODE,
            store_epoch=store_epoch,
            sealer=FakeSealer(),
            numbering=self.sequencer,
            tail=tail,
        )

    def again(self, *, store_epoch: int = 1) -> LogStore:
        """The same store, opened anew."""
        return LogStore(self.database, store_epoch=store_epoch)

    def append(self, *entries: NewEntry) -> None:
        """One transaction."""
        with write_transaction(self.engine) as connection:
            self.log.append(connection, entries)

    def leave_unnumbered(self, *entries: NewEntry) -> None:
        """Entries as a release left them that numbered after the commit and ended before it."""
        t, s = self.tables.change_log, self.tables.sequencer
        with self.engine.begin() as connection:
            head = self.log.head(connection)
            self.log.append(connection, entries)
            left = update(t).where(t.c.sequence > head)
            here = left.where(t.c.origin_node == NODE)
            connection.execute(here.values(origin_epoch=None, origin_sequence=None))
            connection.execute(left.values(epoch=None, sequence=None))
            connection.execute(update(s).values(head=head))

    def durable_head(self) -> int:
        """The durable head."""
        return self.sequencer.durable_head(lambda: write_transaction(self.engine))

    def read(
        self,
        after: int = 0,
        lane: Lane | None = None,
        *,
        bytes_max: int = 1 << 20,
        entries_max: int = 2000,
        up_to: int | None = None,
    ) -> LogSlice:
        """One slice in a transaction of its own."""
        with read_transaction(self.engine) as connection:
            return self.log.read(
                connection,
                after=after,
                lane=lane,
                bytes_max=bytes_max,
                entries_max=entries_max,
                up_to=up_to,
            )

    def keys(self) -> list[str]:
        """The keys of all entries, in the order of the log."""
        return [key_of(found) for found in self.read(entries_max=100_000).entries]

    def sequences(self) -> list[int]:
        """The numbers of all entries."""
        return [found.sequence for found in self.read(entries_max=100_000).entries]


def entry(
    key: str,
    lane: Lane = Lane.BULK,
    *,
    origin: tuple[str, int, int] | None = None,
    form: Form = Form.FULL,
    padding: int = 0,
) -> NewEntry:
    """An entry whose rows hold `key`; `origin` (node, epoch, sequence) for a relayed one."""
    rows = json.dumps([key, "x" * padding]).encode()
    node, epoch, sequence = origin or (NODE, 99, None)
    return NewEntry(
        origin_node=node,
        origin_epoch=epoch,
        origin_sequence=sequence,
        lane=lane,
        home_node=HOME,
        form=form,
        codec=CODEC_JSON,
        schema_version=1,
        committed_at_ms=1_795_000_000_000,
        row_count=1,
        rows=rows,
    )


def key_of(found: LogEntry) -> str:
    """The key in an entry's rows."""
    key: Sequence[str] = json.loads(found.rows)
    return key[0]
