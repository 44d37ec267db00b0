"""Row changes to bytes and back: codec 1, a JSON list.

JSON because a newer peer's columns must survive here unread, because C does the work in CPython,
and because zstd takes the repetition out of a batch. Knows no table.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from replication.core.model import Form, Operation, RowChange, Version
from replication.errors import RemoteProtocolError

__all__ = ["CODEC_JSON", "decode_changes", "encode_changes"]

CODEC_JSON: Final = 1
_FIELDS: Final = 13


def encode_changes(changes: Sequence[RowChange]) -> bytes:
    """Encode rows as UTF-8 JSON: a list of 13-element lists in the order of RowChange."""
    return json.dumps(
        [
            [
                c.table,
                c.row_id,
                c.resident_id,
                c.version.author_epoch,
                c.version.number,
                c.operation.value,
                c.author_node,
                c.home_node,
                c.home_epoch,
                c.schema_version,
                c.recorded_at,
                c.form.value,
                dict(c.values),
            ]
            for c in changes
        ],
        ensure_ascii=False,
        separators=(",", ":"),
        allow_nan=False,
    ).encode()


def decode_changes(codec: int, rows: bytes) -> list[RowChange]:
    """Decode what encode_changes made.

    Raises:
        RemoteProtocolError: The codec is unknown or the bytes are not such a list.
    """
    if codec != CODEC_JSON:
        raise RemoteProtocolError(f"row codec {codec} is not known here")
    try:
        return [_row(item) for item in json.loads(rows)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RemoteProtocolError("an entry's rows cannot be decoded") from error


def _row(item: list[Any]) -> RowChange:
    if len(item) != _FIELDS or not isinstance(item[12], dict):
        raise ValueError("a row has another shape")
    return RowChange(
        table=_text(item[0]),
        row_id=_text(item[1]),
        resident_id=_text(item[2]),
        version=Version(_count(item[3]), _count(item[4])),
        operation=Operation(item[5]),
        author_node=_text(item[6]),
        home_node=_text(item[7]),
        home_epoch=_count(item[8]),
        schema_version=_count(item[9]),
        recorded_at=_text(item[10]),
        form=Form(item[11]),
        values=item[12],
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("expected a count")
    return value
