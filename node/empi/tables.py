"""pandas frames and Arrow tables, without importing either: out comes what went in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from node.empi.errors import LinkInputError
from node.empi.linking import Linkage, link
from node.empi.model import MatchModel

__all__ = ["link_frames"]


def link_frames(left: Any, right: Any, fields: Sequence[str], model: MatchModel | None) -> Any:
    """As `node.empi.link_tables` says."""
    names = list(fields)
    if not names or len(set(names)) != len(names):
        raise LinkInputError("fields: expected at least one column's name, each once")
    if _is_frame(left) != _is_frame(right):
        raise LinkInputError("the two tables are of different kinds")
    ids = _ids("left", left, names), _ids("right", right, names)
    columns = [[_column(side, table, name) for name in names]
               for side, table in (("left", left), ("right", right))]  # fmt: skip
    if not ids[0] or not ids[1]:
        return _result(left, ids, None)
    return _result(left, ids, link(columns[0], columns[1], names, model=model))


def _is_frame(table: Any) -> bool:
    """True for pandas, False for Arrow."""
    if hasattr(table, "iloc") and hasattr(table, "columns"):
        return True
    if hasattr(table, "column_names") and hasattr(table, "to_pydict"):
        return False
    raise LinkInputError(f"a table is neither a pandas frame nor an Arrow table: {type(table)}")


def _ids(side: str, table: Any, fields: Sequence[str]) -> list[Any]:
    """The record ids: the index of a frame, or the first column.

    A frame whose index only counts its rows has its ids in the first column, unless that is one of
    the fields; then the number of the row is the id.
    """
    if not _is_frame(table):
        if not table.column_names:
            raise LinkInputError(f"the {side} table has no columns")
        ids = table.column(0).to_pylist()
    elif _counts_rows(table.index) and len(table.columns) and table.columns[0] not in fields:
        ids = table.iloc[:, 0].tolist()
    else:
        ids = table.index.tolist()
    if any(_text(each) is None for each in ids):
        raise LinkInputError(f"a record of the {side} table has no id")
    if len(set(ids)) != len(ids):
        raise LinkInputError(f"a record id stands twice in the {side} table")
    return list(ids)


def _counts_rows(index: Any) -> bool:
    """Whether an index is what pandas gives a frame that was given none."""
    plain = type(index).__name__ == "RangeIndex" and index.name is None
    return plain and (index.start, index.step) == (0, 1)


def _column(side: str, table: Any, name: str) -> list[str | None]:
    known = list(table.columns) if _is_frame(table) else table.column_names
    if known.count(name) != 1:
        raise LinkInputError(
            f"the {side} table has {known.count(name)} columns {name!r}, expected one of:"
            f" {', '.join(map(str, known))}"
        )
    values = table[name].tolist() if _is_frame(table) else table.column(name).to_pylist()
    return [_text(value) for value in values]


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    # None, NaN, NaT and pandas' NA, none of which is worth importing pandas for.
    if value is None or str(value) in {"nan", "NaT", "<NA>"}:
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _result(like: Any, ids: tuple[list[Any], list[Any]], found: Linkage | None) -> Any:
    """The pairs as a table of the kind that went in, best first."""
    order: list[int] = []
    if found is not None:
        order = np.lexsort((found.right, found.left, -found.weights)).tolist()
    columns: dict[str, list[Any]] = {
        "left_id": [ids[0][found.left[i]] for i in order] if found else [],
        "right_id": [ids[1][found.right[i]] for i in order] if found else [],
        "match_weight": [float(found.weights[i]) for i in order] if found else [],
        "probability": [float(found.probabilities[i]) for i in order] if found else [],
        "outcome": [("link" if found.linked[i] else "review") for i in order] if found else [],
    }
    table = type(like)(columns) if _is_frame(like) else type(like).from_pydict(columns)
    notes = [
        f"{' + '.join(each.fields)}: {each.left_rows} x {each.right_rows} rows"
        for each in (found.oversized if found else ())
    ]
    if _is_frame(like):
        table.attrs["oversized_blocks"] = notes
        return table
    return table.replace_schema_metadata({"oversized_blocks": "\n".join(notes)})
