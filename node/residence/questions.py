"""Asks a child for the grant that its rows wait for.

A grant goes to the two homes and to whoever lies between them then. A node that is put above one
of them later has not heard of it, nor has one that was put back from before it; if it knows an
earlier home, the resident's rows wait in its quarantine (HOME_NOT_GRANTED). The child that sent
them has the grant, or one below it has, and is asked; what it gives is judged here.

A child is believed about moves inside its subtree, so its own grants are not wanted: one of them
would give a resident to it that it never had.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from hierarchy_config.model import NodeId
from node.errors import InvalidRequestError
from node.residence.homes import SignedGrant
from node.residence.residence import Residence
from node.storage.context import StoreContext
from node.storage.shapes import is_row_id
from replication.core.admission import Cause
from replication.core.model import Form
from replication.core.residence import KnownHome

__all__ = ["GrantQuestion", "GrantQuestions"]

_LOOKED_AT: Final = 200
"""Items of the quarantine at one look."""
_FIRST_PAUSE_MS: Final = 30_000
_PAUSE_MS_MAX: Final = 3_600_000
_REMEMBERED_MAX: Final = 10_000
_GRANTS_MAX: Final = 4
"""In an answer, the newest first: one that was overruled may stand before the one that counts."""


@dataclass(frozen=True, slots=True)
class GrantQuestion:
    """Which grant gave a resident a home below `peer`, at the latest in this epoch."""

    peer: NodeId
    resident_id: str
    home_epoch: int

    def body(self) -> bytes:
        """As it is asked."""
        said = {"resident_id": self.resident_id, "home_epoch": self.home_epoch}
        return json.dumps(said).encode()

    @classmethod
    def read(cls, peer: NodeId, body: bytes) -> GrantQuestion:
        """A parent's question, for this node (`peer`). Raises InvalidRequestError."""
        try:
            said = json.loads(body)
            resident_id, home_epoch = said["resident_id"], said["home_epoch"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InvalidRequestError("not a question for a grant") from None
        is_one = isinstance(resident_id, str) and is_row_id(resident_id)
        if not is_one or type(home_epoch) is not int:
            raise InvalidRequestError("not a question for a grant")
        return cls(peer, resident_id, home_epoch)


class GrantQuestions:
    """What one node asks its children for, answers its parent, and makes of the answers.

    Pauses between questions about one resident are kept in memory: half a minute, doubling up to
    an hour. Each method is at most one transaction.
    """

    def __init__(self, store: StoreContext, residence: Residence) -> None:
        self._store = store
        self._residence = residence
        self._after = 0
        self._pauses: dict[GrantQuestion, tuple[int, int]] = {}

    # -- asking ---------------------------------------------------------------------------------

    def wanted(self) -> list[GrantQuestion]:
        """What is to be asked now; a node that recovers asks nothing, it does not know enough."""
        if self._store.recovery.active:
            return []
        waiting = self._store.transactions.read(
            lambda connection: self._store.quarantine.waiting(
                connection, after=self._after, limit=_LOOKED_AT, cause=Cause.HOME_NOT_GRANTED
            )
        )
        self._after = waiting[-1].item_id if len(waiting) == _LOOKED_AT else 0
        tree, latest = self._store.hierarchy, dict[tuple[NodeId, str], int]()
        children = frozenset(tree.children(self._store.node_id))
        for item in waiting:
            who = (NodeId(item.peer), item.resident_id)
            if item.peer in children and item.form is not Form.DEIDENTIFIED:
                latest[who] = max(item.home_epoch, latest.get(who, 0))
        questions = [GrantQuestion(*who, epoch) for who, epoch in latest.items()]
        return [each for each in questions if self._is_due(each)]

    def _is_due(self, question: GrantQuestion) -> bool:
        now_ms = self._store.clock.monotonic_ms()
        due_ms, pause_ms = self._pauses.get(question, (now_ms, _FIRST_PAUSE_MS))
        if now_ms < due_ms:
            return False
        if len(self._pauses) >= _REMEMBERED_MAX:
            self._pauses.clear()
        self._pauses[question] = (now_ms + pause_ms, min(2 * pause_ms, _PAUSE_MS_MAX))
        return True

    # -- answering ------------------------------------------------------------------------------

    def held(
        self, connection: Connection, question: GrantQuestion
    ) -> tuple[list[SignedGrant], NodeId | None]:
        """Grants that answer the parent, the newest first; else the child that may have them.

        Only of who lives below this node: his rows go up from here.
        """
        tree, here = self._store.hierarchy, self._store.node_id
        below = tree.subtree(here)
        known = self._residence.known(connection, question.resident_id)
        if known is None or known.home_node not in below:
            return [], None
        grants = [
            signed
            for signed in self._residence.homes.of_resident(connection, question.resident_id)
            if _answers(signed, question, below)
        ]
        home = NodeId(known.home_node)
        towards = None if grants or home == here else tree.next_hop(here, home)
        return grants[::-1][:_GRANTS_MAX], towards

    # -- taking ---------------------------------------------------------------------------------

    def take(
        self, question: GrantQuestion, grants: Sequence[SignedGrant], connection: Connection
    ) -> bool:
        """Learn of the newest grant that answers; whether anything was learned.

        Raises:
            GrantInvalidError, GrantEarlyError: It is not the word of who could move him.
        """
        known = self._residence.known(connection, question.resident_id)
        below = self._store.hierarchy.subtree(question.peer)
        for signed in grants[:_GRANTS_MAX]:
            if known is None or not _answers(signed, question, below):
                continue
            if signed.grant.home_epoch > known.home_epoch:
                return self._learn(connection, signed, known)
        return False

    def _learn(self, connection: Connection, signed: SignedGrant, known: KnownHome) -> bool:
        if signed.grant.granted_by not in self._residence.path(self._store.node_id):
            # Made elsewhere, before the child lay here: by who was above the home known here then.
            self._residence.judge.refuse_from_below(connection, signed, known.home_node)
        return self._residence.learn_late(connection, signed)


def _answers(signed: SignedGrant, question: GrantQuestion, below: frozenset[NodeId]) -> bool:
    """Whether a grant brought this resident below a child by the word of somebody above it."""
    grant = signed.grant
    return (
        grant.resident_id == question.resident_id
        and grant.home_epoch <= question.home_epoch
        and grant.home_node in below
        and grant.granted_by not in below
    )
