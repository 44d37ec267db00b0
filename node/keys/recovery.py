"""Getting a child's keys out of escrow: two operators, within an hour, audited at both nodes.

It binds those who go through the node. Whoever owns this machine and its TLS key could open what is
held here without it; the node's DESIGN.md says what follows from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select, update

from hierarchy_config.model import NodeId
from node.errors import said_node
from node.keys.errors import EscrowMissingError
from node.keys.escrow import Deposits
from node.security.caller import Caller
from node.storage.audit import Action, Deed, Outcome
from node.storage.tables import KEYS

__all__ = ["APPROVALS", "Approved", "Recoveries", "UntoldRecovery"]

APPROVALS: Final = 2
_HOLDS_MS: Final = 3_600_000
_T = KEYS.recoveries


@dataclass(frozen=True, slots=True)
class Approved:
    """Who has asked within the hour; the keys once there are two of them, as JSON."""

    principals: tuple[str, ...]
    keys: bytes | None


@dataclass(frozen=True, slots=True)
class UntoldRecovery:
    """A recovery that the child has not been told of yet."""

    number: int
    node_id: NodeId
    principal: str
    used_ms: int


@dataclass(frozen=True, slots=True)
class Recoveries:
    """Statements on key_recoveries, and the rule of two. Blocks."""

    deposits: Deposits

    def ask(self, caller: Caller, child: NodeId, *, approve_only: bool = False) -> Approved:
        """Approve a recovery of a child's keys; the second operator's answer holds them.

        Both approvals are used up by it, unless he too only approves. Nothing leaves before its
        audit entry is durable.

        Raises:
            EscrowMissingError: Nothing is held for that node.
            EscrowInvalidError: What is held does not open; nothing is used up.
        """
        d = self.deposits
        return d.transactions.write(
            lambda connection: self._ask(connection, caller, child, approve_only=approve_only)
        )

    def _ask(
        self, connection: Connection, caller: Caller, child: NodeId, *, approve_only: bool
    ) -> Approved:
        d = self.deposits
        held = d.get(connection, child) if d.admits(child) else None
        if held is None:
            raise EscrowMissingError(f"no keys are held in escrow for {said_node(child)}")
        now_ms = d.clock.now_ms()
        rows = self._open(connection, child, now_ms)
        known = {row.principal for row in rows} | {caller.principal}
        if approve_only or len(known) < APPROVALS:
            self._approve(connection, caller, child, now_ms)
            return Approved(tuple(sorted(known)), None)
        keys = d.opened(held)
        mine = insert(_T).values(
            node_id=child, principal=caller.principal, asked_at=now_ms, used_at=now_ms
        )
        connection.execute(mine)
        numbers = [row.number for row in rows]
        connection.execute(update(_T).where(_T.c.number.in_(numbers)).values(used_at=now_ms))
        d.auditor.write(connection, caller, _deed(Action.RECOVER, child))
        return Approved(tuple(sorted(known)), keys)

    def _open(self, connection: Connection, child: NodeId, now_ms: int) -> list[Row[Any]]:
        """Approvals that hold, locked. One from the future, by a clock that was wrong, does not."""
        query = select(_T).where(
            _T.c.node_id == child,
            _T.c.used_at.is_(None),
            _T.c.asked_at > now_ms - _HOLDS_MS,
            _T.c.asked_at <= now_ms,
        )
        return list(connection.execute(query.with_for_update()))

    def _approve(self, connection: Connection, caller: Caller, child: NodeId, now_ms: int) -> None:
        """The first of two; asking again only begins the hour anew."""
        again = update(_T).where(
            _T.c.node_id == child, _T.c.principal == caller.principal, _T.c.used_at.is_(None)
        )
        if not connection.execute(again.values(asked_at=now_ms)).rowcount:
            first = insert(_T).values(node_id=child, principal=caller.principal, asked_at=now_ms)
            connection.execute(first)
        self.deposits.auditor.write(connection, caller, _deed(Action.APPROVE, child))

    def untold(self) -> list[UntoldRecovery]:
        """Recoveries of which a child has yet to be told."""
        query = select(_T).where(_T.c.used_at.is_not(None), _T.c.told_at.is_(None))
        query = query.order_by(_T.c.number).limit(100)
        return self.deposits.transactions.read(
            lambda connection: [
                UntoldRecovery(row.number, NodeId(row.node_id), row.principal, row.used_at)
                for row in connection.execute(query)
            ]
        )

    def told(self, number: int) -> None:
        """The child has written it into its own audit."""
        now_ms = self.deposits.clock.now_ms()
        said = update(_T).where(_T.c.number == number).values(told_at=now_ms)
        self.deposits.transactions.write(lambda connection: connection.execute(said))


def _deed(action: Action, child: NodeId) -> Deed:
    return Deed(action, "key_escrow", Outcome.DONE, 1, object_id=child)
