"""The table `invitations`: who may join with which code, how often it was guessed, who has joined.

One transaction a method, with its audit entry in it. What a wrong proof costs is durable before the
answer is given, so that killing the node gives nobody a sixth guess. A node has at most one open
invitation for a child: another takes the one before back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, insert, select, update

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.clock import Clock, Ids, format_ms
from node.joining.code import JoinCode
from node.joining.errors import (
    InvitationExpiredError,
    InvitationRefusedError,
    InvitationSpentError,
    InvitationUsedError,
    InvitationWithdrawnError,
    JoinClockError,
)
from node.joining.proof import StretchCost
from node.security.caller import Caller, CallerKind
from node.storage.audit import Action, Auditor, Deed, Outcome
from node.storage.sealing import CellSealer
from node.storage.tables import INVITATIONS
from node.storage.transactions import Transactions

__all__ = ["WRONG_PROOFS_MAX", "Invitation", "Invitations", "JoinKeys", "NewInvitation"]

WRONG_PROOFS_MAX: Final = 5
_CLOCK_SLACK_MS: Final = 5 * 60_000
_T = INVITATIONS


class _State(StrEnum):
    """What is stored; that an invitation is spent or expired follows from the rest of its row."""

    OPEN = "open"
    USED = "used"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """What is decided before it is stored. `key`: the stretched code, 32 bytes."""

    code: JoinCode
    key: bytes
    salt: bytes
    cost: StretchCost
    lifetime_ms: int
    address: str
    pseudonym: str = ""


@dataclass(frozen=True, slots=True)
class JoinKeys:
    """Digests of the keys in a child's requests."""

    tls: str
    authority: str


@dataclass(frozen=True, slots=True)
class Invitation:
    """One invitation as it stands now; times in ms since 1970 UTC."""

    invitation_id: str
    node_id: NodeId
    state: str
    created_ms: int
    expires_ms: int
    created_by: str
    salt: bytes
    cost: StretchCost
    wrong_proofs: int
    address: str
    pseudonym: str
    joined_ms: int | None


