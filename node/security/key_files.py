"""Key files: created once, readable by their owner only, durable before anyone relies on them."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from node.clock import RandomBytes
from node.security.errors import (
    KeyFileError,
    KeyFileExistsError,
    KeyFileExposedError,
    KeyFileOwnerError,
)
from node.security.suites import KEY_BYTES

__all__ = ["create_key", "load_key", "read_secret", "sync_folder", "write_public", "write_secret"]

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_SECRET_BYTES_MAX: Final = 65_536


def create_key(path: Path, random_bytes: RandomBytes) -> bytes:
    """Create a key of 32 random bytes, stored as hexadecimal text.

    Raises:
        KeyFileExistsError: There is one; it stays as it is.
    """
    key = random_bytes(KEY_BYTES)
    write_secret(path, key.hex().encode() + b"\n")
    return key


def load_key(path: Path) -> bytes:
    """The 32 bytes of a key file. Raises KeyFileError, KeyFileExposedError."""
    try:
        key = bytes.fromhex(read_secret(path).decode("ascii"))
    except ValueError:
        raise KeyFileError(f"{path} does not hold a key in hexadecimal") from None
    if len(key) != KEY_BYTES:
        raise KeyFileError(f"{path} holds {len(key)} bytes, a key has {KEY_BYTES}")
    return key


def write_secret(path: Path, data: bytes) -> None:
    """Create a file with mode 0600 and make it durable; never write over one.

    Raises:
        KeyFileExistsError: There is a file or a link of that name.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise KeyFileExistsError(f"{path} exists; a key is never written over") from None
    with os.fdopen(descriptor, "wb") as file:
        # A umask may only take permissions away; 0600 must be exact to be readable again.
        os.fchmod(file.fileno(), 0o600)
        _write_durably(file.fileno(), data)
    sync_folder(path.parent)


def read_secret(path: Path) -> bytes:
    """The content of a secret file of at most 64 KiB.

    Raises:
        KeyFileExposedError: Group or others may read, write or execute it.
        KeyFileOwnerError: It belongs to another user than this process runs as.
        KeyFileError: It is missing, not a regular file, or too large.
    """
    try:
        # Without waiting: a pipe of that name must not stop the start of a node.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be opened: {error.strerror}") from None
    try:
        # The mode is asked of the open file, so that it cannot be exchanged in between.
        _refuse_unfit(path, os.fstat(descriptor))
        data = os.read(descriptor, _SECRET_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(data) > _SECRET_BYTES_MAX:
        raise KeyFileError(f"{path} is larger than a key file can be")
    return data


def _refuse_unfit(path: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise KeyFileError(f"{path} is not a regular file")
    if state.st_uid != os.geteuid():
        raise KeyFileOwnerError(
            f"{path} belongs to user {state.st_uid}, this process runs as {os.geteuid()}"
        )
    if state.st_mode & _OTHERS:
        raise KeyFileExposedError(
            f"{path} can be used by others (mode {stat.S_IMODE(state.st_mode):04o})",
            hint=f"Run `chmod 600 {path}`, and replace the key if others had access.",
        )


def write_public(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write or replace a file, whole or not at all, and durably; with that mode or a stricter."""
    waiting = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        waiting.unlink()
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        _write_durably(file.fileno(), data)
    waiting.replace(path)
    sync_folder(path.parent)


def _write_durably(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def sync_folder(path: Path) -> None:
    """Make names of a folder durable: what was made, renamed or deleted in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
