"""Damage, wrong keys and crashes: told by name, and nothing is changed by them."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

import fsspec
import pytest

from node.backup.chains import Shelf, open_shelf
from node.backup.chunks import ChunkSeal, encoded
from node.backup.errors import (
    BackupDamagedError,
    BackupKeyError,
    BackupKeyWrongError,
    BackupMissingError,
    BackupPlaceError,
    BackupRunningError,
    RestoreTargetError,
    RestoreUnfinishedError,
)
from node.backup.keys import BackupSecret, load_secret, new_key_file
from node.backup.making import make_backup
from node.backup.place import Place, open_place
from node.backup.restoring import restore
from node.guards import folder_locked
from node.security.errors import KeyFileExposedError
from node.settings import load_settings
from tests.contracts.backup.nodes import SECRET, BackedUpNode, contents


def shelf_of(node: BackedUpNode) -> Shelf:
    """The node's backups."""
    return Shelf(open_place(str(node.shelf)), node.node_id)


def back(node: BackedUpNode, folder: Path, at: int | None = None) -> str:
    """Restore; the URL of the database."""
    url = f"sqlite:///{folder.parent / folder.name}.db"
    restore(shelf_of(node), SECRET, folder, at=at, database=url)
    return url


def folders(node: BackedUpNode) -> list[Path]:
    """The backups' folders, oldest first."""
    return sorted((node.shelf / node.node_id).iterdir())


def chunks(folder: Path) -> list[Path]:
    """A backup's chunks."""
    return sorted(folder.glob("*.chunk"))


def two_backups(node: BackedUpNode) -> tuple[Path, Path]:
    """A full and an incremental one."""
    node.backup()
    node.write(1)
    node.backup()
    first, second = folders(node)
    return first, second


