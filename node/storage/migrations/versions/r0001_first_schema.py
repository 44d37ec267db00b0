"""The first schema: replicated tables, the node's own tables, the change log."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None


def upgrade() -> None:
    """Create everything."""
    _identity_tables()
    _record_tables()
    _own_tables()
    _log_tables()
    _link_tables()


def _ascii(length: int) -> sa.types.TypeEngine[str]:
    narrow = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return sa.String(length).with_variant(narrow, "mysql", "mariadb")


def _words(length: int) -> sa.types.TypeEngine[str]:
    wide = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(wide, "mysql", "mariadb")


def _blob() -> sa.types.TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def _row_number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _table(name: str, *parts: sa.Column[Any] | sa.Constraint) -> sa.Table:
    return op.create_table(name, *parts, **_options(collate="utf8mb4_bin"))


def _log_table(name: str, *parts: sa.Column[Any] | sa.Constraint) -> sa.Table:
    return op.create_table(name, *parts, **_options(row_format="DYNAMIC"))


def _options(**more: str) -> dict[str, Any]:
    return {
        f"{dialect}_{option}": value
        for dialect in ("mysql", "mariadb")
        for option, value in {"engine": "InnoDB", "default_charset": "utf8mb4", **more}.items()
    }


def _index(table: str, *columns: str, name: str = "", unique: bool = False) -> None:
    op.create_index(name or f"ix_{table}_{'_'.join(columns)}", table, list(columns), unique=unique)


def _text(name: str, length: int = 64) -> sa.Column[Any]:
    return sa.Column(name, _words(length))


def _date(name: str) -> sa.Column[Any]:
    return sa.Column(name, _ascii(10))


def _sealed(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary())


def _replicated(name: str, *own: sa.Column[Any]) -> None:
    _table(
        name,
        sa.Column("row_id", _ascii(36), primary_key=True),
        sa.Column("resident_id", _ascii(36), nullable=False),
        sa.Column("version_epoch", sa.BigInteger(), nullable=False),
        sa.Column("version_number", sa.BigInteger(), nullable=False),
        sa.Column("author_node", _ascii(16), nullable=False),
        sa.Column("home_node", _ascii(16), nullable=False),
        sa.Column("home_epoch", sa.BigInteger(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("recorded_at", _ascii(24), nullable=False),
        sa.Column("form", _ascii(16), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("unknown_fields", _blob()),
        *own,
    )
    _index(name, "resident_id")
    _index(name, "home_node")


def _identity_tables() -> None:
    _replicated(
        "residents",
        _sealed("name"),
        _sealed("birth_date"),
        _text("sex", 16),
        sa.Column("birth_year", sa.Integer()),
        _sealed("phone"),
        _sealed("address"),
        _date("deceased_on"),
    )
    _replicated(
        "identifiers",
        _text("system"),
        _sealed("value"),
        sa.Column("value_index", _ascii(64)),
        sa.Column("value_claim", _ascii(64)),
    )
    _index("identifiers", "value_index")
    _index("identifiers", "value_claim", name="uq_identifiers_value_claim", unique=True)
    _replicated("resident_index", sa.Column("identity_index", _ascii(64)))
    _index("resident_index", "identity_index")


def _encounter() -> sa.Column[Any]:
    return sa.Column("encounter_id", _ascii(36))


def _record_tables() -> None:
    _replicated(
        "encounters",
        _text("class", 32),
        _date("started_on"),
        _date("ended_on"),
        _text("reason_code"),
        _sealed("department"),
    )
    _replicated(
        "conditions", _encounter(), _text("code"), _date("onset_on"), _text("clinical_status", 32)
    )
    _replicated(
        "observations",
        _encounter(),
        _text("code"),
        sa.Column("value", sa.Double()),
        _text("unit", 32),
        _date("observed_on"),
    )
    _replicated(
        "medications",
        _encounter(),
        _text("code"),
        _sealed("display"),
        _date("started_on"),
        _date("ended_on"),
        _sealed("dosage"),
    )
    _replicated(
        "procedures", _encounter(), _text("code"), _sealed("display"), _date("performed_on")
    )
    _replicated(
        "immunizations",
        _encounter(),
        _text("code"),
        _sealed("display"),
        _date("given_on"),
        sa.Column("dose_number", sa.Integer()),
    )


def _own_tables() -> None:
    _table(
        "applied_requests",
        sa.Column("principal", _ascii(200), primary_key=True),
        sa.Column("request_id", _words(64), primary_key=True),
        sa.Column("body_index", _ascii(64), nullable=False),
        sa.Column(
            "response",
            sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"),
            nullable=False,
        ),
        sa.Column("applied_at", _ascii(24), nullable=False),
    )
    _audit_tables()
    _table(
        "data_keys",
        sa.Column("key_id", _ascii(64), primary_key=True),
        sa.Column("suite", _ascii(16), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _ascii(24), nullable=False),
        sa.Column("state", _ascii(16), nullable=False),
    )
    _table(
        "scope_homes",
        sa.Column("scope_key", _ascii(64), primary_key=True),
        sa.Column("home_node", _ascii(16), primary_key=True),
    )


def _audit_tables() -> None:
    _table(
        "audit",
        sa.Column("audit_id", _row_number(), primary_key=True, autoincrement=True),
        sa.Column("at", _ascii(24), nullable=False),
        sa.Column("principal", _ascii(200), nullable=False),
        sa.Column("kind", _ascii(16), nullable=False),
        sa.Column("node_id", _ascii(16), nullable=False),
        sa.Column("purpose", _words(64), nullable=False),
        sa.Column("action", _ascii(32), nullable=False),
        sa.Column("object_table", _ascii(32), nullable=False),
        sa.Column("object_id", _words(64)),
        sa.Column("resident_id", _ascii(36)),
        sa.Column("outcome", _ascii(32), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("chain_position", sa.BigInteger()),
        sa.Column("prev_hash", _ascii(64)),
        sa.Column("hash", _ascii(64)),
    )
    _index("audit", "chain_position", name="uq_audit_chain_position", unique=True)
    _index("audit", "resident_id")
    chain = _table(
        "audit_chain",
        sa.Column("chain_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("hash", _ascii(64), nullable=False),
    )
    op.bulk_insert(chain, [{"chain_id": 1, "position": 0, "hash": ""}])


def _log_tables() -> None:
    _log_table(
        "change_log",
        sa.Column("entry_id", _row_number(), primary_key=True, autoincrement=True),
        sa.Column("entry_uid", sa.LargeBinary(16), nullable=False),
        sa.Column("epoch", sa.BigInteger()),
        sa.Column("sequence", sa.BigInteger()),
        sa.Column("origin_node", _ascii(32), nullable=False),
        sa.Column("origin_epoch", sa.BigInteger()),
        sa.Column("origin_sequence", sa.BigInteger()),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("home_node", _ascii(32), nullable=False),
        sa.Column("form", _ascii(16), nullable=False),
        sa.Column("codec", sa.SmallInteger(), nullable=False),
        sa.Column("schema_version", sa.Integer(), nullable=False),
        sa.Column("suite", _ascii(16), nullable=False),
        sa.Column("key_id", _ascii(128), nullable=False),
        sa.Column("payload", _blob(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("committed_at", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("sequence", name="uq_change_log_sequence"),
        sa.UniqueConstraint(
            "origin_node", "origin_epoch", "origin_sequence", "form", name="uq_change_log_origin"
        ),
    )
    _index("change_log", "lane", "sequence", name="ix_change_log_lane")
    _log_table(
        "log_sequencer",
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("store_epoch", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.Column("durable_to", sa.BigInteger(), nullable=False),
        sa.Column("pruned_to", sa.BigInteger(), nullable=False),
    )
    _log_table(
        "log_readers",
        sa.Column("name", _ascii(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
    )
    _log_table(
        "store_state",
        sa.Column("name", _ascii(64), primary_key=True),
        sa.Column("value", sa.String(255), nullable=False),
    )


def _cursor_table(name: str, *more: sa.Column[Any]) -> None:
    _log_table(
        name,
        sa.Column("peer", _ascii(32), primary_key=True),
        sa.Column("lane", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("sender_epoch", sa.BigInteger(), nullable=False),
        sa.Column("receiver_epoch", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("covers_to", sa.BigInteger(), nullable=False),
        sa.Column("running_hash", sa.LargeBinary(32), nullable=False),
        *more,
    )


def _link_tables() -> None:
    _cursor_table("link_inbound")
    _cursor_table(
        "link_outbound",
        sa.Column("receipt_signature", sa.LargeBinary(512), nullable=False),
        sa.Column("receipt_key_id", _ascii(128), nullable=False),
    )
    _log_table(
        "peer_epochs",
        sa.Column("peer", _ascii(32), primary_key=True),
        sa.Column("store_epoch", sa.BigInteger(), nullable=False),
        sa.Column("incarnation", _ascii(64), nullable=False),
    )
    _log_table(
        "home_marks",
        sa.Column("home_node", _ascii(32), primary_key=True),
        sa.Column("as_of_ms", sa.BigInteger(), nullable=False),
    )
    _quarantine()


def _quarantine() -> None:
    _log_table(
        "quarantine",
        sa.Column("item_id", _row_number(), primary_key=True, autoincrement=True),
        sa.Column("item_uid", sa.LargeBinary(16), nullable=False),
        sa.Column("peer", _ascii(32), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("origin_node", _ascii(32), nullable=False),
        sa.Column("origin_epoch", sa.BigInteger(), nullable=False),
        sa.Column("origin_sequence", sa.BigInteger(), nullable=False),
        sa.Column("table_name", _ascii(64), nullable=False),
        sa.Column("row_id", _ascii(64), nullable=False),
        sa.Column("resident_id", _ascii(64), nullable=False),
        sa.Column("home_node", _ascii(32), nullable=False),
        sa.Column("author_node", _ascii(32), nullable=False),
        sa.Column("version_epoch", sa.BigInteger(), nullable=False),
        sa.Column("version_number", sa.BigInteger(), nullable=False),
        sa.Column("form", _ascii(16), nullable=False),
        sa.Column("cause", _ascii(64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("retry_at", sa.BigInteger()),
        sa.Column("closed_as", _ascii(16)),
        sa.Column("closed_at", sa.BigInteger()),
        sa.Column("suite", _ascii(16), nullable=False),
        sa.Column("key_id", _ascii(128), nullable=False),
        sa.Column("payload", _blob(), nullable=False),
        sa.UniqueConstraint(
            "peer",
            "table_name",
            "row_id",
            "version_epoch",
            "version_number",
            "form",
            name="uq_quarantine_change",
        ),
    )
    _index("quarantine", "resident_id", name="ix_quarantine_resident")
    _index("quarantine", "closed_as", "retry_at", name="ix_quarantine_retry")
