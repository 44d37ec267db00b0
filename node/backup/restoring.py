"""Puts a node back from a backup: into an empty folder, as a new life of its store.

The order matters. Everything is read and verified before anything is written; a mark stands in the
folder from the first write to the last, and no node runs on a folder with the mark.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml
from pydantic import ValidationError
from sqlalchemy import Engine, MetaData, Table, func, inspect, make_url, select

from node.auditing.events import RESTORED_FACT
from node.backup.chains import Held, Shelf
from node.backup.chunks import Step, decoded_rows
from node.backup.errors import BackupDamagedError, RestoreTargetError
from node.backup.keys import BackupSecret
from node.backup.mark import is_unfinished, mark_path, read_mark, write_mark
from node.backup.snapshot import TableShape, clear, keep, put, remove, shapes
from node.clock import RandomBytes
from node.guards import folder_locked
from node.opening import database_url
from node.security.key_files import write_public, write_secret
from node.settings import NodePaths, NodeSettings
from node.storage import CHANGELOG, EngineLimits, migrate, open_engine
from replication.changelog import StoreState, write_transaction

__all__ = ["Restored", "restore"]

_CONNECTIONS: Final = 2
_INCARNATION_BYTES: Final = 16
_SECRETS: Final = "keys"
_TOLERATED: Final = frozenset({"lost+found", "lock"})

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back. `epoch`: of the store's new life."""

    node_id: str
    number: int
    backups: int
    rows: int
    epoch: int


def restore(
    shelf: Shelf,
    secret: BackupSecret,
    data_dir: Path,
    *,
    at: int | None = None,
    database: str | None = None,
    epoch: int = 0,
    random_bytes: RandomBytes = os.urandom,
    told: Told = lambda _line: None,
) -> Restored:
    """Restore a node; a whole node stands in the folder on return, durably.

    Args:
        shelf: The node's backups.
        secret: What they were made with.
        data_dir: Empty, not there yet, or left by a restore that did not end.
        at: Number of the backup; None: the newest.
        database: SQLAlchemy URL of an empty database, instead of the one in node.yaml.
        epoch: The new life's epoch is at least this, and greater than the backup's.
        random_bytes: Names the new life.
        told: Is told each step.

    Raises:
        RestoreTargetError: The folder or the database holds something; nothing was changed.
        BackupKeyWrongError, BackupMissingError, BackupDamagedError: Nothing was changed.
    """
    _refuse_used(data_dir)
    held, faults = shelf.held(secret)
    if not held and faults:
        raise faults[0]
    last = shelf.chosen(held, at)
    chain = shelf.chain(held, last)
    for each in chain:
        told(f"verifying backup {each.manifest.number} ({each.manifest.kind})")
        shelf.check(each)
    work = _Restoring(shelf, chain, data_dir, database, told)
    return work.run(epoch, random_bytes)


