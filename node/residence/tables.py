"""The tables of residence. Shapes only. What patients said or are is sealed by the node's data key.

Times are milliseconds since 1970 UTC by this node's clock, but for `granted_at`: the granter's.
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
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from replication.changelog.tables import ascii_text, blob

__all__ = ["ResidenceTables", "define_residence"]

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
class ResidenceTables:
    """The tables, as define_residence made them."""

    grants: Table
    moves: Table
    letters: Table
    pieces: Table
    proposals: Table


def define_residence(metadata: MetaData) -> ResidenceTables:
    """Declare all tables of residence on `metadata`; creates nothing."""
    return ResidenceTables(
        grants=_grants(metadata),
        moves=_moves(metadata),
        letters=_letters(metadata),
        pieces=_pieces(metadata),
        proposals=_proposals(metadata),
    )


def _words(length: int) -> TypeEngine[str]:
    wide = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(wide, "mysql", "mariadb")


def _grants(metadata: MetaData) -> Table:
    """Every move that this node knows was granted; the newest of a resident is his home.

    It stays after the rows have gone: it is what an old home forwards by.
    """
    return Table(
        "home_grants",
        metadata,
        Column("resident_id", ascii_text(36), primary_key=True),
        Column("home_epoch", BigInteger, primary_key=True, autoincrement=False),
        Column("home_node", ascii_text(16), nullable=False),
        Column("from_node", ascii_text(16), nullable=False),
        Column("granted_by", ascii_text(16), nullable=False),
        Column("granted_at", BigInteger, nullable=False),
        # As it was signed and travels, so that anybody can prove it again.
        Column("statement", LargeBinary(4096), nullable=False),
        Column("signature", LargeBinary(512), nullable=False),
        Column("chain", blob(), nullable=False),
        Column("recorded_at", BigInteger, nullable=False),
        Index("ix_home_grants_from", "from_node", "home_node"),
        Index("ix_home_grants_home", "home_node"),
        **_OPTIONS,
    )


def _moves(metadata: MetaData) -> Table:
    """A node's own part in a move; home_epoch 0: asked for here and not granted yet.

    `base`: at the new home, the versions that identity rows were taken over from. `held`: what the
    new home said it holds. `sequence`: the number of the log that must have been confirmed above.
    """
    return Table(
        "residence_moves",
        metadata,
        Column("resident_id", ascii_text(36), primary_key=True),
        Column("home_epoch", BigInteger, primary_key=True, autoincrement=False),
        Column("home_node", ascii_text(16), nullable=False),
        Column("from_node", ascii_text(16), nullable=False),
        Column("state", ascii_text(16), nullable=False),
        Column("code", ascii_text(64), nullable=False),
        Column("reason", _words(200), nullable=False),
        Column("asked_by", ascii_text(200), nullable=False),
        Column("since", BigInteger, nullable=False),
        Column("changed_at", BigInteger, nullable=False),
        Column("next_at", BigInteger),
        Column("sequence", BigInteger, nullable=False),
        Column("base", blob()),
        Column("held", blob()),
        Index("ix_residence_moves_next_at", "next_at"),
        Index("ix_residence_moves_home", "home_node", "state"),
        **_OPTIONS,
    )


def _letters(metadata: MetaData) -> Table:
    """Letters with his rows that this node sent: all confirmed, before it lets go of him."""
    return Table(
        "residence_letters",
        metadata,
        Column("letter_id", ascii_text(36), primary_key=True),
        Column("resident_id", ascii_text(36), nullable=False),
        Column("home_epoch", BigInteger, nullable=False),
        Column("state", ascii_text(16), nullable=False),
        Column("code", ascii_text(64), nullable=False),
        Index("ix_residence_letters_resident", "resident_id", "home_epoch"),
        **_OPTIONS,
    )


def _pieces(metadata: MetaData) -> Table:
    """Pieces of histories that have not come whole, or came before this home could take them."""
    return Table(
        "residence_pieces",
        metadata,
        Column("handover_id", ascii_text(36), primary_key=True),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("resident_id", ascii_text(36), nullable=False),
        Column("home_epoch", BigInteger, nullable=False),
        Column("sender", ascii_text(16), nullable=False),
        Column("total", Integer, nullable=False),
        Column("digest", ascii_text(64), nullable=False),
        Column("whole", Boolean, nullable=False),
        Column("arrived_at", BigInteger, nullable=False),
        Column("body", blob(), nullable=False),
        Index("ix_residence_pieces_resident", "resident_id", "home_epoch"),
        **_OPTIONS,
    )


def _proposals(metadata: MetaData) -> Table:
    """Identity edits that an old home made without knowing of the move; the new home decides."""
    return Table(
        "proposals",
        metadata,
        Column("proposal_id", ascii_text(36), primary_key=True),
        Column("resident_id", ascii_text(36), nullable=False),
        Column("table_name", ascii_text(32), nullable=False),
        Column("row_id", ascii_text(36), nullable=False),
        Column("version_epoch", BigInteger, nullable=False),
        Column("version_number", BigInteger, nullable=False),
        Column("author_node", ascii_text(16), nullable=False),
        Column("recorded_at", ascii_text(24), nullable=False),
        Column("arrived_at", BigInteger, nullable=False),
        Column("state", ascii_text(16), nullable=False),
        Column("decided_at", BigInteger),
        Column("decided_by", ascii_text(200), nullable=False),
        Column("reason", _words(200), nullable=False),
        Column("payload", blob(), nullable=False),
        UniqueConstraint(
            "row_id",
            "author_node",
            "version_epoch",
            "version_number",
            name="uq_proposals_edit",
        ),
        Index("ix_proposals_resident", "resident_id"),
        Index("ix_proposals_state", "state", "arrived_at"),
        **_OPTIONS,
    )
