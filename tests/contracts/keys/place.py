"""A village with a data folder, residents, something sealed in every place, and its key keeper."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, insert, select

from node.keys.keeper import KeyGround, KeyKeeper
from node.keys.places import PLACES, SealedPlace
from node.keys.service import service_of
from node.security.folders import NodeFolder
from node.security.sealing import HEADER_BYTES
from node.settings import load_settings
from node.storage.data_keys import StoredKeys
from replication.changelog import write_transaction
from replication.core.model import Form, Lane
from tests.contracts.backup.nodes import BackedUpNode

__all__ = ["KeyedNode"]

# Words of a closed set, which readers look up.
_MEANT: dict[str, Any] = {"lane": Lane.BULK.value, "form": Form.FULL.value, "audience": 0}

Cells = dict[tuple[str, Any, str], bytes]


@dataclass
class KeyedNode(BackedUpNode):
    """As a running node has its keys, without its threads."""

    grace_ms: int = 0
    keeper: KeyKeeper = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hold()

    def hold(self) -> None:
        """Make the keeper of the store as it is open now."""
        context = self.store.storage.context
        self.stored = StoredKeys(self.store.engine, self.clock)
        ground = KeyGround(
            self.node_id,
            NodeFolder(self.folder),
            self.store.keys,
            self.stored,
            context.transactions,
            context.auditor,
            self.clock,
            os.urandom,
            service_of(load_settings(self.folder).key_command),
        )
        self.keeper = KeyKeeper(ground, grace_ms=self.grace_ms)

    def restart(self) -> None:
        """Another life of the node: only what is durable is left."""
        self.store.close()
        self.store = self.open()
        self.hold()

    def reseal(self, rows: int = 100) -> int:
        """Work until there is nothing to do; steps taken."""
        steps = 0
        while self.keeper.step(rows) is not None:
            steps += 1
            assert steps < 1000
        return steps

    def fill_places(self) -> None:
        """Put one sealed row into every place, whichever rooms own it."""
        keys = self.store.keys
        with write_transaction(self.store.engine) as connection:
            for place in PLACES.values():
                row = {
                    column.name: _something(column.type.python_type)
                    for column in place.table.columns
                    if not column.nullable or column.name in place.columns
                    if not column.primary_key or column.autoincrement is not True
                }
                row |= {name: value for name, value in _MEANT.items() if name in row}
                for name in place.columns:
                    sealed = keys.of(place.name).seal_named(
                        b'"a secret"', place.aad(self.node_id, name, row)
                    )
                    row[name] = sealed.envelope
                    if place.named:
                        row |= {"suite": sealed.suite, "key_id": sealed.key_id}
                connection.execute(insert(place.table).values(row))

    def cells(self) -> Cells:
        """Every sealed value as it lies in the database."""
        found: Cells = {}
        with self.store.engine.connect() as connection:
            for place in PLACES.values():
                for row in connection.execute(select(place.table)).mappings():
                    key = tuple(row[column.name] for column in place.key)
                    for name in place.columns:
                        if row[name]:
                            found[place.name, key, name] = bytes(row[name])
        return found

    def clear(self) -> Cells:
        """Every sealed value, opened in its place."""
        found: Cells = {}
        with self.store.engine.connect() as connection:
            for place in PLACES.values():
                for row in connection.execute(select(place.table)).mappings():
                    found |= self._opened(place, dict(row))
        return found

    def _opened(self, place: SealedPlace, row: dict[str, Any]) -> Cells:
        key = tuple(row[column.name] for column in place.key)
        named = row["key_id"] if place.named else None
        return {
            (place.name, key, name): self.store.keys.open(
                bytes(row[name]), place.aad(self.node_id, name, row), named
            )
            for name in place.columns
            if row[name]
        }

    def key_ids(self, place: str) -> set[str]:
        """Keys that sealed values of a place name."""
        return {
            sealed[1:HEADER_BYTES].hex()
            for (name, _, _), sealed in self.cells().items()
            if name == place
        }

    def held(self) -> set[str]:
        """Ids of the data keys that are stored."""
        return {key.key_id for key in self.stored.load()}

    def log_head(self) -> tuple[int, int]:
        """Entries of the log and the sum of all versions: what re-sealing must not touch."""
        with self.store.engine.connect() as connection:
            versions = 0
            for place in PLACES.values():
                if "version_number" in place.table.c and "form" in place.table.c:
                    number = func.coalesce(func.sum(place.table.c.version_number), 0)
                    versions += int(connection.execute(select(number)).scalar_one())
            log = PLACES["change_log"].table
            entries = connection.execute(select(func.count()).select_from(log)).scalar_one()
            return int(entries), versions


def _something(kind: type) -> Any:
    if kind is bytes:
        return os.urandom(16)
    if kind is str:
        return os.urandom(8).hex()
    if kind is bool:
        return False
    return int.from_bytes(os.urandom(2), "big") >> 2 if kind is int else 0.5
