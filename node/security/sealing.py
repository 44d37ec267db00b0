"""Sealing of what is stored: cells and log payloads under data keys, data keys under the node key.

Pure: it takes and gives wrapped keys; the storage keeps them in its table data_keys. A sealed
value is an envelope that names its key and is bound to its place by additional data (AAD):

    byte 0        format, 1
    bytes 1..8    key id
    bytes 9..20   nonce, random
    the rest      ciphertext and 16-byte tag

The first nine bytes are authenticated with the AAD. A random nonce of 96 bits allows 2**32 seals
under one key (NIST SP 800-38D, 8.3); rotate before that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol, Self

from node.clock import RandomBytes
from node.security.errors import DataKeyUnknownError, SealBrokenError
from node.security.suites import KEY_BYTES, NONCE_BYTES, Aead, Suite, aead, joined, suite_named

__all__ = ["DataKeys", "Sealer", "WrappedKey", "cell_aad", "new_data_key"]

_FORMAT: Final = b"\x01"
_KEY_ID_BYTES: Final = 8
_HEADER_BYTES: Final = len(_FORMAT) + _KEY_ID_BYTES


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


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as it is stored: sealed by the node's key, bound to the node, id and suite."""

    key_id: str
    suite: str
    wrapped: bytes


def _wrap_aad(node_id: str, key_id: str, suite: str) -> bytes:
    return joined("fenhe.data-key.1", node_id, key_id, suite)


def new_data_key(
    node_id: str, node_key: bytes, random_bytes: RandomBytes, suite: Suite = Suite.INTL
) -> WrappedKey:
    """Make a data key and wrap it under the node's key (32 bytes). Store it before sealing."""
    key_id = random_bytes(_KEY_ID_BYTES).hex()
    nonce = random_bytes(NONCE_BYTES)
    sealed = aead(suite, node_key).encrypt(
        nonce, random_bytes(KEY_BYTES), _wrap_aad(node_id, key_id, suite)
    )
    return WrappedKey(key_id, suite, nonce + sealed)


@dataclass(frozen=True, slots=True)
class _OpenKey:
    suite: Suite
    cipher: Aead


class DataKeys:
    """A node's data keys, unwrapped in memory: opens under any of them, seals under the current.

    Serves as Sealer for cells and as the change log's PayloadSealer. Safe for several threads.
    """

    def __init__(
        self,
        node_id: str,
        node_key: bytes,
        wrapped: Iterable[WrappedKey],
        *,
        current: str,
        random_bytes: RandomBytes,
    ) -> None:
        """Unwrap every key.

        Args:
            node_id: Whose keys they are.
            node_key: The key that wraps them, 32 bytes.
            wrapped: All of the node's data keys, in any order.
            current: Id of the key to seal with.
            random_bytes: Source of nonces.

        Raises:
            SealBrokenError: A key does not unwrap: another node's, or keys/node.key is not the
                one it was wrapped with.
            DataKeyUnknownError: `current` is not among them.
        """
        self._keys = {key.key_id: _unwrap(node_id, node_key, key) for key in wrapped}
        self._random_bytes = random_bytes
        if current not in self._keys:
            raise DataKeyUnknownError(f"data key {current} is not among this node's keys")
        self._current = self._keys[current]
        self._key_id = current
        self._header = _FORMAT + bytes.fromhex(current)

    @classmethod
    def fresh(cls, node_id: str, random_bytes: RandomBytes, suite: Suite = Suite.INTL) -> Self:
        """Keys that live as long as this object: for stores that are thrown away."""
        node_key = random_bytes(KEY_BYTES)
        key = new_data_key(node_id, node_key, random_bytes, suite)
        return cls(node_id, node_key, [key], current=key.key_id, random_bytes=random_bytes)

    @property
    def suite(self) -> str:
        return self._current.suite

    @property
    def key_id(self) -> str:
        return self._key_id

    def seal(self, clear: bytes, aad: bytes) -> bytes:
        """An envelope around `clear` under the current key; 37 bytes longer than it."""
        nonce = self._random_bytes(NONCE_BYTES)
        header = self._header
        return header + nonce + self._current.cipher.encrypt(nonce, clear, header + aad)

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
        header = sealed[:_HEADER_BYTES]
        if len(header) < _HEADER_BYTES or header[:1] != _FORMAT:
            raise SealBrokenError("a sealed value has no envelope that this program knows")
        named = header[1:].hex()
        if key_id is not None and key_id != named:
            raise SealBrokenError("a sealed value names another key than the one stored beside it")
        key = self._keys.get(named)
        if key is None:
            raise DataKeyUnknownError(f"data key {named} is not among this node's keys")
        body = sealed[_HEADER_BYTES + NONCE_BYTES :]
        nonce = sealed[_HEADER_BYTES : _HEADER_BYTES + NONCE_BYTES]
        if len(nonce) < NONCE_BYTES:
            raise SealBrokenError("a sealed value is cut short")
        return key.cipher.decrypt(nonce, body, header + aad)


def _unwrap(node_id: str, node_key: bytes, key: WrappedKey) -> _OpenKey:
    suite = suite_named(key.suite)
    nonce, sealed = key.wrapped[:NONCE_BYTES], key.wrapped[NONCE_BYTES:]
    if len(nonce) < NONCE_BYTES:
        raise SealBrokenError(f"data key {key.key_id} is cut short")
    aad = _wrap_aad(node_id, key.key_id, suite)
    try:
        clear = aead(suite, node_key).decrypt(nonce, sealed, aad)
    except SealBrokenError:
        raise SealBrokenError(
            f"data key {key.key_id} does not unwrap under this node's key",
            hint="Restore keys/node.key of this very node; no other key opens its store.",
        ) from None
    return _OpenKey(suite, aead(suite, clear))
