"""Other nodes' certificate chains as they were learnt, and whether they hold today."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from hierarchy_config.errors import FenheError
from hierarchy_config.model import NodeId
from node.clock import Clock
from node.security.certificates import PublicKey
from node.transit.errors import TransitError
from node.transit.keys import NodeVerifier, key_name
from node.transit.tables import TransitTables
from replication.changelog.dialects import upsert

__all__ = ["Chains", "KnownKey"]


@dataclass(frozen=True, slots=True)
class KnownKey:
    """Another node's chain, leaf first, and the name of its key."""

    node_id: NodeId
    key_id: str
    chain_pem: bytes


class Chains:
    """Other nodes' chains. `verifier` None: there is no root, none is learnt and none holds."""

    def __init__(
        self, tables: TransitTables, verifier: NodeVerifier | None, *, clock: Clock
    ) -> None:
        self._table = tables.certificates
        self._verifier = verifier
        self._clock = clock

    def learn(self, connection: Connection, node_id: NodeId, chain_pem: bytes) -> KnownKey:
        """Remember a node's chain.

        Raises:
            SignatureInvalidError, PeerIdentityError: It is not that node's.
        """
        if self._verifier is None:
            raise TransitError("this node has no root to verify chains against")
        peer = self._verifier.verify(chain_pem, node_id)
        known = KnownKey(node_id, key_name(peer.public_key), chain_pem)
        if self.get(connection, node_id) != known:
            self.save(connection, known)
        return known

    def known(self, connection: Connection, node_id: NodeId) -> KnownKey | None:
        """A node's chain as it is kept here; None if it does not hold any more.

        It may have expired, or name the node by a way to the root that it left with its county.
        """
        held = self.get(connection, node_id)
        return None if held is None or self._key(held) is None else held

    def key_of(self, connection: Connection, node_id: NodeId) -> PublicKey | None:
        """A node's public key; None if no chain of it holds: ask anew."""
        held = self.get(connection, node_id)
        return None if held is None else self._key(held)

    def get(self, connection: Connection, node_id: NodeId) -> KnownKey | None:
        """The chain last learnt of a node, whether it holds or not."""
        t = self._table
        row = connection.execute(select(t).where(t.c.node_id == node_id)).first()
        return None if row is None else KnownKey(node_id, row.key_id, bytes(row.chain))

    def save(self, connection: Connection, known: KnownKey) -> None:
        """Remember a chain that was verified; it replaces the one before."""
        row = {
            "node_id": known.node_id,
            "key_id": known.key_id,
            "chain": known.chain_pem,
            "learnt_at": self._clock.now_ms(),
        }
        upsert(connection, self._table, [row], ["key_id", "chain", "learnt_at"])

    def forget(self, connection: Connection, node_id: NodeId, key_id: str) -> None:
        """Drop a chain whose key its owner no longer has."""
        t = self._table
        connection.execute(delete(t).where(t.c.node_id == node_id, t.c.key_id == key_id))

    def _key(self, held: KnownKey) -> PublicKey | None:
        if self._verifier is None:
            return None
        try:
            return self._verifier.verify(held.chain_pem, held.node_id).public_key
        except FenheError:
            # Expired, of a root that is no more, or under a former name.
            return None
