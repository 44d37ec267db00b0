"""What a row becomes on its way up: full, de-identified, an index entry, or nothing.

De-identified rows keep only columns whose spec says so; ids become keyed pseudonyms under a key the
city does not hold. Index entries and de-identified rows leave in entries of their own, each sorted
by its id, without their transaction's number or hour: nothing stored above joins the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Final, assert_never

from hierarchy_config.model import CopyForm
from node.clock import format_ms, parse_ms
from node.consent.words import DENY
from node.records.canaries import is_canary
from node.security.purposes import COUNT_PURPOSES
from node.storage.context import KeyedIndex, Pseudonyms
from node.storage.pieces import encoded_pieces
from node.storage.specs import (
    CONSENTS,
    IDENTITY_NUMBER,
    RESIDENT_INDEX,
    RESIDENTS,
    TABLES,
    Leaving,
    TableSpec,
)
from replication.core.codec import CODEC_JSON, decode_changes
from replication.core.model import Form, Lane, LogEntry, Operation, RowChange, Value

__all__ = ["Policy", "deidentified", "index_entry", "month_of", "transform"]

Policy = Callable[[str], tuple[CopyForm, ...]]
"""The forms in which rows of a table go up."""

_Group = tuple[str, str, Form]

_UNKNOWN_TABLE: Final = ""
_NEW_YEAR: Final = "-01-01T00:00:00.000Z"


def transform(
    entries: Sequence[LogEntry],
    policy: Policy,
    *,
    pseudonyms: Pseudonyms | None,
    regional_index: KeyedIndex | None,
    identity_numbers: Callable[[Sequence[str]], Mapping[str, str]],
) -> list[LogEntry]:
    """What goes up instead of `entries`: full ones in their order, then the reduced.

    Args:
        entries: Of one lane, from a node's log.
        policy: What is copied up.
        pseudonyms: None: this node has no such key, and nothing de-identified may be made.
        regional_index: None: this node makes no index entries.
        identity_numbers: The clear identity numbers of residents, by resident id.
    """
    policy = cache(policy)
    kept: list[LogEntry] = []
    reduced = _Reduced()
    to_index: list[tuple[LogEntry, RowChange]] = []
    for entry in entries:
        # Made below a boundary already, as policy said there; or of a lane that goes up whole,
        # whose rows nobody need look at.
        if entry.form is not Form.FULL or _goes_whole(entry.lane, policy):
            kept.append(entry)
            continue
        rows = decode_changes(entry.codec, entry.rows)
        full = [change for change in rows if CopyForm.FULL in policy(change.table)]
        if len(full) == len(rows):
            kept.append(entry)
        elif full:
            kept += _pieces(entry, full)
        for change in _people(rows):
            forms = policy(change.table)
            if CopyForm.DEIDENTIFIED in forms and pseudonyms is not None:
                reduced.add(entry, deidentified(change, pseudonyms))
            if CopyForm.INDEX in forms and change.table == RESIDENTS.name:
                to_index.append((entry, change))
    if to_index and regional_index is not None:
        numbers = identity_numbers(sorted({change.row_id for _, change in to_index}))
        for entry, change in to_index:
            number = numbers.get(change.row_id)
            keyed = regional_index.index(IDENTITY_NUMBER, number) if number else None
            reduced.add(entry, index_entry(change, keyed))
    return kept + reduced.entries()


def _people(rows: Sequence[RowChange]) -> list[RowChange]:
    """Without canaries: nothing would tell a reduced one from a person, and it is not counted."""
    return [change for change in rows if not is_canary(change.resident_id)]


def _goes_whole(lane: Lane, policy: Policy) -> bool:
    """Whether every table of a lane goes up in full and in no other form, unknown ones too."""
    tables = (spec.name for spec in TABLES.values() if spec.lane is lane)
    return all(policy(table) == (CopyForm.FULL,) for table in (*tables, _UNKNOWN_TABLE))


def deidentified(change: RowChange, pseudonyms: Pseudonyms) -> RowChange:
    """The row without direct identifiers; what the spec does not name is dropped."""
    spec = TABLES[change.table]
    values: dict[str, Value] = {}
    said = change.values if _may_leave(spec, change.values) else {}
    for column in spec.columns:
        value = said.get(column.name)
        if value is None or column.leaving is Leaving.DROP:
            continue
        match column.leaving:
            case Leaving.KEEP:
                values[column.name] = value
            case Leaving.MONTH:
                values[column.name] = month_of(str(value))
            case Leaving.PSEUDONYM:
                values[column.name] = pseudonyms.pseudonym(column.references, str(value))
            case _:
                assert_never(column.leaving)
    return replace(
        change,
        row_id=pseudonyms.pseudonym(change.table, change.row_id),
        resident_id=pseudonyms.pseudonym(RESIDENTS.name, change.resident_id),
        recorded_at=_year_of(change.recorded_at),
        form=Form.DEIDENTIFIED,
        values=values,
    )


def _may_leave(spec: TableSpec, values: Mapping[str, Value]) -> bool:
    """Of consents only what keeps somebody out of counts: the rest is nobody's business above."""
    if spec.name != CONSENTS.name:
        return True
    return values.get("decision") == DENY and values.get("purpose") in COUNT_PURPOSES


