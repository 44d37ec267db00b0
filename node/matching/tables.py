"""Tables of matching. They never leave this node. Times are milliseconds since 1970 UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Double, Index, Integer, MetaData, Table, Text

from replication.changelog.tables import ascii_text

__all__ = ["MatchingTables", "define_matching"]

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
class MatchingTables:
    """The tables, as define_matching made them."""

    pairs: Table
    progress: Table


def define_matching(metadata: MetaData) -> MatchingTables:
    """Declare the tables on `metadata`; creates nothing."""
    return MatchingTables(_pairs(metadata), _progress(metadata))


def _pairs(metadata: MetaData) -> Table:
    """Two residents who may be one; `first_id` is the lesser. `why`: levels and bits, no values."""
    return Table(
        "match_pairs",
        metadata,
        Column("first_id", ascii_text(36), primary_key=True),
        Column("second_id", ascii_text(36), primary_key=True),
        Column("weight", Double, nullable=False),
        Column("probability", Double, nullable=False),
        Column("outcome", ascii_text(16), nullable=False),
        Column("why", Text, nullable=False),
        Column("model_digest", ascii_text(64), nullable=False),
        Column("state", ascii_text(16), nullable=False),
        Column("found_at", BigInteger, nullable=False),
        Column("decided_at", BigInteger, nullable=True),
        Index("ix_match_pairs_second_id", "second_id"),
        Index("ix_match_pairs_state", "state", "probability"),
        **_OPTIONS,
    )


def _progress(metadata: MetaData) -> Table:
    """One row. `asked_to`: the last resident whom a first asking of everybody has reached."""
    return Table(
        "match_progress",
        metadata,
        Column("progress_id", Integer, primary_key=True, autoincrement=False),
        Column("store_epoch", BigInteger, nullable=False),
        Column("sequence", BigInteger, nullable=False),
        Column("model_digest", ascii_text(64), nullable=False),
        # Null once everybody has been asked for under this model; empty: nobody yet.
        Column("asked_to", ascii_text(36), nullable=True),
        **_OPTIONS,
    )
