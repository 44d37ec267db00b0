"""Who is asking, for what purpose, and about whose residents.

Every read of the storage takes a Caller; there is none by default. A Caller is made from a
verified certificate (identity.py) or for the operator who works on the data folder itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hierarchy_config.hierarchy import Hierarchy
from hierarchy_config.model import NodeId
from node.security.roles import Role

__all__ = ["Caller", "CallerKind", "caller_for", "local_operator"]


class CallerKind(StrEnum):
    """What a caller is. All but NODE act under the authority of one node."""

    NODE = "node"
    STAFF = "staff"
    CLIENT = "client"
    ANALYST = "analyst"
    EXECUTOR = "executor"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated asker.

    `principal` is a SPIFFE id, `node_id` the node under whose authority it acts, `scope` the home
    nodes whose residents it may see, `purpose` the reason that the audit keeps. A member of staff
    who has signed in acts for an organization, in roles; both are empty for whoever is a
    certificate alone. `asks` holds the homes that he may ask about as an analyst. `default_purpose`
    is that of the method which is called: what a resident forbids for it binds whatever is stated.
    """

    kind: CallerKind
    principal: str
    node_id: NodeId
    purpose: str
    scope: frozenset[NodeId]
    roles: frozenset[Role] = frozenset()
    organization_id: str = ""
    staff_id: str = ""
    asks: frozenset[NodeId] = frozenset()
    default_purpose: str = ""


def caller_for(
    kind: CallerKind, principal: str, node_id: NodeId, hierarchy: Hierarchy, purpose: str
) -> Caller:
    """A caller whose scope is the subtree of the node under whose authority it acts.

    Raises:
        NodeUnknownError: The node is not in this hierarchy.
    """
    return Caller(kind, principal, node_id, purpose, hierarchy.subtree(node_id))


def local_operator(node_id: NodeId, hierarchy: Hierarchy, purpose: str = "operation") -> Caller:
    """The operator at the node's own machine: whoever can read the data folder's keys."""
    principal = f"{hierarchy.spiffe_id(node_id)}/{CallerKind.OPERATOR}/local"
    return caller_for(CallerKind.OPERATOR, principal, node_id, hierarchy, purpose)
