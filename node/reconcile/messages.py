"""Questions and answers of a comparison as bytes: JSON, its lists packed, compressed."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import zstandard

from node.reconcile.model import Cause, Current, Direction, Offer, Open, Slice, Taken, Verdict
from node.reconcile.ranges import DIGEST_BYTES, KEY_BYTES, KeyRange, LeafPage, RangeDigest
from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.model import RowChange, Version
from replication.errors import RemoteProtocolError

__all__ = [
    "current_in",
    "current_out",
    "digests_in",
    "digests_out",
    "keys_in",
    "keys_out",
    "offers_in",
    "offers_out",
    "opened_in",
    "opened_out",
    "packed",
    "pages_in",
    "pages_out",
    "rows_in",
    "rows_out",
    "slice_in",
    "slice_out",
    "spans_in",
    "spans_out",
    "taken_in",
    "taken_out",
    "unpacked",
    "verdicts_in",
    "verdicts_out",
]

_LEVEL: Final = 3
_BYTES_MAX: Final = 64 << 20
_DIGEST: Final = struct.Struct(f">I{DIGEST_BYTES}s")
_LEAF_BYTES: Final = KEY_BYTES + DIGEST_BYTES

Said = dict[str, Any]


def packed(said: Said) -> bytes:
    """A message as it travels."""
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()
    return zstandard.ZstdCompressor(level=_LEVEL).compress(text)


def unpacked(body: bytes) -> Said:
    """A message that has arrived.

    Raises:
        RemoteProtocolError: It is none.
    """
    try:
        # The library believes a size in the packed bytes before any limit that it is given.
        if zstandard.frame_content_size(body) > _BYTES_MAX:
            raise RemoteProtocolError("a message of a comparison is too long")
        text = zstandard.ZstdDecompressor().decompress(body, max_output_size=_BYTES_MAX)
        said = json.loads(text)
    except (zstandard.ZstdError, ValueError, RecursionError):
        raise RemoteProtocolError("a message of a comparison cannot be read") from None
    if not isinstance(said, dict):
        raise RemoteProtocolError("a message of a comparison has another shape")
    return said


def slice_out(part: Slice) -> list[str]:
    """A slice."""
    return [part.direction.value, part.table, part.home]


def slice_in(said: Any) -> Slice:
    """A slice. Raises ValueError."""
    direction, table, home = said
    return Slice(Direction(direction), str(table), str(home))


def spans_out(spans: Sequence[KeyRange]) -> str:
    """Ranges."""
    return _text(b"".join(span.low + span.high for span in spans))


def spans_in(said: Any) -> list[KeyRange]:
    """Ranges. Raises ValueError."""
    return [KeyRange(p[:KEY_BYTES], p[KEY_BYTES:]) for p in _pieces(said, 2 * KEY_BYTES)]


def keys_out(keys: Sequence[bytes]) -> str:
    """Keys."""
    return _text(b"".join(keys))


def keys_in(said: Any) -> list[bytes]:
    """Keys. Raises ValueError."""
    return _pieces(said, KEY_BYTES)


def digests_out(digests: Sequence[RangeDigest]) -> str:
    """Digests of ranges."""
    return _text(b"".join(_DIGEST.pack(each.count, each.digest) for each in digests))


def digests_in(said: Any) -> list[RangeDigest]:
    """Digests of ranges. Raises ValueError."""
    return [RangeDigest(*_DIGEST.unpack(piece)) for piece in _pieces(said, _DIGEST.size)]


def pages_out(pages: Sequence[LeafPage]) -> list[list[Any]]:
    """Pages of leaves."""
    return [
        [_text(b"".join(key + digest for key, digest in page.leaves)), page.more] for page in pages
    ]


def pages_in(said: Any) -> list[LeafPage]:
    """Pages of leaves. Raises ValueError."""
    return [
        LeafPage(
            tuple((p[:KEY_BYTES], p[KEY_BYTES:]) for p in _pieces(leaves, _LEAF_BYTES)),
            more=bool(more),
        )
        for leaves, more in said
    ]


def opened_out(opened: Open) -> Said:
    """How far each lane is confirmed."""
    return {str(lane): at for lane, at in opened.delivered.items()}


def opened_in(said: Any) -> Open:
    """How far each lane is confirmed."""
    return Open({int(lane): int(at) for lane, at in said.items()})


def current_out(rows: Sequence[Current]) -> list[list[Any]]:
    """Rows as they are at one end."""
    return [
        [
            None if row.digest is None else row.digest.hex(),
            None if row.version is None else [row.version.author_epoch, row.version.number],
            row.broken,
            row.home_epoch,
        ]
        for row in rows
    ]


def current_in(said: Any) -> list[Current]:
    """Rows as they are at one end. Raises ValueError."""
    return [
        Current(
            None if digest is None else bytes.fromhex(digest),
            None if version is None else Version(int(version[0]), int(version[1])),
            bool(broken),
            int(home_epoch),
        )
        for digest, version, broken, home_epoch in said
    ]


def rows_out(rows: Sequence[RowChange]) -> str:
    """Rows, clear, as batches have them."""
    return encode_changes(rows).decode()


def rows_in(said: Any) -> list[RowChange]:
    """Rows. Raises RemoteProtocolError."""
    return decode_changes(CODEC_JSON, str(said).encode())


def verdicts_out(verdicts: Sequence[Verdict]) -> Said:
    """What the owner says."""
    return {
        "verdicts": [
            [
                each.key.hex(),
                each.cause,
                each.young,
                each.wants,
                each.decided,
                each.row is not None,
            ]
            for each in verdicts
        ],
        "rows": rows_out([each.row for each in verdicts if each.row is not None]),
    }


def verdicts_in(said: Mapping[str, Any]) -> list[Verdict]:
    """What the owner says. Raises ValueError."""
    rows = iter(rows_in(said["rows"]))
    return [
        Verdict(
            bytes.fromhex(key),
            None if cause is None else Cause(cause),
            young=bool(young),
            row=next(rows) if has_row else None,
            wants=bool(wants),
            decided=bool(decided),
        )
        for key, cause, young, wants, decided, has_row in said["verdicts"]
    ]


def offers_out(offers: Sequence[Offer]) -> Said:
    """Rows that are given back."""
    return {
        "offers": [[each.key.hex(), each.cause, each.row is not None] for each in offers],
        "rows": rows_out([each.row for each in offers if each.row is not None]),
    }


def offers_in(said: Mapping[str, Any]) -> list[Offer]:
    """Rows that are given back. Raises ValueError."""
    rows = iter(rows_in(said["rows"]))
    return [
        Offer(
            bytes.fromhex(key),
            next(rows) if has_row else None,
            None if cause is None else Cause(cause),
        )
        for key, cause, has_row in said["offers"]
    ]


def taken_out(taken: Sequence[Taken]) -> list[list[Any]]:
    """What became of rows."""
    return [[each.key.hex(), each.cause] for each in taken]


def taken_in(said: Any) -> list[Taken]:
    """What became of rows. Raises ValueError."""
    return [
        Taken(bytes.fromhex(key), None if cause is None else Cause(cause)) for key, cause in said
    ]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _pieces(said: Any, size: int) -> list[bytes]:
    data = base64.b64decode(str(said), validate=True)
    if len(data) % size:
        raise ValueError("a list of another size")
    return [data[start : start + size] for start in range(0, len(data), size)]
