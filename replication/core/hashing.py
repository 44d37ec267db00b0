"""Digests of batches, the running hash of a stream, and the bytes a receipt signs.

Owns the byte layouts, which both ends must share for ever; each is spelled out in DESIGN.md. Works
on the model alone, so that neither protobuf nor compression takes part in what is proven.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

from replication.core.model import PROTOCOL_MAX, Cursor, Form, Lane, LogEntry

__all__ = ["batch_digest", "receipt_bytes", "running_hash"]

_DIGEST_PREFIX: Final = b"fenhe-batch-2"
_CONTENT_PREFIX: Final = b"fenhe-batch-1"
_RECEIPT_PREFIX: Final = b"fenhe-receipt-1"
_ENTRY: Final = struct.Struct(">HHBHIIQQQQ")
_PLACE: Final = struct.Struct(">QQH")
_U64: Final = struct.Struct(">Q")
_U32: Final = struct.Struct(">I")
_FORM_NUMBER: Final = {Form.FULL: 1, Form.DEIDENTIFIED: 2, Form.INDEX: 3, Form.SEALED: 4}


def batch_digest(
    lane: Lane,
    entries: Sequence[LogEntry],
    *,
    covers_from: int,
    covers_to: int,
    position: str = "",
    protocol: int = PROTOCOL_MAX,
) -> bytes:
    """SHA-256 over the lane, what the batch stands for and each entry as it travels; 32 bytes.

    An entry's `sequence` does not travel and takes no part. Under link protocol 1 the digest is
    over the lane and the entries alone.
    """
    if protocol > 1:
        where = position.encode()
        place = _PLACE.pack(covers_from, covers_to, len(where)) + where
        parts = [_DIGEST_PREFIX, bytes((lane,)), place]
    else:
        parts = [_CONTENT_PREFIX, bytes((lane,))]
    pack = _ENTRY.pack
    for entry in entries:
        origin = entry.origin_node.encode()
        home = entry.home_node.encode()
        rows = entry.rows
        parts.append(
            pack(
                len(origin),
                len(home),
                _FORM_NUMBER[entry.form],
                entry.codec,
                entry.schema_version,
                entry.row_count,
                entry.origin_epoch,
                entry.origin_sequence,
                entry.committed_at_ms & 0xFFFFFFFFFFFFFFFF,
                len(rows),
            )
        )
        parts += (origin, home, rows)
    return hashlib.sha256(b"".join(parts)).digest()


def running_hash(before: bytes, digest: bytes) -> bytes:
    """Chain a batch's digest onto the stream's hash; `before` is empty for the first batch."""
    return hashlib.sha256(before + digest).digest()


def receipt_bytes(cursor: Cursor, sender: str, receiver: str) -> bytes:
    """What the receiver's key signs: that it holds the sender's lane durably up to the cursor.

    Args:
        cursor: The receiver's cursor after the batch.
        sender: Node id of the end that sent the batch.
        receiver: Node id of the end that applied it and signs.
    """
    fields = (
        _RECEIPT_PREFIX,
        sender.encode(),
        receiver.encode(),
        _U64.pack(cursor.lane),
        _U64.pack(cursor.stream_epoch.sender),
        _U64.pack(cursor.stream_epoch.receiver),
        _U64.pack(cursor.number),
        _U64.pack(cursor.covers_to),
        cursor.running_hash,
    )
    return b"".join(_U32.pack(len(field)) + field for field in fields)