def month_of(day: str) -> str:
    """The first day of an ISO date's month: what leaves of a date that would tell too much."""
    return f"{day[:7]}-01"


def index_entry(change: RowChange, identity_index: str | None) -> RowChange:
    """A resident's entry in the main index: who he is under the regional key, and his home."""
    values: dict[str, Value] = {}
    if identity_index is not None and change.operation is Operation.PUT:
        values["identity_index"] = identity_index
    return replace(
        change,
        table=RESIDENT_INDEX.name,
        recorded_at=_year_of(change.recorded_at),
        form=Form.INDEX,
        values=values,
    )


class _Reduced:
    """Reduced rows by origin, home and form, over all transactions of a slice of the log.

    Gathered, so that a transaction's index entry and its de-identified rows do not stand alone
    beside each other.
    """

    def __init__(self) -> None:
        self._rows: dict[_Group, dict[tuple[str, str], RowChange]] = {}
        self._last: dict[_Group, LogEntry] = {}

    def add(self, entry: LogEntry, change: RowChange) -> None:
        """Keep the newest version of each row: the older ones would be skipped anyway."""
        group = (entry.origin_node, change.home_node, change.form)
        rows = self._rows.setdefault(group, {})
        self._last[group] = entry
        key = (change.table, change.row_id)
        held = rows.get(key)
        if held is None or held.version < change.version:
            rows[key] = change

    def entries(self) -> list[LogEntry]:
        """One entry a group, more where it is large; its rows by table and id."""
        return [
            piece
            for group, rows in self._rows.items()
            for piece in _pieces(
                _coarse(self._last[group], group[2]), [rows[k] for k in sorted(rows)]
            )
        ]


def _coarse(last: LogEntry, form: Form) -> LogEntry:
    """An entry without its transaction's number, dated to the year; its rows are yet to come."""
    return replace(
        last,
        sequence=0,
        origin_sequence=0,
        form=form,
        codec=CODEC_JSON,
        committed_at_ms=parse_ms(_year_of(format_ms(last.committed_at_ms))),
    )


def _pieces(entry: LogEntry, rows: Sequence[RowChange]) -> list[LogEntry]:
    """The entry with these rows, cut into what a batch holds; its number names the first piece."""
    return [
        replace(
            entry,
            rows=encoded,
            codec=CODEC_JSON,
            row_count=len(some),
            origin_sequence=0 if n else entry.origin_sequence,
        )
        for n, (some, encoded) in enumerate(encoded_pieces(rows))
    ]


def _year_of(recorded_at: str) -> str:
    # A day would join an index entry to de-identified rows wherever few are registered a day.
    return recorded_at[:4] + _NEW_YEAR
