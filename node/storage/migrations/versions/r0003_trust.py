"""What deciding over trust needs beyond replication, a function a topic."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: Final = "0003"
down_revision: Final = "0002"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    """Add to the schema; every row stays as it is."""
    _joining()
    _consent()


def _joining() -> None:
    """Invitations of nodes that join, and who has joined with them."""
    op.create_table(
        "invitations",
        sa.Column("number", _row_number(), primary_key=True, autoincrement=True),
        sa.Column("invitation_id", _ascii(36), nullable=False),
        sa.Column("node_id", _ascii(16), nullable=False),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("store_epoch", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", _ascii(200), nullable=False),
        sa.Column("salt", sa.LargeBinary(16), nullable=False),
        sa.Column("memory_kib", sa.Integer, nullable=False),
        sa.Column("passes", sa.Integer, nullable=False),
        sa.Column("lanes", sa.Integer, nullable=False),
        sa.Column("stretched", sa.LargeBinary(128), nullable=False),
        sa.Column("wrong_proofs", sa.Integer, nullable=False),
        sa.Column("address", _ascii(300), nullable=False),
        sa.Column("pseudonym", _ascii(16), nullable=False),
        sa.Column("joined_at", sa.BigInteger),
        sa.Column("tls_key", _ascii(64)),
        sa.Column("authority_key", _ascii(64)),
        **_utf8_options(),
    )
    op.create_index("uq_invitations_invitation_id", "invitations", ["invitation_id"], unique=True)
    op.create_index("ix_invitations_node_id", "invitations", ["node_id", "state"])


def _consent() -> None:
    """For whom a row was written, and who may read it: consents, care relations, grants."""
    for name in _WITH_AUTHOR_ORGANIZATION:
        op.add_column(name, sa.Column("author_organization", _ascii(64)))
    _access_table(
        "consents",
        sa.Column("purpose", _words(32)),
        sa.Column("recipient", _words(128)),
        sa.Column("decision", _words(16)),
        sa.Column("from_on", _ascii(10)),
        sa.Column("until_on", _ascii(10)),
        sa.Column("note", sa.LargeBinary),
        sa.Column("given_to", _words(200)),
        sa.Column("revoked_at", _ascii(24)),
        sa.Column("revoked_by", _words(200)),
    )
    _access_table(
        "care_relations",
        sa.Column("organization_id", _words(64)),
        sa.Column("kind", _words(32)),
        sa.Column("from_on", _ascii(10)),
        sa.Column("until_on", _ascii(10)),
        sa.Column("opened_by", _words(200)),
        sa.Column("ended_at", _ascii(24)),
        sa.Column("ended_by", _words(200)),
    )
    _access_table(
        "access_grants",
        sa.Column("grantee", _words(240)),
        sa.Column("kind", _words(32)),
        sa.Column("from_at", _ascii(24)),
        sa.Column("until_at", _ascii(24)),
        sa.Column("reason", sa.LargeBinary),
        sa.Column("granted_by", _words(200)),
        sa.Column("granted_for", _words(64)),
        sa.Column("revoked_at", _ascii(24)),
        sa.Column("revoked_by", _words(200)),
    )
    _access_table(
        "access_reviews",
        sa.Column("finding", _words(32)),
        sa.Column("note", sa.LargeBinary),
        sa.Column("closed_at", _ascii(24)),
        sa.Column("closed_by", _words(200)),
    )


_WITH_AUTHOR_ORGANIZATION: Final = (
    "residents",
    "encounters",
    "conditions",
    "observations",
    "medications",
    "procedures",
    "immunizations",
)


def _access_table(name: str, *own: sa.Column[Any]) -> None:
    """A replicated table with the columns that all of them share."""
    op.create_table(
        name,
        sa.Column("row_id", _ascii(36), primary_key=True),
        sa.Column("resident_id", _ascii(36), nullable=False),
        sa.Column("version_epoch", sa.BigInteger, nullable=False),
        sa.Column("version_number", sa.BigInteger, nullable=False),
        sa.Column("author_node", _ascii(16), nullable=False),
        sa.Column("home_node", _ascii(16), nullable=False),
        sa.Column("home_epoch", sa.BigInteger, nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("recorded_at", _ascii(24), nullable=False),
        sa.Column("form", _ascii(16), nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("unknown_fields", _blob(), nullable=True),
        *own,
        **_utf8_options(),
    )
    op.create_index(f"ix_{name}_resident_id", name, ["resident_id"])
    op.create_index(f"ix_{name}_home_node", name, ["home_node"])


def _words(length: int) -> sa.types.TypeEngine[str]:
    wide = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(wide, "mysql", "mariadb")


def _blob() -> sa.types.TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql", "mariadb")


def _row_number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _utf8_options() -> dict[str, Any]:
    return {
        f"{dialect}_{option}": value
        for dialect in ("mysql", "mariadb")
        for option, value in {
            "engine": "InnoDB",
            "default_charset": "utf8mb4",
            "collate": "utf8mb4_bin",
        }.items()
    }
