"""The database schema, made from the specs; the node's own tables beside them.

Replicated tables share the columns that replication needs. Ids and codes are ASCII and compared
byte by byte on every database, so that the two order and match alike.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final, assert_never

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from node.auditing.tables import define_auditing
from node.ingestion.tables import define_intake
from node.joining.tables import define_joining
from node.keys.tables import define_keys
from node.matching.tables import define_matching
from node.people.tables import define_people
from node.residence.tables import define_residence
from node.revocation.tables import define_revocation
from node.storage.specs import IDENTIFIERS, RESIDENT_INDEX, TABLES, ColumnKind, ColumnSpec
from node.transit.tables import define_transit
from replication.changelog.tables import ascii_text, blob, define_tables, row_number

__all__ = [
    "APPLIED_REQUESTS",
    "AUDIT",
    "AUDITING",
    "AUDIT_CHAIN",
    "CHANGELOG",
    "DATA_KEYS",
    "INTAKE",
    "INVITATIONS",
    "KEYS",
    "MATCHING",
    "METADATA",
    "PEOPLE",
    "REGION_EPOCHS",
    "REPLICATED",
    "RESIDENCE",
    "REVOCATION",
    "SCOPE_HOMES",
    "TRANSIT",
    "words",
]

METADATA: Final = MetaData()

_OPTIONS: Final[dict[str, Any]] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (
        ("engine", "InnoDB"),
        ("default_charset", "utf8mb4"),
        ("collate", "utf8mb4_bin"),
    )
}


def words(length: int) -> TypeEngine[str]:
    """Text of any language, compared byte by byte."""
    wide = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return String(length).with_variant(wide, "mysql", "mariadb")


def _table(name: str, *parts: Column[Any] | Index | UniqueConstraint) -> Table:
    return Table(name, METADATA, *parts, **_OPTIONS)


def _type_of(spec: ColumnSpec) -> TypeEngine[Any]:
    match spec.kind:
        case ColumnKind.TEXT | ColumnKind.CODE:
            return words(spec.length)
        case ColumnKind.DATE | ColumnKind.REFERENCE | ColumnKind.KEYED_INDEX:
            return ascii_text(spec.length)
        case ColumnKind.INTEGER:
            return Integer()
        case ColumnKind.NUMBER:
            return Double()
        case _:
            assert_never(spec.kind)


def _own_column(spec: ColumnSpec) -> Column[Any]:
    kind = LargeBinary() if spec.sealed else _type_of(spec)
    return Column(spec.name, kind, nullable=True)


def _common_columns() -> list[Column[Any]]:
    return [
        Column("row_id", ascii_text(36), primary_key=True),
        Column("resident_id", ascii_text(36), nullable=False),
        Column("version_epoch", BigInteger, nullable=False),
        Column("version_number", BigInteger, nullable=False),
        Column("author_node", ascii_text(16), nullable=False),
        Column("home_node", ascii_text(16), nullable=False),
        Column("home_epoch", BigInteger, nullable=False),
        Column("schema_version", Integer, nullable=False),
        Column("recorded_at", ascii_text(24), nullable=False),
        Column("form", ascii_text(16), nullable=False),
        Column("deleted", Boolean, nullable=False),
        # What a newer peer sent beyond our columns. Sealed: nobody here can say it is harmless.
        Column("unknown_fields", blob(), nullable=True),
    ]


_POINTS_BY: Final = {
    "qualifications": "staff_id",
    "assignments": "staff_id",
    "endings": "ended_id",
    "identity_links": "event_id",
}
"""Columns by which rows are found that belong to another row."""


def _keyed_columns(name: str) -> list[Column[Any] | Index]:
    """Columns and indexes by which a sealed identity is found; they never travel."""
    if name == IDENTIFIERS.name:
        return [
            Column("value_index", ascii_text(64), nullable=True),
            # Set on identity numbers registered here and nowhere else: unique, so that two
            # registrations at once cannot both succeed.
            Column("value_claim", ascii_text(64), nullable=True),
            Index("ix_identifiers_value_index", "value_index"),
            Index("uq_identifiers_value_claim", "value_claim", unique=True),
        ]
    if name == RESIDENT_INDEX.name:
        return [Index("ix_resident_index_identity_index", "identity_index")]
    column = _POINTS_BY.get(name)
    return [Index(f"ix_{name}_{column}", column)] if column else []


REPLICATED: Final = MappingProxyType(
    {
        spec.name: _table(
            spec.name,
            *_common_columns(),
            *(_own_column(column) for column in spec.columns),
            Index(f"ix_{spec.name}_resident_id", "resident_id"),
            Index(f"ix_{spec.name}_home_node", "home_node"),
            *_keyed_columns(spec.name),
        )
        for spec in TABLES.values()
    }
)
"""The replicated tables by name."""

APPLIED_REQUESTS: Final = _table(
    "applied_requests",
    Column("principal", ascii_text(200), primary_key=True),
    Column("request_id", words(64), primary_key=True),
    # Keyed, because a bundle may hold little beside an identity number.
    Column("body_index", ascii_text(64), nullable=False),
    Column("response", Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
    Column("applied_at", ascii_text(24), nullable=False),
)

AUDIT: Final = _table(
    "audit",
    Column("audit_id", row_number(), primary_key=True, autoincrement=True),
    Column("at", ascii_text(24), nullable=False),
    Column("principal", ascii_text(200), nullable=False),
    Column("kind", ascii_text(16), nullable=False),
    Column("node_id", ascii_text(16), nullable=False),
    Column("purpose", words(64), nullable=False),
    Column("action", ascii_text(32), nullable=False),
    Column("object_table", ascii_text(32), nullable=False),
    Column("object_id", words(64), nullable=True),
    Column("resident_id", ascii_text(36), nullable=True),
    Column("outcome", ascii_text(32), nullable=False),
    Column("row_count", Integer, nullable=False),
    # Of a read through a broken glass: the grant.
    Column("grant_id", ascii_text(36), nullable=True),
    # The chain is linked after the commit (audit.py): these are null until then.
    Column("chain_position", BigInteger, nullable=True),
    Column("prev_hash", ascii_text(64), nullable=True),
    Column("hash", ascii_text(64), nullable=True),
    Index("uq_audit_chain_position", "chain_position", unique=True),
    # What is searched by, each with the time behind it: answers come newest first.
    Index("ix_audit_at", "at"),
    Index("ix_audit_resident_id", "resident_id", "at"),
    Index("ix_audit_principal", "principal", "at"),
    Index("ix_audit_action", "action", "at"),
    Index("ix_audit_grant_id", "grant_id", "at"),
)

AUDIT_CHAIN: Final = _table(
    "audit_chain",
    Column("chain_id", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    Column("hash", ascii_text(64), nullable=False),
)
"""One row: where the chain of audit entries ends."""

DATA_KEYS: Final = _table(
    "data_keys",
    Column("key_id", ascii_text(64), primary_key=True),
    Column("suite", ascii_text(16), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", ascii_text(24), nullable=False),
    Column("state", ascii_text(16), nullable=False),
    # The table it seals; empty: everything that has no key of its own.
    Column("purpose", ascii_text(32), nullable=False, server_default=""),
    # An estimate: what was sealed in the last minute before a crash is not in it.
    Column("seals", BigInteger, nullable=False, server_default="0"),
)

SCOPE_HOMES: Final = _table(
    "scope_homes",
    Column("scope_key", ascii_text(64), primary_key=True),
    Column("home_node", ascii_text(16), primary_key=True),
)
"""Sets of homes by the hash of the set, for scopes too large to spell out in a statement."""

REGION_EPOCHS: Final = _table(
    "region_epochs",
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("state", ascii_text(16), nullable=False),
    # Of what the hierarchy means, which the next epoch names as the one it follows.
    Column("shape_digest", ascii_text(64), nullable=False),
    Column("region_text", blob(), nullable=False),
    # Signed statements as they travel; null where there is none (epoch 1, a file put by hand).
    Column("offer", blob(), nullable=True),
    Column("decision", blob(), nullable=True),
    Column("purge_order", blob(), nullable=True),
    Column("received_at", BigInteger, nullable=False),
    Column("activated_at", BigInteger, nullable=True),
    Column("head_at_switch", BigInteger, nullable=True),
    Column("progress", blob(), nullable=True),
)
"""Configurations of the region that this node was told of, one row an epoch."""

CHANGELOG: Final = define_tables(METADATA)
"""The change log's own tables, in the same database and so in the same transactions."""

TRANSIT: Final = define_transit(METADATA)
"""Letters written here and addressed here (node/transit)."""

RESIDENCE: Final = define_residence(METADATA)
"""Homes that moved: grants, each node's part in a move, hand-overs, proposals."""

REVOCATION: Final = define_revocation(METADATA)
"""Revoked keys, and the keys of nodes below (node/revocation)."""

INVITATIONS: Final = define_joining(METADATA)
"""Who may join as a child of this node, with which code, and who has (node/joining)."""

KEYS: Final = define_keys(METADATA)
"""Re-sealing under way, and children's escrow (node/keys)."""
AUDITING: Final = define_auditing(METADATA)
"""Signed heads of the audit's chain, anchored here and elsewhere (node/auditing)."""
PEOPLE: Final = define_people(METADATA)
"""Accounts and sessions of this node (node/people); they never leave it."""
INTAKE: Final = define_intake(METADATA)
"""Contents, runs, quarantined units and warnings (node/ingestion)."""
MATCHING: Final = define_matching(METADATA)
"""Pairs of residents who may be one, and how far they are found (node/matching)."""
