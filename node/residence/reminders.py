"""Tells a child that was put back from a backup who has moved away from it since.

A store that lost a grant believes that it is the resident's home still: it would take edits of who
he is, count him, and keep his rows for ever. So whoever is above it sends it, once its new life is
met, every grant by which somebody left it or a node below it. What it knows already changes
nothing there.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from sqlalchemy import Connection

from hierarchy_config.model import NodeId
from node.residence.homes import SignedGrant
from node.residence.residence import Residence
from node.storage.context import StoreContext
from node.storage.tables import CHANGELOG
from replication.changelog import StoreState
from replication.core.model import Hello

__all__ = ["Reminders"]

_PREFIX: Final = "remind-of-moves:"
_AT_ONCE: Final = 100
"""Residents in one transaction."""


class Reminders:
    """What children are to be told; a fact of store_state by child, up to whom it was."""

    def __init__(self, store: StoreContext, residence: Residence) -> None:
        self._store = store
        self._residence = residence
        self._facts = StoreState(CHANGELOG)

    def greeted(self, connection: Connection, peer: str, hello: Hello, epoch_before: int) -> None:
        """A link came up: note a child in a new life, in the transaction that notes the life.

        `epoch_before` is its store's before, 0 if it was never met: then it has nobody to let go.
        """
        is_child = self._store.hierarchy.parent(NodeId(peer)) == self._store.node_id
        if is_child and 0 < epoch_before < hello.store_epoch:
            self._facts.save(connection, _PREFIX + peer, "")

    def step(self) -> bool:
        """Send some of what is owed; whether anything was sent."""
        transactions = self._store.transactions
        owed = [name for name in transactions.read(self._facts.load) if name.startswith(_PREFIX)]
        sent = [transactions.write(partial(self._remind, name)) for name in owed]
        return any(sent)

    def _remind(self, name: str, connection: Connection) -> bool:
        child = NodeId(name.removeprefix(_PREFIX))
        told = self._facts.load(connection).get(name)
        if told is None or child not in self._store.hierarchy:
            self._facts.forget(connection, name)
            return False
        below = self._store.hierarchy.subtree(child)
        homes = self._residence.homes
        left = homes.left(connection, below, after=told, limit=_AT_ONCE)
        for resident_id in left:
            signed = _last_move(homes.of_resident(connection, resident_id), below)
            if signed is not None:
                self._residence.send_grant(connection, signed, child)
        if len(left) < _AT_ONCE:
            self._facts.forget(connection, name)
        else:
            self._facts.save(connection, name, left[-1])
        return bool(left)


def _last_move(grants: list[SignedGrant], below: frozenset[NodeId]) -> SignedGrant | None:
    """The grant by which he left these nodes last; None if he lives there again."""
    touching = [
        each for each in grants if each.grant.from_node in below or each.grant.home_node in below
    ]
    last = touching[-1] if touching else None
    return None if last is None or last.grant.home_node in below else last
