"""The tables of the change log, the links and what they remember. Shapes only, no statements.

Every number is a BIGINT. Ids, codes and hashes are ASCII compared byte by byte: faster on MySQL,
and equal there to what SQLite does. Times are milliseconds since 1970 UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

__all__ = ["SEQUENCER_ROW", "ChangelogTables", "ascii_text", "blob", "define_tables", "row_number"]

SEQUENCER_ROW: Final = 1
"""Key of the one row of log_sequencer."""

_MYSQL: Final[dict[str, Any]] = {
    "mysql_engine": "InnoDB",
    "mysql_default_charset": "utf8mb4",
    "mysql_row_format": "DYNAMIC",
    "mariadb_engine": "InnoDB",
    "mariadb_default_charset": "utf8mb4",
    "mariadb_row_format": "DYNAMIC",
}


@dataclass(frozen=True, slots=True)
class ChangelogTables:
    """The tables, as define_tables made them."""

    change_log: Table
    sequencer: Table
    link_inbound: Table
    link_outbound: Table
    peer_epochs: Table
    home_marks: Table
    quarantine: Table
    log_readers: Table
    store_state: Table


def ascii_text(length: int) -> TypeEngine[str]:
    """Text of at most `length` ASCII characters, compared byte by byte on every database."""
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return String(length).with_variant(exact, "mysql", "mariadb")


def blob() -> TypeEngine[bytes]:
    """Bytes of up to 4 GiB; plain BLOB would cut at 64 KiB on MySQL."""
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def row_number() -> TypeEngine[int]:
    """Type of a key the database counts up itself; SQLite does so for INTEGER only."""
    return BigInteger().with_variant(Integer(), "sqlite")


def define_tables(metadata: MetaData) -> ChangelogTables:
    """Declare all tables of this room on `metadata`; creates nothing."""
    return ChangelogTables(
        change_log=_change_log(metadata),
        sequencer=_sequencer(metadata),
        link_inbound=_link_cursor("link_inbound", metadata),
        link_outbound=_link_cursor(
            "link_outbound",
            metadata,
            Column("receipt_signature", LargeBinary(512), nullable=False),
            Column("receipt_key_id", ascii_text(128), nullable=False),
            Column("receipt_at", BigInteger, nullable=False, server_default="0"),
            Column("receipt_covers_to", BigInteger, nullable=False, server_default="0"),
        ),
        peer_epochs=_peer_epochs(metadata),
        home_marks=_home_marks(metadata),
        quarantine=_quarantine(metadata),
        log_readers=_log_readers(metadata),
        store_state=_store_state(metadata),
    )


def _change_log(metadata: MetaData) -> Table:
    """One entry per (transaction, lane, home_node, form).

    `epoch` and `sequence` are null only in what a release left that numbered after the commit, and
    so are the origin's of its own entries: their origin epoch is the epoch in which they are
    *numbered*, since a restored store may number them otherwise than its former life did.
    `origin_sequence` alone is null where it was withheld. `bytes` is the size of the rows before
    sealing. InnoDB keeps the rows of equal `sequence` (null) in the order of entry_id, so the
    unique index also finds what is unnumbered.
    """
    return Table(
        "change_log",
        metadata,
        Column("entry_id", row_number(), primary_key=True, autoincrement=True),
        Column("entry_uid", LargeBinary(16), nullable=False),
        Column("epoch", BigInteger),
        Column("sequence", BigInteger),
        Column("origin_node", ascii_text(32), nullable=False),
        Column("origin_epoch", BigInteger),
        Column("origin_sequence", BigInteger),
        Column("lane", SmallInteger, nullable=False),
        Column("home_node", ascii_text(32), nullable=False),
        Column("form", ascii_text(16), nullable=False),
        Column("codec", SmallInteger, nullable=False),
        Column("schema_version", Integer, nullable=False),
        Column("suite", ascii_text(16), nullable=False),
        Column("key_id", ascii_text(128), nullable=False),
        Column("payload", blob(), nullable=False),
        Column("row_count", Integer, nullable=False),
        Column("bytes", BigInteger, nullable=False),
        Column("committed_at", BigInteger, nullable=False),
        Column("audience", SmallInteger, nullable=False, server_default="0"),
        # Stronger than (epoch, sequence): the sequence goes on over a new epoch.
        UniqueConstraint("sequence", name="uq_change_log_sequence"),
        UniqueConstraint(
            "origin_node", "origin_epoch", "origin_sequence", "form", name="uq_change_log_origin"
        ),
        Index("ix_change_log_lane", "lane", "sequence"),
        **_MYSQL,
    )


def _sequencer(metadata: MetaData) -> Table:
    """One row: who numbers (fence), in which life of the store, how far numbered and pruned.

    `durable_to` is the CounterSequencer's: a head that reached the disk before it was told.
    """
    return Table(
        "log_sequencer",
        metadata,
        Column("id", SmallInteger, primary_key=True, autoincrement=False),
        Column("fence", BigInteger, nullable=False),
        Column("store_epoch", BigInteger, nullable=False),
        Column("head", BigInteger, nullable=False),
        Column("durable_to", BigInteger, nullable=False),
        Column("pruned_to", BigInteger, nullable=False),
        **_MYSQL,
    )


def _link_cursor(name: str, metadata: MetaData, *more: Column[Any]) -> Table:
    return Table(
        name,
        metadata,
        Column("peer", ascii_text(32), primary_key=True),
        Column("lane", SmallInteger, primary_key=True, autoincrement=False),
        Column("sender_epoch", BigInteger, nullable=False),
        Column("receiver_epoch", BigInteger, nullable=False),
        Column("number", BigInteger, nullable=False),
        Column("covers_to", BigInteger, nullable=False),
        Column("running_hash", LargeBinary(32), nullable=False),
        Column("position", ascii_text(255), nullable=False, server_default=""),
        *more,
        **_MYSQL,
    )


def _peer_epochs(metadata: MetaData) -> Table:
    return Table(
        "peer_epochs",
        metadata,
        Column("peer", ascii_text(32), primary_key=True),
        Column("store_epoch", BigInteger, nullable=False),
        Column("incarnation", ascii_text(64), nullable=False),
        **_MYSQL,
    )


def _home_marks(metadata: MetaData) -> Table:
    return Table(
        "home_marks",
        metadata,
        Column("home_node", ascii_text(32), primary_key=True),
        Column("as_of_ms", BigInteger, nullable=False),
        **_MYSQL,
    )


def _quarantine(metadata: MetaData) -> Table:
    """One row per change not admitted; payload is the sealed change, so it can be tried again.

    The same version under a later home epoch is another change: its resident has moved.
    `whole_entry` 1: an entry whose rows cannot be read; it stands for `row_count` rows.
    """
    return Table(
        "quarantine",
        metadata,
        Column("item_id", row_number(), primary_key=True, autoincrement=True),
        Column("item_uid", LargeBinary(16), nullable=False),
        Column("peer", ascii_text(32), nullable=False),
        Column("lane", SmallInteger, nullable=False),
        Column("origin_node", ascii_text(32), nullable=False),
        Column("origin_epoch", BigInteger, nullable=False),
        Column("origin_sequence", BigInteger, nullable=False),
        Column("table_name", ascii_text(64), nullable=False),
        Column("row_id", ascii_text(64), nullable=False),
        Column("resident_id", ascii_text(64), nullable=False),
        Column("home_node", ascii_text(32), nullable=False),
        Column("author_node", ascii_text(32), nullable=False),
        Column("version_epoch", BigInteger, nullable=False),
        Column("version_number", BigInteger, nullable=False),
        Column("form", ascii_text(16), nullable=False),
        Column("cause", ascii_text(64), nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("first_at", BigInteger, nullable=False),
        Column("last_at", BigInteger, nullable=False),
        Column("retry_at", BigInteger),
        Column("closed_as", ascii_text(16)),
        Column("closed_at", BigInteger),
        Column("suite", ascii_text(16), nullable=False),
        Column("key_id", ascii_text(128), nullable=False),
        Column("payload", blob(), nullable=False),
        Column("whole_entry", SmallInteger, nullable=False, server_default="0"),
        Column("row_count", Integer, nullable=False, server_default="1"),
        Column("home_epoch", BigInteger, nullable=False, server_default="1"),
        Column("reason", String(200), nullable=False, server_default=""),
        UniqueConstraint(
            "peer",
            "table_name",
            "row_id",
            "version_epoch",
            "version_number",
            "home_epoch",
            "form",
            name="uq_quarantine_change",
        ),
        Index("ix_quarantine_resident", "resident_id"),
        Index("ix_quarantine_retry", "closed_as", "retry_at"),
        **_MYSQL,
    )


def _log_readers(metadata: MetaData) -> Table:
    return Table(
        "log_readers",
        metadata,
        Column("name", ascii_text(64), primary_key=True),
        Column("sequence", BigInteger, nullable=False),
        **_MYSQL,
    )


def _store_state(metadata: MetaData) -> Table:
    return Table(
        "store_state",
        metadata,
        Column("name", ascii_text(64), primary_key=True),
        Column("value", String(255), nullable=False),
        **_MYSQL,
    )