class _Restoring:
    """A verified chain on its way into a folder."""

    def __init__(
        self,
        shelf: Shelf,
        chain: Sequence[Held],
        data_dir: Path,
        database: str | None,
        told: Told,
    ) -> None:
        self._shelf = shelf
        self._chain = chain
        self._last = chain[-1].manifest
        self._data_dir = data_dir
        self._told = told
        self._files = self._newest_files()
        self._settings = self._read_settings(database)
        self._url = database_url(self._settings.database, data_dir)

    def run(self, epoch: int, random_bytes: RandomBytes) -> Restored:
        data = self._data_dir
        resumed = is_unfinished(data)
        if resumed:
            self._url_is_the_marked(read_mark(data))
        else:
            self._refuse_used_database()
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with folder_locked(NodePaths(data).lock):
            write_mark(data, {"number": self._last.number, "database": _place_of(self._url)})
            if resumed:
                self._start_over()
            self._put_files()
            with _opened(self._url) as engine:
                migrate(engine, self._last.revision)
                rows = self._load(engine)
                migrate(engine)
                now = self._begin_life(engine, epoch, random_bytes)
            _sync_folder(data)
            mark_path(data).unlink()
            _sync_folder(data)
        return Restored(self._last.node_id, self._last.number, len(self._chain), rows, now)

    # -- the folder --------------------------------------------------------------------------------

    def _newest_files(self) -> list[dict[str, Any]]:
        for step in self._shelf.steps(self._chain[-1]):
            if step["do"] == "files":
                files: list[dict[str, Any]] = step["files"]
                return files
        raise BackupDamagedError(f"{self._last.folder} holds no files")

    def _read_settings(self, database: str | None) -> NodeSettings:
        for file in self._files:
            if file["path"] == "node.yaml":
                said = yaml.safe_load(base64.b64decode(file["data"]))
                if database is not None:
                    said["database"] = database
                    file["data"] = base64.b64encode(
                        yaml.safe_dump(said, sort_keys=False, allow_unicode=True).encode()
                    ).decode()
                try:
                    return NodeSettings.model_validate(said)
                except ValidationError:
                    raise BackupDamagedError("node.yaml in the backup is not one") from None
        raise BackupDamagedError(f"{self._last.folder} holds no node.yaml")

    def _put_files(self) -> None:
        self._told("files")
        for file in self._files:
            relative = PurePosixPath(file["path"])
            if relative.is_absolute() or ".." in relative.parts:
                raise BackupDamagedError("a file of the backup would lie outside the folder")
            path = self._data_dir / relative
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            data = base64.b64decode(file["data"])
            if relative.parts[0] == _SECRETS:
                write_secret(path, data)
            else:
                write_public(path, data)

    def _start_over(self) -> None:
        """Remove what the restore before left; the mark says that all of it is such."""
        for path in self._data_dir.iterdir():
            if path == mark_path(self._data_dir) or path.name in _TOLERATED:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        with _opened(self._url) as engine:
            _drop_tables(engine)

    # -- the database ------------------------------------------------------------------------------

    def _refuse_used_database(self) -> None:
        address = make_url(self._url)
        if address.get_backend_name() == "sqlite":
            if address.database and Path(address.database).exists():
                raise RestoreTargetError(f"{address.database} is there already")
            return
        with _opened(self._url) as engine:
            if inspect(engine).get_table_names():
                raise RestoreTargetError(
                    f"the database {address.database} of the node holds tables",
                    hint="Name an empty one with --database.",
                )

    def _url_is_the_marked(self, mark: dict[str, Any]) -> None:
        """Only the database that the mark names may be emptied."""
        if mark.get("database") != _place_of(self._url):
            raise RestoreTargetError(
                "the restore that did not end went into another database",
                hint="Give the same --database again, or delete the folder and choose a new one.",
            )

    def _load(self, engine: Engine) -> int:
        with engine.connect() as connection:
            found = shapes(connection)
        missing = sorted(set(self._last.counts) - set(found))
        if missing:
            raise BackupDamagedError(
                f"the backup holds tables that revision {self._last.revision} does not have: "
                f"{', '.join(missing)}",
                hint="Restore with the release that made it (`fenhe backup list` names it).",
            )
        with write_transaction(engine) as connection:
            for shape in found.values():
                clear(connection, shape)
        for backup in self._chain:
            said = backup.manifest
            self._told(f"loading backup {said.number} ({said.kind}, {len(said.chunks)} chunks)")
            for step in self._shelf.steps(backup):
                _do(engine, found, step)
        return self._counted(engine, found)

    def _counted(self, engine: Engine, found: dict[str, TableShape]) -> int:
        """Rows in all tables. Raises BackupDamagedError if they are not those of the backup."""
        total = 0
        with engine.connect() as connection:
            for name, shape in found.items():
                query = select(func.count()).select_from(shape.clause)
                rows = int(connection.execute(query).scalar_one())
                expected = self._last.counts.get(name, 0)
                if rows != expected:
                    raise BackupDamagedError(
                        f"table {name} came out with {rows} rows, the backup says {expected}"
                    )
                total += rows
        return total

    def _begin_life(self, engine: Engine, epoch: int, random_bytes: RandomBytes) -> int:
        """Raise the epoch and note that the node recovers."""
        now = max(self._last.store_epoch + 1, epoch)
        state = StoreState(CHANGELOG)
        with write_transaction(engine) as connection:
            state.save(connection, "store_epoch", str(now))
            state.save(connection, "store_incarnation", random_bytes(_INCARNATION_BYTES).hex())
            state.save(connection, "recovering", "1")
            state.save(connection, RESTORED_FACT, str(self._last.number))
        return now


def _do(engine: Engine, found: dict[str, TableShape], step: Step) -> None:
    """One step, in a transaction of its own."""
    name = step.get("table")
    if name is None or name not in found:
        return
    shape = found[name]
    with write_transaction(engine) as connection:
        match step["do"]:
            case "clear":
                clear(connection, shape)
            case "remove":
                remove(connection, shape, step["keys"])
            case "keep":
                keep(connection, shape, step["column"], step["least"], step["most"])
            case "rows":
                put(connection, shape, decoded_rows(step))
            case other:
                raise BackupDamagedError(f"the backup holds a step {other} unknown here")


def _refuse_used(data_dir: Path) -> None:
    if not data_dir.exists() or is_unfinished(data_dir):
        return
    if not data_dir.is_dir() or any(p.name not in _TOLERATED for p in data_dir.iterdir()):
        raise RestoreTargetError(f"{data_dir} is not an empty folder")


def _place_of(url: str) -> str:
    """The database without its password, to tell it again."""
    return make_url(url).render_as_string(hide_password=True)


def _drop_tables(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        return  # the file is gone with the folder
    found = MetaData()
    with engine.begin() as connection:
        for name in inspect(connection).get_table_names():
            Table(name, found)
        found.drop_all(connection)


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    engine = open_engine(url, EngineLimits(connections=_CONNECTIONS))
    try:
        yield engine
    finally:
        engine.dispose()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
