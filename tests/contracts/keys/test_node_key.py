"""The node's own key: exchanged with two files, wrapped by a service, refused where exposed."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import event

import node.keys.node_key as node_key_module
from hierarchy_config import NodeId
from node.backup.chains import Shelf
from node.backup.place import open_place
from node.backup.restoring import restore
from node.keys.errors import KeyMisplacedError, KeyServiceError, RecoveryFileError
from node.keys.node_key import find_node_key, read_node_key
from node.keys.opening import refuse_misplaced
from node.keys.restoring import restore_keys
from node.keys.service import CommandService
from node.security.errors import KeyFileError, KeyFileExposedError, KeyFileOwnerError
from node.security.folders import NodeFolder
from node.security.key_files import create_key, load_key, read_secret, write_secret
from node.security.sealing import unwrap_key
from node.settings import load_settings, save_settings
from node.storage.data_keys import wrapped_of
from tests.contracts.backup.nodes import SECRET
from tests.contracts.keys.place import KeyedNode
from tests.contracts.storage.region import CITY, COUNTY, TOWNSHIP, VILLAGE, hierarchy

SERVICE = """
import base64, pathlib, sys
verb, = sys.argv[1:]
data = base64.b64decode(sys.stdin.readline())
kept = bytes(byte ^ 0x5A for byte in data[::-1])
print(base64.b64encode(kept).decode())
"""


class Death(BaseException):
    """The process ends here."""


def test_all_data_keys_are_wrapped_under_a_new_node_key(node: KeyedNode) -> None:
    """The old key opens none of them any more; the store goes on, now and after a restart."""
    folder = NodeFolder(node.folder)
    clear, old = node.clear(), load_key(folder.node_key)
    assert node.keeper.rotate_node_key(node.caller) == len(node.held())
    assert load_key(folder.node_key) != old
    assert not folder.next_node_key.exists()
    assert stat.S_IMODE(folder.node_key.stat().st_mode) == 0o600
    for key in wrapped_of(node.stored.load()):
        with pytest.raises(Exception, match="does not unwrap"):
            unwrap_key(node.node_id, old, key)
    node.write(1)
    node.restart()
    assert clear.items() <= node.clear().items()


def _die(*_: object, **__: object) -> None:
    raise Death


@pytest.mark.parametrize(
    "where",
    ["before the file", "after the file", "in the commit", "before the rename", "at its end"],
)
def test_a_death_at_any_line_leaves_a_store_that_opens(
    node: KeyedNode, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Whichever file is the right one, it is found; the other is gone, and it can be done again."""
    clear, folder = node.clear(), NodeFolder(node.folder)
    with monkeypatch.context() as patch:
        match where:
            case "before the file":
                patch.setattr(node_key_module, "write_secret", _die)
            case "after the file":
                patch.setattr(node.stored, "rewrap", _die)
            case "in the commit":
                event.listen(node.store.engine, "commit", _die)
            case "before the rename":
                patch.setattr(node_key_module, "_rename", _die)
            case "at its end":
                patch.setattr(node_key_module, "sync_folder", _die)
        with pytest.raises(Death):
            node.keeper.rotate_node_key(node.caller)
    if where == "in the commit":
        event.remove(node.store.engine, "commit", _die)
    node.restart()
    assert node.clear() == clear
    assert not folder.next_node_key.exists()
    node.keeper.rotate_node_key(node.caller)
    node.restart()
    assert node.clear() == clear


