"""Whether an arriving row can be stored as it is: ids, sizes and kinds of its cells.

A peer's word may be anything. What no honest encoder sends ends the link; what only this node's
schema cannot hold is one row's fault and waits in the quarantine.
"""

from __future__ import annotations

import math
import re
from datetime import date
from typing import Final, assert_never

from node.storage.specs import (
    ACCESS_TABLES,
    RESIDENT_INDEX,
    RESIDENTS,
    TABLES,
    ColumnKind,
    ColumnSpec,
)
from replication.core.model import RowChange, Value
from replication.errors import RemoteProtocolError

__all__ = ["fits_schema", "has_ids", "is_row_id", "refuse_unspeakable"]

_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NODE: Final = re.compile(r"[0-9]{1,16}")
_STAMP: Final = re.compile(r"[0-9TZ:.+-]{10,24}")
_INTEGER_MAX: Final = 2**31 - 1
_COUNT_MAX: Final = 2**62
_SEALED_TEXT_MAX: Final = 10_000
_WHOLE_MAX: Final = 2**53
_ROW_CHARACTERS_MAX: Final = 256 * 1024
_NUMBER_CHARACTERS: Final = 25
_OWN_ROWS: Final = frozenset({RESIDENTS.name, RESIDENT_INDEX.name})
_DAY_CHARACTERS: Final = len("2026-03-01")
_DAYS: Final = {
    spec.name: tuple(
        column.name
        for column in spec.columns
        if column.kind is ColumnKind.DATE and column.length == _DAY_CHARACTERS
    )
    for spec in ACCESS_TABLES
}
"""Days that decide who reads: they are compared as text, so another form of a day is no day."""


def refuse_unspeakable(change: RowChange) -> None:
    """Refuse what the codec cannot have made.

    Raises:
        RemoteProtocolError: A number out of range, a nested value, text that is not Unicode.
    """
    version = change.version
    counts = (version.author_epoch, version.number, change.home_epoch, change.schema_version)
    texts = (change.table, change.row_id, change.resident_id, change.author_node, change.home_node)
    if max(counts) > _COUNT_MAX or not _is_unicode("".join((*texts, *change.values))):
        raise RemoteProtocolError("a row's own fields are not of this protocol")
    for value in change.values.values():
        if not _is_plain(value):
            raise RemoteProtocolError("a row holds a value that is not of this protocol")


def is_row_id(text: str) -> bool:
    """Whether it is a UUID in canonical text, the one form in which ids are stored and compared."""
    return _ID.fullmatch(text) is not None


def has_ids(change: RowChange) -> bool:
    """Whether the row's ids can be looked up at all: an ASCII column compares with nothing else."""
    return is_row_id(change.row_id) and is_row_id(change.resident_id)


def fits_schema(change: RowChange) -> bool:
    """Whether every id and cell fits its column."""
    if not (
        has_ids(change)
        and _NODE.fullmatch(change.author_node)
        and _NODE.fullmatch(change.home_node)
        and _STAMP.fullmatch(change.recorded_at)
        and change.schema_version <= _INTEGER_MAX
        and (change.row_id == change.resident_id or change.table not in _OWN_ROWS)
    ):
        return False
    values = change.values
    if sum(map(_characters, values, values.values())) > _ROW_CHARACTERS_MAX:
        return False
    if not all(_fits(column, values.get(column.name)) for column in TABLES[change.table].columns):
        return False
    return all(_is_day(values.get(name)) for name in _DAYS.get(change.table, ()))


def _is_day(value: Value) -> bool:
    """Whether it is a day as this node writes it, or none."""
    if value is None:
        return True
    try:
        return date.fromisoformat(str(value)).isoformat() == value
    except ValueError:
        return False


def _characters(name: str, value: Value) -> int:
    return len(name) + (len(value) if isinstance(value, str) else _NUMBER_CHARACTERS)


def _is_plain(value: object) -> bool:
    if value is None or isinstance(value, bool | int):
        return True
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str) and _is_unicode(value)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fits(column: ColumnSpec, value: Value) -> bool:
    if value is None:
        return True
    match column.kind:
        case ColumnKind.TEXT | ColumnKind.CODE:
            limit = _SEALED_TEXT_MAX if column.sealed else column.length
            return isinstance(value, str) and len(value) <= limit
        case ColumnKind.DATE | ColumnKind.REFERENCE | ColumnKind.KEYED_INDEX:
            return isinstance(value, str) and value.isascii() and len(value) <= column.length
        case ColumnKind.INTEGER:
            whole = isinstance(value, int) and not isinstance(value, bool)
            return whole and -_INTEGER_MAX <= int(value) <= _INTEGER_MAX
        case ColumnKind.NUMBER:
            whole = isinstance(value, int) and not isinstance(value, bool)
            return isinstance(value, float) or (whole and abs(int(value)) <= _WHOLE_MAX)
        case _:
            assert_never(column.kind)
