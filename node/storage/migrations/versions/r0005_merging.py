"""Decisions over which residents are one person, which travel like records."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: Final = "0005"
down_revision: Final = "0004"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    """Add to the schema; every row stays as it is."""
    name = "identity_links"
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
        sa.Column("unknown_fields", _blob()),
        sa.Column("event_id", _ascii(36)),
        sa.Column("decision", _words(16)),
        sa.Column("part", _words(16)),
        sa.Column("other_id", _ascii(36)),
        sa.Column("ends", _words(400)),
        sa.Column("decided_by", _words(200)),
        sa.Column("reason", sa.LargeBinary),
        sa.Column("evidence", sa.LargeBinary),
        sa.Column("model", _words(64)),
        **_utf8_options(),
    )
    for column in ("resident_id", "home_node", "event_id"):
        op.create_index(f"ix_{name}_{column}", name, [column])


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql", "mariadb")


def _words(length: int) -> sa.types.TypeEngine[str]:
    wide = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(wide, "mysql", "mariadb")


def _blob() -> sa.types.TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


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
