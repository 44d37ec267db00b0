"""The tables of transit. Shapes only. Bodies are sealed by the node's data key.

Letters on their way through this node are in none of them: they lie in its change log alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
)

from replication.changelog.tables import ascii_text, blob

__all__ = ["TransitTables", "define_transit"]

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
class TransitTables:
    """The tables, as define_transit made them."""

    out: Table
    subjects: Table
    received: Table
    certificates: Table


def define_transit(metadata: MetaData) -> TransitTables:
    """Declare all tables of transit on `metadata`; creates nothing."""
    return TransitTables(
        out=_out(metadata),
        subjects=_subjects(metadata),
        received=_received(metadata),
        certificates=_certificates(metadata),
    )


def _out(metadata: MetaData) -> Table:
    """Letters written here. `next_at` (ms) is null once nothing is to be done any more."""
    return Table(
        "transit_out",
        metadata,
        Column("letter_id", ascii_text(36), primary_key=True),
        Column("to_node", ascii_text(16), nullable=False),
        Column("kind", ascii_text(32), nullable=False),
        Column("lane", SmallInteger, nullable=False),
        Column("open_letter", Boolean, nullable=False),
        Column("written_at", ascii_text(24), nullable=False),
        Column("state", ascii_text(16), nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("next_at", BigInteger),
        Column("code", ascii_text(64), nullable=False),
        Column("key_id", ascii_text(64), nullable=False),
        Column("body", blob()),
        Column("receipt_at", BigInteger),
        Column("receipt_signature", LargeBinary(512)),
        Column("receipt_key_id", ascii_text(64), nullable=False),
        Index("ix_transit_out_next_at", "next_at"),
        Index("ix_transit_out_state", "state"),
        **_OPTIONS,
    )


def _subjects(metadata: MetaData) -> Table:
    """The row versions that a letter carries."""
    return Table(
        "transit_subjects",
        metadata,
        Column("row_id", ascii_text(36), primary_key=True),
        Column("letter_id", ascii_text(36), primary_key=True),
        Column("table_name", ascii_text(32), nullable=False),
        Column("resident_id", ascii_text(36), nullable=False),
        Column("version_epoch", BigInteger, nullable=False),
        Column("version_number", BigInteger, nullable=False),
        Index("ix_transit_subjects_letter_id", "letter_id"),
        **_OPTIONS,
    )


def _received(metadata: MetaData) -> Table:
    """Letters addressed here, by their sender's id for them; `outcome` "": accepted.

    `answer_after`: a receipt is owed once the parent has confirmed the log up to there, 0 where
    that is not known yet; null: none is owed.
    """
    return Table(
        "transit_in",
        metadata,
        Column("sender", ascii_text(16), primary_key=True),
        Column("letter_id", ascii_text(36), primary_key=True),
        Column("kind", ascii_text(32), nullable=False),
        Column("outcome", ascii_text(64), nullable=False),
        Column("arrived_at", BigInteger, nullable=False),
        Column("lane", SmallInteger, nullable=False),
        Column("answer_after", BigInteger),
        Index("ix_transit_in_answer_after", "answer_after"),
        **_OPTIONS,
    )


def _certificates(metadata: MetaData) -> Table:
    """Other nodes' chains, verified when they came and again before each use."""
    return Table(
        "node_certificates",
        metadata,
        Column("node_id", ascii_text(16), primary_key=True),
        Column("key_id", ascii_text(64), nullable=False),
        Column("chain", blob(), nullable=False),
        Column("learnt_at", BigInteger, nullable=False),
        **_OPTIONS,
    )
