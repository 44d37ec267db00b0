"""The main index: which records are of one person, and why.

Owns matching: how values are compared, what each comparison is worth, which pairs are compared at
all, and the index that answers one query against all residents of a node. Promises that a pair has
one weight whichever side it is read from, that each weight can be explained field by field, and
that nothing is left out of comparison in silence. Never stores anything, reads a clock or calls
another node. Needs the extra `empi` (NumPy, RapidFuzz, pypinyin), which is imported on first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from node.empi.errors import EmpiExtraMissingError

if TYPE_CHECKING:
    from node.empi.model import MatchModel

__all__ = ["link_tables"]


def link_tables(
    left: Any, right: Any, fields: Sequence[str], *, model: MatchModel | None = None
) -> Any:
    """Find the records of two tables that are of one person, without labels.

    Args:
        left: A pandas frame or an Arrow table. The record ids are the index of a frame (its first
            column, if its index only counts rows and that column is no field), or the first column
            of an Arrow table; each stands once. Values are text; None, NaN, "" and blanks are no
            evidence.
        right: The same kind of table.
        fields: The columns to compare, which both tables have. What each holds is recognised.
        model: Weights to use; None: they are learnt from the two tables.

    Returns:
        A table of the same kind, best pairs first, with the columns left_id, right_id, match_weight
        (bits), probability, outcome ("link" or "review"); what is in neither is new. Blocks too
        large to compare whole are named in its `attrs` or schema metadata, `oversized_blocks`.

    Raises:
        LinkInputError: A column is missing, an id stands twice, or the tables are of other kinds.
        EmpiExtraMissingError: The extra `empi` is not installed.
    """
    try:
        tables = import_module("node.empi.tables")
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in {"numpy", "rapidfuzz", "pypinyin"}:
            raise
        raise EmpiExtraMissingError(f"matching needs {missing.name}") from None
    return tables.link_frames(left, right, fields, model)
