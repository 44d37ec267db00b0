"""After a restore a store lives on under another epoch and name; nothing else may claim the old."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.errors import DataFolderInUseError, SettingsError
from node.guards import folder_locked
from node.new_epoch import begin_new_epoch
from node.settings import NodePaths, NodeSettings, save_settings
from node.storage import migrate
from node.storage.tables import CHANGELOG
from replication.changelog import (
    CounterSequencer,
    SequencerFencedError,
    StoreState,
    read_transaction,
    write_transaction,
)
from tests.databases import Database


@pytest.fixture
def folder(database: Database, tmp_path: Path) -> Path:
    """A data folder whose store has been used once, at epoch 1."""
    data = tmp_path / "data"
    data.mkdir()
    save_settings(data, _settings(database))
    migrate(database.engine)
    with write_transaction(database.engine) as connection:
        StoreState(CHANGELOG).save(connection, "store_epoch", "1")
        StoreState(CHANGELOG).save(connection, "store_incarnation", "first")
    return data


def life(database: Database) -> tuple[str, str]:
    """Epoch and incarnation as they are stored."""
    with read_transaction(database.engine) as connection:
        said = StoreState(CHANGELOG).load(connection)
    return said["store_epoch"], said["store_incarnation"]


def test_each_call_is_one_epoch_and_a_new_name(database: Database, folder: Path) -> None:
    """A second restore of one backup gets past the epoch of the first."""
    begun = begin_new_epoch(folder, lambda count: bytes([7] * count))
    assert (begun.node_id, begun.before, begun.now) == ("141002001", 1, 2)
    assert life(database) == ("2", "07" * 16)
    assert begin_new_epoch(folder).now == 3
    assert life(database)[1] not in {"first", "07" * 16}


def test_the_old_life_numbers_no_more(database: Database, folder: Path) -> None:
    """A process that still holds the old epoch is fenced by the first start of the new one."""
    old = CounterSequencer(CHANGELOG, store_epoch=1)
    old.take_over(lambda: write_transaction(database.engine))
    begun = begin_new_epoch(folder)
    new = CounterSequencer(CHANGELOG, store_epoch=begun.now)
    new.take_over(lambda: write_transaction(database.engine))
    with pytest.raises(SequencerFencedError):
        old.durable_head(lambda: write_transaction(database.engine))


def test_a_running_node_keeps_its_epoch(database: Database, folder: Path) -> None:
    """The folder's lock says that it runs."""
    with folder_locked(NodePaths(folder).lock), pytest.raises(DataFolderInUseError):
        begin_new_epoch(folder)
    assert life(database) == ("1", "first")


def test_a_store_that_was_never_used_has_no_epoch_to_raise(
    database: Database, tmp_path: Path
) -> None:
    """Somebody forgot to put the backup back."""
    save_settings(tmp_path, _settings(database))
    with pytest.raises(SettingsError, match="never been used"):
        begin_new_epoch(tmp_path)


def _settings(database: Database) -> NodeSettings:
    return NodeSettings(node_id="141002001", listen="127.0.0.1:0", database=database.url)
