"""Tells a parent that does not know of it who was granted a home in or out of this subtree.

A grant goes to the two homes and to whoever lies between them then. A node that is put above one
of them later has not heard of it, nor has one that was put back from before it; it may hold an
earlier grant of the same resident, and would refuse his rows for ever. So the first time that a
parent is met, and in every new life of it, the grants made above this node are sent up to the root.

Only what was granted above this node: for moves inside its subtree a child's rows are believed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from hierarchy_config.model import NodeId
from node.residence.homes import SignedGrant
from node.residence.moves import Move, MoveState
from node.residence.papers import TOLD, told_in, told_out
from node.residence.residence import Residence
from node.storage.context import StoreContext
from node.storage.tables import CHANGELOG
from node.transit import Letter
from replication.changelog import StoreState
from replication.core.model import Hello, Lane
from replication.core.residence import Grant, lets_go

__all__ = ["Upward"]

_TOLD_TO: Final = "told-of-moves"
_OWED: Final = "tell-of-moves"
_AT_ONCE: Final = 100
"""Residents in one transaction."""


class Upward:
    """What is owed to those above, as two facts of store_state: whom it was told, and how far."""

    def __init__(self, store: StoreContext, residence: Residence) -> None:
        self._store = store
        self._residence = residence
        self._facts = StoreState(CHANGELOG)
        store.post.on_letter(TOLD, self._take)
        store.post.on_passing(TOLD, self._see)

    def greeted(self, connection: Connection, peer: str, hello: Hello, _: int) -> None:
        """A link came up: note a parent that is new or in a new life, with the link's facts."""
        if self._store.hierarchy.parent(self._store.node_id) != peer:
            return
        met = f"{peer}:{hello.store_epoch}"
        if self._facts.load(connection).get(_TOLD_TO) != met:
            self._facts.save(connection, _TOLD_TO, met)
            self._facts.save(connection, _OWED, "")

    def step(self) -> bool:
        """Send some of what is owed; whether anything was sent."""
        transactions = self._store.transactions
        if _OWED not in transactions.read(self._facts.load):
            return False
        return transactions.write(self._tell)

    def _tell(self, connection: Connection) -> bool:
        told = self._facts.load(connection).get(_OWED)
        root = self._residence.path(self._store.node_id)[-1]
        if told is None or root == self._store.node_id:
            self._facts.forget(connection, _OWED)
            return False
        homes = self._residence.homes
        below = self._store.hierarchy.subtree(self._store.node_id)
        some = homes.granted_above(connection, below, after=told, limit=_AT_ONCE)
        for resident_id in some:
            self._tell_of(connection, resident_id, NodeId(root), below)
        if len(some) < _AT_ONCE:
            self._facts.forget(connection, _OWED)
        else:
            self._facts.save(connection, _OWED, some[-1])
        return bool(some)

    def _tell_of(
        self, connection: Connection, resident_id: str, to: NodeId, below: frozenset[NodeId]
    ) -> None:
        residence = self._residence
        done = {
            move.home_epoch
            for move in residence.moves.of_resident(connection, resident_id)
            if move.state in {MoveState.PURGING, MoveState.SETTLED}
        }
        for signed in residence.homes.of_resident(connection, resident_id):
            if signed.grant.granted_by in below:
                continue
            self._store.post.send(
                connection,
                to=to,
                kind=TOLD,
                body=told_out(signed, settled=signed.grant.home_epoch in done),
                lane=Lane.CONTROL,
                open_letter=True,
            )

    def _take(self, connection: Connection, letter: Letter) -> str:
        self._see(connection, letter)
        return ""

    def _see(self, connection: Connection, letter: Letter) -> None:
        """Learn of a grant that this node has not heard of, or has lost.

        Raises:
            GrantInvalidError, GrantEarlyError: It is not the word of who could move him.
        """
        signed, settled = told_in(letter.body)
        grant, residence, here = signed.grant, self._residence, str(self._store.node_id)
        if grant.home_node == here or not self._concerns(connection, signed):
            return
        if residence.learn(connection, signed):
            move = residence.moves.get(connection, grant.resident_id, grant.home_epoch)
            if move is not None and move.state is MoveState.GRANTED and grant.from_node != here:
                self._catch_up(connection, move, grant, settled=settled)

    def _catch_up(self, connection: Connection, move: Move, grant: Grant, *, settled: bool) -> None:
        """The new home said long ago that it holds him, or will say so to a node that has rows."""
        has_rows = move.next_at is not None
        if has_rows and not settled:
            return
        here, now_ms = str(self._store.node_id), self._store.clock.now_ms()
        if has_rows and lets_go(here, grant, self._residence.path):
            # What of its rows the new home holds is not known here: it is sent all of them.
            move = replace(move, state=MoveState.PURGING, held=b"", next_at=now_ms)
        else:
            move = replace(move, state=MoveState.SETTLED, next_at=None)
        self._residence.moves.save(connection, replace(move, changed_at=now_ms))

    def _concerns(self, connection: Connection, signed: SignedGrant) -> bool:
        """Whether it was made here or above, or says more of somebody who is known here.

        A node below this one may move who lives below it. Somebody this node has never heard of
        needs no grant: his rows are taken without.

        Raises:
            GrantInvalidError, GrantEarlyError: He did not live there, for all that is known here.
        """
        grant = signed.grant
        if grant.granted_by in self._residence.path(self._store.node_id):
            return True
        known = self._residence.known(connection, grant.resident_id)
        if known is None or known.home_epoch > grant.home_epoch:
            return False
        if known.home_epoch == grant.home_epoch:
            return known.home_node == grant.home_node
        self._residence.judge.refuse_from_below(connection, signed, known.home_node)
        return True
