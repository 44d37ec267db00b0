"""The tables of accounts and sessions. Times are milliseconds since 1970 UTC by this node's clock.

They never leave the node. Organizations and staff, which travel, are in node/storage/specs.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table

from replication.changelog.tables import ascii_text

__all__ = ["PeopleTables", "define_people"]

_OPTIONS: Final[dict[str, Any]] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (
        ("engine", "InnoDB"),
        ("default_charset", "utf8mb4"),
        ("collate", "utf8mb4_bin"),
    )
}


@dataclass(frozen=True, slots=True)
class PeopleTables:
    """The two tables."""

    accounts: Table
    sessions: Table


def define_people(metadata: MetaData) -> PeopleTables:
    """Declare the tables on `metadata`; creates nothing."""
    return PeopleTables(_accounts(metadata), _sessions(metadata))


def _accounts(metadata: MetaData) -> Table:
    """`password` and `totp` are sealed: an Argon2id hash with its parameters, a shared secret.

    `totp_step`: the last step that was used; a code of it or before is used up. A second factor
    counts once it is confirmed.
    """
    return Table(
        "accounts",
        metadata,
        Column("account_id", ascii_text(36), primary_key=True),
        Column("name", ascii_text(64), nullable=False),
        Column("staff_id", ascii_text(36), nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("created_by", ascii_text(200), nullable=False),
        Column("password", LargeBinary(512)),
        Column("must_change", Boolean, nullable=False),
        Column("disabled_at", BigInteger),
        Column("failures", Integer, nullable=False),
        Column("locked_until", BigInteger, nullable=False),
        Column("totp", LargeBinary(256)),
        Column("totp_confirmed", Boolean, nullable=False),
        Column("totp_step", BigInteger, nullable=False),
        Column("oidc_subject", ascii_text(255)),
        Index("uq_accounts_name", "name", unique=True),
        Index("uq_accounts_oidc_subject", "oidc_subject", unique=True),
        Index("uq_accounts_staff_id", "staff_id", unique=True),
        **_OPTIONS,
    )


def _sessions(metadata: MetaData) -> Table:
    """`store_epoch`: the life of the store that it began in; a store that was put back ends it.

    `channel`: the certificate under which it began; it is good on no other. `proof_digest`: of the
    token that stood in for the password, so that it stands in once.
    """
    return Table(
        "sessions",
        metadata,
        Column("session_id", ascii_text(36), primary_key=True),
        Column("account_id", ascii_text(36), nullable=False),
        Column("store_epoch", BigInteger, nullable=False),
        Column("channel", ascii_text(200), nullable=False),
        Column("organization_id", ascii_text(36), nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("renew_until", BigInteger, nullable=False),
        Column("ended_at", BigInteger),
        Column("ended_because", ascii_text(32)),
        Column("proof_digest", ascii_text(64)),
        Index("uq_sessions_proof_digest", "proof_digest", unique=True),
        Index("ix_sessions_account_id", "account_id"),
        Index("ix_sessions_renew_until", "renew_until"),
        **_OPTIONS,
    )
