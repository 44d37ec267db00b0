"""Tables of re-sealing, escrow and recovery. Times are milliseconds since 1970 UTC by this node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, MetaData, Table

from replication.changelog.tables import ascii_text, blob, row_number

__all__ = ["KeyTables", "define_keys"]

_OPTIONS: Final[dict[str, Any]] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (
        ("engine", "InnoDB"),
        ("default_charset", "utf8mb4"),
        ("collate", "utf8mb4_bin"),
    )
}


@dataclass(frozen=True, slots=True)
class KeyTables:
    """The tables, as define_keys made them."""

    work: Table
    escrow: Table
    recoveries: Table


def define_keys(metadata: MetaData) -> KeyTables:
    """Declare the tables on `metadata`; creates nothing."""
    return KeyTables(work=_work(metadata), escrow=_escrow(metadata), recoveries=_asked(metadata))


def _work(metadata: MetaData) -> Table:
    """The re-sealing of one table: where it stands, and all rows that it ever touched.

    `resealed` only grows: an incremental backup sees by it that rows changed without a log entry.
    `unreadable`: rows of the last pass that do not open, and keep their old key alive.
    """
    return Table(
        "key_work",
        metadata,
        Column("place", ascii_text(32), primary_key=True),
        Column("state", ascii_text(16), nullable=False),
        Column("position", ascii_text(255), nullable=False),
        Column("resealed", BigInteger, nullable=False),
        Column("unreadable", BigInteger, nullable=False),
        Column("started_at", BigInteger, nullable=False),
        Column("finished_at", BigInteger),
        **_OPTIONS,
    )


def _escrow(metadata: MetaData) -> Table:
    """A child's data keys as it sealed them to this node: a letter, opened by a recovery only."""
    return Table(
        "key_escrow",
        metadata,
        Column("node_id", ascii_text(16), primary_key=True),
        Column("letter", blob(), nullable=False),
        Column("key_set", ascii_text(64), nullable=False),
        Column("sealed_to", ascii_text(64), nullable=False),
        Column("received_at", BigInteger, nullable=False),
        **_OPTIONS,
    )


def _asked(metadata: MetaData) -> Table:
    """Operators who asked for a child's keys. `told_at`: when the child was told of it."""
    return Table(
        "key_recoveries",
        metadata,
        Column("number", row_number(), primary_key=True, autoincrement=True),
        Column("node_id", ascii_text(16), nullable=False),
        Column("principal", ascii_text(200), nullable=False),
        Column("asked_at", BigInteger, nullable=False),
        Column("used_at", BigInteger),
        Column("told_at", BigInteger),
        Index("ix_key_recoveries_node_id", "node_id", "used_at"),
        **_OPTIONS,
    )
