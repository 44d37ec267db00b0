"""Sealing of what is stored: cells and log payloads under data keys, data keys under the node key.

Pure: it takes and gives wrapped keys; the storage keeps them in its table data_keys. A sealed
value is an envelope that names its key and is bound to its place by additional data (AAD):

    byte 0        format, 1
    bytes 1..8    key id
    bytes 9..20   nonce, random
    the rest      ciphertext and 16-byte tag

The first nine bytes are authenticated with the AAD. A random nonce of 96 bits allows 2**32 seals
under one key (NIST SP 800-38D, 8.3); node/keys rotates before that. A data key serves one purpose:
a table by its name, or everything that has no key of its own. What is sealed names its key, so
what an earlier key sealed goes on opening.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple, Protocol, Self

from node.clock import RandomBytes
from node.security.errors import DataKeyUnknownError, SealBrokenError
from node.security.suites import KEY_BYTES, NONCE_BYTES, Aead, Suite, aead, joined, suite_named

__all__ = [
    "GENERAL",
    "HEADER_BYTES",
    "SEALS_MAX",
    "DataKeys",
    "Sealed",
    "Sealer",
    "WrappedKey",
    "cell_aad",
    "header_of",
    "new_data_key",
    "unwrap_key",
    "wrap_key",
]

GENERAL: Final = ""
"""Purpose of the key that seals what has no key of its own."""
SEALS_MAX: Final = 1 << 32
"""Seals under one key with random nonces (NIST SP 800-38D, 8.3)."""

_FORMAT: Final = b"\x01"
_KEY_ID_BYTES: Final = 8
HEADER_BYTES: Final = len(_FORMAT) + _KEY_ID_BYTES
"""So many bytes of an envelope say which key opens it."""


class Sealed(NamedTuple):
    """An envelope with what it names: for whoever keeps suite and key beside it."""

    suite: str
    key_id: str
    envelope: bytes


class Sealer(Protocol):
    """Seals bytes so that they open unaltered, in the same place, and nowhere else."""

    @property
    def suite(self) -> str:
        """Name of the suite that `seal` uses."""

    @property
    def key_id(self) -> str:
        """Id of the key that `seal` uses, 16 hexadecimal digits."""

    def seal(self, clear: bytes, aad: bytes) -> bytes:
        """An envelope around `clear`, bound to `aad`."""

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """What was sealed. Raises SealBrokenError, DataKeyUnknownError."""


def cell_aad(node: str, table: str, column: str, row_id: str) -> bytes:
    """The place of a cell. A value sealed for one cell opens in no other."""
    row = row_id.encode()
    return _column_aad(node, table, column) + len(row).to_bytes(4, "big") + row


@lru_cache(maxsize=256)
def _column_aad(node: str, table: str, column: str) -> bytes:
    # A node has a few dozen sealed columns and millions of cells in each.
    return joined("fenhe.cell.1", node, table, column)


def header_of(key_id: str) -> bytes:
    """The first bytes of every envelope under a key."""
    return _FORMAT + bytes.fromhex(key_id)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as it is stored: sealed by the node's key, bound to node, id, suite, purpose."""

    key_id: str
    suite: str
    wrapped: bytes
    purpose: str = GENERAL


def _wrap_aad(node_id: str, key_id: str, suite: str, purpose: str) -> bytes:
    if purpose == GENERAL:
        # As the first release wrapped its one key.
        return joined("fenhe.data-key.1", node_id, key_id, suite)
    return joined("fenhe.data-key.2", node_id, key_id, suite, purpose)


def new_data_key(
    node_id: str,
    node_key: bytes,
    random_bytes: RandomBytes,
    suite: Suite = Suite.INTL,
    purpose: str = GENERAL,
) -> WrappedKey:
    """Make a data key and wrap it under the node's key (32 bytes). Store it before sealing."""
    key_id = random_bytes(_KEY_ID_BYTES).hex()
    empty = WrappedKey(key_id, suite, b"", purpose)
    return wrap_key(node_id, node_key, empty, random_bytes(KEY_BYTES), random_bytes)