class Invitations:
    """Blocks on the database; safe from several threads."""

    def __init__(
        self,
        transactions: Transactions,
        auditor: Auditor,
        *,
        node_id: NodeId,
        hierarchy: Hierarchy,
        cells: CellSealer,
        clock: Clock,
        ids: Ids,
        store_epoch: int,
    ) -> None:
        """`store_epoch`: this life of the store; what an earlier one left open admits nobody."""
        self._transactions = transactions
        self._auditor = auditor
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._cells = cells
        self._clock = clock
        self._ids = ids
        self._store_epoch = store_epoch

    def create(self, caller: Caller, new: NewInvitation) -> tuple[Invitation, bool]:
        """Store an invitation; whether an open one of the same child was taken back for it."""
        now_ms = self._clock.now_ms()
        invitation_id, child = self._ids.mint(), new.code.node_id
        row = {
            "invitation_id": invitation_id,
            "node_id": child,
            "state": _State.OPEN.value,
            "store_epoch": self._store_epoch,
            "created_at": now_ms,
            "expires_at": now_ms + new.lifetime_ms,
            "created_by": caller.principal[:200],
            "salt": new.salt,
            "memory_kib": new.cost.memory_kib,
            "passes": new.cost.passes,
            "lanes": new.cost.lanes,
            "stretched": self._cells.seal_cell(*_place(invitation_id), new.key.hex()),
            "wrong_proofs": 0,
            "address": new.address,
            "pseudonym": new.pseudonym,
        }

        def work(connection: Connection) -> tuple[Invitation, bool]:
            replaced = self._take_back(connection, caller, child)
            connection.execute(insert(_T).values(row))
            self._note(connection, caller, Action.INVITE, invitation_id)
            made = connection.execute(_one(invitation_id)).one()
            return self._out(made), replaced

        return self._transactions.write(work)

    def withdraw(self, caller: Caller, child: NodeId) -> bool:
        """Take the open invitation of a child back; False if there is none."""
        return self._transactions.write(
            lambda connection: self._take_back(connection, caller, child)
        )

    def page(self, after: str, limit: int) -> list[Invitation]:
        """Invitations made before `after` (empty: all), newest first."""
        query = select(_T).order_by(_T.c.number.desc()).limit(limit)
        if after:
            seen = select(_T.c.number).where(_T.c.invitation_id == after).scalar_subquery()
            query = query.where(_T.c.number < seen)
        return self._transactions.read(
            lambda connection: [self._out(row) for row in connection.execute(query)]
        )

    def newest(self, child: NodeId) -> Invitation | None:
        """The last invitation of a child, whatever became of it."""
        query = select(_T).where(_T.c.node_id == child).order_by(_T.c.number.desc()).limit(1)
        row = self._transactions.read(lambda connection: connection.execute(query).first())
        return None if row is None else self._out(row)

    def check(
        self, invitation_id: str, is_proven: Callable[[bytes], bool], keys: JoinKeys
    ) -> tuple[Invitation, bytes]:
        """Judge a proof, and count it if it is wrong. Durable on return, and on every error.

        Args:
            invitation_id: Which invitation the conversation began with.
            is_proven: Whether the proof is right under a stretched code; takes no time worth
                measuring and touches nothing.
            keys: Of the child that asks.

        Returns:
            The invitation and the stretched code.

        Raises:
            InvitationRefusedError: The proof is wrong; or right, and one of its kinds says why not.
            JoinClockError: The proof is right, and this node's clock is before the invitation.
        """

        def work(connection: Connection) -> tuple[Row[Any], bytes] | None:
            row = connection.execute(_one(invitation_id).with_for_update()).one()
            key = self._key(invitation_id, row.stretched)
            if is_proven(key):
                return row, key
            if row.wrong_proofs < WRONG_PROOFS_MAX:
                wrong = update(_T).where(_T.c.invitation_id == invitation_id)
                connection.execute(wrong.values(wrong_proofs=row.wrong_proofs + 1))
                here = self._node_as_caller(self._node_id)
                self._note(connection, here, Action.JOIN, invitation_id, Outcome.REFUSED)
            return None

        judged = self._transactions.write(work)
        if judged is None:
            raise InvitationRefusedError(
                "the code is wrong, or nobody is invited under this division code here"
            )
        row, key = judged
        self._refuse_void(row, keys)
        return self._out(row), key

    def bind(self, invitation_id: str, keys: JoinKeys) -> None:
        """Make the invitation that of these keys alone. Durable on return; twice does no harm.

        Raises:
            InvitationRefusedError: It was used by others or taken back meanwhile.
        """

        def work(connection: Connection) -> Row[Any] | None:
            row = connection.execute(_one(invitation_id).with_for_update()).one()
            if row.state == _State.WITHDRAWN or not _is_free_for(row, keys):
                return row
            repeated = row.state == _State.USED
            if not repeated:
                connection.execute(
                    update(_T)
                    .where(_T.c.invitation_id == invitation_id)
                    .values(
                        state=_State.USED.value,
                        joined_at=self._clock.now_ms(),
                        tls_key=keys.tls,
                        authority_key=keys.authority,
                    )
                )
            outcome = Outcome.REPEATED if repeated else Outcome.DONE
            child = self._node_as_caller(NodeId(row.node_id))
            self._note(connection, child, Action.JOIN, invitation_id, outcome)
            return None

        lost = self._transactions.write(work)
        if lost is not None:
            self._refuse_void(lost, keys)

    def _refuse_void(self, row: Row[Any], keys: JoinKeys) -> None:
        """Refuse, to someone who has proven the code, an invitation that admits nobody any more."""
        now_ms = self._clock.now_ms()
        node, ends = row.node_id, format_ms(row.expires_at)
        if row.wrong_proofs >= WRONG_PROOFS_MAX and row.state == _State.OPEN:
            raise InvitationSpentError(f"the invitation of {node} is void: five codes were wrong")
        if row.state == _State.WITHDRAWN:
            raise InvitationWithdrawnError(f"this invitation of {node} was taken back")
        if self._is_of_a_former_life(row):
            raise InvitationWithdrawnError(
                f"the invitation of {node} is from before this node's store was put back"
            )
        if not _is_free_for(row, keys):
            raise InvitationUsedError(f"another machine has joined as {node} with this code")
        if now_ms < row.created_at - _CLOCK_SLACK_MS:
            raise JoinClockError(
                f"the parent's clock says {format_ms(now_ms)}, and the invitation was made at "
                f"{format_ms(row.created_at)}"
            )
        if now_ms >= row.expires_at:
            raise InvitationExpiredError(
                f"the invitation of {node} ended at {ends}; the parent's clock says "
                f"{format_ms(now_ms)}"
            )

    def _is_of_a_former_life(self, row: Row[Any]) -> bool:
        return bool(row.state == _State.OPEN and row.store_epoch != self._store_epoch)

    def _take_back(self, connection: Connection, caller: Caller, child: NodeId) -> bool:
        is_open = (_T.c.node_id == child, _T.c.state == _State.OPEN.value)
        ids = connection.execute(select(_T.c.invitation_id).where(*is_open).with_for_update())
        taken = [str(each) for each in ids.scalars()]
        connection.execute(update(_T).where(*is_open).values(state=_State.WITHDRAWN.value))
        for invitation_id in taken:
            self._note(connection, caller, Action.WITHDRAW, invitation_id)
        return bool(taken)

    def _note(
        self,
        connection: Connection,
        caller: Caller,
        action: Action,
        invitation_id: str,
        outcome: Outcome = Outcome.DONE,
    ) -> None:
        deed = Deed(action, _T.name, outcome, 1, object_id=invitation_id)
        self._auditor.write(connection, caller, deed)

    def _node_as_caller(self, node_id: NodeId) -> Caller:
        known = node_id if node_id in self._hierarchy else self._node_id
        principal = self._hierarchy.spiffe_id(known)
        return Caller(CallerKind.NODE, principal, known, "door", frozenset())

    def _key(self, invitation_id: str, sealed: bytes) -> bytes:
        return bytes.fromhex(str(self._cells.open_cell(*_place(invitation_id), bytes(sealed))))

    def _out(self, row: Row[Any]) -> Invitation:
        return Invitation(
            row.invitation_id,
            NodeId(row.node_id),
            self._standing(row),
            int(row.created_at),
            int(row.expires_at),
            row.created_by,
            bytes(row.salt),
            StretchCost(row.memory_kib, row.passes, row.lanes),
            row.wrong_proofs,
            row.address,
            row.pseudonym,
            row.joined_at,
        )

    def _standing(self, row: Row[Any]) -> str:
        if row.state != _State.OPEN:
            return str(row.state)
        if self._is_of_a_former_life(row):
            return _State.WITHDRAWN.value
        if row.wrong_proofs >= WRONG_PROOFS_MAX:
            return "spent"
        return "expired" if self._clock.now_ms() >= row.expires_at else "open"


def _one(invitation_id: str) -> Select[Any]:
    return select(_T).where(_T.c.invitation_id == invitation_id)


def _place(invitation_id: str) -> tuple[str, str, str]:
    """The sealed cell of an invitation: table, column, row."""
    return _T.name, _T.c.stretched.name, invitation_id


def _is_free_for(row: Row[Any], keys: JoinKeys) -> bool:
    """Whether nobody has joined with it, or these very keys have."""
    if row.state != _State.USED:
        return True
    return (row.tls_key, row.authority_key) == (keys.tls, keys.authority)
