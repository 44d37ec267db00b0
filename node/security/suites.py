"""The suites of algorithms: an authenticated cipher and a keyed hash, chosen together by name.

`intl` is AES-256-GCM (NIST SP 800-38D) and HMAC-SHA-256; `gm` is SM4-GCM (GB/T 32907, RFC 8998)
and HMAC-SM3 (GB/T 32905). `cryptography` has no SM2 and gRPC no SM suites for TLS: `gm` concerns
data at rest only, and no conformity is claimed for it.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum
from typing import Final, Protocol, assert_never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SM3
from cryptography.hazmat.primitives.hmac import HMAC

from node.security.errors import SealBrokenError, SuiteUnknownError

__all__ = ["KEY_BYTES", "NONCE_BYTES", "Aead", "Suite", "aead", "joined", "mac", "suite_named"]

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


class Suite(StrEnum):
    """A pair of cipher and keyed hash, by the name that is stored beside what they made."""

    INTL = "intl"
    GM = "gm"


def suite_named(name: str) -> Suite:
    """The suite of that name. Raises SuiteUnknownError."""
    try:
        return Suite(name)
    except ValueError:
        raise SuiteUnknownError(f"there is no suite named {name!r}") from None


class Aead(Protocol):
    """Authenticated encryption under one key; safe to use from several threads."""

    def encrypt(self, nonce: bytes, clear: bytes, aad: bytes) -> bytes:
        """Ciphertext with its 16-byte tag. A nonce (12 bytes) serves once under a key."""

    def decrypt(self, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        """The clear bytes. Raises SealBrokenError."""


class _Aes256Gcm:
    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def encrypt(self, nonce: bytes, clear: bytes, aad: bytes) -> bytes:
        return self._cipher.encrypt(nonce, clear, aad)

    def decrypt(self, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        try:
            return self._cipher.decrypt(nonce, sealed, aad)
        except InvalidTag:
            raise SealBrokenError("a sealed value does not open in its place") from None


class _Sm4Gcm:
    """SM4 has 128-bit keys: the key is derived from the suite's 32 bytes by HMAC-SM3."""

    def __init__(self, key: bytes) -> None:
        self._algorithm = algorithms.SM4(mac(Suite.GM, key, b"fenhe.sm4-gcm.1")[:16])

    def encrypt(self, nonce: bytes, clear: bytes, aad: bytes) -> bytes:
        encryptor = Cipher(self._algorithm, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(aad)
        return encryptor.update(clear) + encryptor.finalize() + encryptor.tag

    def decrypt(self, nonce: bytes, sealed: bytes, aad: bytes) -> bytes:
        body, tag = sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:]
        try:
            decryptor = Cipher(self._algorithm, modes.GCM(nonce, tag)).decryptor()
            decryptor.authenticate_additional_data(aad)
            return decryptor.update(body) + decryptor.finalize()
        except (InvalidTag, ValueError):
            # ValueError: too short to hold a tag.
            raise SealBrokenError("a sealed value does not open in its place") from None


def aead(suite: Suite, key: bytes) -> Aead:
    """The suite's cipher under a key of 32 bytes."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    match suite:
        case Suite.INTL:
            return _Aes256Gcm(key)
        case Suite.GM:
            return _Sm4Gcm(key)
        case _:
            assert_never(suite)


def mac(suite: Suite, key: bytes, data: bytes) -> bytes:
    """The suite's keyed hash of `data`, 32 bytes."""
    match suite:
        case Suite.INTL:
            return hmac.digest(key, data, hashlib.sha256)
        case Suite.GM:
            keyed = HMAC(key, SM3())
            keyed.update(data)
            return keyed.finalize()
        case _:
            assert_never(suite)


def joined(label: str, *parts: str) -> bytes:
    """The parts as bytes, each with its length before it: no two lists give the same bytes."""
    encoded = [part.encode() for part in (label, *parts)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
