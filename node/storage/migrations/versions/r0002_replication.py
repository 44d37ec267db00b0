"""What replication that loses nothing needs beyond the first schema, a function a topic."""

from __future__ import annotations

from typing import Any, Final

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
    _transit()
    _region_epochs()
    _residence()


def _region_epochs() -> None:
    """Configurations of the region, with their signatures and how far their effects have got."""
    long_bytes = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    options: dict[str, Any] = {
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
    """Entries that cannot be read wait whole; an operator's reason stays with what he closed.

    A version under a later home epoch is a change of its own; before this revision nobody moved.
    """
    key = ["peer", "table_name", "row_id", "version_epoch", "version_number", "home_epoch", "form"]
    with op.batch_alter_table("quarantine") as table:
        for column in (
            sa.Column("whole_entry", sa.SmallInteger, nullable=False, server_default="0"),
            sa.Column("row_count", sa.Integer, nullable=False, server_default="1"),
            sa.Column("home_epoch", sa.BigInteger, nullable=False, server_default="1"),
            sa.Column("reason", sa.String(200), nullable=False, server_default=""),
        ):
            table.add_column(column)
        table.drop_constraint("uq_quarantine_change", type_="unique")
        table.create_unique_constraint("uq_quarantine_change", key)


def _receipt_times() -> None:
    """When the peer last confirmed something, ms since 1970, and what; 0: not since it is kept."""
    with op.batch_alter_table("link_outbound") as table:
        for name in ("receipt_at", "receipt_covers_to"):
            table.add_column(sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))


def _transit() -> None:
    """Letters to nodes that are not neighbours, and the chains they are sealed to."""
    long_bytes = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    options: dict[str, Any] = {
        f"{dialect}_{option}": value
        for dialect in ("mysql", "mariadb")
        for option, value in {
            "engine": "InnoDB",
            "default_charset": "utf8mb4",
            "collate": "utf8mb4_bin",
        }.items()
    }
    op.create_table(
        "transit_out",
        sa.Column("letter_id", _ascii(36), primary_key=True),
        sa.Column("to_node", _ascii(16), nullable=False),
        sa.Column("kind", _ascii(32), nullable=False),
        sa.Column("lane", sa.SmallInteger, nullable=False),
        sa.Column("open_letter", sa.Boolean, nullable=False),
        sa.Column("written_at", _ascii(24), nullable=False),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.BigInteger),
        sa.Column("code", _ascii(64), nullable=False),
        sa.Column("key_id", _ascii(64), nullable=False),
        sa.Column("body", long_bytes),
        sa.Column("receipt_at", sa.BigInteger),
        sa.Column("receipt_signature", sa.LargeBinary(512)),
        sa.Column("receipt_key_id", _ascii(64), nullable=False),
        sa.Index("ix_transit_out_next_at", "next_at"),
        sa.Index("ix_transit_out_state", "state"),
        **options,
    )
    op.create_table(
        "transit_subjects",
        sa.Column("row_id", _ascii(36), primary_key=True),
        sa.Column("letter_id", _ascii(36), primary_key=True),
        sa.Column("table_name", _ascii(32), nullable=False),
        sa.Column("resident_id", _ascii(36), nullable=False),
        sa.Column("version_epoch", sa.BigInteger, nullable=False),
        sa.Column("version_number", sa.BigInteger, nullable=False),
        sa.Index("ix_transit_subjects_letter_id", "letter_id"),
        **options,
    )
    op.create_table(
        "transit_in",
        sa.Column("sender", _ascii(16), primary_key=True),
        sa.Column("letter_id", _ascii(36), primary_key=True),
        sa.Column("kind", _ascii(32), nullable=False),
        sa.Column("outcome", _ascii(64), nullable=False),
        sa.Column("arrived_at", sa.BigInteger, nullable=False),
        sa.Column("lane", sa.SmallInteger, nullable=False),
        sa.Column("answer_after", sa.BigInteger),
        sa.Index("ix_transit_in_answer_after", "answer_after"),
        **options,
    )
    op.create_table(
        "node_certificates",
        sa.Column("node_id", _ascii(16), primary_key=True),
        sa.Column("key_id", _ascii(64), nullable=False),
        sa.Column("chain", long_bytes, nullable=False),
        sa.Column("learnt_at", sa.BigInteger, nullable=False),
        **options,
    )


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    narrow = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(narrow, "mysql", "mariadb")


