"""Makes a backup of a node, running or not: everything of one moment, sealed, and then listed."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine

from hierarchy_config import NodeId, load_region
from node.backup.chains import Held, Shelf
from node.backup.chunks import ChunkSeal, Step, encoded
from node.backup.delta import Touched, changed_steps, marks_of, touched_rows, whole_steps
from node.backup.errors import BackupDamagedError, BackupRunningError
from node.backup.keys import BackupSecret
from node.backup.manifest import FULL, INCREMENTAL, MANIFEST, Manifest, chunk_name, sealed
from node.backup.place import Place
from node.backup.snapshot import Snapshot, consistent_view
from node.clock import Clock, RandomBytes, format_ms
from node.errors import DataFolderInUseError, SettingsError
from node.guards import folder_locked
from node.keys.node_key import find_node_key
from node.keys.opening import keys_of
from node.keys.service import service_of
from node.opening import database_url
from node.security.caller import local_operator
from node.security.folders import NodeFolder
from node.settings import NodeSettings, load_settings
from node.storage import CHANGELOG, EngineLimits, open_engine
from node.storage.audit import Action, Auditor, Deed, Outcome
from node.storage.data_keys import StoredKeys, wrapped_of
from node.storage.migrations import head_revision, revision_of
from replication.changelog import ChangeLog, CounterSequencer, LogReaders, write_transaction

__all__ = ["BACKUP_LOCK", "READER", "Made", "make_backup"]

READER: Final = "backup"
"""Name of the log reader that stands at the newest backup's head."""

BACKUP_LOCK: Final = "backup.lock"
"""Held while a backup reads the store and the key files: those are not exchanged meanwhile."""
_CONNECTIONS: Final = 2
_CHUNK_BYTES: Final = 2 << 20
_UID_BYTES: Final = 16
_FOLDERS: Final = ("keys", "certs", "region")
_FILE_BYTES_MAX: Final = 16 << 20
_STEADY_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Made:
    """A finished backup. `reason`: why it is full; `removed`: folders that retention took."""

    manifest: Manifest
    reason: str
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Life:
    """What the store says of itself in the view."""

    epoch: int
    incarnation: str
    head: int
    pruned_to: int


def make_backup(
    data_dir: Path,
    place: Place,
    secret: BackupSecret,
    *,
    clock: Clock,
    full: bool = False,
    keep: int | None = None,
    random_bytes: RandomBytes = os.urandom,
) -> Made:
    """Make a backup of the node in a data folder; durable and listed on return.

    Args:
        data_dir: Of a node that runs or not.
        place: Where to; the node's folder there is made.
        secret: What seals it.
        clock: For the time that is shown.
        full: Make a full one whatever is there.
        keep: Afterwards remove all but so many, and what they rest on. None keeps all.
        random_bytes: For the backup's id and a passphrase's salt.

    Raises:
        BackupRunningError: Another process makes one.
        SettingsError: The folder is no node's, or its store has never been used.
        BackupPlaceError: The place cannot be written to; what is there stays as it was.
    """
    settings = load_settings(data_dir)
    with _alone(data_dir):
        shelf = Shelf(place, settings.node_id)
        for folder in shelf.unfinished():
            place.remove(f"{settings.node_id}/{folder}")
        engine = open_engine(
            database_url(settings.database, data_dir), EngineLimits(connections=_CONNECTIONS)
        )
        try:
            work = _Making(
                data_dir, settings, engine, shelf, secret, clock=clock, random_bytes=random_bytes
            )
            made = work.run(full)
        finally:
            engine.dispose()
        removed = shelf.retire(shelf.held(secret)[0], keep) if keep else []
    return Made(made, made.reason, tuple(removed))


