"""Matching: pairs of residents who may be one, and how far they are found. Of this node alone."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: Final = "0006"
down_revision: Final = "0005"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    """Add to the schema; every row stays as it is."""
    op.create_table(
        "match_pairs",
        sa.Column("first_id", _ascii(36), primary_key=True),
        sa.Column("second_id", _ascii(36), primary_key=True),
        sa.Column("weight", sa.Double, nullable=False),
        sa.Column("probability", sa.Double, nullable=False),
        sa.Column("outcome", _ascii(16), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("model_digest", _ascii(64), nullable=False),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("found_at", sa.BigInteger, nullable=False),
        sa.Column("decided_at", sa.BigInteger),
        **_utf8_options(),
    )
    op.create_index("ix_match_pairs_second_id", "match_pairs", ["second_id"])
    op.create_index("ix_match_pairs_state", "match_pairs", ["state", "probability"])
    op.create_table(
        "match_progress",
        sa.Column("progress_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("store_epoch", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("model_digest", _ascii(64), nullable=False),
        sa.Column("asked_to", _ascii(36)),
        **_utf8_options(),
    )


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql", "mariadb")


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
