"""The tables of revocation. Times are milliseconds since 1970 UTC by this node's clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, MetaData, Table

from replication.changelog.tables import ascii_text, blob

__all__ = ["RevocationTables", "define_revocation"]

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
class RevocationTables:
    """`revocations`: entries as they were signed, for ever. `node_keys`: keys of nodes below."""

    revocations: Table
    node_keys: Table


def define_revocation(metadata: MetaData) -> RevocationTables:
    """Declare the tables on `metadata`; creates nothing.

    `digest`: SHA-256 of what was signed. `source`: who handed it over, this node if it signed it.
    `role`: "tls" for connections, "authority" for what signs certificates.
    """
    revocations = Table(
        "revocations",
        metadata,
        Column("digest", ascii_text(64), primary_key=True),
        Column("signer", ascii_text(16), nullable=False),
        Column("number", BigInteger, nullable=False),
        Column("entry", blob(), nullable=False),
        Column("received_at", BigInteger, nullable=False),
        Column("source", ascii_text(16), nullable=False),
        Index("ix_revocations_signer", "signer", "number"),
        **_OPTIONS,
    )
    node_keys = Table(
        "node_keys",
        metadata,
        Column("node_id", ascii_text(16), primary_key=True),
        Column("digest", ascii_text(64), primary_key=True),
        Column("role", ascii_text(16), nullable=False),
        Column("first_seen_at", BigInteger, nullable=False),
        **_OPTIONS,
    )
    return RevocationTables(revocations, node_keys)
