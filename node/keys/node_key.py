"""The node's own key, which wraps its data keys: a file, or what an outside service made of it.

It is exchanged with two files. The new key is written beside the old one (`node.next.key`), then
all data keys are wrapped anew in one transaction, then the new file takes the old one's name.
Whichever line a process dies at, the key that opens the table lies in one of the two files; which
one it is, the table itself tells.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from node.clock import RandomBytes
from node.keys.errors import KeyServiceError
from node.keys.service import KeyService
from node.security.errors import KeyFileError, SealBrokenError
from node.security.folders import NodeFolder
from node.security.key_files import load_key, read_secret, sync_folder, write_secret
from node.security.sealing import WrappedKey, unwrap_key, wrap_key
from node.security.suites import KEY_BYTES

__all__ = ["exchange", "find_node_key", "read_node_key", "settled_node_key", "wrapped_anew"]

_SERVICE: Final = b"service:1:"


def read_node_key(path: Path, service: KeyService | None) -> bytes:
    """The 32 bytes of a node key's file.

    Raises:
        KeyFileError, KeyFileExposedError: The file cannot be used.
        KeyServiceError: It is wrapped, and the service is not there or does not unwrap it.
    """
    data = read_secret(path)
    if not data.startswith(_SERVICE):
        return load_key(path)
    if service is None:
        raise KeyServiceError(
            f"{path} is wrapped by an outside key service, and node.yaml names none",
            hint="Set key_command in node.yaml to the command that wrapped it.",
        )
    try:
        wrapped = base64.b64decode(data.removeprefix(_SERVICE).strip(), validate=True)
    except binascii.Error:
        raise KeyFileError(f"{path} does not hold a wrapped key") from None
    key = service.unwrap(wrapped)
    if len(key) != KEY_BYTES:
        raise KeyServiceError(f"key_command unwrapped {len(key)} bytes, a key has {KEY_BYTES}")
    return key


def find_node_key(
    folder: NodeFolder, node_id: str, held: Sequence[WrappedKey], service: KeyService | None
) -> bytes:
    """The key that the table's data keys are wrapped with. Writes nothing.

    Raises:
        KeyFileError, KeyServiceError: keys/node.key cannot be read.
        SealBrokenError: No file of this folder opens them.
    """
    return _found(folder, node_id, held, service)[1]


def settled_node_key(
    folder: NodeFolder, node_id: str, held: Sequence[WrappedKey], service: KeyService | None
) -> bytes:
    """As `find_node_key`, and an exchange that a death cut short is ended, or undone."""
    path, key = _found(folder, node_id, held, service)
    if path == folder.next_node_key:
        _rename(folder)
    elif folder.next_node_key.exists():
        _drop_next(folder)
    return key


def _found(
    folder: NodeFolder, node_id: str, held: Sequence[WrappedKey], service: KeyService | None
) -> tuple[Path, bytes]:
    path = folder.node_key
    if not folder.next_node_key.exists():
        key = read_node_key(path, service)
        _refuse_other(node_id, held, key)
        return path, key
    try:
        key = read_node_key(path, service)
        _refuse_other(node_id, held, key)
    except (SealBrokenError, KeyFileError) as error:
        try:
            key = read_node_key(folder.next_node_key, service)
            _refuse_other(node_id, held, key)
        except (SealBrokenError, KeyFileError):
            raise error from None
        return folder.next_node_key, key
    return path, key


def _refuse_other(node_id: str, held: Iterable[WrappedKey], key: bytes) -> None:
    for each in held:
        unwrap_key(node_id, key, each)


def wrapped_anew(
    node_id: str,
    held: Sequence[WrappedKey],
    clear_of: Callable[[WrappedKey], bytes],
    new: bytes,
    random_bytes: RandomBytes,
) -> list[WrappedKey]:
    """All data keys under another node key."""
    return [wrap_key(node_id, new, each, clear_of(each), random_bytes) for each in held]


def exchange(
    folder: NodeFolder,
    service: KeyService | None,
    random_bytes: RandomBytes,
    store: Callable[[bytes], None],
) -> None:
    """Make a new node key; `store` wraps all data keys with it, in one durable transaction.

    No file named node.next.key may be in use: settle before.

    Raises:
        KeyServiceError, OSError: Nothing was changed, or the next opening settles it.
    """
    new = random_bytes(KEY_BYTES)
    text = new.hex().encode()
    if service is not None:
        text = _SERVICE + base64.b64encode(service.wrap(new))
    folder.next_node_key.unlink(missing_ok=True)
    write_secret(folder.next_node_key, text + b"\n")
    store(new)
    _rename(folder)


def _rename(folder: NodeFolder) -> None:
    folder.next_node_key.replace(folder.node_key)
    sync_folder(folder.keys)


def _drop_next(folder: NodeFolder) -> None:
    """Throw a new key away that no data key was wrapped with."""
    folder.next_node_key.unlink()
    sync_folder(folder.keys)
