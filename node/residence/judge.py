"""Whether a grant is its granter's word and his to give; under which hierarchy that is asked.

A grant is judged under the hierarchy that it was made in: who was the common ancestor then could
not know what would come. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.residence.errors import GrantEarlyError, GrantInvalidError
from node.residence.homes import SignedGrant
from node.residence.seal import GrantSeal
from node.storage.context import StoreContext
from replication.core.residence import Grant, Path, is_genuine

__all__ = ["FormerHierarchy", "GrantJudge", "path_in"]

FormerHierarchy = Callable[[Connection, int], Hierarchy | None]
"""The hierarchy of an earlier epoch, or the first after it that is believed still; else None."""


def path_in(tree: Hierarchy) -> Path:
    """The paths of a hierarchy; empty for a node that it does not have."""
    return lambda node: tree.path_to_root(NodeId(node)) if node in tree else ()


class GrantJudge:
    """Judges grants at one node, in the caller's transaction."""

    def __init__(self, store: StoreContext, seal: GrantSeal, former: FormerHierarchy) -> None:
        self._store = store
        self._seal = seal
        self._former = former

    def prove(self, connection: Connection, signed: SignedGrant) -> None:
        """Find a grant genuine: the lowest common ancestor of both homes signed it.

        Raises:
            GrantInvalidError: It did not.
            GrantEarlyError: It was granted under a hierarchy that this node does not have yet.
        """
        grant = signed.grant
        if not is_genuine(grant, grant.granted_by, self._path_then(connection, grant)):
            raise GrantInvalidError(f"{grant.granted_by} may not grant this move")
        self._seal.prove(
            signed.statement,
            signed.signature,
            signed.chain_pem,
            NodeId(grant.granted_by),
            grant.granted_at_ms,
        )

    def refuse_from_below(self, connection: Connection, signed: SignedGrant, node: str) -> None:
        """Nobody but who is above a node may tell it that somebody left or comes.

        Raises:
            GrantInvalidError: The granter is not.
            GrantEarlyError: See `prove`.
        """
        if signed.grant.granted_by not in self._path_then(connection, signed.grant)(node):
            raise GrantInvalidError(f"{signed.grant.granted_by} moves nobody at {node}")

    def _path_then(self, connection: Connection, grant: Grant) -> Path:
        """The hierarchy that the grant was made in, while that is known; else the one in force.

        Both homes must be there still; what is owed follows from the hierarchy in force.
        """
        present = self._store.hierarchy
        if grant.region_epoch > present.epoch:
            raise GrantEarlyError(f"granted in epoch {grant.region_epoch} of the hierarchy")
        if not 0 < grant.region_epoch < present.epoch:
            return path_in(present)
        are_there = grant.from_node in present and grant.home_node in present
        then = self._former(connection, grant.region_epoch) if are_there else None
        return path_in(then or present)
