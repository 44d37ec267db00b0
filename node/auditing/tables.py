"""The tables of the audit's anchors. Times are milliseconds since 1970 UTC; signatures are DER."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from replication.changelog.tables import ascii_text, blob, row_number

__all__ = ["AuditingTables", "define_auditing"]

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
class AuditingTables:
    """The tables, as define_auditing made them."""

    anchors: Table
    signers: Table
    epochs: Table
    findings: Table


def define_auditing(metadata: MetaData) -> AuditingTables:
    """Declare all tables of the room on `metadata`; creates nothing."""
    return AuditingTables(
        _anchors(metadata), _signers(metadata), _epochs(metadata), _findings(metadata)
    )


def _anchors(metadata: MetaData) -> Table:
    """Heads with both signatures: of neighbours, kept here; and this node's, kept elsewhere too.

    `line`: rises when an operator of the holder accepts a contradiction; only heads of one line
    have to follow each other. `grade`: how long it is kept (anchors.py).
    """
    return Table(
        "audit_anchors",
        metadata,
        Column("node_id", ascii_text(16), primary_key=True),
        Column("holder", ascii_text(16), primary_key=True),
        Column("line", Integer, primary_key=True, autoincrement=False),
        Column("store_epoch", BigInteger, primary_key=True, autoincrement=False),
        Column("position", BigInteger, primary_key=True, autoincrement=False),
        Column("hash", ascii_text(64), nullable=False),
        # As it was signed: JSON (wire.py).
        Column("head", LargeBinary(1024), nullable=False),
        Column("head_signature", LargeBinary(128), nullable=False),
        Column("head_key", ascii_text(64), nullable=False),
        Column("anchor", LargeBinary(1024), nullable=False),
        Column("anchor_signature", LargeBinary(128), nullable=False),
        Column("anchor_key", ascii_text(64), nullable=False),
        Column("anchored_at", BigInteger, nullable=False),
        Column("grade", Integer, nullable=False),
        Index("ix_audit_anchors_thin", "grade", "anchored_at"),
        **_OPTIONS,
    )


def _signers(metadata: MetaData) -> Table:
    """Certificate chains by the digest of their leaf; anchors name them."""
    return Table(
        "audit_signers",
        metadata,
        Column("key_id", ascii_text(64), primary_key=True),
        Column("node_id", ascii_text(16), nullable=False),
        Column("chain", blob(), nullable=False),
        **_OPTIONS,
    )


def _epochs(metadata: MetaData) -> Table:
    """Where in the chain each life of this node's store began."""
    return Table(
        "audit_epochs",
        metadata,
        Column("store_epoch", BigInteger, primary_key=True, autoincrement=False),
        Column("position", BigInteger, nullable=False),
        Column("hash", ascii_text(64), nullable=False),
        Column("began_at", BigInteger, nullable=False),
        **_OPTIONS,
    )


def _findings(metadata: MetaData) -> Table:
    """What neighbours' heads contradicted, with the signed head as evidence. Never deleted."""
    return Table(
        "audit_findings",
        metadata,
        Column("number", row_number(), primary_key=True, autoincrement=True),
        Column("node_id", ascii_text(16), nullable=False),
        Column("kind", ascii_text(16), nullable=False),
        Column("store_epoch", BigInteger, nullable=False),
        Column("position", BigInteger, nullable=False),
        Column("entries", BigInteger, nullable=False),
        Column("expected", ascii_text(64), nullable=False),
        Column("found", ascii_text(64), nullable=False),
        Column("head", LargeBinary(1024), nullable=False),
        Column("head_signature", LargeBinary(128), nullable=False),
        Column("head_key", ascii_text(64), nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("accepted_at", BigInteger, nullable=True),
        Column("accepted_by", ascii_text(200), nullable=True),
        Column("reason", _words(200), nullable=True),
        Index("ix_audit_findings_node_id", "node_id", "accepted_at"),
        **_OPTIONS,
    )


def _words(length: int) -> TypeEngine[str]:
    wide = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(wide, "mysql", "mariadb")