class _Making:
    """One backup on its way."""

    def __init__(
        self,
        data_dir: Path,
        settings: NodeSettings,
        engine: Engine,
        shelf: Shelf,
        secret: BackupSecret,
        *,
        clock: Clock,
        random_bytes: RandomBytes,
    ) -> None:
        self._data_dir = data_dir
        self._settings = settings
        self._engine = engine
        self._shelf = shelf
        self._secret = secret
        self._clock = clock
        self._random_bytes = random_bytes

    def run(self, full: bool) -> Manifest:
        held, _ = self._shelf.held(None)
        number = held[-1].manifest.number + 1 if held else 1
        revision = revision_of(self._engine)
        with consistent_view(self._engine) as connection:
            snapshot = Snapshot.of(connection)
            life = _life(snapshot)
            base, reason = self._base(life, revision, full)
            kind = INCREMENTAL if base else FULL
            uid = self._random_bytes(_UID_BYTES)
            salt = self._salt(base)
            keys = self._secret.keys(uid, salt)
            folder = f"{number:06d}-{kind}-{uid.hex()[:12]}"
            counts = {name: snapshot.count(name) for name in snapshot.shapes}
            steps = self._steps(snapshot, base, life, counts)
            digests, size = self._write(folder, ChunkSeal(keys.chunk, uid), steps)
            manifest = Manifest(
                number=number,
                folder=folder,
                uid=uid.hex(),
                kind=kind,
                base=base.manifest.folder if base else "",
                salt=salt.hex(),
                check=keys.check,
                node_id=self._settings.node_id,
                store_epoch=life.epoch,
                incarnation=life.incarnation,
                head=life.head,
                revision=str(revision),
                database=self._engine.dialect.name,
                release=_release(),
                created_at=format_ms(self._clock.now_ms()),
                reason=reason,
                chunks=tuple(digests),
                counts=counts,
                marks=marks_of(snapshot),
                bytes=size,
            )
        place, top = self._shelf.place, f"{self._settings.node_id}/{folder}"
        if len(place.files(top)) != len(digests):
            raise BackupDamagedError(f"{top} was changed by another while it was written")
        if revision == head_revision():
            self._audit(number)
        place.write(f"{top}/{MANIFEST}", sealed(manifest, keys))
        if revision == head_revision():
            with write_transaction(self._engine) as connection:
                LogReaders(CHANGELOG).save(connection, READER, life.head)
        return manifest

    def _audit(self, number: int) -> None:
        """Write down that everything has left the node, sealed: without this it is not listed."""
        node_id = NodeId(self._settings.node_id)
        hierarchy = load_region(self._data_dir / self._settings.region)
        caller = local_operator(node_id, hierarchy, "backup")
        deed = Deed(Action.BACKUP, "store", Outcome.DONE, 0, object_id=str(number))
        with write_transaction(self._engine) as connection:
            Auditor(self._clock).write(connection, caller, deed)

    def _base(self, life: _Life, revision: str | None, full: bool) -> tuple[Held | None, str]:
        """What the new backup rests on; None with the reason: it is full."""
        if full:
            return None, "asked for"
        proven, faults = self._shelf.held(self._secret)
        if not proven:
            return None, faults[-1].message if faults else "the first"
        newest = proven[-1]
        said = newest.manifest
        if (said.store_epoch, said.incarnation) != (life.epoch, life.incarnation):
            return None, "the store lives another life than at the last backup"
        if said.revision != str(revision) or revision != head_revision():
            return None, "the schema changed since the last backup"
        if said.head < life.pruned_to:
            return None, "the log was pruned beyond the last backup"
        try:
            for each in self._shelf.chain(proven, newest):
                if len(self._shelf.place.files(f"{said.node_id}/{each.manifest.folder}")) <= len(
                    each.manifest.chunks
                ):
                    return None, f"{each.manifest.folder} is not whole"
        except BackupDamagedError as error:
            return None, error.message
        return newest, ""

    def _salt(self, base: Held | None) -> bytes:
        """Of a passphrase: the chain's own, so that a restore stretches it once."""
        if not self._secret.is_passphrase:
            return b""
        return bytes.fromhex(base.manifest.salt) if base else self._random_bytes(_UID_BYTES)

    def _steps(
        self, snapshot: Snapshot, base: Held | None, life: _Life, counts: dict[str, int]
    ) -> Iterator[Step]:
        yield {"do": "files", "files": _files(self._data_dir, self._settings)}
        touched = Touched()
        if base is not None:
            log = self._log(snapshot, life)
            touched = touched_rows(snapshot.connection, log, base.manifest.head)
            gone = sorted(set(base.manifest.counts) - set(snapshot.shapes))
            yield from ({"do": "clear", "table": name} for name in gone)
        for name in snapshot.shapes:
            if base is None:
                yield from whole_steps(snapshot, name)
            else:
                yield from changed_steps(snapshot, name, base.manifest.marks, touched)
        yield {"do": "end", "counts": counts}

    def _log(self, snapshot: Snapshot, life: _Life) -> ChangeLog:
        """The log, opened to be read; this process numbers nothing."""
        node_id = self._settings.node_id
        held = StoredKeys(self._engine, self._clock).all(snapshot.connection)
        node_key = find_node_key(
            NodeFolder(self._data_dir),
            node_id,
            wrapped_of(held),
            service_of(self._settings.key_command),
        )
        keys = keys_of(node_id, node_key, held, self._random_bytes)
        return ChangeLog(
            CHANGELOG,
            node_id=node_id,
            store_epoch=life.epoch,
            sealer=keys,
            numbering=CounterSequencer(CHANGELOG, store_epoch=life.epoch),
        )

    def _write(
        self, folder: str, seal: ChunkSeal, steps: Iterator[Step]
    ) -> tuple[Sequence[str], int]:
        """Seal and store the steps in chunks; digests in order, bytes together."""
        digests: list[str] = []
        size = waiting = 0
        pieces: list[bytes] = []
        for step in steps:
            pieces.append(encoded(step))
            waiting += len(pieces[-1])
            last = step["do"] == "end"
            if not last and waiting < _CHUNK_BYTES:
                continue
            data = seal.seal(pieces, len(digests), last=last)
            name = chunk_name(f"{self._settings.node_id}/{folder}", len(digests))
            self._shelf.place.write(name, data)
            digests.append(sha256(data).hexdigest())
            size += len(data)
            pieces, waiting = [], 0
        return digests, size


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    try:
        with folder_locked(data_dir / BACKUP_LOCK):
            yield
    except DataFolderInUseError:
        raise BackupRunningError(f"another process makes a backup of {data_dir}") from None


