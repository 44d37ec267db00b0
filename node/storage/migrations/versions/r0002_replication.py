"""What replication that loses nothing needs beyond the first schema, a function a topic."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: Final = "0002"
down_revision: Final = "0001"
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    """Add to the first schema; every row stays as it is."""
    _log_audience()
    _snapshot_positions()
    _quarantine_exits()
    _receipt_times()
    _region_epochs()


def _region_epochs() -> None:
    """Configurations of the region, with their signatures and how far their effects have got."""
    long_bytes = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    options = {
        f"{dialect}_{option}": value
        for dialect in ("mysql", "mariadb")
        for option, value in {
            "engine": "InnoDB",
            "default_charset": "utf8mb4",
            "collate": "utf8mb4_bin",
        }.items()
    }
    op.create_table(
        "region_epochs",
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("shape_digest", _ascii(64), nullable=False),
        sa.Column("region_text", long_bytes, nullable=False),
        sa.Column("offer", long_bytes, nullable=True),
        sa.Column("decision", long_bytes, nullable=True),
        sa.Column("purge_order", long_bytes, nullable=True),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("activated_at", sa.BigInteger, nullable=True),
        sa.Column("head_at_switch", sa.BigInteger, nullable=True),
        sa.Column("progress", long_bytes, nullable=True),
        **options,
    )


def _log_audience() -> None:
    """Whom an entry is for: 0 everybody, 1 readers of this node alone."""
    with op.batch_alter_table("change_log") as table:
        table.add_column(sa.Column("audience", sa.SmallInteger, nullable=False, server_default="0"))


def _snapshot_positions() -> None:
    """How far a snapshot has come that stands in for a stretch of the log."""
    for name in ("link_inbound", "link_outbound"):
        with op.batch_alter_table(name) as table:
            table.add_column(sa.Column("position", _ascii(255), nullable=False, server_default=""))


def _quarantine_exits() -> None:
    """Entries that cannot be read wait whole; an operator's reason stays with what he closed."""
    with op.batch_alter_table("quarantine") as table:
        for column in (
            sa.Column("whole_entry", sa.SmallInteger, nullable=False, server_default="0"),
            sa.Column("row_count", sa.Integer, nullable=False, server_default="1"),
            sa.Column("reason", sa.String(200), nullable=False, server_default=""),
        ):
            table.add_column(column)


def _receipt_times() -> None:
    """When the peer last confirmed something, ms since 1970; 0: not since this is kept."""
    with op.batch_alter_table("link_outbound") as table:
        table.add_column(sa.Column("receipt_at", sa.BigInteger, nullable=False, server_default="0"))


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    narrow = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(narrow, "mysql", "mariadb")
