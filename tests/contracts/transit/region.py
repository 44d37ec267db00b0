"""The region of the storage's tests with keys: every node can seal, open and prove letters."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Engine

from hierarchy_config.model import NodeId
from node.cache import Cache
from node.clock import Ids
from node.security.blind_index import BlindIndex
from node.storage import Storage
from node.storage.tables import TRANSIT
from node.transit import NodeVerifier, OwnKey, Post
from replication.changelog import read_transaction, write_transaction
from replication.core.model import LogEntry
from tests.contracts.storage.region import (
    CITY,
    COUNTY,
    OTHER_COUNTY,
    TOWNSHIP,
    VILLAGE,
    VILLAGE_2,
    NodeStore,
    Region,
    hierarchy,
)
from tests.unit.security.region import Held, create
from tests.unit.security.region import Region as Authorities

__all__ = [
    "CITY",
    "COUNTY",
    "OTHER_COUNTY",
    "TOWNSHIP",
    "VILLAGE",
    "VILLAGE_2",
    "KeyedNode",
    "KeyedRegion",
    "authorities",
]

_AUTHORITIES = create(hierarchy())


def authorities() -> Authorities:
    """Whoever signs the nodes' certificates; made once, keys take a while."""
    return _AUTHORITIES


@dataclass
class Keys:
    """A key ring that a test may change."""

    held: Held

    def own(self) -> OwnKey:
        return OwnKey(self.held.private_key, self.held.chain_pem)


@dataclass
class KeyedNode(NodeStore):
    """A node that can seal and open."""

    keyring: Keys = field(init=False)
    post: Post = field(init=False)

    def open_storage(self, source: random.Random, cache: Cache | None) -> Storage:
        """The node's storage with its post."""
        self.keyring = Keys(authorities().node(self.node_id))

        def now() -> datetime:
            return datetime.fromtimestamp(self.clock.ms / 1000, UTC)

        ids = Ids(self.clock, source.randbytes)
        self.post = Post(
            TRANSIT,
            node_id=self.node_id,
            hierarchy=self.tree,
            changelog=self.log,
            sealer=self.keys,
            clock=self.clock,
            ids=ids,
            keys=self.keyring,
            verifier=NodeVerifier(lambda: authorities().root_pem, self.tree, now),
        )
        return Storage(
            self.engine,
            node_id=self.node_id,
            hierarchy=self.tree,
            sealer=self.keys,
            blind_index=BlindIndex(source.randbytes(32)),
            changelog=self.log,
            clock=self.clock,
            ids=ids,
            random_bytes=source.randbytes,
            cache=cache,
            post=self.post,
        )

    def knows(self, *others: NodeStore) -> None:
        """Learn the chains of other nodes, as the node asks for them over its links."""
        for other in others:
            assert isinstance(other, KeyedNode)
            with write_transaction(self.engine) as connection:
                self.post.chains.learn(connection, other.node_id, other.keyring.held.chain_pem)

    def carry(self) -> list[NodeId]:
        """What the background task does once: every due letter; addressees whose key is wanting."""
        with read_transaction(self.engine) as connection:
            due = self.post.outbox.due(connection, self.clock.ms, 1000)
        wanting = []
        for letter_id in due:
            with write_transaction(self.engine) as connection:
                addressee = self.post.go_on(connection, letter_id)
            if addressee is not None:
                wanting.append(addressee)
        return wanting


class KeyedRegion(Region):
    """Opens keyed nodes on demand."""

    def __init__(self, new_engine: Callable[[], Engine]) -> None:
        super().__init__(new_engine)
        self._new = new_engine

    def node(self, node_id: NodeId) -> KeyedNode:
        """The node of that id."""
        if node_id not in self._nodes:
            self._nodes[node_id] = KeyedNode(
                node_id, self._new(), self.tree, self.clock, int(node_id)
            )
        node = self._nodes[node_id]
        assert isinstance(node, KeyedNode)
        return node

    def travel(self, *path: NodeId) -> list[LogEntry]:
        """Ship along a path of neighbours; what the last of them was sent."""
        sent: list[LogEntry] = []
        for sender, receiver in itertools.pairwise(path):
            sent = self.ship(self.node(sender), self.node(receiver))
        return sent
