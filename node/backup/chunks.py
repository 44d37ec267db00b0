"""Pieces of a backup: sealed, in a fixed order, of one backup only.

A chunk holds steps of rebuilding the store (dictionaries of JSON values), compressed and sealed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from node.backup.errors import BackupDamagedError
from node.security.suites import NONCE_BYTES, joined

__all__ = ["ChunkSeal", "Row", "Step", "cells_bytes", "decoded_rows", "encoded", "rows_step"]

Step = dict[str, Any]
"""What to do at a restore; `do` says what: clear, remove, keep, rows, files, end."""

Row = Sequence[Any]
"""Cells as the database's driver gives them: None, int, float, str, bytes."""

_LEVEL: Final = 3
_CLEAR_BYTES_MAX: Final = 256 << 20


class ChunkSeal:
    """Seals and opens the chunks of one backup. Each number must be sealed once only."""

    def __init__(self, key: bytes, backup_uid: bytes) -> None:
        self._cipher = AESGCM(key)
        self._uid = backup_uid.hex()

    def seal(self, steps: Sequence[bytes], number: int, *, last: bool) -> bytes:
        """Encoded steps as they are stored."""
        clear = b"[" + b",".join(steps) + b"]"
        packed = zstandard.ZstdCompressor(level=_LEVEL).compress(clear)
        return self._cipher.encrypt(_nonce(number), packed, self._aad(number, last))

    def open(self, sealed: bytes, number: int, *, last: bool) -> list[Step]:
        """The steps again.

        Raises:
            BackupDamagedError: It was altered, or stands in another place than it was made for.
        """
        try:
            packed = self._cipher.decrypt(_nonce(number), sealed, self._aad(number, last))
            clear = zstandard.ZstdDecompressor().decompress(
                packed, max_output_size=_CLEAR_BYTES_MAX
            )
            steps: list[Step] = json.loads(clear)
        except (InvalidTag, zstandard.ZstdError, ValueError):
            raise BackupDamagedError(f"chunk {number} does not open in its place") from None
        return steps

    def _aad(self, number: int, last: bool) -> bytes:
        return joined("fenhe.backup.chunk.1", self._uid, str(number), "last" if last else "more")


def _nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_BYTES, "big")


def encoded(step: Step) -> bytes:
    """A step as JSON."""
    return json.dumps(step, ensure_ascii=False, separators=(",", ":")).encode()


def rows_step(table: str, columns: Sequence[str], rows: Sequence[Row]) -> Step:
    """Rows to insert. Bytes are written as hexadecimal; which cells they are is said by column.

    SQLite lets a column hold text in one row and bytes in another, so that is said by cell then.
    """
    binary = [
        place
        for place in range(len(columns))
        if any(isinstance(row[place], bytes | bytearray | memoryview) for row in rows)
    ]
    mixed: list[list[int]] = []
    written: list[list[Any]] = []
    for number, row in enumerate(rows):
        cells = list(row)
        for place in binary:
            if isinstance(cells[place], bytes | bytearray | memoryview):
                cells[place] = bytes(cells[place]).hex()
            elif cells[place] is not None:
                mixed.append([number, place])
        written.append(cells)
    return {
        "do": "rows",
        "table": table,
        "columns": list(columns),
        "binary": binary,
        "mixed": mixed,
        "rows": written,
    }


def decoded_rows(step: Step) -> list[dict[str, Any]]:
    """The rows of such a step, by column name."""
    mixed = {(number, place) for number, place in step["mixed"]}
    names: list[str] = step["columns"]
    found: list[dict[str, Any]] = []
    for number, cells in enumerate(step["rows"]):
        for place in step["binary"]:
            if cells[place] is not None and (number, place) not in mixed:
                cells[place] = bytes.fromhex(cells[place])
        found.append(dict(zip(names, cells, strict=True)))
    return found


def cells_bytes(row: Iterable[Any]) -> int:
    """About what a row takes in a chunk before compression."""
    return sum(len(cell) if isinstance(cell, str | bytes) else 8 for cell in row)
