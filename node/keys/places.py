"""Every place in the database where something lies sealed, and what binds it there.

A room that seals a column of its own adds a line here: a test compares this list with the columns
of bytes of the whole schema. Its table then has a data key of its own and is re-sealed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Column, Table

from node.security.sealing import cell_aad
from node.storage.specs import TABLES
from node.storage.tables import (
    CHANGELOG,
    INTAKE,
    INVITATIONS,
    PEOPLE,
    REPLICATED,
    RESIDENCE,
    TRANSIT,
)

__all__ = ["PLACES", "PURPOSES", "SealedPlace"]

_CELLS_A_STEP: Final = 200
_PAYLOADS_A_STEP: Final = 20

Aad = Callable[[str, str, Mapping[str, Any]], bytes]
"""(node id, column, row) → what a sealed value is bound to."""


@dataclass(frozen=True, slots=True)
class SealedPlace:
    """A table with sealed columns.

    `named`: the row's columns `suite` and `key_id` repeat what its one envelope names. `rows_max`:
    how many are read at once; payloads may be large.
    """

    table: Table
    columns: tuple[str, ...]
    aad: Aad
    bound: tuple[str, ...] = ()
    """Columns that `aad` reads, beside the primary key."""
    named: bool = False
    rows_max: int = _PAYLOADS_A_STEP

    @property
    def name(self) -> str:
        """Of the table; also the purpose of its key."""
        return self.table.name

    @property
    def key(self) -> tuple[Column[Any], ...]:
        """The primary key's columns, in order."""
        return tuple(self.table.primary_key.columns)


def _cells(table: Table, columns: tuple[str, ...], row_id: str) -> SealedPlace:
    """A table whose cells a CellSealer seals, by the column that names the row to it."""

    def aad(node_id: str, column: str, row: Mapping[str, Any]) -> bytes:
        return cell_aad(node_id, table.name, column, row[row_id])

    return SealedPlace(table, columns, aad, (row_id,), rows_max=_CELLS_A_STEP)


def _logged(table: Table, uid: str) -> SealedPlace:
    """A table of the change log, whose payload is bound to a random id."""

    def aad(node_id: str, column: str, row: Mapping[str, Any]) -> bytes:
        where = (node_id.encode(), table.name.encode(), column.encode())
        return b"|".join((*where, bytes(row[uid]).hex().encode()))

    return SealedPlace(table, ("payload",), aad, (uid,), named=True)


def _letters(table: Table, column: str, row_id: str) -> SealedPlace:
    def aad(node_id: str, column: str, row: Mapping[str, Any]) -> bytes:
        where = (node_id.encode(), table.name.encode(), column.encode())
        return b"|".join((*where, row[row_id].encode()))

    return SealedPlace(table, (column,), aad, (row_id,))


def _pieces(table: Table) -> SealedPlace:
    def aad(node_id: str, _column: str, row: Mapping[str, Any]) -> bytes:
        return b"|".join(
            (
                node_id.encode(),
                table.name.encode(),
                row["handover_id"].encode(),
                b"%d" % row["number"],
            )
        )

    return SealedPlace(table, ("body",), aad)


def _content_pieces(table: Table) -> SealedPlace:
    def aad(node_id: str, column: str, row: Mapping[str, Any]) -> bytes:
        return cell_aad(node_id, table.name, column, f"{row['content_id']}:{row['number']}")

    return SealedPlace(table, ("body",), aad)


def _replicated(name: str) -> SealedPlace:
    sealed = tuple(column.name for column in TABLES[name].sealed)
    return _cells(REPLICATED[name], (*sealed, "unknown_fields"), "row_id")


_ALL: Final = (
    *(_replicated(name) for name in TABLES),
    _cells(INVITATIONS, ("stretched",), "invitation_id"),
    _cells(PEOPLE.accounts, ("password", "totp"), "account_id"),
    _logged(CHANGELOG.change_log, "entry_uid"),
    _logged(CHANGELOG.quarantine, "item_uid"),
    _letters(TRANSIT.out, "body", "letter_id"),
    _letters(RESIDENCE.proposals, "payload", "proposal_id"),
    _pieces(RESIDENCE.pieces),
    _cells(INTAKE.contents, ("name",), "content_id"),
    _content_pieces(INTAKE.pieces),
    _cells(INTAKE.quarantine, ("body",), "item_uid"),
)

PLACES: Final[Mapping[str, SealedPlace]] = MappingProxyType({each.name: each for each in _ALL})
"""By the table's name."""

PURPOSES: Final = tuple(PLACES)
"""What has a data key of its own; answers kept in Redis are sealed under the general one."""