def _life(snapshot: Snapshot) -> _Life:
    facts: dict[str, Any] = {}
    if "store_state" in snapshot.shapes:
        columns = snapshot.shapes["store_state"].columns
        for row in snapshot.rows("store_state"):
            said = dict(zip(columns, row, strict=True))
            facts[said["name"]] = said["value"]
    if "store_epoch" not in facts:
        raise SettingsError(
            "the store of this data folder has never been used",
            hint="Start the node once; before that there is nothing to keep.",
        )
    head = snapshot.value("log_sequencer", lambda t: t.c.head)
    pruned = snapshot.value("log_sequencer", lambda t: t.c.pruned_to)
    return _Life(
        int(facts["store_epoch"]), facts["store_incarnation"], int(head or 0), int(pruned or 0)
    )


def _files(data_dir: Path, settings: NodeSettings) -> list[dict[str, Any]]:
    """The node's small files; read until two readings agree, since certificates are renewed."""
    before: list[dict[str, Any]] = []
    for _ in range(_STEADY_TRIES):
        now = _read_files(data_dir, settings)
        if now == before:
            return now
        before = now
    return before


def _read_files(data_dir: Path, settings: NodeSettings) -> list[dict[str, Any]]:
    named = {data_dir / settings.region, data_dir / settings.profile, *data_dir.glob("*.yaml")}
    for folder in _FOLDERS:
        named.update((data_dir / folder).rglob("*"))
    chosen = [path for path in named if path.is_file() and _lies_in(path, data_dir)]
    return [
        {
            "path": str(path.relative_to(data_dir)),
            "mode": stat.S_IMODE(path.stat().st_mode),
            "data": base64.b64encode(path.read_bytes()).decode(),
        }
        for path in sorted(chosen)
        if path.stat().st_size <= _FILE_BYTES_MAX and not path.is_symlink()
    ]


def _lies_in(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) and ".." not in path.relative_to(folder).parts


def _release() -> str:
    try:
        return version("fenhe")
    except PackageNotFoundError:
        return "not installed"
