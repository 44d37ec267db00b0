"""The key of backups: a file with 32 bytes, or a passphrase; and the keys of one backup."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from node.backup.errors import BackupKeyError
from node.clock import RandomBytes
from node.security.key_files import create_key, read_secret
from node.security.suites import KEY_BYTES

__all__ = ["BackupKeys", "BackupSecret", "load_secret", "new_key_file"]

_PASSPHRASE_MIN: Final = 16
_HEX_DIGITS: Final = KEY_BYTES * 2
# 32 MiB: what OWASP holds equal to N = 2**17 with p = 1, and a village's machine can give.
_SCRYPT: Final = (2**15, 8, 3)


@dataclass(frozen=True, slots=True)
class BackupKeys:
    """The keys of one backup. `check` tells a wrong key from a damaged backup; it opens nothing."""

    chunk: bytes
    manifest: bytes
    check: str

    def mac(self, data: bytes) -> str:
        """HMAC-SHA-256 of a manifest's text, hexadecimal."""
        return hmac.digest(self.manifest, data, sha256).hex()


class BackupSecret:
    """What the operator keeps. Its keys are made anew for each backup."""

    def __init__(self, *, key: bytes | None = None, passphrase: bytes = b"") -> None:
        self._key = key
        self._passphrase = passphrase
        self._stretched: dict[bytes, bytes] = {}

    @property
    def is_passphrase(self) -> bool:
        """Whether a salt is needed."""
        return self._key is None

    def keys(self, backup_uid: bytes, salt: bytes) -> BackupKeys:
        """The keys of the backup with that random id; `salt` counts for passphrases only.

        A passphrase costs a fifth of a second for each salt.
        """
        secret = self._key if self._key is not None else self._stretch(salt)

        def derived(purpose: str) -> bytes:
            info = f"fenhe.backup.{purpose}.1".encode()
            return HKDF(SHA256(), KEY_BYTES, backup_uid, info).derive(secret)

        return BackupKeys(derived("chunk"), derived("manifest"), derived("check")[:8].hex())

    def _stretch(self, salt: bytes) -> bytes:
        if salt not in self._stretched:
            n, r, p = _SCRYPT
            kdf = Scrypt(salt=salt, length=KEY_BYTES, n=n, r=r, p=p)
            self._stretched[salt] = kdf.derive(self._passphrase)
        return self._stretched[salt]


def load_secret(path: Path) -> BackupSecret:
    """Read a key file or a passphrase file.

    64 hexadecimal digits are a key; anything else is a passphrase, without the white space around.

    Raises:
        KeyFileExposedError: Others on the machine can read it.
        KeyFileError: It cannot be opened, or is no file.
        BackupKeyError: It is missing, or holds no text, or a passphrase of less than 16 characters.
    """
    if not path.exists():
        raise BackupKeyError(f"there is no file {path}")
    try:
        text = read_secret(path).decode().strip()
    except UnicodeDecodeError:
        raise BackupKeyError(f"{path} holds neither a key nor a passphrase") from None
    if len(text) == _HEX_DIGITS and all(digit in "0123456789abcdefABCDEF" for digit in text):
        return BackupSecret(key=bytes.fromhex(text))
    if len(text) < _PASSPHRASE_MIN:
        raise BackupKeyError(
            f"{path} holds {len(text)} characters, a passphrase has at least {_PASSPHRASE_MIN}"
        )
    return BackupSecret(passphrase=text.encode())


def new_key_file(path: Path, random_bytes: RandomBytes) -> None:
    """Make a key file of mode 0600. Raises KeyFileExistsError."""
    create_key(path, random_bytes)
