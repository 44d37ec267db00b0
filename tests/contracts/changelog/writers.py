"""Writers for the concurrency tests: threads of this process, or a process of its own."""

from __future__ import annotations

import random
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import Engine, MetaData, create_engine

from replication.changelog import (
    ChangeLog,
    CounterSequencer,
    define_tables,
    prepare_engine,
    write_transaction,
)
from tests.contracts.changelog.stores import NODE, FakeSealer, LogStore, entry

__all__ = ["Reader", "Writers", "write_until_killed"]


class _AbortedError(Exception):
    """Ends a transaction without its commit."""


@dataclass
class Writers:
    """Threads that commit and abort transactions of one to three entries; they note what counts.

    `acknowledged` holds the keys whose commit has returned, `aborted` those rolled back.
    """

    store: LogStore
    threads: int = 8
    transactions: int = 25
    acknowledged: list[str] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, reader: Reader) -> None:
        """Write to the end while `reader` numbers and reads, then let it catch up."""
        with ThreadPoolExecutor(self.threads) as pool:
            running = [pool.submit(self._write, number) for number in range(self.threads)]
            while not all(future.done() for future in running):
                reader.step()
            _raise_first(running)
        reader.step()

    def _write(self, number: int) -> None:
        chance = random.Random(number)
        engine = self.store.engine
        for transaction in range(self.transactions):
            keys = [f"{number}-{transaction}-{i}" for i in range(chance.randint(1, 3))]
            abort = chance.random() < 0.2
            with suppress(_AbortedError), write_transaction(engine) as connection:
                self.store.log.append(connection, [entry(key) for key in keys])
                if abort:
                    raise _AbortedError
            with self._lock:
                (self.aborted if abort else self.acknowledged).extend(keys)


@dataclass
class Reader:
    """Reads from its cursor on to the durable head, as a link does; never looks back.

    What the process has just committed comes from its memory, the rest from the database.
    """

    store: LogStore
    cursor: int = 0
    keys: list[str] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    from_memory: int = 0

    def step(self) -> None:
        """Ask for the durable head and read up to it."""
        head = self.store.durable_head()
        while self.cursor < head:
            kept = self.store.log.tail.read(
                after=self.cursor, lane=None, bytes_max=1 << 20, up_to=head, entries_max=50
            )
            self.from_memory += kept is not None
            found = kept or self.store.read(self.cursor, entries_max=50, up_to=head)
            self.sequences.extend(e.sequence for e in found.entries)
            self.keys.extend(e.rows.decode().split('"')[1] for e in found.entries)
            self.cursor = found.scanned_to


def _raise_first(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()


def write_until_killed(url: str, name: str) -> None:
    """Append one entry a transaction for ever; print each key once its commit has returned."""
    engine: Engine = prepare_engine(create_engine(url))

    tables = define_tables(MetaData())
    log = ChangeLog(
        tables,
        node_id=NODE,
        store_epoch=1,
        sealer=FakeSealer(),
        numbering=CounterSequencer(tables, store_epoch=1),
    )
    number = 0
    while True:
        key = f"{name}-{number}"
        with write_transaction(engine) as connection:
            log.append(connection, [entry(key)])
        print(key, flush=True)
        number += 1


if __name__ == "__main__":
    write_until_killed(*sys.argv[1:3])
