"""What this node knows of homes beyond its rows: the grants of moves.

Every method works in the caller's transaction. A store that never heard of a move pays nothing:
no statement is run until the first grant is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, or_, select

from node.residence.tables import ResidenceTables
from replication.core.model import RowChange
from replication.core.residence import Grant

__all__ = ["Homes", "Redirect", "SignedGrant"]

_IDS_A_QUERY: Final = 500

Redirect = Callable[[Connection, RowChange, Grant], None]
"""Sends a row that came under an old home to the new one, in the caller's transaction."""


@dataclass(frozen=True, slots=True)
class SignedGrant:
    """A grant with its proof: the bytes that were signed, the signature, the granter's chain."""

    grant: Grant
    statement: bytes
    signature: bytes
    chain_pem: bytes


class Homes:
    """Grants by resident. `redirect`: set by whoever can send letters; None quarantines."""

    def __init__(self, tables: ResidenceTables) -> None:
        self._g = g = tables.grants
        self._of = (
            select(
                g.c.resident_id,
                g.c.home_epoch,
                g.c.home_node,
                g.c.from_node,
                g.c.granted_by,
                g.c.granted_at,
            )
            .where(g.c.resident_id.in_(bindparam("ids", expanding=True)))
            .order_by(g.c.home_epoch)
        )
        self._any: bool | None = None
        self.redirect: Redirect | None = None

    def newest(self, connection: Connection, resident_ids: Collection[str]) -> dict[str, Grant]:
        """The newest grant of each resident who has one."""
        if not resident_ids or not self.is_any(connection):
            return {}
        found: dict[str, Grant] = {}
        wanted = sorted(resident_ids)
        for start in range(0, len(wanted), _IDS_A_QUERY):
            some = wanted[start : start + _IDS_A_QUERY]
            for row in connection.execute(self._of, {"ids": some}):
                found[row.resident_id] = _grant(row)
        return found

    def moves_from(
        self, connection: Connection, homes: Collection[str], after: int, up_to: int
    ) -> list[tuple[str, str, int]]:
        """Moves away from these homes, for those who cannot say whose row they hold.

        Of the epochs after `after` and up to `up_to`; each as (old home, new home, epoch).
        """
        if not self.is_any(connection):
            return []
        g = self._g
        query = (
            select(g.c.from_node, g.c.home_node, g.c.home_epoch)
            .where(g.c.from_node.in_(sorted(homes)), g.c.home_epoch > after)
            .where(g.c.home_epoch <= up_to)
            .distinct()
        )
        return [(row.from_node, row.home_node, row.home_epoch) for row in connection.execute(query)]

    def left(
        self, connection: Connection, homes: Collection[str], *, after: str, limit: int
    ) -> list[str]:
        """Residents with a move away from one of these homes, by id, of those behind `after`."""
        if not self.is_any(connection):
            return []
        g = self._g
        query = (
            select(g.c.resident_id)
            .where(g.c.from_node.in_(sorted(homes)), g.c.resident_id > after)
            .distinct()
            .order_by(g.c.resident_id)
            .limit(limit)
        )
        return list(connection.execute(query).scalars())

    def signed(
        self, connection: Connection, resident_id: str, home_epoch: int
    ) -> SignedGrant | None:
        """A grant with its proof, locked until the commit."""
        g = self._g
        query = select(g).where(g.c.resident_id == resident_id, g.c.home_epoch == home_epoch)
        row = connection.execute(query.with_for_update()).first()
        if row is None:
            return None
        return _signed(row)

    def of_resident(self, connection: Connection, resident_id: str) -> list[SignedGrant]:
        """Every grant of a resident, the newest last."""
        g = self._g
        query = select(g).where(g.c.resident_id == resident_id).order_by(g.c.home_epoch)
        return [_signed(row) for row in connection.execute(query)]

    def newest_by(self, connection: Connection, granter: str) -> int:
        """When a node granted a move last, ms since 1970 UTC; 0: never."""
        g = self._g
        query = select(func.max(g.c.granted_at)).where(g.c.granted_by == granter)
        return int(connection.execute(query).scalar() or 0)

    def made_by(
        self, connection: Connection, granter: str, after: tuple[int, str], limit: int
    ) -> list[SignedGrant]:
        """Grants of one node behind (time, resident), by time and resident."""
        g, (after_ms, after_id) = self._g, after
        later = or_(
            g.c.granted_at > after_ms,
            and_(g.c.granted_at == after_ms, g.c.resident_id > after_id),
        )
        query = select(g).where(g.c.granted_by == granter, later)
        rows = connection.execute(query.order_by(g.c.granted_at, g.c.resident_id).limit(limit))
        return [_signed(row) for row in rows]

    def record(self, connection: Connection, signed: SignedGrant, now_ms: int) -> None:
        """Keep a grant that was proven.

        Raises:
            IntegrityError: One of that resident and epoch is held.
        """
        # Before the insert: a reader that does not ask yet would miss what is committed meanwhile.
        self._any = True
        grant = signed.grant
        connection.execute(
            insert(self._g).values(
                resident_id=grant.resident_id,
                home_epoch=grant.home_epoch,
                home_node=grant.home_node,
                from_node=grant.from_node,
                granted_by=grant.granted_by,
                granted_at=grant.granted_at_ms,
                statement=signed.statement,
                signature=signed.signature,
                chain=signed.chain_pem,
                recorded_at=now_ms,
            )
        )

    def forget(self, connection: Connection, grant: Grant) -> None:
        """Drop a grant that another of its epoch outranks."""
        g = self._g
        connection.execute(
            delete(g).where(
                g.c.resident_id == grant.resident_id, g.c.home_epoch == grant.home_epoch
            )
        )

    def is_any(self, connection: Connection) -> bool:
        """Whether anybody's move was ever granted, for all that this node knows."""
        if self._any is None:
            self._any = (
                connection.execute(select(self._g.c.resident_id).limit(1)).first() is not None
            )
        return self._any


def _signed(row: Any) -> SignedGrant:
    return SignedGrant(_grant(row), bytes(row.statement), bytes(row.signature), bytes(row.chain))


def _grant(row: Any) -> Grant:
    return Grant(
        row.resident_id,
        row.home_epoch,
        row.home_node,
        row.from_node,
        row.granted_by,
        row.granted_at,
    )