def _residence() -> None:
    """Homes that moved: grants, each node's part in a move, hand-overs, proposals."""
    _residence_grants()
    _residence_moves()
    _residence_handovers()
    _residence_proposals()


def _residence_grants() -> None:
    op.create_table(
        "home_grants",
        sa.Column("resident_id", _ascii(36), primary_key=True),
        sa.Column("home_epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("home_node", _ascii(16), nullable=False),
        sa.Column("from_node", _ascii(16), nullable=False),
        sa.Column("granted_by", _ascii(16), nullable=False),
        sa.Column("granted_at", sa.BigInteger, nullable=False),
        sa.Column("statement", sa.LargeBinary(4096), nullable=False),
        sa.Column("signature", sa.LargeBinary(512), nullable=False),
        sa.Column("chain", _long_bytes(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        **_utf8_options(),
    )
    op.create_index("ix_home_grants_from", "home_grants", ["from_node", "home_node"])
    op.create_index("ix_home_grants_home", "home_grants", ["home_node"])


def _residence_moves() -> None:
    op.create_table(
        "residence_moves",
        sa.Column("resident_id", _ascii(36), primary_key=True),
        sa.Column("home_epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("home_node", _ascii(16), nullable=False),
        sa.Column("from_node", _ascii(16), nullable=False),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("code", _ascii(64), nullable=False),
        sa.Column("reason", _utf8(200), nullable=False),
        sa.Column("asked_by", _ascii(200), nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("next_at", sa.BigInteger),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("base", _long_bytes()),
        sa.Column("held", _long_bytes()),
        **_utf8_options(),
    )
    op.create_index("ix_residence_moves_next_at", "residence_moves", ["next_at"])
    op.create_index("ix_residence_moves_home", "residence_moves", ["home_node", "state"])


def _residence_handovers() -> None:
    op.create_table(
        "residence_letters",
        sa.Column("letter_id", _ascii(36), primary_key=True),
        sa.Column("resident_id", _ascii(36), nullable=False),
        sa.Column("home_epoch", sa.BigInteger, nullable=False),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("code", _ascii(64), nullable=False),
        **_utf8_options(),
    )
    op.create_index(
        "ix_residence_letters_resident", "residence_letters", ["resident_id", "home_epoch"]
    )
    op.create_table(
        "residence_pieces",
        sa.Column("handover_id", _ascii(36), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("resident_id", _ascii(36), nullable=False),
        sa.Column("home_epoch", sa.BigInteger, nullable=False),
        sa.Column("sender", _ascii(16), nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("digest", _ascii(64), nullable=False),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("arrived_at", sa.BigInteger, nullable=False),
        sa.Column("body", _long_bytes(), nullable=False),
        **_utf8_options(),
    )
    op.create_index(
        "ix_residence_pieces_resident", "residence_pieces", ["resident_id", "home_epoch"]
    )


def _residence_proposals() -> None:
    op.create_table(
        "proposals",
        sa.Column("proposal_id", _ascii(36), primary_key=True),
        sa.Column("resident_id", _ascii(36), nullable=False),
        sa.Column("table_name", _ascii(32), nullable=False),
        sa.Column("row_id", _ascii(36), nullable=False),
        sa.Column("version_epoch", sa.BigInteger, nullable=False),
        sa.Column("version_number", sa.BigInteger, nullable=False),
        sa.Column("author_node", _ascii(16), nullable=False),
        sa.Column("recorded_at", _ascii(24), nullable=False),
        sa.Column("arrived_at", sa.BigInteger, nullable=False),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("decided_at", sa.BigInteger),
        sa.Column("decided_by", _ascii(200), nullable=False),
        sa.Column("reason", _utf8(200), nullable=False),
        sa.Column("payload", _long_bytes(), nullable=False),
        sa.UniqueConstraint(
            "row_id", "author_node", "version_epoch", "version_number", name="uq_proposals_edit"
        ),
        **_utf8_options(),
    )
    op.create_index("ix_proposals_resident", "proposals", ["resident_id"])
    op.create_index("ix_proposals_state", "proposals", ["state", "arrived_at"])


def _utf8(length: int) -> sa.types.TypeEngine[str]:
    wide = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(wide, "mysql", "mariadb")


def _long_bytes() -> sa.types.TypeEngine[bytes]:
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
