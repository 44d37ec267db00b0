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
_TYPES: Final = [str, str, str, int, int, str, str, str, int, int, str, str, dict]
_OPERATIONS: Final = {operation.value: operation for operation in Operation}
_FORMS: Final = {form.value: form for form in Form}


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
    # What JSON gives has exact types, and comparing them costs less than a call for each.
    if [type(each) for each in item] != _TYPES:
        raise TypeError("a row has another shape")
    table, row_id, resident_id, epoch, number, operation, author, home, home_epoch = item[:9]
    schema_version, recorded_at, form, values = item[9:]
    if epoch < 0 or number < 0 or home_epoch < 0 or schema_version < 0:
        raise ValueError("expected a count")
    return RowChange(
        table,
        row_id,
        resident_id,
        Version(epoch, number),
        _OPERATIONS[operation],
        author,
        home,
        home_epoch,
        schema_version,
        recorded_at,
        _FORMS[form],
        values,
    )
