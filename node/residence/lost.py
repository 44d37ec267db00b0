"""A granter that was put back from a backup asks its children what it granted since.

Rows without a name say nobody's id, so no question can be asked about the one they are of; but
what this node granted itself went through the child below which the new home lies, and through the
one below which the old home lies. Its own signature is on it: nobody can add to what it granted.
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
from node.storage.tables import CHANGELOG
from replication.changelog import StoreState

__all__ = ["PAGE", "LostGrants", "LostQuestion"]

PAGE: Final = 50
"""Grants in an answer, some 4 KB each."""
_MARGIN_MS: Final = 3_600_000
"""Before the newest grant that the backup has: clocks are set back."""
_SINCE: Final = "own-grants-since"
_ASKED: Final = "own-grants-asked:"
_PAUSE_MS: Final = 30_000


@dataclass(frozen=True, slots=True)
class LostQuestion:
    """The parent's own grants that `peer` knows, made after a moment; a page, by time and resident.

    `after_ms`: ms since 1970 UTC. `after_id`: of that very moment only residents behind this one.
    """

    peer: NodeId
    after_ms: int
    after_id: str = ""

    def body(self) -> bytes:
        """As it is asked."""
        return json.dumps({"after_ms": self.after_ms, "after_id": self.after_id}).encode()

    @classmethod
    def read(cls, peer: NodeId, body: bytes) -> LostQuestion:
        """A parent's question, for this node (`peer`). Raises InvalidRequestError."""
        try:
            said = json.loads(body)
            after_ms, after_id = said["after_ms"], said["after_id"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InvalidRequestError("not a question for lost grants") from None
        if type(after_ms) is not int or not 0 <= after_ms < 2**53 or not isinstance(after_id, str):
            raise InvalidRequestError("not a question for lost grants")
        return cls(peer, after_ms, after_id[:64])


class LostGrants:
    """What one node asks after it was put back, answers its parent, and makes of the answers.

    Facts of store_state say since when its own grants are in question, and which child has told
    all; how far one has told is kept in memory, for to be told again does no harm.
    """

    def __init__(self, store: StoreContext, residence: Residence) -> None:
        self._store = store
        self._residence = residence
        self._facts = StoreState(CHANGELOG)
        self._life = str(store.changelog.store_epoch)
        self._next: dict[NodeId, LostQuestion] = {}
        self._due_ms: dict[NodeId, int] = {}
        self._done = self._life == "1"

    def wanted(self) -> list[LostQuestion]:
        """A page of each child that has not told all in this life of the store."""
        if self._done:
            return []
        facts = self._store.transactions.read(self._facts.load)
        children = self._store.hierarchy.children(self._store.node_id)
        open_ones = [each for each in children if facts.get(_ASKED + each) != self._life]
        self._done = not open_ones
        if self._done:
            return []
        life, _, since = facts.get(_SINCE, "").partition(":")
        if life != self._life:
            since = str(self._store.transactions.write(self._begin))
        now_ms = self._store.clock.monotonic_ms()
        due = [each for each in open_ones if self._due_ms.get(each, now_ms) <= now_ms]
        self._due_ms.update(dict.fromkeys(due, now_ms + _PAUSE_MS))
        return [self._next.get(each, LostQuestion(each, int(since))) for each in due]

    def _begin(self, connection: Connection) -> int:
        newest_ms = self._residence.homes.newest_by(connection, str(self._store.node_id))
        since = max(newest_ms - _MARGIN_MS, 0)
        self._facts.save(connection, _SINCE, f"{self._life}:{since}")
        return since

    def held(
        self, connection: Connection, granter: str, question: LostQuestion
    ) -> list[SignedGrant]:
        """A page of what the parent granted, for all that is known here."""
        after = (question.after_ms, question.after_id)
        return self._residence.homes.made_by(connection, granter, after, PAGE)

    def take(
        self, question: LostQuestion, grants: Sequence[SignedGrant], connection: Connection
    ) -> bool:
        """Learn again what this node granted; whether anything was news.

        Raises:
            GrantInvalidError, GrantEarlyError: One is not this node's word.
        """
        own = [each for each in grants[:PAGE] if each.grant.granted_by == self._store.node_id]
        news = [self._residence.learn_late(connection, signed) for signed in own]
        last = (own[-1].grant.granted_at_ms, own[-1].grant.resident_id) if own else (0, "")
        if len(grants) < PAGE or last <= (question.after_ms, question.after_id):
            self._facts.save(connection, _ASKED + question.peer, self._life)
        else:
            self._next[question.peer] = LostQuestion(question.peer, *last)
            self._due_ms.pop(question.peer, None)
        return any(news)
