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


_WITH_AUTHOR_ORGANIZATION: Final = (
    "residents",
    "encounters",
    "conditions",
    "observations",
    "medications",
    "procedures",
    "immunizations",
)


def upgrade() -> None:
    """Add to the schema; every row stays as it is."""
    _joining()
    _revocation()
    _keys()
    _auditing()
    _consent()
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


def _revocation() -> None:
    """Revoked keys, and the keys of nodes below."""
    op.create_table(
        "revocations",
        sa.Column("digest", _ascii(64), primary_key=True),
        sa.Column("signer", _ascii(16), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("entry", _blob(), nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("source", _ascii(16), nullable=False),
        **_utf8_options(),
    )
    op.create_index("ix_revocations_signer", "revocations", ["signer", "number"])
    op.create_table(
        "node_keys",
        sa.Column("node_id", _ascii(16), primary_key=True),
        sa.Column("digest", _ascii(64), primary_key=True),
        sa.Column("role", _ascii(16), nullable=False),
        sa.Column("first_seen_at", sa.BigInteger, nullable=False),
        **_utf8_options(),
    )


def _keys() -> None:
    """A data key a table, what is re-sealed under new ones, and the escrow of children's keys."""
    purpose = sa.Column("purpose", _ascii(32), nullable=False, server_default="")
    op.add_column("data_keys", purpose)
    seals = sa.Column("seals", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("data_keys", seals)
    op.create_table(
        "key_work",
        sa.Column("place", _ascii(32), primary_key=True),
        sa.Column("state", _ascii(16), nullable=False),
        sa.Column("position", _ascii(255), nullable=False),
        sa.Column("resealed", sa.BigInteger, nullable=False),
        sa.Column("unreadable", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        **_utf8_options(),
    )
    op.create_table(
        "key_escrow",
        sa.Column("node_id", _ascii(16), primary_key=True),
        sa.Column("letter", _blob(), nullable=False),
        sa.Column("key_set", _ascii(64), nullable=False),
        sa.Column("sealed_to", _ascii(64), nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        **_utf8_options(),
    )
    op.create_table(
        "key_recoveries",
        sa.Column("number", _row_number(), primary_key=True, autoincrement=True),
        sa.Column("node_id", _ascii(16), nullable=False),
        sa.Column("principal", _ascii(200), nullable=False),
        sa.Column("asked_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
        sa.Column("told_at", sa.BigInteger),
        **_utf8_options(),
    )
    op.create_index("ix_key_recoveries_node_id", "key_recoveries", ["node_id", "used_at"])


def _auditing() -> None:
    """Anchors of the audit, and indexes by which it is searched."""
    op.create_table(
        "audit_anchors",
        sa.Column("node_id", _ascii(16), primary_key=True),
        sa.Column("holder", _ascii(16), primary_key=True),
        sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("store_epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", _ascii(64), nullable=False),
        sa.Column("head", sa.LargeBinary(1024), nullable=False),
        sa.Column("head_signature", sa.LargeBinary(128), nullable=False),
        sa.Column("head_key", _ascii(64), nullable=False),
        sa.Column("anchor", sa.LargeBinary(1024), nullable=False),
        sa.Column("anchor_signature", sa.LargeBinary(128), nullable=False),
        sa.Column("anchor_key", _ascii(64), nullable=False),
        sa.Column("anchored_at", sa.BigInteger, nullable=False),
        sa.Column("grade", sa.Integer, nullable=False),
        **_utf8_options(),
    )
    op.create_index("ix_audit_anchors_thin", "audit_anchors", ["grade", "anchored_at"])
    op.create_table(
        "audit_signers",
        sa.Column("key_id", _ascii(64), primary_key=True),
        sa.Column("node_id", _ascii(16), nullable=False),
        sa.Column("chain", _blob(), nullable=False),
        **_utf8_options(),
    )
    op.create_table(
        "audit_epochs",
        sa.Column("store_epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("hash", _ascii(64), nullable=False),
        sa.Column("began_at", sa.BigInteger, nullable=False),
        **_utf8_options(),
    )
    op.create_table(
        "audit_findings",
        sa.Column("number", _row_number(), primary_key=True, autoincrement=True),
        sa.Column("node_id", _ascii(16), nullable=False),
        sa.Column("kind", _ascii(16), nullable=False),
        sa.Column("store_epoch", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("expected", _ascii(64), nullable=False),
        sa.Column("found", _ascii(64), nullable=False),
        sa.Column("head", sa.LargeBinary(1024), nullable=False),
        sa.Column("head_signature", sa.LargeBinary(128), nullable=False),
        sa.Column("head_key", _ascii(64), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("accepted_at", sa.BigInteger),
        sa.Column("accepted_by", _ascii(200)),
        sa.Column("reason", _words(200)),
        **_utf8_options(),
    )
    op.create_index("ix_audit_findings_node_id", "audit_findings", ["node_id", "accepted_at"])
    # Each ends with the time, by which a search is ordered: no search reads the table.
    op.drop_index("ix_audit_resident_id", "audit")
    op.create_index("ix_audit_at", "audit", ["at"])
    op.add_column("audit", sa.Column("grant_id", _ascii(36)))
    for name in ("resident_id", "principal", "action", "grant_id"):
        op.create_index(f"ix_audit_{name}", "audit", [name, "at"])


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


def _people() -> None:
    """Organizations and those who work in them, which travel; their accounts, which do not."""
    _replicated("organizations", _text("kind", 32), _text("name", 200), _id("parent_id"))
    _replicated("departments", _text("name", 200))
    _replicated("staff", _sealed("name"), _sealed("phone"), _text("title", 100))
    _replicated(
        "qualifications",
        _id("staff_id"),
        _text("kind", 64),
        _sealed("number"),
        _day("issued_on"),
        _day("expires_on"),
        found_by="staff_id",
    )
    _replicated(
        "assignments",
        _id("staff_id"),
        _id("department_id"),
        _text("role", 32),
        _text("division", 16),
        _day("from_on"),
        _day("until_on"),
        found_by="staff_id",
    )
    _replicated(
        "endings", _text("ended_table", 32), _id("ended_id"), _day("ended_on"), found_by="ended_id"
    )
    _accounts()


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


def _blob() -> sa.types.TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


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


def _text(name: str, length: int) -> sa.Column[Any]:
    return sa.Column(name, _words(length))
