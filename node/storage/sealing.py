"""Cells on their way into the database and out of it.

A sealed cell is bound to its node, table, column and row, so that it opens nowhere else. Values
are JSON before sealing: what comes out is what went in, whatever its type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping

from node.security.sealing import DataKeys, Sealer, cell_aad
from node.storage.specs import TableSpec
from replication.core.model import Value

__all__ = ["CellSealer"]

_UNKNOWN = "unknown_fields"


class CellSealer:
    """Seals and opens the cells of one node."""

    def __init__(self, node_id: str, keys: DataKeys) -> None:
        """Each table's cells are sealed under its own key, where it has one."""
        self._node_id = node_id
        self._keys = keys
        self._sealers: dict[str, Sealer] = {}

    def seal(self, spec: TableSpec, row_id: str, values: Mapping[str, Value]) -> dict[str, Any]:
        """The table's own columns as they are stored, and what is unknown here in one cell."""
        cells: dict[str, Any] = {
            column.name: self.seal_cell(spec.name, column.name, row_id, values.get(column.name))
            if column.sealed
            else values.get(column.name)
            for column in spec.columns
        }
        cells[_UNKNOWN] = None
        if not values.keys() <= spec.names:
            unknown = {name: value for name, value in values.items() if name not in spec.names}
            cells[_UNKNOWN] = self.seal_cell(spec.name, _UNKNOWN, row_id, json.dumps(unknown))
        return cells

    def open(self, spec: TableSpec, row: RowMapping) -> dict[str, Value]:
        """The table's own columns of a stored row, clear. Raises SealBrokenError."""
        row_id = str(row["row_id"])
        return {
            column.name: self.open_cell(spec.name, column.name, row_id, row[column.name])
            if column.sealed
            else row[column.name]
            for column in spec.columns
        }

    def open_cell(self, table: str, column: str, row_id: str, sealed: bytes | None) -> Value:
        """One sealed cell, clear; None stays None."""
        if sealed is None:
            return None
        clear = self._keys.open(sealed, cell_aad(self._node_id, table, column, row_id))
        value: Value = json.loads(clear)
        return value

    def open_unknown(self, spec: TableSpec, row: RowMapping) -> dict[str, Value]:
        """The columns of a stored row that this node's schema does not have."""
        held = self.open_cell(spec.name, _UNKNOWN, str(row["row_id"]), row[_UNKNOWN])
        unknown: dict[str, Value] = json.loads(held) if isinstance(held, str) else {}
        return unknown

    def seal_cell(self, table: str, column: str, row_id: str, value: Value) -> bytes | None:
        """One cell sealed for its place; None stays None."""
        if value is None:
            return None
        clear = json.dumps(value, ensure_ascii=False).encode()
        return self.sealer_of(table).seal(clear, cell_aad(self._node_id, table, column, row_id))

    def sealer_of(self, table: str) -> Sealer:
        """What seals under a table's own key, for values that are no JSON."""
        sealer = self._sealers.get(table)
        if sealer is None:
            sealer = self._sealers[table] = self._keys.of(table)
        return sealer
