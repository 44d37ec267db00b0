"""Tables of ingestion. They never leave this node. Times are milliseconds since 1970 UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from replication.changelog.tables import ascii_text, blob, row_number

__all__ = ["IntakeTables", "define_intake"]

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
class IntakeTables:
    """The tables, as define_intake made them."""

    contents: Table
    pieces: Table
    runs: Table
    quarantine: Table
    warnings: Table


def define_intake(metadata: MetaData) -> IntakeTables:
    """Declare the tables on `metadata`; creates nothing."""
    return IntakeTables(
        _contents(metadata),
        _pieces(metadata),
        _runs(metadata),
        _quarantine(metadata),
        _warnings(metadata),
    )


def _contents(metadata: MetaData) -> Table:
    """What came, by its keyed digest; `arrived` pieces of `pieces` are kept."""
    return Table(
        "intake_contents",
        metadata,
        Column("content_id", ascii_text(64), primary_key=True),
        Column("size", BigInteger, nullable=False),
        Column("pieces", Integer, nullable=False),
        Column("arrived", Integer, nullable=False),
        # A file is often named for whom it is about.
        Column("name", blob(), nullable=False),
        Column("created_at", BigInteger, nullable=False),
        **_OPTIONS,
    )


def _pieces(metadata: MetaData) -> Table:
    """A MiB of a content, compressed with zstd and sealed."""
    return Table(
        "intake_pieces",
        metadata,
        Column("content_id", ascii_text(64), primary_key=True),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("body", blob(), nullable=False),
        **_OPTIONS,
    )


def _runs(metadata: MetaData) -> Table:
    """A reading of a content: `read_units` is its checkpoint; `figures` counts, no values."""
    return Table(
        "intake_runs",
        metadata,
        Column("run_id", ascii_text(36), primary_key=True),
        Column("content_id", ascii_text(64), nullable=False),
        Column("source", ascii_text(40), nullable=False),
        Column("mapping_name", ascii_text(40), nullable=False),
        Column("mapping_digest", ascii_text(64), nullable=False),
        Column("mapping", _long_text(), nullable=False),
        Column("caller", Text, nullable=False),
        Column("state", ascii_text(16), nullable=False),
        Column("code", ascii_text(64), nullable=True),
        Column("message", _words(500), nullable=True),
        Column("encoding", ascii_text(16), nullable=True),
        Column("truncated", Boolean, nullable=False),
        Column("watermark", _words(200), nullable=True),
        Column("read_units", BigInteger, nullable=False),
        Column("accepted", BigInteger, nullable=False),
        Column("quarantined", BigInteger, nullable=False),
        Column("unchanged", BigInteger, nullable=False),
        Column("residents", BigInteger, nullable=False),
        Column("records", BigInteger, nullable=False),
        Column("amended", BigInteger, nullable=False),
        Column("warnings", BigInteger, nullable=False),
        Column("figures", _long_text(), nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("started_at", BigInteger, nullable=True),
        Column("finished_at", BigInteger, nullable=True),
        Index("ix_intake_runs_state", "state", "created_at"),
        Index("ix_intake_runs_source", "source", "created_at"),
        Index("ix_intake_runs_content_id", "content_id"),
        **_OPTIONS,
    )


def _quarantine(metadata: MetaData) -> Table:
    """Units that were not admitted. `body`: the unit and its troubles, sealed."""
    return Table(
        "intake_quarantine",
        metadata,
        Column("item_id", row_number(), primary_key=True, autoincrement=True),
        Column("item_uid", ascii_text(36), nullable=False),
        Column("run_id", ascii_text(36), nullable=False),
        Column("unit", BigInteger, nullable=False),
        Column("line", BigInteger, nullable=False),
        Column("rule", ascii_text(32), nullable=False),
        Column("field", _words(200), nullable=False),
        Column("state", ascii_text(16), nullable=False),
        Column("body", blob(), nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("settled_at", BigInteger, nullable=True),
        Index("uq_intake_quarantine_unit", "run_id", "unit", unique=True),
        Index("ix_intake_quarantine_state", "state", "item_id"),
        **_OPTIONS,
    )


def _warnings(metadata: MetaData) -> Table:
    """Warnings about rows that were stored."""
    return Table(
        "intake_warnings",
        metadata,
        Column("number", row_number(), primary_key=True, autoincrement=True),
        Column("run_id", ascii_text(36), nullable=False),
        Column("unit", BigInteger, nullable=False),
        Column("table_name", ascii_text(32), nullable=False),
        Column("row_id", ascii_text(36), nullable=False),
        Column("rule", ascii_text(32), nullable=False),
        Column("field", _words(200), nullable=False),
        Index("ix_intake_warnings_row_id", "row_id"),
        Index("ix_intake_warnings_run_id", "run_id", "unit"),
        **_OPTIONS,
    )


def _words(length: int) -> TypeEngine[str]:
    wide = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(wide, "mysql", "mariadb")


def _long_text() -> TypeEngine[str]:
    return Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
