"""The physical columns of the columnar replica: the dictionary's stored columns and no others.

Beside the dictionary's datasets stands one that no question may name: the consents that forbid.

Free text and direct identifiers stand in no dataset, so they cannot enter a segment. Whoever feeds
the replica gives its tuples in the order of `COLUMN_NAMES`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from federation.core.datasets import DATASETS, ColumnClass, DatasetColumn
from federation.core.model import ColumnType

__all__ = [
    "COLUMN_NAMES",
    "COLUMN_TYPES",
    "CONSENTS",
    "SCHEMA_DIGEST",
    "SORT_COLUMN",
    "identifier",
    "literal",
    "table_columns",
]

_FIRST: Final = ("row_id", "resident_id", "home", "author", "sex", "birth_year")

CONSENTS: Final = "consents"
"""Whom some questions leave out: purpose, recipient and days of each consent that forbids."""

_CONSENT_COLUMNS: Final = (
    ("row_id", "UUID"),
    ("resident_id", "UUID"),
    ("home", "VARCHAR"),
    ("author", "VARCHAR"),
    ("purpose", "VARCHAR"),
    ("recipient", "VARCHAR"),
    ("from_on", "DATE"),
    ("until_on", "DATE"),
)

_NEVER_NULL: Final = frozenset({"row_id", "resident_id", "home", "author"})

_SQL_TYPES: Final[Mapping[ColumnType, str]] = {
    ColumnType.STRING: "VARCHAR",
    ColumnType.INTEGER: "INTEGER",
    ColumnType.NUMBER: "DOUBLE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.DATE: "DATE",
}


def _sql_type(column: DatasetColumn) -> str:
    if column.column_class is ColumnClass.IDENTIFIER:
        return "UUID"
    return _SQL_TYPES[column.type]


def _columns() -> dict[str, tuple[tuple[str, str], ...]]:
    layout: dict[str, tuple[tuple[str, str], ...]] = {}
    for name, dataset in DATASETS.items():
        own = [
            column.name
            for column in dataset.columns
            if not column.derived and column.name not in _FIRST
        ]
        layout[name] = tuple(
            (column, _sql_type(dataset.by_name[column])) for column in (*_FIRST, *own)
        )
    layout[CONSENTS] = _CONSENT_COLUMNS
    return layout


COLUMN_TYPES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = MappingProxyType(_columns())
"""By dataset: (column, SQL type) in the order of the tuples that are fed."""

COLUMN_NAMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {name: tuple(column for column, _ in columns) for name, columns in COLUMN_TYPES.items()}
)
"""By dataset: the columns in the order of the tuples that are fed."""

SORT_COLUMN: Final[Mapping[str, str]] = MappingProxyType(
    {
        name: next((column for column, kind in columns if kind == "DATE"), "birth_year")
        for name, columns in COLUMN_TYPES.items()
    }
)
"""By dataset: what rows of one home are clustered by."""

SCHEMA_DIGEST: Final = hashlib.sha256(
    repr(sorted((name, columns) for name, columns in COLUMN_TYPES.items())).encode()
).hexdigest()
"""Changes when a column does; files of another schema are rebuilt, not read."""


def identifier(name: str) -> str:
    """The name quoted for SQL (`class` and `value` are also keywords)."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def table_columns(dataset: str) -> str:
    """The column list of a CREATE TABLE."""
    return ", ".join(
        f"{identifier(name)} {kind}{' NOT NULL' if name in _NEVER_NULL else ''}"
        for name, kind in COLUMN_TYPES[dataset]
    )
