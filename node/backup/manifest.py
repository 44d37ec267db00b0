"""What one backup is made of. Readable without the key, believed only with it.

manifest.json has two lines: one JSON object, and its MAC. It holds numbers, times and digests, and
nothing of a patient.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hmac import compare_digest
from typing import Any, Final

from node.backup.errors import BackupDamagedError, BackupKeyWrongError
from node.backup.keys import BackupKeys, BackupSecret

__all__ = ["FULL", "INCREMENTAL", "MANIFEST", "Manifest", "chunk_name", "read_manifest", "sealed"]

MANIFEST: Final = "manifest.json"
FULL: Final = "full"
INCREMENTAL: Final = "incremental"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One backup.

    Args:
        number: Counts the node's backups at this place, from 1.
        kind: "full" or "incremental".
        base: Folder of the backup it rests upon; "" for a full one.
        salt: Of a passphrase, hexadecimal; "" with a key file.
        check: Tells a wrong key.
        head: Last number of the change log in it.
        chunks: SHA-256 of each stored chunk, in order.
        counts: Rows of every table in the restored state.
        marks: What the next incremental backup starts from (delta.py).
        bytes: Of all chunks as stored.
    """

    number: int
    folder: str
    uid: str
    kind: str
    base: str
    salt: str
    check: str
    node_id: str
    store_epoch: int
    incarnation: str
    head: int
    revision: str
    database: str
    release: str
    created_at: str
    reason: str
    chunks: tuple[str, ...]
    counts: Mapping[str, int]
    marks: Mapping[str, Any]
    bytes: int
    format: int = _FORMAT


def chunk_name(folder: str, number: int) -> str:
    """Where a chunk of a backup lies."""
    return f"{folder}/{number:06d}.chunk"


def sealed(manifest: Manifest, keys: BackupKeys) -> bytes:
    """The file's content."""
    text = json.dumps(asdict(manifest), ensure_ascii=False, sort_keys=True).encode()
    return text + b"\n" + keys.mac(text).encode() + b"\n"


def read_manifest(
    data: bytes, folder: str, secret: BackupSecret | None
) -> tuple[Manifest, BackupKeys | None]:
    """The manifest of a folder, and its keys if a secret is given.

    Args:
        data: Content of manifest.json.
        folder: Where it lay, which it must name itself.
        secret: None: nothing is proven, the manifest is only for show.

    Raises:
        BackupDamagedError: It is not whole, or not what was written.
        BackupKeyWrongError: It was made with another key.
    """
    text, _, rest = data.partition(b"\n")
    try:
        said = json.loads(text)
        if said.get("format") != _FORMAT or len(rest) != 65:
            raise BackupDamagedError(f"{folder}: the manifest is not whole")
        said["chunks"] = tuple(said["chunks"])
        manifest = Manifest(**said)
        uid, salt = bytes.fromhex(manifest.uid), bytes.fromhex(manifest.salt)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BackupDamagedError(f"{folder}: the manifest is not whole") from None
    if manifest.folder != folder:
        raise BackupDamagedError(f"{folder} holds the manifest of {manifest.folder}")
    if secret is None:
        return manifest, None
    if secret.is_passphrase != bool(salt):
        kind = "a key file" if secret.is_passphrase else "a passphrase"
        raise BackupKeyWrongError(f"{folder} was made with {kind}")
    keys = secret.keys(uid, salt)
    if not compare_digest(keys.check, manifest.check):
        raise BackupKeyWrongError(f"{folder} was made with another key")
    if not compare_digest(keys.mac(text), rest[:64].decode("ascii", "replace")):
        raise BackupDamagedError(f"{folder}: the manifest was altered")
    return manifest, keys