@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "swap", "other"])
def test_a_damaged_chunk_stops_the_restore_before_it_begins(
    village: BackedUpNode, tmp_path: Path, harm: str
) -> None:
    """Altered, truncated, missing, exchanged for another of the chain or of another backup."""
    first, second = two_backups(village)
    (victim,) = chunks(second)
    match harm:
        case "flip":
            data = bytearray(victim.read_bytes())
            data[len(data) // 2] ^= 1
            victim.write_bytes(data)
        case "cut":
            victim.write_bytes(victim.read_bytes()[:-20])
        case "gone":
            victim.unlink()
        case "swap":
            shutil.copy(chunks(first)[0], victim)
        case _:
            village.backup(full=True)
            shutil.copy(chunks(folders(village)[-1])[0], victim)
    with pytest.raises(BackupDamagedError, match=victim.stem):
        back(village, tmp_path / "new", at=2)
    assert not (tmp_path / "new").exists()
    back(village, tmp_path / "old", at=1)


def test_chunks_do_not_open_out_of_their_place() -> None:
    """Even if the manifest's digests were made to fit: the seal binds number, end and backup."""
    keys = SECRET.keys(b"u" * 16, b"")
    seal = ChunkSeal(keys.chunk, b"u" * 16)
    one = seal.seal([encoded({"do": "end"})], 0, last=False)
    assert seal.open(one, 0, last=False) == [{"do": "end"}]
    for number, last in ((1, False), (0, True)):
        with pytest.raises(BackupDamagedError):
            seal.open(one, number, last=last)
    with pytest.raises(BackupDamagedError):
        ChunkSeal(keys.chunk, b"v" * 16).open(one, 0, last=False)


def test_an_altered_manifest_is_not_believed(village: BackedUpNode) -> None:
    """Its numbers can be read by anybody and changed by nobody."""
    _, second = two_backups(village)
    manifest = second / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"number": 2', b'"number": 9'))
    held, faults = shelf_of(village).held(SECRET)
    assert [each.manifest.number for each in held] == [1]
    assert [fault.code for fault in faults] == ["BACKUP_DAMAGED"]
    manifest.write_bytes(manifest.read_bytes()[:100])
    assert [each.manifest.number for each in shelf_of(village).held(None)[0]] == [1]


def test_the_wrong_key_changes_nothing(village: BackedUpNode, tmp_path: Path) -> None:
    """A key for another, a passphrase for a key."""
    village.backup()
    for wrong in (BackupSecret(key=b"x" * 32), BackupSecret(passphrase=b"sixteen or more!")):
        with pytest.raises(BackupKeyWrongError):
            restore(shelf_of(village), wrong, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_passphrase_keeps_a_chain(village: BackedUpNode, tmp_path: Path) -> None:
    """Read from a file of its owner's, white space around it aside."""
    file = tmp_path / "words"
    file.write_text("three words and more\n")
    file.chmod(0o600)
    secret, place = load_secret(file), open_place(str(village.shelf))
    for _ in range(2):
        made = make_backup(village.folder, place, secret, clock=village.clock)
        village.write(1)
    assert made.manifest.kind == "incremental"
    url = f"sqlite:///{tmp_path / 'back.db'}"
    restore(shelf_of(village), load_secret(file), tmp_path / "back", database=url)
    assert contents(url)["residents"] != []


def test_key_files_are_their_owners_alone(tmp_path: Path) -> None:
    """Made so, and refused otherwise; short passphrases too."""
    file = tmp_path / "key"
    new_key_file(file, os.urandom)
    assert not load_secret(file).is_passphrase
    file.chmod(0o644)
    with pytest.raises(KeyFileExposedError):
        load_secret(file)
    short = tmp_path / "short"
    short.write_text("short")
    short.chmod(0o600)
    with pytest.raises(BackupKeyError, match="5 characters"):
        load_secret(short)


class DyingPlace(Place):
    """Takes some writes, then fails as a process that is killed does: nothing is cleaned up."""

    writes_left = 0

    def write(self, name: str, data: bytes) -> None:
        if self.writes_left == 0:
            raise KeyboardInterrupt
        self.writes_left -= 1
        super().write(name, data)


def test_a_backup_that_dies_leaves_the_earlier_ones(village: BackedUpNode, tmp_path: Path) -> None:
    """Before each of its writes: never listed, and cleared away by the next."""
    village.backup()
    then = village.contents()
    for writes in range(2):
        dying = DyingPlace(*fsspec.core.url_to_fs(str(village.shelf)))
        dying.writes_left = writes
        with pytest.raises(KeyboardInterrupt):
            make_backup(village.folder, dying, SECRET, clock=village.clock)
        assert [each.manifest.number for each in shelf_of(village).held(SECRET)[0]] == [1]
    assert contents(back(village, tmp_path / "back")) == then
    assert village.backup().manifest.number == 2
    assert len(folders(village)) == 2


class DiedError(Exception):
    """The restore was killed."""


@pytest.mark.parametrize("step", range(5))
def test_a_restore_that_dies_is_refused_and_starts_over(
    village: BackedUpNode, tmp_path: Path, step: int
) -> None:
    """At every step: a whole node or a refusal that says what to do; the same command mends it."""
    two_backups(village)
    then = village.contents()
    folder, url = tmp_path / "back", f"sqlite:///{tmp_path / 'back'}/store.db"
    told: list[str] = []

    def die(line: str) -> None:
        told.append(line)
        if len(told) == step + 1:
            raise DiedError

    with pytest.raises(DiedError):
        restore(shelf_of(village), SECRET, folder, database=url, told=die)
    if folder.exists():
        with pytest.raises(RestoreUnfinishedError):
            load_settings(folder)
    restore(shelf_of(village), SECRET, folder, database=url)
    assert load_settings(folder).node_id == village.node_id
    assert contents(url) == then
    with pytest.raises(RestoreTargetError):
        restore(shelf_of(village), SECRET, folder, database=url)


def test_nothing_is_restored_over(village: BackedUpNode, tmp_path: Path) -> None:
    """Neither into a folder with something in it nor over a database."""
    village.backup()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "note").write_text("mine")
    with pytest.raises(RestoreTargetError, match="not an empty folder"):
        restore(shelf_of(village), SECRET, tmp_path / "used")
    with pytest.raises(RestoreTargetError, match="is there already"):
        restore(shelf_of(village), SECRET, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_retention_keeps_what_others_rest_on(village: BackedUpNode, tmp_path: Path) -> None:
    """Two are kept: the last full one and its increment; then the chain before it may go."""
    for _ in range(3):
        village.backup()
    village.backup(keep=2)
    assert len(folders(village)) == 4
    village.backup(full=True, keep=2)
    assert len(folders(village)) == 5
    made = village.backup(keep=2)
    assert len(made.removed) == 4
    assert [f.name[:6] for f in folders(village)] == ["000005", "000006"]
    back(village, tmp_path / "back")


def test_one_backup_at_a_time(village: BackedUpNode) -> None:
    """The second is told so."""
    with folder_locked(village.folder / "backup.lock"), pytest.raises(BackupRunningError):
        village.backup()


def test_an_object_store_holds_backups(village: BackedUpNode, tmp_path: Path) -> None:
    """Through fsspec; the memory file system stands for one."""
    address = f"memory://{uuid.uuid4().hex}/clinic"
    place = open_place(address)
    for _ in range(2):
        make_backup(village.folder, place, SECRET, clock=village.clock, keep=1)
    shelf = open_shelf(open_place(address), None)
    assert len(shelf.held(SECRET)[0]) == 2
    make_backup(village.folder, place, SECRET, clock=village.clock, keep=1, full=True)
    assert len(shelf.held(SECRET)[0]) == 1
    url = f"sqlite:///{tmp_path / 'back.db'}"
    restore(shelf, SECRET, tmp_path / "back", database=url)
    assert contents(url) == village.contents()


def test_places_that_cannot_be(village: BackedUpNode, tmp_path: Path) -> None:
    """An unknown kind, an empty folder, a folder that is a file."""
    with pytest.raises(BackupPlaceError):
        open_place("nosuchkind://somewhere")
    with pytest.raises(BackupMissingError, match="holds no backup"):
        open_shelf(open_place(str(tmp_path / "empty")), None)
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupPlaceError):
        make_backup(village.folder, open_place(str(tmp_path / "file")), SECRET, clock=village.clock)
