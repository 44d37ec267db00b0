"""Collapses a long backlog to the newest version of each row.

Owns what may be left out. A receiver that holds a newer version would skip the older ones anyway
(version-guarded apply), so leaving them out changes nothing but the traffic. Control and care lanes
carry state events, each of which must arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from replication.core.codec import CODEC_JSON, decode_changes, encode_changes
from replication.core.model import Form, Lane, LogEntry, RowChange, Version

__all__ = ["COALESCED_LANES", "coalesce"]

COALESCED_LANES: Final = frozenset({Lane.IDENTITY, Lane.BULK})

_Key = tuple[str, str, Form]


def coalesce(entries: Sequence[LogEntry]) -> tuple[list[LogEntry], bool]:
    """Drop rows that a later entry of the same sequence of entries supersedes.

    Returns:
        The entries left, in order, and whether anything was dropped. Entries of lanes that never
        coalesce, or in a codec other than JSON, stay as they are.
    """
    decoded = [_rows(entry) for entry in entries]
    newest: dict[_Key, Version] = {}
    for rows in decoded:
        for change in rows:
            key = _key(change)
            held = newest.get(key)
            if held is None or held < change.version:
                newest[key] = change.version
    left: list[LogEntry] = []
    dropped = False
    for entry, rows in zip(entries, decoded, strict=True):
        kept = [change for change in rows if newest[_key(change)] == change.version]
        encoded = encode_changes(kept) if 0 < len(kept) < len(rows) else b""
        if len(kept) == len(rows) or len(encoded) >= len(entry.rows):
            # Encoded anew it may be longer than it came (1e15 is 1000000000000000.0 here), longer
            # even than a batch holds; and what is superseded may always go along.
            left.append(entry)
            continue
        dropped = True
        if kept:
            left.append(replace(entry, rows=encoded, row_count=len(kept)))
    return left, dropped


def _rows(entry: LogEntry) -> list[RowChange]:
    if entry.lane not in COALESCED_LANES or entry.codec != CODEC_JSON:
        return []
    return decode_changes(entry.codec, entry.rows)


def _key(change: RowChange) -> _Key:
    return change.table, change.row_id, change.form
