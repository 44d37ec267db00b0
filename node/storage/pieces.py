"""Rows encoded in pieces that a batch holds, however many there are.

A log entry larger than a batch could never be sent: it would end its lane for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from replication.core.codec import encode_changes
from replication.core.model import RowChange

__all__ = ["PIECE_BYTES_MAX", "encoded_pieces"]

PIECE_BYTES_MAX: Final = 1 << 20


def encoded_pieces(
    rows: Sequence[RowChange], bytes_max: int = PIECE_BYTES_MAX
) -> Iterator[tuple[Sequence[RowChange], bytes]]:
    """The rows in their order, each piece with its encoding; one row is never cut."""
    encoded = encode_changes(rows)
    if len(encoded) <= bytes_max or len(rows) == 1:
        yield rows, encoded
        return
    middle = len(rows) // 2
    yield from encoded_pieces(rows[:middle], bytes_max)
    yield from encoded_pieces(rows[middle:], bytes_max)
