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
    _people()


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


def _people() -> None:
    """Organizations and those who work in them, which travel; their accounts, which do not."""
    _replicated("organizations", _words("kind", 32), _words("name", 200), _id("parent_id"))
    _replicated("departments", _words("name", 200))
    _replicated("staff", _sealed("name"), _sealed("phone"), _words("title", 100))
    _replicated(
        "qualifications",
        _id("staff_id"),
        _words("kind", 64),
        _sealed("number"),
        _day("issued_on"),
        _day("expires_on"),
        found_by="staff_id",
    )
    _replicated(
        "assignments",
        _id("staff_id"),
        _id("department_id"),
        _words("role", 32),
        _words("division", 16),
        _day("from_on"),
        _day("until_on"),
        found_by="staff_id",
    )
    _replicated(
        "endings", _words("ended_table", 32), _id("ended_id"), _day("ended_on"), found_by="ended_id"
    )
    _accounts()


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("account_id", _ascii(36), primary_key=True),
        sa.Column("name", _ascii(64), nullable=False),
        sa.Column("staff_id", _ascii(36), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", _ascii(200), nullable=False),
        sa.Column("password", sa.LargeBinary(512)),
        sa.Column("must_change", sa.Boolean, nullable=False),
        sa.Column("disabled_at", sa.BigInteger),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("locked_until", sa.BigInteger, nullable=False),
        sa.Column("totp", sa.LargeBinary(256)),
        sa.Column("totp_confirmed", sa.Boolean, nullable=False),
        sa.Column("totp_step", sa.BigInteger, nullable=False),
        sa.Column("oidc_subject", _ascii(255)),
        **_utf8_options(),
    )
    op.create_index("uq_accounts_name", "accounts", ["name"], unique=True)
    op.create_index("uq_accounts_oidc_subject", "accounts", ["oidc_subject"], unique=True)
    op.create_index("uq_accounts_staff_id", "accounts", ["staff_id"], unique=True)
    op.create_table(
        "sessions",
        sa.Column("session_id", _ascii(36), primary_key=True),
        sa.Column("account_id", _ascii(36), nullable=False),
        sa.Column("store_epoch", sa.BigInteger, nullable=False),
        sa.Column("channel", _ascii(200), nullable=False),
        sa.Column("organization_id", _ascii(36), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("renew_until", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("ended_because", _ascii(32)),
        sa.Column("proof_digest", _ascii(64)),
        **_utf8_options(),
    )
    op.create_index("uq_sessions_proof_digest", "sessions", ["proof_digest"], unique=True)
    op.create_index("ix_sessions_account_id", "sessions", ["account_id"])
    op.create_index("ix_sessions_renew_until", "sessions", ["renew_until"])


def _replicated(name: str, *own: sa.Column[Any], found_by: str = "") -> None:
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
        *own,
        **_utf8_options(),
    )
    for column in filter(None, ("resident_id", "home_node", found_by)):
        op.create_index(f"ix_{name}_{column}", name, [column])


def _id(name: str) -> sa.Column[Any]:
    return sa.Column(name, _ascii(36))


def _day(name: str) -> sa.Column[Any]:
    return sa.Column(name, _ascii(10))


def _sealed(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary)


def _words(name: str, length: int) -> sa.Column[Any]:
    wide = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.Column(name, sa.String(length).with_variant(wide, "mysql", "mariadb"))


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