def wrap_key(
    node_id: str, node_key: bytes, key: WrappedKey, clear: bytes, random_bytes: RandomBytes
) -> WrappedKey:
    """A data key wrapped anew; what `key` holds as wrapped is not looked at."""
    nonce = random_bytes(NONCE_BYTES)
    aad = _wrap_aad(node_id, key.key_id, key.suite, key.purpose)
    sealed = aead(suite_named(key.suite), node_key).encrypt(nonce, clear, aad)
    return WrappedKey(key.key_id, key.suite, nonce + sealed, key.purpose)


def unwrap_key(node_id: str, node_key: bytes, key: WrappedKey) -> bytes:
    """A data key, clear, 32 bytes. Raises SealBrokenError: it is not under this node's key."""
    nonce, sealed = key.wrapped[:NONCE_BYTES], key.wrapped[NONCE_BYTES:]
    if len(nonce) < NONCE_BYTES:
        raise SealBrokenError(f"data key {key.key_id} is cut short")
    aad = _wrap_aad(node_id, key.key_id, key.suite, key.purpose)
    try:
        return aead(suite_named(key.suite), node_key).decrypt(nonce, sealed, aad)
    except SealBrokenError:
        raise SealBrokenError(
            f"data key {key.key_id} does not unwrap under this node's key",
            hint="Restore keys/node.key of this very node; no other key opens its store.",
        ) from None


class _OpenKey:
    """A data key in use. `seals`: under it since it was opened; a lost count is of no weight."""

    __slots__ = ("cipher", "header", "key_id", "seals", "suite")

    def __init__(self, key: WrappedKey, clear: bytes) -> None:
        self.key_id = key.key_id
        self.suite = suite_named(key.suite)
        self.cipher: Aead = aead(self.suite, clear)
        self.header = header_of(key.key_id)
        self.seals = 0

    def seal(self, nonce: bytes, clear: bytes, aad: bytes) -> bytes:
        self.seals += 1
        header = self.header
        return header + nonce + self.cipher.encrypt(nonce, clear, header + aad)


class TableSealer:
    """Seals under the current key of one purpose, whichever that is by then; opens under any."""

    __slots__ = ("_keys", "_purpose")

    def __init__(self, keys: DataKeys, purpose: str) -> None:
        self._keys = keys
        self._purpose = purpose

    @property
    def suite(self) -> str:
        return self._keys.current(self._purpose).suite

    @property
    def key_id(self) -> str:
        return self._keys.current(self._purpose).key_id

    def seal(self, clear: bytes, aad: bytes) -> bytes:
        """An envelope around `clear` under the current key; 37 bytes longer than it."""
        keys = self._keys
        return keys.current(self._purpose).seal(keys.random_bytes(NONCE_BYTES), clear, aad)

    def seal_named(self, clear: bytes, aad: bytes) -> Sealed:
        """An envelope, and the suite and key that it names, of one moment."""
        keys = self._keys
        key = keys.current(self._purpose)
        return Sealed(key.suite, key.key_id, key.seal(keys.random_bytes(NONCE_BYTES), clear, aad))

    def open(self, sealed: bytes, aad: bytes, key_id: str | None = None) -> bytes:
        """As DataKeys.open."""
        return self._keys.open(sealed, aad, key_id)


