"""The table of invitations. Times are milliseconds since 1970 UTC by this node's clock."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table

from replication.changelog.tables import ascii_text, row_number

__all__ = ["define_joining"]

_OPTIONS: Final[dict[str, Any]] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (
        ("engine", "InnoDB"),
        ("default_charset", "utf8mb4"),
        ("collate", "utf8mb4_bin"),
    )
}


def define_joining(metadata: MetaData) -> Table:
    """Declare the table on `metadata`; creates nothing.

    `stretched`: what Argon2id made of the code, sealed by the node's data key; the code itself is
    nowhere. `store_epoch`: the life of the store in which it was made; a store that was put back
    has forgotten wrong proofs and joins, so what was open in it is void. `pseudonym`: of a county,
    "new", or the county that lends its key. `tls_key` and `authority_key`: digests of the keys that
    joined; from then on the invitation is theirs alone.
    """
    return Table(
        "invitations",
        metadata,
        # The order in which they were made, whatever the clock said.
        Column("number", row_number(), primary_key=True, autoincrement=True),
        Column("invitation_id", ascii_text(36), nullable=False),
        Column("node_id", ascii_text(16), nullable=False),
        Column("state", ascii_text(16), nullable=False),
        Column("store_epoch", BigInteger, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("created_by", ascii_text(200), nullable=False),
        Column("salt", LargeBinary(16), nullable=False),
        Column("memory_kib", Integer, nullable=False),
        Column("passes", Integer, nullable=False),
        Column("lanes", Integer, nullable=False),
        Column("stretched", LargeBinary(128), nullable=False),
        Column("wrong_proofs", Integer, nullable=False),
        Column("address", ascii_text(300), nullable=False),
        Column("pseudonym", ascii_text(16), nullable=False),
        Column("joined_at", BigInteger),
        Column("tls_key", ascii_text(64)),
        Column("authority_key", ascii_text(64)),
        Index("uq_invitations_invitation_id", "invitation_id", unique=True),
        Index("ix_invitations_node_id", "node_id", "state"),
        **_OPTIONS,
    )
