"""The shipped tables of statistical divisions (source and licence: divisions/README.md)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from hierarchy_config.errors import HierarchyError
from hierarchy_config.model import CareLevel, Division, NodeId

__all__ = ["DivisionTableError", "division_tables", "load_divisions", "shipped_divisions"]

_FOLDER: Final = Path(__file__).parent / "divisions"
_COLUMNS: Final = ["code", "name_zh", "pinyin", "level", "parent"]


class DivisionTableError(HierarchyError):
    """A division table cannot be read as one."""

    code = "DIVISION_TABLE_INVALID"
    default_hint = "Compare the file with the shipped hierarchy_config/divisions/linfen.csv."


def division_tables() -> tuple[str, ...]:
    """Return the names of the shipped tables."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.csv")))


@cache
def shipped_divisions(name: str = "linfen") -> Mapping[NodeId, Division]:
    """Return a shipped table by name, read once per process.

    Raises:
        DivisionTableError: No such table is shipped.
    """
    return load_divisions(_FOLDER / f"{name}.csv")


def load_divisions(path: Path | None = None) -> Mapping[NodeId, Division]:
    """Read a division table, by default the shipped one of Linfen, in the file's order.

    Columns: code, name_zh, pinyin, level, parent, and optionally succeeds. UTF-8.

    Raises:
        DivisionTableError: The file is missing, has other columns, an unknown level or a
            repeated code.
    """
    source = path or _FOLDER / "linfen.csv"
    divisions: dict[NodeId, Division] = {}
    try:
        with source.open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            if list(rows.fieldnames or ())[: len(_COLUMNS)] != _COLUMNS:
                raise DivisionTableError(f"{source}: columns: expected {', '.join(_COLUMNS)}")
            for row in rows:
                division = _division(row)
                if division.code in divisions:
                    raise DivisionTableError(f"{source}: line {rows.line_num}: a code stands twice")
                divisions[division.code] = division
    except (OSError, ValueError) as error:
        raise DivisionTableError(f"{source}: {error}") from error
    return MappingProxyType(divisions)


def _division(row: Mapping[str, str | None]) -> Division:
    parent, succeeds = row["parent"], row.get("succeeds")
    return Division(
        code=NodeId(row["code"] or ""),
        name_zh=row["name_zh"] or "",
        pinyin=row["pinyin"] or "",
        level=CareLevel(row["level"] or ""),
        parent=NodeId(parent) if parent else None,
        succeeds=NodeId(succeeds) if succeeds else None,
    )
