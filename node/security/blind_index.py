"""Keyed one-way values: equality can be asked of them, and nothing else.

A BlindIndex finds a resident by an identity number that is stored sealed. Whoever holds its key
can try every number, so a node has a key of its own, and the regional key exists at city and
counties only. There is no index on names, sex or birth dates: their frequencies would tell.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from node.security.suites import KEY_BYTES, Suite, joined, mac

__all__ = ["BlindIndex", "Pseudonymizer", "RegionalIndex", "normal_value"]

_UPPER_CASED: Final = frozenset({"identity_number", "passport"})


def normal_value(system: str, value: str) -> str:
    """The one spelling of an identifier: full-width digits made narrow, no spaces, X for x."""
    text = "".join(unicodedata.normalize("NFKC", value).split())
    return text.upper() if system in _UPPER_CASED else text


class _KeyedIndex:
    """HMAC over (system, value) under a key derived for one purpose."""

    _purpose: str

    def __init__(self, key: bytes, suite: Suite = Suite.INTL) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        self._suite = suite
        self._key = mac(suite, key, joined(self._purpose))

    def index(self, system: str, value: str) -> str:
        """64 hexadecimal digits: equal for equal identifiers of one system, else unrelated."""
        return mac(self._suite, self._key, joined(system, normal_value(system, value))).hex()


class BlindIndex(_KeyedIndex):
    """A node's own index of identifiers, under keys/blind_index.key."""

    _purpose = "fenhe.blind-index.1"


class RegionalIndex(_KeyedIndex):
    """The index by which counties meet in the main index, under keys/regional_index.key."""

    _purpose = "fenhe.regional-index.1"


class Pseudonymizer:
    """Pseudonyms of ids for de-identified rows, under the key that counties share.

    The city does not hold the key, so nothing joins its index entries to its records.
    """

    def __init__(self, key: bytes, suite: Suite = Suite.INTL) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        self._suite = suite
        self._key = mac(suite, key, joined("fenhe.pseudonym.1"))

    def pseudonym(self, table: str, row_id: str) -> str:
        """A UUID (RFC 9562, version 8) that stands for a row of that table, always the same.

        A column that refers to a row is replaced with the table it refers to: a record's
        resident_id by `pseudonym("residents", resident_id)`.
        """
        digest = mac(self._suite, self._key, joined(table, row_id))
        value = int.from_bytes(digest[:16], "big")
        value = value & ~(0xF << 76) | 0x8 << 76
        value = value & ~(0b11 << 62) | 0b10 << 62
        text = f"{value:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
