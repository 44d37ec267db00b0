"""A node's data folder with an open store on a given database, and what lies in all its tables."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, select

from hardware_profiles import load_profile, profile_text
from hierarchy_config import NodeId, dump_region
from node.backup.keys import BackupSecret
from node.backup.making import Made, make_backup
from node.backup.place import open_place
from node.backup.snapshot import shapes
from node.opening import OpenStore, open_store
from node.security.authority import prepare_node
from node.security.caller import Caller, local_operator
from node.settings import NodeSettings, load_settings, save_settings
from tests.contracts.storage.region import (
    VILLAGE,
    FakeClock,
    bundle,
    hierarchy,
    observation,
    person,
)

__all__ = ["SECRET", "BackedUpNode", "contents"]

SECRET = BackupSecret(key=bytes(range(32)))

Contents = dict[str, list[tuple[Any, ...]]]


@dataclass
class BackedUpNode:
    """A village with a data folder."""

    folder: Path
    url: str
    shelf: Path
    clock: FakeClock = field(default_factory=FakeClock)
    node_id: NodeId = VILLAGE
    written: int = 0

    def __post_init__(self) -> None:
        self.tree = hierarchy()
        self.folder.mkdir()
        prepare_node(self.folder, self.node_id, random.Random(7).randbytes)
        (self.folder / "profile.yaml").write_text(profile_text(load_profile("village")))
        dump_region(self.tree, self.folder / "region.yaml")
        save_settings(
            self.folder,
            NodeSettings(node_id=self.node_id, listen="127.0.0.1:0", database=self.url),
        )
        self.store = self.open()

    def open(self) -> OpenStore:
        """The store, as a node opens it."""
        return open_store(
            self.folder,
            load_settings(self.folder),
            self.tree,
            load_profile("village"),
            self.clock,
        )

    @property
    def caller(self) -> Caller:
        """Who writes."""
        return local_operator(self.node_id, self.tree)

    def write(self, residents: int) -> None:
        """Register residents with a record each."""
        for _ in range(residents):
            self.written += 1
            number = f"1426011970{self.written:08d}"
            made = self.store.storage.put_bundle(
                self.caller, bundle(f"w{self.written}", person(number))
            )
            self.store.storage.put_bundle(
                self.caller, bundle(f"v{self.written}", observation(made.resident_ids[0]))
            )

    def backup(self, *, full: bool = False, keep: int | None = None) -> Made:
        """Make a backup onto the shelf."""
        return make_backup(
            self.folder, open_place(str(self.shelf)), SECRET, clock=self.clock, full=full, keep=keep
        )

    def contents(self) -> Contents:
        """Everything in the database."""
        return contents(self.url)

    def close(self) -> None:
        """Close the store."""
        self.store.close()


def contents(url: str) -> Contents:
    """Every row of every table, but for what a new life and a finished backup change."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return {
                name: sorted(
                    (
                        tuple(row)
                        for row in connection.execute(select(shape.clause))
                        # A backup is audited once its moment has passed.
                        if name != "audit" or "backup" not in row
                    ),
                    key=repr,
                )
                for name, shape in shapes(connection).items()
                if name not in {"store_state", "log_readers"}
            }
    finally:
        engine.dispose()
