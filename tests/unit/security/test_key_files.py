"""Key files: created once, for their owner only."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.security.errors import KeyFileError, KeyFileExistsError, KeyFileExposedError
from node.security.key_files import create_key, load_key, read_secret, write_public, write_secret


def counted(count: int) -> bytes:
    """Bytes that are not random."""
    return bytes(range(count))


def test_loads_the_key_it_created(tmp_path: Path) -> None:
    """The file holds the key in hexadecimal, mode 0600."""
    path = tmp_path / "node.key"
    assert create_key(path, counted) == load_key(path) == bytes(range(32))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().strip() == bytes(range(32)).hex()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610, 0o666])
def test_refuses_a_file_that_others_can_use(tmp_path: Path, mode: int) -> None:
    """Any right of group or others is too much, and the hint is the command that repairs it."""
    path = tmp_path / "node.key"
    create_key(path, counted)
    path.chmod(mode)
    with pytest.raises(KeyFileExposedError) as raised:
        load_key(path)
    assert f"chmod 600 {path}" in raised.value.hint


def test_never_writes_over_a_key(tmp_path: Path) -> None:
    """A second creation fails and leaves the first key as it is."""
    path = tmp_path / "node.key"
    create_key(path, counted)
    with pytest.raises(KeyFileExistsError):
        create_key(path, bytes)
    assert load_key(path) == bytes(range(32))


def test_does_not_write_through_a_link(tmp_path: Path) -> None:
    """A link of that name, even to nowhere, is refused."""
    (tmp_path / "node.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileExistsError):
        create_key(tmp_path / "node.key", counted)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("content", [b"", b"zz" * 32, b"00" * 31, b"00" * 33, b"\xff\xfe"])
def test_refuses_a_file_that_holds_no_key(tmp_path: Path, content: bytes) -> None:
    """Too short, too long, not hexadecimal: each is said, none is used."""
    path = tmp_path / "node.key"
    write_secret(path, content)
    with pytest.raises(KeyFileError):
        load_key(path)


def test_refuses_what_is_not_a_file(tmp_path: Path) -> None:
    """A missing file and a folder are errors of the operator, with a next step."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(KeyFileError) as raised:
            read_secret(path)
        assert raised.value.hint


def test_refuses_a_file_too_large_for_a_key(tmp_path: Path) -> None:
    """A wrong path does not read a database into memory."""
    write_secret(tmp_path / "large", bytes(70_000))
    with pytest.raises(KeyFileError, match="larger"):
        read_secret(tmp_path / "large")


def test_replaces_public_files_whole(tmp_path: Path) -> None:
    """A certificate is replaced, also after an attempt that was cut off."""
    path = tmp_path / "tls.pem"
    (tmp_path / ".tls.pem.new").write_bytes(b"half")
    write_public(path, b"one")
    write_public(path, b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in tmp_path.iterdir()] == ["tls.pem"]