def test_a_backup_in_between_two_lines_restores(
    village: KeyedNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The table is under the new key, the file still has its old name."""
    clear = village.clear()
    with monkeypatch.context() as patch:
        patch.setattr(node_key_module, "_rename", _die)
        with pytest.raises(Death):
            village.keeper.rotate_node_key(village.caller)
    village.store.close()
    village.backup()
    village.backup()
    _restored(village, tmp_path)
    assert village.clear() == clear


def _restored(node: KeyedNode, tmp_path: Path, at: int | None = None) -> None:
    """Go on with what a backup holds."""
    node.store.close()
    place = tmp_path / f"restored-{len(list(tmp_path.iterdir()))}"
    url = f"sqlite:///{place}.db"
    restore(Shelf(open_place(str(node.shelf)), node.node_id), SECRET, place, at=at, database=url)
    node.folder = place
    node.store = node.open()
    node.hold()


def test_backups_made_before_and_during_and_after_a_rotation_restore(
    village: KeyedNode, tmp_path: Path
) -> None:
    """Each opens with what it holds: re-sealed rows are in the next incremental one."""
    before = village.clear()
    assert village.backup().manifest.kind == "full"
    village.keeper.rotate(village.caller)
    village.keeper.step(2)
    assert village.backup().manifest.kind == "incremental"
    village.reseal()
    village.keeper.destroy_unnamed(village.caller)
    village.write(1)
    after = village.clear()
    assert village.backup().manifest.kind == "incremental"
    village.keeper.rotate_node_key(village.caller)
    assert village.backup().manifest.kind == "incremental"
    for number, expected in ((4, after), (3, after), (2, before), (1, before)):
        _restored(village, tmp_path, at=number)
        assert village.clear() == expected


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    """A key service."""
    script = tmp_path / "service.py"
    script.write_text(SERVICE)
    return (sys.executable, str(script))


def test_a_service_wraps_the_node_key(node: KeyedNode, command: tuple[str, ...]) -> None:
    """Named in node.yaml, it takes the key over at the next exchange; without it nothing opens."""
    clear, folder = node.clear(), NodeFolder(node.folder)
    settings = load_settings(node.folder)
    save_settings(node.folder, settings.model_copy(update={"key_command": command}))
    node.restart()
    node.keeper.rotate_node_key(node.caller)
    assert read_secret(folder.node_key).startswith(b"service:1:")
    key = find_node_key(
        folder, node.node_id, wrapped_of(node.stored.load()), CommandService(command)
    )
    assert key.hex().encode() not in read_secret(folder.node_key)
    node.restart()
    assert node.clear() == clear
    node.keeper.rotate(node.caller, ["residents"])

    save_settings(node.folder, settings)
    node.store.close()
    with pytest.raises(KeyServiceError, match="names none"):
        node.open()
    save_settings(node.folder, settings.model_copy(update={"key_command": command}))
    node.restart()
    assert set(node.clear()) == set(clear)
    node.keeper.rotate_node_key(node.caller, to_file=True)
    save_settings(node.folder, settings)
    node.restart()
    assert set(node.clear()) == set(clear)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import time; time.sleep(60)", "within"),
        ("raise SystemExit(3)", "status 3"),
        ("print('not base64 !')", "base64"),
        ("print('QUJD' * 20000)", "more than"),
        ("", "give back"),
        ("import sys; sys.stdin.close(); raise SystemExit(1)", "status 1"),
    ],
)
def test_a_service_that_fails_is_told_without_what_was_said(program: str, said: str) -> None:
    """Slow, ended, wrong: one error each, and the key is in none."""
    key = os.urandom(32)
    service = CommandService((sys.executable, "-c", program), time_s=2)
    with pytest.raises(KeyServiceError, match=said) as failed:
        service.wrap(key)
    assert key.hex() not in failed.value.message
    assert failed.value.hint


def test_a_service_that_is_not_there_is_told() -> None:
    """With the system's reason."""
    with pytest.raises(KeyServiceError, match="cannot be run"):
        CommandService(("/nowhere/keys",)).unwrap(b"x")


def test_the_key_is_no_argument_of_the_service(tmp_path: Path) -> None:
    """A list of processes shows the verb alone."""
    seen = tmp_path / "seen"
    program = f"import sys; open({str(seen)!r}, 'w').write(repr(sys.argv)); print(input())"
    with pytest.raises(KeyServiceError):
        CommandService((sys.executable, "-c", program)).wrap(bytes(32))
    assert seen.read_text() == "['-c', 'wrap']"


def test_key_files_of_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readable by a group or by everybody, or belonging to another user."""
    path = tmp_path / "a.key"
    create_key(path, os.urandom)
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(KeyFileExposedError):
            read_node_key(path, None)
    path.chmod(0o600)
    assert len(read_node_key(path, None)) == 32
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(KeyFileOwnerError, match=str(other)) as failed:
        read_node_key(path, None)
    assert "chown" in failed.value.hint
    assert isinstance(failed.value, KeyFileError)


@pytest.mark.parametrize(
    ("node_id", "name", "allowed"),
    [
        (CITY, "regional_index.key", True),
        (COUNTY, "regional_index.key", True),
        (TOWNSHIP, "regional_index.key", False),
        (VILLAGE, "regional_index.key", False),
        (CITY, "pseudonym.key", False),
        (COUNTY, "pseudonym.key", True),
        (VILLAGE, "pseudonym.key", False),
    ],
)
def test_a_key_of_the_region_is_refused_where_it_must_not_be(
    tmp_path: Path, node_id: NodeId, name: str, allowed: bool
) -> None:
    """Below a county nobody could enumerate the region; the city cannot join what it holds."""
    folder = NodeFolder(tmp_path)
    folder.keys.mkdir()
    refuse_misplaced(folder, hierarchy(), node_id)
    create_key(folder.keys / name, os.urandom)
    check: Callable[[], None] = lambda: refuse_misplaced(folder, hierarchy(), node_id)  # noqa: E731
    if allowed:
        check()
        return
    with pytest.raises(KeyMisplacedError, match=name):
        check()


def test_a_village_does_not_start_with_the_regional_key(village: KeyedNode) -> None:
    """Nothing of the store is touched."""
    village.store.close()
    create_key(NodeFolder(village.folder).regional_index_key, os.urandom)
    with pytest.raises(KeyMisplacedError):
        village.open()
    NodeFolder(village.folder).regional_index_key.unlink()
    village.restart()


def test_a_file_of_no_recovery_changes_nothing(village: KeyedNode, tmp_path: Path) -> None:
    """Another node's, half, or for a store that opens anyway."""
    village.store.close()
    key = read_secret(NodeFolder(village.folder).node_key)
    for number, text in enumerate(
        (b"", b"{}", b'{"node_id": "1", "keys": []}', b'{"node_id": "141002001201", "keys": []}')
    ):
        file = tmp_path / f"file{number}"
        write_secret(file, text)
        with pytest.raises(RecoveryFileError):
            restore_keys(village.folder, file, village.clock)
    assert read_secret(NodeFolder(village.folder).node_key) == key
    village.restart()
