"""Ingestion: contents, runs, quarantined units and warnings. Of this node alone."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: Final = "0004"
down_revision: Final = "0003"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    """Add to the schema; every row stays as it is."""
    _contents()
    _runs()
    _quarantine()
    _warnings()


def _contents() -> None:
    op.create_table(
        "intake_contents",
        sa.Column("content_id", _ascii(64), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("pieces", sa.Integer, nullable=False),
        sa.Column("arrived", sa.Integer, nullable=False),
        sa.Column("name", _blob(), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        **_utf8_options(),
    )
    op.create_table(
        "intake_pieces",
        sa.Column("content_id", _ascii(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("body", _blob(), nullable=False),
        **_utf8_options(),
    )


def _runs() -> None:
    op.create_table(
        "intake_runs",
        sa.Column("run_id", _ascii(36), primary_key=True),
        sa.Column("content_id", _ascii(64), nullable=False),
        sa.Column("source", _ascii(40), nullable=False),
        sa.Column("mapping_name", _ascii(40), nullable=False),
        sa.Column("mapping_digest", _ascii(64), nullable=False),
        sa.Column("mapping", _long_text(), nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("code", _ascii(64)),
        sa.Column("message", _words(500)),
        sa.Column("encoding", _ascii(16)),
        sa.Column("truncated", sa.Boolean, nullable=False),
        sa.Column("watermark", _words(200)),
        sa.Column("read_units", sa.BigInteger, nullable=False),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.Column("quarantined", sa.BigInteger, nullable=False),
        sa.Column("unchanged", sa.BigInteger, nullable=False),
        sa.Column("residents", sa.BigInteger, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("amended", sa.BigInteger, nullable=False),
        sa.Column("warnings", sa.BigInteger, nullable=False),
        sa.Column("figures", _long_text(), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        **_utf8_options(),
    )
    op.create_index("ix_intake_runs_state", "intake_runs", ["state", "created_at"])
    op.create_index("ix_intake_runs_source", "intake_runs", ["source", "created_at"])
    op.create_index("ix_intake_runs_content_id", "intake_runs", ["content_id"])


def _quarantine() -> None:
    op.create_table(
        "intake_quarantine",
        sa.Column("item_id", _row_number(), primary_key=True, autoincrement=True),
        sa.Column("item_uid", _ascii(36), nullable=False),
        sa.Column("run_id", _ascii(36), nullable=False),
        sa.Column("unit", sa.BigInteger, nullable=False),
        sa.Column("line", sa.BigInteger, nullable=False),
        sa.Column("rule", _ascii(32), nullable=False),
        sa.Column("field", _words(200), nullable=False),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("body", _blob(), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("settled_at", sa.BigInteger),
        **_utf8_options(),
    )
    op.create_index(
        "uq_intake_quarantine_unit", "intake_quarantine", ["run_id", "unit"], unique=True
    )
    op.create_index("ix_intake_quarantine_state", "intake_quarantine", ["state", "item_id"])


def _warnings() -> None:
    op.create_table(
        "intake_warnings",
        sa.Column("number", _row_number(), primary_key=True, autoincrement=True),
        sa.Column("run_id", _ascii(36), nullable=False),
        sa.Column("unit", sa.BigInteger, nullable=False),
        sa.Column("table_name", _ascii(32), nullable=False),
        sa.Column("row_id", _ascii(36), nullable=False),
        sa.Column("rule", _ascii(32), nullable=False),
        sa.Column("field", _words(200), nullable=False),
        **_utf8_options(),
    )
    op.create_index("ix_intake_warnings_row_id", "intake_warnings", ["row_id"])
    op.create_index("ix_intake_warnings_run_id", "intake_warnings", ["run_id", "unit"])


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(exact, "mysql", "mariadb")


def _blob() -> sa.types.TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


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


def _words(length: int) -> sa.types.TypeEngine[str]:
    wide = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(wide, "mysql", "mariadb")


def _long_text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
