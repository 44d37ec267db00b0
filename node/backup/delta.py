"""What has changed since another backup: for each table the steps from that state to this one.

What is known of a table's changes is used, and counted; where the count does not come out the table
is copied whole. So a wrong belief costs space and never a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, TableClause, and_, func, or_

from node.backup.chunks import Row, Step, cells_bytes, rows_step
from node.backup.snapshot import Snapshot
from node.clock import format_ms, parse_ms
from node.security.errors import DataKeyUnknownError, SealBrokenError
from node.storage.purging import ROWS_PURGED
from node.storage.tables import KEYS, REPLICATED
from replication.changelog import ChangeLog
from replication.core.codec import decode_changes
from replication.core.model import Form, LogEntry
from replication.errors import RemoteProtocolError

__all__ = ["Touched", "changed_steps", "marks_of", "touched_rows", "whole_steps"]

ROWS_BYTES_MAX: Final = 2 << 20
_SLICE_BYTES: Final = 8 << 20
_TOUCHED_MAX: Final = 200_000
_KEYS_A_STEP: Final = 20_000
_CLOCK_MARGIN_MS: Final = 600_000

Steps = Iterator[Step]


_TAILS: Final[Mapping[str, str]] = {
    "change_log": "sequence",
    "audit": "chain_position",
    "applied_requests": "applied_at",
}
"""Tables that only grow, by this column, which may be null until it is given."""


@dataclass(slots=True)
class Touched:
    """Row ids by table that the log names. `unknown`: not to be told; copy tables whole."""

    rows: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    unknown: str = ""


def touched_rows(connection: Connection, log: ChangeLog, after: int) -> Touched:
    """The rows named by entries after a sequence, and by those left without a number."""
    touched = Touched()
    try:
        scanned = after
        while True:
            part = log.read(connection, after=scanned, lane=None, bytes_max=_SLICE_BYTES)
            _note(touched, part.entries)
            if part.scanned_to >= part.head:
                break
            scanned = part.scanned_to
        _note(touched, log.left_unnumbered_entries(connection))
    except (SealBrokenError, DataKeyUnknownError, RemoteProtocolError) as error:
        touched.unknown = f"an entry of the log cannot be read ({error.code})"
    return touched


def _note(touched: Touched, entries: Sequence[LogEntry]) -> None:
    for entry in entries:
        if entry.form is Form.SEALED:
            continue
        for change in decode_changes(entry.codec, entry.rows):
            touched.rows[change.table].add(change.row_id)


def whole_steps(snapshot: Snapshot, name: str) -> Steps:
    """A table as it is, whatever it was."""
    yield {"do": "clear", "table": name}
    yield from _row_steps(snapshot, name, snapshot.rows(name))


def changed_steps(
    snapshot: Snapshot, name: str, marks: Mapping[str, Any], touched: Touched
) -> Steps:
    """A table as it is, from how it was when `marks` were taken."""
    held = marks["tables"].get(name)
    if _resealed(snapshot).get(name, 0) != marks.get("resealed", {}).get(name, 0):
        # Rows are under other keys, and nothing else names them (node/keys).
        return whole_steps(snapshot, name)
    if held is not None and name in _TAILS and _tail_holds(snapshot, name, marks):
        return _tail_steps(snapshot, name, held["to"])
    if held is not None and name in REPLICATED and _touched_holds(snapshot, name, marks, touched):
        return _touched_steps(snapshot, name, sorted(touched.rows.get(name, ())))
    return whole_steps(snapshot, name)


def marks_of(snapshot: Snapshot) -> dict[str, Any]:
    """What the next incremental backup has to know of this state."""
    tables: dict[str, Any] = {}
    for name in snapshot.shapes:
        if name in REPLICATED:
            tables[name] = {"rows": snapshot.count(name)}
        elif name in _TAILS:
            to = _tail_end(snapshot, name)
            tables[name] = {"to": to, "kept": snapshot.count(name, _up_to(name, to))}
    return {
        "tables": tables,
        "purged": _purged(snapshot),
        "pruned_to": _pruned_to(snapshot),
        "resealed": _resealed(snapshot),
    }


# -- tables that grow ------------------------------------------------------------------------------


def _tail_end(snapshot: Snapshot, name: str) -> Any:
    """Up to where the table is settled: what comes later is greater, or null."""
    cell = _TAILS[name]
    if name == "change_log":
        return snapshot.value("log_sequencer", lambda t: func.max(t.c.head)) or 0
    greatest = snapshot.value(name, lambda t: func.max(t.c[cell]))
    if name != "applied_requests":
        return greatest or 0
    # By the wall clock, of transactions that end in another order: leave room, and count.
    return "" if greatest is None else format_ms(parse_ms(greatest) - _CLOCK_MARGIN_MS)


def _up_to(name: str, to: Any) -> Any:
    cell = _TAILS[name]
    return lambda t: t.c[cell] <= to


def _tail_holds(snapshot: Snapshot, name: str, marks: Mapping[str, Any]) -> bool:
    held = marks["tables"][name]
    shrunk = _pruned_to(snapshot) - marks["pruned_to"] if name == "change_log" else 0
    return bool(snapshot.count(name, _up_to(name, held["to"])) == held["kept"] - shrunk)


def _tail_steps(snapshot: Snapshot, name: str, to: Any) -> Steps:
    cell = _TAILS[name]
    least = _pruned_to(snapshot) + 1 if name == "change_log" else None
    yield {"do": "keep", "table": name, "column": cell, "least": least, "most": to}
    if name == "change_log":
        yield from _letter_steps(snapshot, to)

    def newer(t: TableClause) -> ColumnElement[bool]:
        return or_(t.c[cell] > to, t.c[cell].is_(None))

    yield from _row_steps(snapshot, name, snapshot.rows(name, newer))


def _letter_steps(snapshot: Snapshot, to: int) -> Steps:
    """Letters change after they were logged: their payload goes once they are handed on."""

    def letters(t: TableClause) -> ColumnElement[bool]:
        return and_(t.c.form == Form.SEALED.value, t.c.sequence <= to)

    place = snapshot.shapes["change_log"].columns.index("entry_id")
    keys = [[row[place]] for row in snapshot.rows("change_log", letters)]
    if keys:
        yield {"do": "remove", "table": "change_log", "keys": keys}
        yield from _row_steps(snapshot, "change_log", snapshot.rows_by_key("change_log", keys))


# -- tables whose changes the log names ------------------------------------------------------------


def _touched_holds(
    snapshot: Snapshot, name: str, marks: Mapping[str, Any], touched: Touched
) -> bool:
    named = touched.rows.get(name, set())
    if touched.unknown or len(named) > _TOUCHED_MAX or _purged(snapshot) != marks["purged"]:
        return False
    keys = [[row_id] for row_id in sorted(named)]
    here = sum(1 for _ in snapshot.rows_by_key(name, keys))
    others, before = snapshot.count(name) - here, marks["tables"][name]["rows"]
    return bool(before - len(named) <= others <= before)


def _touched_steps(snapshot: Snapshot, name: str, row_ids: Sequence[str]) -> Steps:
    keys = [[row_id] for row_id in row_ids]
    # All of them first: a value that must be unique may have gone from one row to another.
    for start in range(0, len(keys), _KEYS_A_STEP):
        yield {"do": "remove", "table": name, "keys": keys[start : start + _KEYS_A_STEP]}
    if keys:
        yield from _row_steps(snapshot, name, snapshot.rows_by_key(name, keys))


# -- common ----------------------------------------------------------------------------------------


def _row_steps(snapshot: Snapshot, name: str, rows: Iterator[Row]) -> Steps:
    columns = snapshot.shapes[name].columns
    some: list[Row] = []
    size = 0
    for row in rows:
        some.append(row)
        size += cells_bytes(row)
        if size >= ROWS_BYTES_MAX:
            yield rows_step(name, columns, some)
            some, size = [], 0
    if some:
        yield rows_step(name, columns, some)


def _purged(snapshot: Snapshot) -> str:
    return _fact(snapshot, ROWS_PURGED) or "0"


def _resealed(snapshot: Snapshot) -> dict[str, int]:
    """By table, rows that were ever sealed under another key."""
    shape = snapshot.shapes.get(KEYS.work.name)
    if shape is None:
        return {}
    rows = [dict(zip(shape.columns, row, strict=True)) for row in snapshot.rows(shape.name)]
    return {str(row["place"]): int(row["resealed"]) for row in rows}


def _fact(snapshot: Snapshot, name: str) -> str | None:
    shape = snapshot.shapes["store_state"]
    for row in snapshot.rows_by_key("store_state", [[name]]):
        return str(dict(zip(shape.columns, row, strict=True))["value"])
    return None


def _pruned_to(snapshot: Snapshot) -> int:
    return int(snapshot.value("log_sequencer", lambda t: func.max(t.c.pruned_to)) or 0)