class DataKeys:
    """A node's data keys, unwrapped in memory: opens under any, seals under a purpose's current.

    By itself it seals under the general key. Safe for several threads; keys may come and go while
    others seal.
    """

    def __init__(
        self,
        node_id: str,
        node_key: bytes,
        wrapped: Iterable[WrappedKey],
        *,
        current: str | Mapping[str, str],
        random_bytes: RandomBytes,
    ) -> None:
        """Unwrap every key.

        Args:
            node_id: Whose keys they are.
            node_key: The key that wraps them, 32 bytes; not kept.
            wrapped: All of the node's data keys, in any order.
            current: Id of the key to seal with, by purpose; one id alone is the general key's.
            random_bytes: Source of nonces.

        Raises:
            SealBrokenError: A key does not unwrap: another node's, or keys/node.key is not the
                one it was wrapped with.
            DataKeyUnknownError: A current key is not among them.
        """
        self._node_id = node_id
        self.random_bytes = random_bytes
        self._lock = threading.Lock()
        self._keys = {key.key_id: _opened(node_id, node_key, key) for key in wrapped}
        named = {GENERAL: current} if isinstance(current, str) else current
        self._current = {purpose: self._known(key_id) for purpose, key_id in named.items()}
        if GENERAL not in self._current:
            raise DataKeyUnknownError("there is no general data key")
        self._own = TableSealer(self, GENERAL)

    @classmethod
    def fresh(
        cls,
        node_id: str,
        random_bytes: RandomBytes,
        suite: Suite = Suite.INTL,
        purposes: Collection[str] = (),
    ) -> Self:
        """Keys that live as long as this object: for stores that are thrown away."""
        node_key = random_bytes(KEY_BYTES)
        made = [
            new_data_key(node_id, node_key, random_bytes, suite, purpose)
            for purpose in (GENERAL, *purposes)
        ]
        current = {key.purpose: key.key_id for key in made}
        return cls(node_id, node_key, made, current=current, random_bytes=random_bytes)

    @property
    def suite(self) -> str:
        return self._own.suite

    @property
    def key_id(self) -> str:
        return self._own.key_id

    def of(self, purpose: str) -> TableSealer:
        """Seals for a table, under its own key where it has one."""
        return TableSealer(self, purpose)

    def current(self, purpose: str) -> _OpenKey:
        """The key that now seals for a purpose."""
        current = self._current
        return current.get(purpose) or current[GENERAL]

    def seal(self, clear: bytes, aad: bytes) -> bytes:
        """An envelope around `clear` under the general key; 37 bytes longer than it."""
        return self._own.seal(clear, aad)

    def seal_named(self, clear: bytes, aad: bytes) -> Sealed:
        """An envelope under the general key, and what it names."""
        return self._own.seal_named(clear, aad)

    def open(self, sealed: bytes, aad: bytes, key_id: str | None = None) -> bytes:
        """What was sealed.

        Args:
            sealed: An envelope.
            aad: What it was sealed with.
            key_id: Where the caller keeps the key's id beside the envelope: must be the one it
                names.

        Raises:
            SealBrokenError: Altered, moved, or not an envelope.
            DataKeyUnknownError: It names a key that this node does not have.
        """
        header = sealed[:HEADER_BYTES]
        if len(header) < HEADER_BYTES or header[:1] != _FORMAT:
            raise SealBrokenError("a sealed value has no envelope that this program knows")
        named = header[1:].hex()
        if key_id is not None and key_id != named:
            raise SealBrokenError("a sealed value names another key than the one stored beside it")
        key = self._keys.get(named)
        if key is None:
            raise DataKeyUnknownError(f"data key {named} is not among this node's keys")
        body = sealed[HEADER_BYTES + NONCE_BYTES :]
        nonce = sealed[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
        if len(nonce) < NONCE_BYTES:
            raise SealBrokenError("a sealed value is cut short")
        return key.cipher.decrypt(nonce, body, header + aad)

    def adopt(self, node_key: bytes, keys: Iterable[WrappedKey]) -> None:
        """Seal with these keys from now on, each for its purpose; they are stored already.

        Raises:
            SealBrokenError: One does not unwrap; nothing was changed.
        """
        opened = {key.purpose: _opened(self._node_id, node_key, key) for key in keys}
        with self._lock:
            # Whoever reads meanwhile sees the one or the other: neither is changed in place.
            self._keys = {**self._keys, **{key.key_id: key for key in opened.values()}}
            self._current = {**self._current, **opened}

    def forget(self, key_id: str) -> None:
        """Open nothing under a key any more; one that seals stays."""
        with self._lock:
            if all(key.key_id != key_id for key in self._current.values()):
                self._keys = {id_: key for id_, key in self._keys.items() if id_ != key_id}

    def take_seals(self) -> dict[str, int]:
        """By key, how often it has sealed since this was last asked."""
        taken = {}
        for key in self._keys.values():
            count = key.seals
            if count:
                key.seals -= count
                taken[key.key_id] = count
        return taken

    def _known(self, key_id: str) -> _OpenKey:
        key = self._keys.get(key_id)
        if key is None:
            raise DataKeyUnknownError(f"data key {key_id} is not among this node's keys")
        return key


def _opened(node_id: str, node_key: bytes, key: WrappedKey) -> _OpenKey:
    return _OpenKey(key, unwrap_key(node_id, node_key, key))
