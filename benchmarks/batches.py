"""Batches as a village sends them to its township: people with identifiers, then their records."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Final

from benchmarks.places import VILLAGE
from replication.core.codec import CODEC_JSON, encode_changes
from replication.core.hashing import batch_digest, running_hash
from replication.core.model import (
    SCHEMA_VERSION,
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

__all__ = ["PEOPLE", "RECORDS", "VillageStream"]

PEOPLE: Final = 100
"""Residents in a batch, each with an identifier."""
RECORDS: Final = 800
"""Records in the batch that follows it."""
_ROWS_AN_ENTRY: Final = 100
_NOW_MS: Final = 1_795_000_000_000


@dataclass
class VillageStream:
    """The two lanes of one village's link; the same people and records in every run."""

    draw: Random = field(default_factory=lambda: Random(7))
    _cursors: dict[Lane, Cursor] = field(default_factory=dict)
    _sequence: Iterator[int] = field(default_factory=lambda: count(1))

    def step(self) -> list[tuple[Batch, Cursor]]:
        """The next people, and their records; each batch with the cursor after it."""
        residents = [self._id() for _ in range(PEOPLE)]
        people = [
            change
            for each in residents
            for change in (self._resident(each), self._identifier(each))
        ]
        records = [self._record(self.draw.choice(residents)) for _ in range(RECORDS)]
        return [self._batch(Lane.IDENTITY, people), self._batch(Lane.BULK, records)]

    def _id(self) -> str:
        return str(uuid.UUID(int=self.draw.getrandbits(128), version=4))

    def _resident(self, row_id: str) -> RowChange:
        year, day = self.draw.randint(1930, 2010), self.draw.randint(1, 28)
        return _change(
            "residents",
            row_id,
            row_id,
            {
                "name": "蔺暮雪",
                "birth_date": f"{year}-03-{day:02d}",
                "sex": "female",
                "birth_year": year,
                "phone": f"139{self.draw.randint(0, 99_999_999):08d}",
                "address": "临汾市尧都区鹳雀楼巷九号",
            },
        )

    def _identifier(self, resident_id: str) -> RowChange:
        value = f"{self.draw.randint(0, 10**17):018d}"
        values: dict[str, Value] = {"system": "health_card", "value": value}
        return _change("identifiers", self._id(), resident_id, values)

    def _record(self, resident_id: str) -> RowChange:
        values: dict[str, Value] = {
            "code": "8480-6",
            "value": float(self.draw.randint(90, 190)),
            "unit": "mm[Hg]",
            "observed_on": f"2026-{self.draw.randint(1, 9):02d}-{self.draw.randint(1, 28):02d}",
        }
        return _change("observations", self._id(), resident_id, values)

    def _batch(self, lane: Lane, changes: Sequence[RowChange]) -> tuple[Batch, Cursor]:
        cursor = self._cursors.get(lane) or Cursor(lane, StreamEpoch(1, 1), 0, 0)
        entries = tuple(
            self._entry(lane, changes[start : start + _ROWS_AN_ENTRY])
            for start in range(0, len(changes), _ROWS_AN_ENTRY)
        )
        covers_to = cursor.covers_to + len(entries)
        digest = batch_digest(lane, entries, covers_from=cursor.covers_to, covers_to=covers_to)
        number = cursor.number + 1
        batch = Batch(
            lane=lane,
            stream_epoch=cursor.stream_epoch,
            number=number,
            previous=cursor.number,
            covers_from=cursor.covers_to,
            covers_to=covers_to,
            coalesced=False,
            digest=digest,
            entries=entries,
            row_count=len(changes),
            body_bytes=sum(len(entry.rows) for entry in entries),
        )
        hashed = running_hash(cursor.running_hash, digest)
        after = Cursor(lane, cursor.stream_epoch, number, covers_to, hashed)
        self._cursors[lane] = after
        return batch, after

    def _entry(self, lane: Lane, changes: Sequence[RowChange]) -> LogEntry:
        return LogEntry(
            sequence=0,
            origin_node=VILLAGE,
            origin_epoch=1,
            origin_sequence=next(self._sequence),
            lane=lane,
            home_node=VILLAGE,
            form=Form.FULL,
            codec=CODEC_JSON,
            schema_version=SCHEMA_VERSION,
            committed_at_ms=_NOW_MS,
            row_count=len(changes),
            rows=encode_changes(changes),
        )


def _change(table: str, row_id: str, resident_id: str, values: dict[str, Value]) -> RowChange:
    return RowChange(
        table=table,
        row_id=row_id,
        resident_id=resident_id,
        version=Version(1, 1),
        operation=Operation.PUT,
        author_node=VILLAGE,
        home_node=VILLAGE,
        home_epoch=1,
        schema_version=SCHEMA_VERSION,
        recorded_at="2026-03-01T08:00:00.000Z",
        form=Form.FULL,
        values=values,
    )
