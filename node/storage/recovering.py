"""Whether this node is recovering: getting back from its neighbours what its store has lost.

The state lies in store_state and counts for one life of the store (its epoch): `recovering` "1",
and what has come of it so far. A neighbour's lane is served when a recovery snapshot of it was
applied to the end, which the transaction of its last batch notes; so a crash anywhere loses
nothing and repeats little.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.storage.errors import RecoveringError
from node.storage.snapshot_place import Place
from replication.changelog import StoreState
from replication.core.greeting import RECOVERING, seed_feature
from replication.core.model import Cursor, Lane

__all__ = ["RECOVERING_FACT", "Recovery", "RecoveryStanding"]

RECOVERING_FACT: Final = "recovering"
"""Name in store_state; "1" while the node recovers."""
_YES: Final = "1"
_NO: Final = "0"


@dataclass(frozen=True, slots=True)
class RecoveryStanding:
    """How far it has come: lanes that are still to be served, by neighbour; neighbours given up."""

    active: bool
    waiting: Mapping[NodeId, tuple[Lane, ...]]
    without: tuple[NodeId, ...]

    @property
    def is_done(self) -> bool:
        """Whether nothing is waited for any more."""
        return not any(self.waiting.values())


class Recovery:
    """The state of one store in its present life. `active` may be read from any thread."""

    def __init__(
        self, state: StoreState, node_id: NodeId, hierarchy: Hierarchy, store_epoch: int
    ) -> None:
        """Nothing is read before `load`."""
        self._state = state
        self._node_id = node_id
        self._hierarchy = hierarchy
        self._epoch = str(store_epoch)
        self.active = False

    @property
    def neighbours(self) -> tuple[NodeId, ...]:
        """The parent and all children."""
        parent = self._hierarchy.parent(self._node_id)
        above = () if parent is None else (parent,)
        return (*above, *self._hierarchy.children(self._node_id))

    def load(self, connection: Connection) -> None:
        """Read whether the node recovers; once, before anything is served."""
        self.active = self._state.load(connection).get(RECOVERING_FACT) == _YES

    def refuse(self, positions: Iterable[str] = ()) -> None:
        """Refuse what only a whole store may do; `positions`: where in a bundle it is asked for.

        Raises:
            RecoveringError: The node is recovering.
        """
        if self.active:
            raise RecoveringError(
                f"{self._node_id} is recovering: what it lost may be newer than what it holds",
                positions,
            )

    def note_applied(
        self, connection: Connection, peer: NodeId, held: Cursor | None, cursor: Cursor
    ) -> None:
        """Note that a recovery snapshot has ended, in the transaction that applies its end."""
        if not self.active or held is None or cursor.position:
            return
        place = Place.parse(held.position)
        if place is None or not place.kind.is_recovery:
            return
        if held.stream_epoch == cursor.stream_epoch:
            self._state.save(connection, _served(peer, cursor.lane), self._epoch)

    def give_up(self, connection: Connection, peers: Collection[NodeId]) -> None:
        """Wait no longer for these neighbours; what only they hold does not come back."""
        for peer in sorted(peers):
            self._state.save(connection, _without(peer), self._epoch)

    def standing(self, connection: Connection) -> RecoveryStanding:
        """How far it has come."""
        facts = self._state.load(connection)
        if facts.get(RECOVERING_FACT) != _YES:
            return RecoveryStanding(False, {}, ())
        without = tuple(p for p in self.neighbours if facts.get(_without(p)) == self._epoch)
        waiting = {
            peer: tuple(lane for lane in Lane if facts.get(_served(peer, lane)) != self._epoch)
            for peer in self.neighbours
            if peer not in without
        }
        return RecoveryStanding(True, waiting, without)

    def features(self, connection: Connection, peer: NodeId) -> tuple[str, ...]:
        """What this node's Hello to a neighbour says; empty unless it recovers."""
        if not self.active:
            return ()
        lanes = self.standing(connection).waiting.get(peer, ())
        return (RECOVERING, *(seed_feature(lane) for lane in lanes))

    def end(self, connection: Connection) -> None:
        """Be whole again, in the caller's transaction; `ended` follows once it is durable."""
        self._state.save(connection, RECOVERING_FACT, _NO)

    def ended(self) -> None:
        """The end is durable: amendments are taken from now on."""
        self.active = False


def _served(peer: NodeId, lane: Lane) -> str:
    return f"seeded:{peer}:{lane.value}"


def _without(peer: NodeId) -> str:
    return f"recovery_without:{peer}"
